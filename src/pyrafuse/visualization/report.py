"""One HTML file that holds everything: text, tables, figures and photographs; opens anywhere, offline.

report = Report("Evaluation of ...")
report.add_section("Figures")
report.add_table(("class", "AP"), rows, caption="...")
report.save("report.html")
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape as escape_markup
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pyrafuse.base.arrays import Array, is_tensor, to_numpy
from pyrafuse.base.errors import DataError
from pyrafuse.base.printable import hide_logins
from pyrafuse.base.writing import write_text
from pyrafuse.visualization.figures import encode_figure

Picture = Array | str | os.PathLike[str]
"""An image as (3, H, W) uint8 tensor, (H, W, 3) uint8 array, or file."""

MAX_PHOTO_SIDE_PX = 1280
MAX_GALLERY_SIDE_PX = 800
MAX_PAIR_SIDE_PX = 600

_JPEG_QUALITY = 85
_LARGEST_PNG = 300_000  # bytes
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[-+]?[\d.,]+\s?%?(e[-+]?\d+)?|-|")


class Report:
    """Collects the parts of a page, in the order they are added; all text is HTML-escaped.

    Args:
        title: Title of the page.
        refresh_s: Seconds after which an open page loads itself anew; by default it does not.
    """

    def __init__(self, title: str, *, refresh_s: int | None = None) -> None:
        self.title = title
        self._refresh_s = refresh_s
        self._sections: dict[str, str] = {}
        self._parts: list[str] = []

    def add_section(self, title: str) -> None:
        """Begin a section, with an anchor, listed at the top of the page."""
        stem = re.sub(r"[^\w]+", "-", title.lower()).strip("-") or "section"
        anchor, count = stem, 1
        while anchor in self._sections:
            count += 1
            anchor = f"{stem}-{count}"
        self._sections[anchor] = title
        self._parts.append(f'<h2 id="{escape(anchor)}"><a href="#{escape(anchor)}">{escape(title)}</a></h2>')

    def add_text(self, text: str) -> None:
        """Add paragraphs, an empty line between them."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self._parts.append(f"<p>{escape(paragraph)}</p>")

    def add_code(self, text: str) -> None:
        """Add lines to be typed or copied, as they are."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def add_table(self, header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> None:
        """Add a table; columns of numbers stand to the right."""
        cells = [[str(cell) for cell in row] for row in rows]
        for row in cells:
            if len(row) != len(header):
                raise ValueError(f"a row of {len(row)} cells under {len(header)} titles: {row}")
        kinds = [
            ' class="number"' if cells and all(_NUMBER.fullmatch(row[i]) for row in cells) else ""
            for i in range(len(header))
        ]
        head = "".join(f"<th{kind}>{escape(title)}</th>" for kind, title in zip(kinds, header, strict=True))
        body = "\n".join(
            "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
            for row in cells
        )
        self._add_wide(f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>", caption)

    def add_lead(self, figures: Iterable[tuple[str, str, str]]) -> None:
        """Add the figures that matter most, (name, value, words) each, large and in one line where there is room."""
        tiles = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(words)}</dd></div>"
            for name, value, words in figures
        )
        self._parts.append(f'<dl class="lead">{tiles}</dl>')

    def add_matrix(self, names: Sequence[str], counts: NDArray[np.integer[Any]], caption: str = "") -> None:
        """Add counts (N, N) as a table; a cell's share of its row is written below the count and is its colour."""
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        head = "".join(f"<th>{escape(name)}</th>" for name in ("true \\ predicted", *names))
        rows = "\n".join(
            f"<tr><th>{escape(name)}</th>"
            + "".join(
                f'<td class="heat" style="--share: {60 * share:.0f}%">{count}<small>{share:.0%}</small></td>'
                if count
                else '<td class="heat">0</td>'
                for count, share in zip(row.tolist(), of_row.tolist(), strict=True)
            )
            + "</tr>"
            for name, row, of_row in zip(names, counts, shares, strict=True)
        )
        table = f'<table class="matrix"><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'
        self._add_wide(table, caption)

    def _add_wide(self, table: str, caption: str) -> None:
        """A table that scrolls by itself where the page is narrower, over a caption that does not."""
        text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._parts.append(f'<figure class="table"><div class="wide">{table}</div>{text}</figure>')

    @contextmanager
    def folded(self, title: str) -> Iterator[None]:
        """Fold what is added inside the block under ``title``; a click opens it."""
        self._parts.append(f"<details><summary>{escape(title)}</summary>")
        yield
        self._parts.append("</details>")

    def add_key_values(self, values: Mapping[str, Any]) -> None:
        """Add names with their values, a line each."""
        lines = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in values.items())
        self._parts.append(f"<dl>{lines}</dl>")

    def add_figure(self, figure: Figure, caption: str = "") -> None:
        """Add a figure: as PNG, or as JPEG where photographs in it would make the PNG large."""
        content = encode_figure(figure, dpi=120)
        source = _data_uri(content, "png")
        if len(content) > _LARGEST_PNG:
            with Image.open(BytesIO(content)) as picture:
                source = _jpeg(picture.convert("RGB"))
        self._parts.append(_figure(source, caption, kind="chart"))

    def add_charts(self, figures: Iterable[tuple[Figure, str]]) -> None:
        """Add small figures with a caption each, side by side where there is room."""
        tiles = "\n".join(
            _figure(_data_uri(encode_figure(figure, dpi=150), "png"), caption, kind="chart")
            for figure, caption in figures
        )
        self._parts.append(f'<div class="gallery" style="--tile: 440px">{tiles}</div>')

    def add_pairs(
        self,
        pairs: Iterable[tuple[Picture, Picture, str]],
        caption: str = "",
        *,
        sides: tuple[str, str] = ("found", "annotated"),
    ) -> None:
        """Add two photographs and a caption each, one beside the other, or above it where the page is narrow.

        ``sides`` says what the left and the right one show, for those who do not see them.
        """
        shown = []
        for left, right, text in pairs:
            images = "".join(
                f'<img src="{_photo(image, MAX_PAIR_SIDE_PX)}" alt="{escape(f"{side}: {text}")}">'
                for side, image in zip(sides, (left, right), strict=True)
            )
            shown.append(f'<figure class="pair">{images}<figcaption>{escape(text)}</figcaption></figure>')
        title = f"<p>{escape(caption)}</p>" if caption else ""
        self._parts.append(f"{title}{''.join(shown)}")

    def add_image(self, image: Picture, caption: str = "") -> None:
        """Add a photograph, as JPEG, its longest side at most 1280 pixels.

        Raises:
            DataError: If a file cannot be read as an image.
        """
        self._parts.append(_figure(_photo(image, MAX_PHOTO_SIDE_PX), caption, kind="photo"))

    def add_gallery(self, images: Iterable[tuple[Picture, str]], caption: str = "", *, tile_px: int = 340) -> None:
        """Add photographs with a caption each, side by side where there is room for ``tile_px`` and more each."""
        tiles = "\n".join(_figure(_photo(image, MAX_GALLERY_SIDE_PX), text, kind="photo") for image, text in images)
        title = f"<p>{escape(caption)}</p>" if caption else ""
        self._parts.append(f'{title}<div class="gallery" style="--tile: {tile_px}px">{tiles}</div>')

    def to_html(self) -> str:
        """The whole page."""
        links = "".join(
            f'<li><a href="#{escape(anchor)}">{escape(title)}</a></li>' for anchor, title in self._sections.items()
        )
        contents = f"<nav><ul>{links}</ul></nav>" if links else ""
        parts = "\n".join(self._parts)
        again = "" if self._refresh_s is None else f'<meta http-equiv="refresh" content="{self._refresh_s}">\n'
        return _PAGE.format(title=escape(self.title), style=_STYLE, again=again, contents=contents, parts=parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to ``path``, whole or not at all."""
        write_text(path, self.to_html())


def escape(text: str) -> str:
    """``text`` HTML-escaped, without passwords; control characters, which no page may hold, stand as �."""
    return escape_markup(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", hide_logins(text)))


def _figure(source: str, caption: str, *, kind: str) -> str:
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><img src="{source}" alt="{escape(caption)}">{text}</figure>'


def _photo(image: Picture, max_side: int) -> str:
    picture = _open(image)
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return _jpeg(picture)


def _jpeg(picture: Image.Image) -> str:
    stream = BytesIO()
    picture.save(stream, format="jpeg", quality=_JPEG_QUALITY, optimize=True)
    return _data_uri(stream.getvalue(), "jpeg")


def _open(image: Picture) -> Image.Image:
    if is_tensor(image):
        image = to_numpy(image).transpose(1, 2, 0)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must be uint8 RGB, got {image.dtype} of shape {image.shape}")
        return Image.fromarray(image)
    try:
        with Image.open(Path(image)) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"{image} cannot be read as an image ({error}): leave it out or replace it") from error


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{again}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{contents}
{parts}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --faint: #59636e; --line: #d1d9e0; --back: #ffffff;
  --stripe: #f6f8fa; --link: #0969da; --heat: #54aeff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --faint: #9198a1; --line: #3d444d; --back: #0d1117; --stripe: #151b23; --link: #4493f8;
    --heat: #388bfd; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.8rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 0.8rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line); }
h2 a { color: inherit; text-decoration: none; }
a { color: var(--link); }
p { white-space: pre-line; max-width: 75ch; }
pre { background: var(--stripe); border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem 1rem;
  overflow-x: auto; font: 0.88rem/1.6 ui-monospace, monospace; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; list-style: none; padding: 0; margin: 0 0 1rem; }
.wide { overflow-x: auto; }
.lead { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.7rem; }
.lead div { border: 1px solid var(--line); border-radius: 6px; padding: 0.6rem 0.8rem; }
.lead div:first-child { border: 2px solid var(--link); }
.lead dd { color: var(--faint); font-size: 0.85rem; line-height: 1.3; margin: 0; }
.lead dt + dd { color: var(--text); font-size: 1.7rem; font-variant-numeric: tabular-nums; }
details { border: 1px solid var(--line); border-radius: 6px; padding: 0 1rem; margin: 1rem 0; }
summary { cursor: pointer; padding: 0.6rem 0; font-weight: 600; }
table { border-collapse: collapse; font-size: 0.92rem; }
th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid var(--line); text-align: left;
  min-width: 8rem; max-width: 24rem; overflow-wrap: anywhere; }
th { border-bottom-width: 2px; }
tbody tr:nth-child(even) { background: var(--stripe); }
td, th, dt, dd, figcaption, h1, h2 { unicode-bidi: isolate; }
.matrix th { white-space: normal; min-width: 6rem; max-width: 9rem; }
.matrix .heat { min-width: 4rem; }
td:first-child:not(.number) { min-width: 10rem; }
.matrix tbody tr { background: none; }
td.heat { text-align: center; background: color-mix(in srgb, var(--heat) var(--share, 0%), transparent); }
.heat small { display: block; opacity: 0.8; }
th, .number { white-space: nowrap; }
.number { min-width: 0; text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.2rem; margin: 1rem 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
.chart img { background: #ffffff; padding: 0.5rem; border: 1px solid var(--line); }
figcaption { color: var(--faint); font-size: 0.9rem; padding-top: 0.3rem; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 0.6rem; align-items: start; }
.pair img { width: 100%; }
.pair figcaption { grid-column: 1 / -1; padding-bottom: 0.8rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--tile)), 1fr)); gap: 1rem; }
.gallery figure { margin: 0; min-width: 0; }
.gallery img { width: 100%; }
@media (max-width: 600px) {
  main { padding: 0.8rem; }
  .lead { grid-template-columns: repeat(3, 1fr); gap: 0.4rem; }
  .lead div { padding: 0.4rem 0.5rem; }
  .lead dt + dd { font-size: 1.3rem; }
  .pair { grid-template-columns: 1fr; gap: 0.4rem; }
  details { padding: 0 0.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dl:not(.lead) dd { margin: 0 0 0.5rem; }
}
@media print { main { max-width: none; } figure, tr { break-inside: avoid; } }
"""
