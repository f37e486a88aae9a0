"""Explanations over a whole source: frames -> `explain_image` -> files an image, and one page over all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from pyrafuse.base.errors import DataError, PyrafuseError, check_between
from pyrafuse.base.explanations import FusionExplanation
from pyrafuse.base.first_of import FirstOf
from pyrafuse.base.images.sources import Frame, Source, open_source
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.own_files import OwnFiles
from pyrafuse.base.progress import create_bar
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.explain.fusion import explain_image
from pyrafuse.models.detector import Detector
from pyrafuse.reports.explanations import describe_explanations
from pyrafuse.visualization.explanations import cam_picture_of, save_pictures

RECORD_FILE = ".pyrafuse-explained"
"""In a folder of results, the list of the files that explanations wrote."""

PAGE = "report.html"


@dataclass(frozen=True)
class Summary:
    """What became of a source.

    Attributes:
        report: Page that is extended.
        num_images: Images that were explained.
        failures: Why the first thousand of the others could not be read.
        num_failed: Number of the others.
    """

    report: Path
    num_images: int
    failures: tuple[str, ...]
    num_failed: int


@contextmanager
def hold_explanations(output: Path, *, endings: tuple[str, ...]) -> Iterator[OwnFiles]:
    """Hold ``output`` for explanations, which replace those of earlier calls there.

    Args:
        output: A folder; made when it is not there.
        endings: Ends of the names of the files that may be written.

    Yields:
        The list in which each file is claimed before it is written.

    Raises:
        PyrafuseError: If another process writes there, or a file with such a name is not of an earlier call.
    """
    with hold_folder(output):
        own = OwnFiles(output, record=RECORD_FILE, kind="explanation")
        for path in sorted(output.iterdir()):
            if path.name.endswith(endings):
                own.check(path.name)
        with own:
            yield own


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

    The files of an earlier call give way. An input that cannot be read is passed over and told in the page. Upon an
    interrupt, which is how a camera is stopped, the page of what was explained until then is written all the same.

    Args:
        detector: Detector on the device to compute on.
        source: Whatever `open_source` takes, or what it returned.
        output: A folder; made when it is not there.
        score: Least score of a detection that is reported, 0..1.
        limit: Only so many images, the first ones.
        progress: Whether to show a bar with the time that is left, and each failure, on standard error.

    Raises:
        DataError: If there is no such source, or nothing in it can be read.
        PyrafuseError: If a number is out of its range, or a file cannot be written, would lie among the images or
            would replace a file that no earlier call wrote; if another process writes there.
    """
    check_between("limit", limit, 1)
    check_between("score", score, 0, 1)
    frames = source if isinstance(source, Source) else open_source(source)
    total = frames.num_frames if limit is None else min(limit, frames.num_frames or limit)
    output = Path(output)
    explained: dict[Path, FusionExplanation] = {}
    failures = FirstOf[str]()
    taken: set[str] = set()
    is_cut_off = False
    endings = (PAGE, "_fusion.png", "_fusion.npz", "_fusion.json", "_cam.png")
    with hold_explanations(output, endings=endings) as own:
        with create_bar(Terminal() if progress else None, transient=False) as bar:
            task = bar.add_task("explain", total=total)
            try:
                for frame in islice(frames, limit):
                    if frame.image is None:
                        reason = frame.error or f"{frame.name} cannot be read"
                        failures.add(reason)
                        bar.console.print(f"passed over: {reason}", markup=False, highlight=False, soft_wrap=True)
                    else:
                        name = _choose_name(frame, taken, output)
                        found = explain_image(detector, frame, score=score)
                        for path in _files_of(found, output / name):
                            own.claim(path)
                        explained[save_explanation(found, output, name=name)[0]] = found.without_maps()
                    bar.advance(task)
            except KeyboardInterrupt:
                is_cut_off = not frames.is_stream
        if is_cut_off and not explained:
            raise KeyboardInterrupt("no image was finished")
        if failures.count and not explained:
            first = failures.kept[0]
            raise DataError(
                first if failures.count == 1 else f"none of {failures.count} inputs can be read, the first: {first}"
            )
        page = own.claim(output / PAGE)
        describe_explanations(explained, failures, detector.neck.features.strides, score).save(page)
        if is_cut_off:
            raise KeyboardInterrupt(f"{page} tells of the first {len(explained)}" + (f" of {total}" if total else ""))
    return Summary(page, len(explained), tuple(failures.kept), failures.count)


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
    picture, arrays, values, *_ = _files_of(explanation, Path(folder) / (name or name_of(explanation.source)))
    save_pictures(explanation, picture)
    with write_atomically(arrays) as stream:
        np.savez_compressed(stream, **explanation.arrays())
    write_text(values, json.dumps(explanation.to_dict(), indent=1))
    return picture, arrays, values


def _files_of(explanation: FusionExplanation, stem: Path) -> list[Path]:
    """The files of an explanation: picture, arrays, values and, where there is a detection, the picture of Grad-CAM."""
    files = [stem.with_name(f"{stem.name}_fusion{suffix}") for suffix in (".png", ".npz", ".json")]
    return [*files, cam_picture_of(files[0])] if explanation.cams else files


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
