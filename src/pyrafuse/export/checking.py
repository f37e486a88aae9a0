"""Is the exported file the detector? Both run on the same images, and every detection is compared.

file run by its own runtime, graph run by torch -> `Agreement`
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Output
from pyrafuse.base.progress import create_bar
from pyrafuse.export.registry import Feeds, Run

COMPARED_SCORE = 0.05
"""Detections above are compared one by one."""

FEWEST = 20
"""So many of an image's detections are compared even where their scores are lower."""

MOST_PX = 0.1
"""Most that a side of such a box may differ by, in pixels."""

MOST_SCORE = 1e-3
"""Most that its score may differ by."""

MOST_RELATIVE = 1e-3
"""Most that a map's values may differ by, as a share of the map's largest one."""


@dataclass(frozen=True)
class Agreement:
    """How far the file's answers lie from the detector's.

    Attributes:
        num_batches: Batches that were compared.
        num_compared: Detections above `COMPARED_SCORE`, or values of maps.
        box_px: Largest difference of a box's side in pixels; of maps, of a value as a share of the largest.
        score: Largest difference of a score.
        strangers: What one side has and the other has not, in words; empty where they agree.
    """

    num_batches: int
    num_compared: int
    box_px: float
    score: float
    strangers: tuple[str, ...] = ()

    def tell(self) -> str:
        """In a line."""
        return (
            f"{self.num_compared} detections compared in {self.num_batches} batches: boxes "
            f"within {self.box_px:.2g} px, scores within {self.score:.2g}"
        )


def compare(
    run: Run, reference: Run, batches: Sequence[Feeds], output: Output, *, console: Console | None = None
) -> Agreement:
    """Run both on every batch and compare what comes out.

    Args:
        run: The exported file.
        reference: The graph, run by torch.
        batches: Inputs by name.
        output: Form of what comes out.
        console: Console to show the progress on.

    Raises:
        PyrafuseError: If the file gives other outputs, or of other shapes.
    """
    num, px, score, strangers = 0, 0.0, 0.0, []
    with create_bar(console) as bar:
        for feeds in bar.track(batches, description="compare"):
            found, expected = run(feeds), reference(feeds)
            _require_same_form(found, expected, output)
            pairs = _compare_maps(found, expected) if output == "levels" else _compare_boxes(found, expected, output)
            for count, off_px, off_score, told in pairs:
                num, px, score = num + count, max(px, off_px), max(score, off_score)
                strangers += told
    return Agreement(len(batches), num, px, score, tuple(strangers))


Compared = tuple[int, float, float, list[str]]


def _require_same_form(found: Feeds, expected: Feeds, output: Output) -> None:
    step = 2 if output == "rows" else 1  # a graph fills rows up to a fixed number
    for name, values in expected.items():
        if name not in found or found[name].shape[::step] != values.shape[::step]:
            given = f"shape {found[name].shape}" if name in found else f"only {', '.join(found)}"
            raise PyrafuseError(f"the exported file gives for {name} {given}, and the detector {values.shape}")


def _compare_maps(found: Feeds, expected: Feeds) -> Iterator[Compared]:
    for name, values in expected.items():
        largest = max(float(np.abs(values).max(initial=0)), 1e-6)
        off = float(np.abs(found[name] - values).max(initial=0)) / largest
        told = [f"{name} differs by {off:.2g} of its largest value"] if not off <= MOST_RELATIVE else []
        yield values.size, off, 0.0, told


def _compare_boxes(found: Feeds, expected: Feeds, output: Output) -> Iterator[Compared]:
    ours, theirs = (list(_images_of(values, output)) for values in (expected, found))
    for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        best = np.sort(mine[1])[::-1][:FEWEST]
        least = min(COMPARED_SCORE, float(best[-1]) if len(best) else 0.0)
        for (boxes, scores, labels), others, side in ((mine, yours, "detector"), (yours, mine, "file")):
            clear = scores >= least + (MOST_SCORE if side == "file" else 0)
            off_px, off_score = _nearest(boxes[clear], scores[clear], labels[clear], *others)
            is_alone = ~((off_px <= MOST_PX) & (off_score <= MOST_SCORE))
            told = [
                f"image {number}: the {side} alone has class {label} with {score:.3f} at {np.round(box, 1).tolist()}"
                for box, score, label in zip(
                    boxes[clear][is_alone], scores[clear][is_alone], labels[clear][is_alone], strict=True
                )
            ]
            count = int(clear.sum()) if side == "detector" else 0
            kept = ~is_alone
            yield count, float(off_px[kept].max(initial=0)), float(off_score[kept].max(initial=0)), told


Image = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def _images_of(values: Feeds, output: Output) -> Iterator[Image]:
    """Boxes (N, 4), scores (N,) and labels (N,) of each image."""
    if output == "nms":
        for i, count in enumerate(values["count"].tolist()):
            yield values["boxes"][i, :count], values["scores"][i, :count], values["labels"][i, :count]
    elif output == "rows":
        for rows in values["output"]:
            filled = rows[rows[:, 4] > 0]
            yield filled[:, :4], filled[:, 4], filled[:, 5].astype(np.int64)
    else:
        for columns in values["output0"]:
            scores = columns[4:]
            yield columns[:4].T, scores.max(axis=0), scores.argmax(axis=0)


def _nearest(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    other_boxes: NDArray[np.float32],
    other_scores: NDArray[np.float32],
    other_labels: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far (N,) the nearest other detection of the same class lies: side in pixels, and score."""
    if not len(boxes) or not len(other_boxes):
        return np.full(len(boxes), np.inf, np.float32), np.full(len(boxes), np.inf, np.float32)
    off_px, off_score = np.empty(len(boxes), np.float32), np.empty(len(boxes), np.float32)
    for start in range(0, len(boxes), 256):  # blocks: rows without suppression are ten thousands
        part = slice(start, start + 256)
        px = np.abs(boxes[part, None] - other_boxes[None]).max(axis=2)
        gap = np.abs(scores[part, None] - other_scores[None])
        cost = np.where(labels[part, None] == other_labels[None], px / MOST_PX + gap / MOST_SCORE, np.inf)
        best = cost.argmin(axis=1)
        rows = np.arange(len(best))
        is_known = np.isfinite(cost[rows, best])
        off_px[part] = np.where(is_known, px[rows, best], np.inf)
        off_score[part] = np.where(is_known, gap[rows, best], np.inf)
    return off_px, off_score
