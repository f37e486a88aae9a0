"""Explanations of images as a page: fusion weights, what each level brings, and a picture and a table an image."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.detections import Detections
from pyrafuse.base.explanations import Fusion, FusionExplanation, Map, label_of
from pyrafuse.base.first_of import FirstOf
from pyrafuse.data.checks.sizes import LARGE_SIDE_PX, SMALL_SIDE_PX
from pyrafuse.visualization.explanations import cam_picture_of
from pyrafuse.visualization.fusion import plot_weights
from pyrafuse.visualization.report import Report

MAX_PICTURES = 50
"""The page shows so many images, so that a browser can open it; the files beside it and the summary are of all."""


def describe_explanations(
    explained: Mapping[Path, FusionExplanation], failures: FirstOf[str], strides: tuple[int, ...], score: float
) -> Report:
    """The page over all images of a source.

    Args:
        explained: What was found, by the picture of it; `FusionExplanation.without_maps` is enough.
        failures: Why other inputs could not be read.
        strides: Pixels a cell of each output level, finest first.
        score: Least score of the detections.
    """
    report = Report("Which levels contributed to each detection")
    images = tuple(explained.values())
    report.add_section("Summary")
    num_objects = sum(len(image.detections) for image in images)
    report.add_key_values(
        {
            "images": len(images),
            "not readable": failures.count,
            "detections": f"{num_objects}, with a score of {score:g} or more",
            "levels": ", ".join(f"stride {s}" for s in strides),
        }
    )
    if images:
        _add_weights(report, images, strides)
    _add_sizes(report, images, strides)
    add_failures(report, failures)
    if images:
        _add_changes(report, images, strides)
    for picture, image in [*explained.items()][:MAX_PICTURES]:
        report.add_section(picture.name.removesuffix("_fusion.png"))
        add_explanation(report, picture, image)
    if len(images) > MAX_PICTURES:
        report.add_section("More")
        report.add_text(
            f"The first {MAX_PICTURES} of {len(images)} images are shown here; the pictures of all lie beside this "
            "page."
        )
    return report


def add_failures(report: Report, failures: FirstOf[str]) -> None:
    """Add why inputs could not be read; nothing without failures."""
    if failures.count:
        report.add_section("Not readable")
        report.add_table(("reason",), [(failure,) for failure in failures.kept])
        if failures.count > len(failures.kept):
            report.add_text(f"The first {len(failures.kept)} of {failures.count} are shown here.")


def add_explanation(report: Report, picture: Path, image: FusionExplanation) -> None:
    """Add one image: its pictures, and a table of its detections with what contributed to each."""
    found = image.detections
    report.add_image(picture, caption=image.source)
    if len(found) and (cams := cam_picture_of(picture)).exists():  # without detections it is an earlier call's
        report.add_image(cams, caption="Grad-CAM of the best detections: where their class and where their box looks.")
    if not len(found):
        report.add_text("Nothing was found.")
        return
    levels = found.levels.tolist()
    columns = {
        "object": [found.name_of(label) for label in found.labels.tolist()],
        "score": _format(found.scores.tolist()),
        "side in pixels": [f"{side:.0f}" for side in _sides_px(found)],
        "found at": [f"stride {image.strides[level]}" for level in levels],
    }
    caption = "Side: the root of the box's area. "
    if image.detection_weights is not None:
        caption += "Fused there from: the weights at the centre of the box. "
        columns["fused there from"] = [
            _name_weights(image.fusion_at(level), weights)
            for level, weights in zip(levels, image.detection_weights, strict=True)
        ]
    for stride, shares in zip(image.ablation.strides, image.ablation.shares.T, strict=True):
        columns[f"due to stride {stride}"] = _format(shares)
    caption += "Due to: share of the level in the change of the score."
    report.add_table(tuple(columns), zip(*columns.values(), strict=True), caption=caption)


def _add_weights(report: Report, images: Sequence[FusionExplanation], strides: tuple[int, ...]) -> None:
    """The mean weights of every fusion; at the detections too, where all fusions have the same sources."""
    if not images[0].fusions:
        report.add_text(
            "This detector has no fusion weights. The maps show what each level that its neck reads brings to the "
            "output, and how strong this is: the mean over channels of the absolute value, each on its own scale."
        )
        return
    means = {
        label_of(fusion.name): dict(zip(map(label_of, fusion.sources), mean.tolist(), strict=True))
        for rank, fusion in enumerate(images[0].fusions)
        for mean in [np.mean([image.fusions[rank].shares for image in images], axis=0)]
    }
    report.add_figure(plot_weights(means), "Mean fusion weight of each source, over all positions of all images.")
    sources = next(iter(means.values())).keys()
    is_square = all(weights.keys() == sources for weights in means.values())
    titles = ("fused at", *(f"from {source}" for source in sources)) if is_square else ("fused at", "from")
    report.add_table(
        titles,
        [
            (name, *_format(weights.values()))
            if is_square
            else (name, ", ".join(f"{source} {weight:.2f}" for source, weight in weights.items()))
            for name, weights in means.items()
        ],
        caption="The same in numbers.",
    )
    if is_square:
        at_objects = np.concatenate([w for image in images if (w := image.detection_weights) is not None])
        report.add_table(
            (*titles, "detections"),
            _means_by_level(at_objects, images, strides),
            caption="The same at the centres of the detections alone, each at the level that it came from.",
        )


def _add_sizes(report: Report, images: Sequence[FusionExplanation], strides: tuple[int, ...]) -> None:
    sides = np.concatenate([np.zeros(0), *(_sides_px(image.detections) for image in images)])
    levels, classes = _levels_of(images), np.digitize(sides, (SMALL_SIDE_PX, LARGE_SIDE_PX))
    report.add_table(
        ("found at", "small", "medium", "large", "all"),
        [
            (f"stride {stride}", *np.bincount(classes[levels == level], minlength=3), int((levels == level).sum()))
            for level, stride in enumerate(strides)
        ],
        caption=f"Detections a level by size: small below {SMALL_SIDE_PX} x {SMALL_SIDE_PX} pixels of the image, "
        f"large from {LARGE_SIDE_PX} x {LARGE_SIDE_PX} on.",
    )


def _add_changes(report: Report, images: Sequence[FusionExplanation], strides: tuple[int, ...]) -> None:
    sources = tuple(f"due to stride {s}" for s in images[0].ablation.strides)
    means = np.mean([image.ablation.mean_output_shares() for image in images], axis=0)
    attributions = np.concatenate([image.ablation.shares for image in images])
    report.add_section("What each level brings")
    report.add_text(
        "Each level that the neck reads is replaced in turn by its mean over all positions; what changes is due to it. "
        "Of any neck."
    )
    report.add_table(
        ("output", *sources),
        [(f"stride {s}", *_format(mean)) for s, mean in zip(strides, means, strict=True)],
        caption="Mean share of each level in the change of each output level, over all positions of all images.",
    )
    report.add_table(
        ("found at", *sources, "detections"),
        _means_by_level(attributions, images, strides),
        caption="Mean share of each level in the change of the detections' scores.",
    )


def _means_by_level(
    values: Map, images: Sequence[FusionExplanation], strides: tuple[int, ...]
) -> list[tuple[str | int, ...]]:
    """A row a level: means of the ``values`` (N, S) of its detections, and how many these are."""
    levels = _levels_of(images)
    return [
        (
            f"stride {stride}",
            *(_format(values[is_own].mean(axis=0)) if is_own.any() else ["-"] * values.shape[1]),
            int(is_own.sum()),
        )
        for stride, is_own in zip(strides, (levels == level for level in range(len(strides))), strict=True)
    ]


def _levels_of(images: Sequence[FusionExplanation]) -> NDArray[Any]:
    """(N,) level of each detection of all images."""
    return np.concatenate([np.zeros(0), *(to_numpy(image.detections.levels) for image in images)])


def _sides_px(detections: Detections) -> Map:
    """(N,) root of each box's area."""
    boxes = to_numpy(detections.boxes)
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _name_weights(fusion: Fusion | None, weights: Map) -> str:
    if fusion is None:
        return "-"
    return ", ".join(f"{label_of(s)}: {w:.2f}" for s, w in zip(fusion.sources, weights, strict=False))


def _format(values: Iterable[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]
