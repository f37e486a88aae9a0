"""What all figures share: colours, quiet axes, text that is never taken for a formula, and writing them out."""

import os
import re
import warnings
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrafuse.base.paths import FIGURE_FORMATS, check_figure
from pyrafuse.base.writing import write_atomically

LEVEL_COLORS = ("#ff4b3e", "#22c55e", "#3b82f6", "#facc15", "#e879f9", "#22d3ee", "#fb923c")
"""One colour a pyramid level, finest first, bright enough for a photograph."""

LINE_COLORS = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#e76300", "#a96b59", "#92dadd", "#b9ac70", "#717581",
               "#94a4a2")  # fmt: skip
"""One colour a curve, on white; eyes that do not tell red from green tell them apart (Petroff, arXiv:2107.02270)."""

_MAX_LETTERS = 40


def save_figure(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 150) -> None:
    """Write ``figure`` to ``path`` (.png, .jpg, .webp, .pdf, .svg), whole or not at all.

    Raises:
        PyrafuseError: If the suffix is another one or the file cannot be written.
    """
    check_figure(path)
    content = encode_figure(figure, FIGURE_FORMATS[Path(path).suffix.lower()], dpi=dpi)
    with write_atomically(path) as stream:
        stream.write(content)


def encode_figure(figure: Figure, file_format: str = "png", *, dpi: int = 150) -> bytes:
    """The bytes of ``figure`` as a file."""
    stream = BytesIO()
    with warnings.catch_warnings():
        # a class may be named in a script that the font lacks: it shows as boxes, which says enough
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(stream, format=file_format, dpi=dpi)
    return stream.getvalue()


def plain(text: str) -> str:
    """``text`` as matplotlib shows it: "$" starts no formula, a leading "_" hides no label, and it stays on one line.

    Past 40 letters it is cut, so that no name leaves a figure without room for its curves.
    """
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    text = text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 1]}…"
    text = re.sub(r"(?<!\\)\$", r"\\$", text)
    return f" {text}" if text.startswith("_") else text


def quiet_axes(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Title and labels, a faint grid, no frame at top and right."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#d0d0d0", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
