"""Explanations over a whole source: frames -> `explain_image` -> files an image, and one page over all."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import MofNCompleteColumn, Progress

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError, check_between
from pyrafuse.base.images.sources import Frame, Source, open_source
from pyrafuse.base.terminal import Terminal
from pyrafuse.data.checks.sizes import LARGE_SIDE_PX, SMALL_SIDE_PX
from pyrafuse.explain.ablation import Map
from pyrafuse.explain.fusion import cam_picture_of, explain_image, label_of, name_of
from pyrafuse.explain.weighted_sums import Fusion
from pyrafuse.models.detector import Detector
from pyrafuse.visualization.fusion import plot_weights
from pyrafuse.visualization.report import Report

MAX_PICTURES = 50
"""The page shows so many images, so that a browser can open it; the files beside it and the summary are of all."""


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


@dataclass(frozen=True, eq=False)
class _Row:
    """An explanation without its pixels and maps: a page over many images must fit in memory."""

    name: str
    picture: Path
    detections: Detections
    fusions: tuple[Fusion, ...]
    detection_weights: Map | None
    source_strides: tuple[int, ...]
    change_shares: Map
    attributions: Map


def explain_to(
    detector: Detector,
    source: Any,
    output: str | os.PathLike[str],
    *,
    score: float = 0.25,
    limit: int | None = None,
    progress: bool = False,
) -> Summary:
    """Explain every image of ``source``: its files in ``output`` (see `FusionExplanation.save`) and report.html.

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
    rows: list[_Row] = []
    failures: list[str] = []
    taken: set[str] = set()
    is_cut_off = False
    console = Terminal(quiet=not progress)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not progress) as bar:
        task = bar.add_task("explain", total=total)
        try:
            for frame in islice(frames, limit):
                if frame.image is None:
                    failures.append(frame.error or f"{frame.name} cannot be read")
                    bar.console.print(f"passed over: {failures[-1]}", markup=False, highlight=False, soft_wrap=True)
                else:
                    name = _choose_name(frame, taken, output)
                    rows.append(_explain_frame(detector, frame, output, name, score))
                bar.advance(task)
        except KeyboardInterrupt:
            is_cut_off = not frames.is_stream
    if is_cut_off and not rows:
        raise KeyboardInterrupt("no image was finished")
    if failures and not rows:
        first = failures[0]
        raise DataError(
            first if len(failures) == 1 else f"none of {len(failures)} inputs can be read, the first: {first}"
        )
    page = output / "report.html"
    _describe(rows, failures, detector.neck.features.strides, score).save(page)
    if is_cut_off:
        raise KeyboardInterrupt(f"{page} tells of the first {len(rows)}" + (f" of {total}" if total else ""))
    return Summary(page, len(rows), tuple(failures))


def _explain_frame(detector: Detector, frame: Frame, output: Path, name: str, score: float) -> _Row:
    found = explain_image(detector, frame, score=score)
    picture, _, _ = found.save(output, name=name)
    assert found.ablation is not None
    return _Row(
        name,
        picture,
        replace(found.detections, image=None),
        tuple(replace(f, weights=f.shares, strength=f.strength[:0]) for f in found.fusions),
        found.detection_weights,
        found.ablation.strides,
        found.change_shares(),
        found.ablation.shares,
    )


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


def _describe(rows: Sequence[_Row], failures: Sequence[str], strides: tuple[int, ...], score: float) -> Report:
    report = Report("What each detection listened to")
    report.add_section("Summary")
    num_objects = sum(len(row.detections) for row in rows)
    report.add_key_values(
        {
            "images": len(rows),
            "not readable": len(failures),
            "detections": f"{num_objects}, with a score of {score:g} or more",
            "levels": ", ".join(f"stride {s}" for s in strides),
        }
    )
    _add_shares(report, rows, strides)
    _add_sizes(report, rows, strides)
    if failures:
        report.add_section("Not readable")
        report.add_table(("reason",), [(failure,) for failure in failures])
    _add_changes(report, rows, strides)
    for row in rows[:MAX_PICTURES]:
        _add_image(report, row, strides)
    if len(rows) > MAX_PICTURES:
        report.add_section("More")
        report.add_text(
            f"The first {MAX_PICTURES} of {len(rows)} images are shown here; the pictures of all lie beside this page."
        )
    return report


def _add_shares(report: Report, rows: Sequence[_Row], strides: tuple[int, ...]) -> None:
    if not rows:
        return
    if not rows[0].fusions:
        report.add_text(
            "The neck of this detector has no fusion weights. The maps show what each level that it reads brings to "
            "its output, and how strong this is: the mean over channels of the absolute value, each on its own scale."
        )
        return
    means = {
        fusion.name: dict(zip(map(label_of, fusion.sources), mean.tolist(), strict=True))
        for rank, fusion in enumerate(rows[0].fusions)
        for mean in [np.mean([row.fusions[rank].weights for row in rows], axis=0)]
    }
    report.add_figure(
        plot_weights({label_of(name): weights for name, weights in means.items()}),
        "Mean fusion weight of each source, over all positions of all images.",
    )
    sources = next(iter(means.values())).keys()
    is_square = all(weights.keys() == sources for weights in means.values())
    report.add_table(
        ("fused at", *(f"from {source}" for source in sources)) if is_square else ("fused at", "from"),
        [
            (label_of(name), *_format(list(weights.values())))
            if is_square
            else (label_of(name), ", ".join(f"{source} {weight:.2f}" for source, weight in weights.items()))
            for name, weights in means.items()
        ],
        caption="The same in numbers.",
    )
    if not is_square:
        return
    at_objects = np.concatenate([row.detection_weights for row in rows if row.detection_weights is not None])
    levels = np.concatenate([row.detections.levels.numpy() for row in rows])
    report.add_table(
        ("fused at", *(f"from {source}" for source in sources), "detections"),
        _means_by_level(at_objects, levels, strides),
        caption="The same at the centres of the detections alone, each at the level that it came from.",
    )


def _means_by_level(values: Map, levels: Map, strides: tuple[int, ...]) -> list[tuple[str | int, ...]]:
    """A row a level: means of the ``values`` (N, S) of its detections, and how many these are."""
    return [
        (
            f"stride {stride}",
            *(_format(values[is_own].mean(axis=0)) if is_own.any() else ["-"] * values.shape[1]),
            int(is_own.sum()),
        )
        for stride, is_own in zip(strides, (levels == level for level in range(len(strides))), strict=True)
    ]


def _add_sizes(report: Report, rows: Sequence[_Row], strides: tuple[int, ...]) -> None:
    sides = np.concatenate([_sides_px(row.detections) for row in rows] or [np.zeros(0)])
    levels = np.concatenate([row.detections.levels.numpy() for row in rows] or [np.zeros(0, np.int64)])
    classes = np.digitize(sides, (SMALL_SIDE_PX, LARGE_SIDE_PX))
    report.add_table(
        ("found at", "small", "medium", "large", "all"),
        [
            (f"stride {stride}", *np.bincount(classes[levels == level], minlength=3), int((levels == level).sum()))
            for level, stride in enumerate(strides)
        ],
        caption=f"Detections a level by size: small below {SMALL_SIDE_PX} x {SMALL_SIDE_PX} pixels of the image, "
        f"large from {LARGE_SIDE_PX} x {LARGE_SIDE_PX} on.",
    )


def _add_changes(report: Report, rows: Sequence[_Row], strides: tuple[int, ...]) -> None:
    if not rows:
        return
    sources = tuple(f"due to stride {s}" for s in rows[0].source_strides)
    levels = np.concatenate([row.detections.levels.numpy() for row in rows])
    attributions = np.concatenate([row.attributions for row in rows])
    report.add_section("What each level brings")
    report.add_text(
        "Each level that the neck reads is replaced in turn by its mean over all positions; what changes is due to it. "
        "Of any neck."
    )
    report.add_table(
        ("output", *sources),
        [
            (f"stride {s}", *_format(mean))
            for s, mean in zip(strides, np.mean([row.change_shares for row in rows], axis=0), strict=True)
        ],
        caption="Mean share of each level in the change of each output level, over all positions of all images.",
    )
    report.add_table(
        ("found at", *sources, "detections"),
        _means_by_level(attributions, levels, strides),
        caption="Mean share of each level in the change of the detections' scores.",
    )


def _add_image(report: Report, row: _Row, strides: tuple[int, ...]) -> None:
    found = row.detections
    report.add_section(row.name)
    report.add_image(row.picture, caption=found.source)
    if (cams := cam_picture_of(row.picture)).exists():
        report.add_image(cams, caption="Grad-CAM of the best detections: where their class and where their box looks.")
    weights = [()] * len(found)
    sources: tuple[str, ...] = ()
    if row.detection_weights is not None:
        last = {fusion.stride: fusion for fusion in row.fusions}
        sources = ("fused there from",)
        weights = [
            (_name_weights(last.get(strides[level]), w),)
            for level, w in zip(found.levels.tolist(), row.detection_weights, strict=True)
        ]
    due_to = tuple(f"due to stride {s}" for s in row.source_strides)
    if not len(found):
        report.add_text("Nothing was found.")
        return
    report.add_table(
        ("object", "score", "side in pixels", "found at", *sources, *due_to),
        [
            (found.name_of(label), f"{score:.2f}", f"{side:.0f}", f"stride {strides[level]}", *listened, *_format(due))
            for label, score, side, level, listened, due in zip(
                found.labels.tolist(),
                found.scores.tolist(),
                _sides_px(found).tolist(),
                found.levels.tolist(),
                weights,
                row.attributions,
                strict=True,
            )
        ],
        caption="Side: the root of the box's area. "
        + ("Fused there from: the weights at the centre of the box. " if sources else "")
        + "Due to: share of the level in the change of the score.",
    )


def _sides_px(detections: Detections) -> Map:
    """(N,) root of each box's area."""
    sizes = detections.boxes[:, 2:] - detections.boxes[:, :2]
    return sizes.prod(dim=1).sqrt().numpy()


def _name_weights(fusion: Fusion | None, weights: Map) -> str:
    if fusion is None:
        return "-"
    return ", ".join(f"{label_of(s)}: {w:.2f}" for s, w in zip(fusion.sources, weights, strict=False))


def _format(weights: Map | Sequence[float]) -> list[str]:
    return [f"{weight:.2f}" for weight in weights]
