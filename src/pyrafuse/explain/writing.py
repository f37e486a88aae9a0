"""Explanations over a whole source: frames -> `explain_image` -> files an image, and one page over all."""

import json
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from pyrafuse.base.errors import DataError, PyrafuseError, check_between
from pyrafuse.base.explanations import FusionExplanation
from pyrafuse.base.images.sources import Frame, Source, open_source
from pyrafuse.base.progress import create_bar
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.explain.fusion import explain_image
from pyrafuse.models.detector import Detector
from pyrafuse.reports.explanations import describe_explanations
from pyrafuse.visualization.explanations import save_pictures


@dataclass(frozen=True)
class Summary:
    """What became of a source.

    Attributes:
        report: The page.
        num_images: Images that were explained.
        failures: Why each of the others could not be read.
    """

    report: Path
    num_images: int
    failures: tuple[str, ...]


def explain_to(
    detector: Detector,
    source: Any,
    output: str | os.PathLike[str],
    *,
    score: float = 0.25,
    limit: int | None = None,
    progress: bool = False,
) -> Summary:
    """Explain every image of ``source``: its files in ``output`` (see `save_explanation`) and report.html.

    An input that cannot be read is passed over and told in the page. Upon an interrupt, which is how a camera is
    stopped, the page of what was explained until then is written all the same.

    Args:
        detector: On the device to compute on.
        source: Whatever `open_source` takes, or what it returned.
        output: A folder; made when it is not there.
        score: Least score of a detection that is told, 0..1.
        limit: Only so many images, the first ones.
        progress: Whether to show a bar with the time that is left, and each failure, on standard error.

    Raises:
        DataError: If there is no such source, or nothing in it can be read.
        PyrafuseError: If a number is out of its range, or a file cannot be written or would lie among the images.
    """
    check_between("limit", limit, 1)
    check_between("score", score, 0, 1)
    frames = source if isinstance(source, Source) else open_source(source)
    total = frames.num_frames if limit is None else min(limit, frames.num_frames or limit)
    output = Path(output)
    explained: dict[Path, FusionExplanation] = {}
    failures: list[str] = []
    taken: set[str] = set()
    is_cut_off = False
    with create_bar(Terminal() if progress else None, transient=False) as bar:
        task = bar.add_task("explain", total=total)
        try:
            for frame in islice(frames, limit):
                if frame.image is None:
                    failures.append(frame.error or f"{frame.name} cannot be read")
                    bar.console.print(f"passed over: {failures[-1]}", markup=False, highlight=False, soft_wrap=True)
                else:
                    name = _choose_name(frame, taken, output)
                    found = explain_image(detector, frame, score=score)
                    explained[save_explanation(found, output, name=name)[0]] = found.without_maps()
                bar.advance(task)
        except KeyboardInterrupt:
            is_cut_off = not frames.is_stream
    if is_cut_off and not explained:
        raise KeyboardInterrupt("no image was finished")
    if failures and not explained:
        first = failures[0]
        raise DataError(
            first if len(failures) == 1 else f"none of {len(failures)} inputs can be read, the first: {first}"
        )
    page = output / "report.html"
    describe_explanations(explained, failures, detector.neck.features.strides, score).save(page)
    if is_cut_off:
        raise KeyboardInterrupt(f"{page} tells of the first {len(explained)}" + (f" of {total}" if total else ""))
    return Summary(page, len(explained), tuple(failures))


def save_explanation(
    explanation: FusionExplanation, folder: str | os.PathLike[str], *, name: str | None = None
) -> tuple[Path, Path, Path]:
    """Write NAME_fusion.png, .npz and .json to ``folder``, each whole or not at all, and return their paths.

    Beside them lies NAME_cam.png where there is a detection. The arrays are ``weights_stride8`` (or ``weights_P4``, of
    a graph), ``fused_stride8`` and so on, ``boxes``, ``scores``, ``labels``, ``levels``, ``strides``, ``scale`` and
    ``detection_weights``; ``changes_stride8`` and so on, ``attributions`` and ``score_changes`` of the ablation;
    ``cam_class_0``, ``cam_box_0`` and so on, of the best detections.

    Args:
        explanation: What `explain_image` found.
        folder: Made when it is not there.
        name: By default the stem of the source; of frame 12 of ``clip.mp4``, ``clip_12``.

    Raises:
        PyrafuseError: If a file cannot be written.
    """
    stem = Path(folder) / f"{name or name_of(explanation.source)}_fusion"
    picture, arrays, values = (stem.with_name(stem.name + suffix) for suffix in (".png", ".npz", ".json"))
    save_pictures(explanation, picture)
    with write_atomically(arrays) as stream:
        np.savez_compressed(stream, **explanation.arrays())
    write_text(values, json.dumps(explanation.to_dict(), indent=1))
    return picture, arrays, values


def name_of(source: str) -> str:
    """A file's stem for ``source``: ``photos/a.jpg`` gives ``a``, ``clip.mp4#12`` gives ``clip_12``."""
    place, _, number = (source, "", "") if Path(source).is_file() else source.partition("#")
    path = Path(unquote(urlsplit(place).path)) if "://" in place else Path(place)
    stem = path.stem or "image"
    return f"{stem}_{number}" if number else stem


def _choose_name(frame: Frame, taken: set[str], output: Path) -> str:
    """A name of its own for the files of ``frame``; equal stems in several folders are numbered."""
    if Path(frame.name).is_file() and Path(frame.name).parent.resolve() == output.resolve():
        raise PyrafuseError(f"results in {output} would lie among the images they are of; choose another output")
    name = stem = name_of(frame.name)
    rank = 2
    while name in taken:
        name, rank = f"{stem}-{rank}", rank + 1
    taken.add(name)
    return name
