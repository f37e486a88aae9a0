"""Pictures of an explanation: weights over the image with the detections, and Grad-CAM of the best of them."""

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.detections import Detections
from pyrafuse.base.explanations import FusionExplanation, Map, label_of
from pyrafuse.visualization.cam import plot_cams
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.fusion import MapRow, plot_fusion

MAX_PICTURE_SIDE_PX = 1024
"""Larger images are reduced to this before they are drawn upon: a map is smaller on paper."""


def save_pictures(explanation: FusionExplanation, picture: Path) -> None:
    """Write the picture of weights to ``picture`` and, where there is a detection, that of Grad-CAM beside it."""
    save_figure(draw_fusion(explanation), picture)
    if (cams := draw_cams(explanation)) is not None:
        save_figure(cams, cam_picture_of(picture))


def cam_picture_of(picture: Path) -> Path:
    """NAME_cam.png beside NAME_fusion.png."""
    return picture.with_name(picture.name.replace("_fusion.png", "_cam.png"))


def draw_fusion(explanation: FusionExplanation) -> Figure:
    """The image with its detections coloured by level, and what each level brings to each of the best; below, a row an
    output level, the weights and the fused map.

    Without weights of positions, the share of each level that the neck reads in the change of its output stands in
    their place.
    """
    ablation = explanation.ablation
    meaning = "weight of the source"
    rows = [
        MapRow(label_of(f.name), [f"from {label_of(s)}" for s in f.sources], f.stride, f.weights, f.strength)
        for f in explanation.fusions
        if f.is_spatial
    ]
    if not rows:
        meaning = "share of the change without the source level"
        sources = [f"from stride {s}" for s in ablation.strides]
        rows = [
            MapRow(f"stride {s}", sources, s, shares, fused, is_output=explanation.fusion_at(level) is None)
            for level, (s, shares, fused) in enumerate(
                zip(explanation.strides, ablation.output_shares, explanation.fused, strict=True)
            )
        ]
    pixels, detections = _reduce(explanation.detections)
    figure = plot_fusion(
        pixels,
        detections,
        [
            replace(
                row,
                weights=np.stack([_over_image(explanation, cells, row.stride) for cells in row.weights]),
                fused=_over_image(explanation, row.fused, row.stride),
            )
            for row in rows
        ],
        explanation.strides,
        meaning=meaning,
        attributions=ablation.shares,
        attribution_strides=ablation.strides,
    )
    if not explanation.fusions:
        figure.axes[0].set_title(f"{len(detections)} detections; no fusion weights", fontsize=10)
    return figure


def draw_cams(explanation: FusionExplanation) -> Figure | None:
    """A row a detection of the best: its box, and where its class and its box look; none without detections."""
    if not explanation.cams:
        return None
    pixels, detections = _reduce(explanation.detections[: len(explanation.cams)])
    strides = [explanation.strides[level] for level in detections.levels.tolist()]
    classification, regression = (
        [_over_image(explanation, getattr(cam, name), s) for cam, s in zip(explanation.cams, strides, strict=True)]
        for name in ("classification", "regression")
    )
    return plot_cams(pixels, detections, classification, regression, explanation.strides)


def _over_image(explanation: FusionExplanation, cells: Map, stride: int) -> Map:
    """``cells`` resampled to what the image alone covers, where the last row or column sees padding too."""
    height, width = explanation.detections.image_size
    covered = width * explanation.scale[0] / stride, height * explanation.scale[1] / stride
    rows, columns = cells.shape
    if math.isclose(covered[0], columns) and math.isclose(covered[1], rows):
        return cells
    # fine enough for the largest map of the picture
    across, down = (max(1, round(side * 384 / max(covered))) for side in covered)
    step_x, step_y = covered[0] / across, covered[1] / down
    to_cells = np.asarray([[step_x, 0, step_x / 2 - 0.5], [0, step_y, step_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(cells, to_cells, (across, down), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.float32
    )


def _reduce(detections: Detections) -> tuple[NDArray[np.uint8], Detections]:
    """The image (H, W, 3) with at most `MAX_PICTURE_SIDE_PX` a side, and the detections with boxes in its pixels."""
    assert detections.image is not None
    pixels: NDArray[np.uint8] = np.moveaxis(to_numpy(detections.image), 0, -1)
    height, width = pixels.shape[:2]
    factor = min(1.0, MAX_PICTURE_SIDE_PX / max(height, width))
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return pixels, replace(detections, boxes=detections.boxes * factor)
