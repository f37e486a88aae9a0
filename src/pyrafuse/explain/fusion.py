"""Which pyramid level each detection came from, and what was fused there: one image -> `FusionExplanation`.

The picture of it is figure 3 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection",
arXiv:1911.09516.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.explanations import DetectionCAM, Fusion, FusionExplanation, Map
from pyrafuse.base.images.fitting import Fit, compute_inner_size
from pyrafuse.base.images.sources import Frame, open_source
from pyrafuse.explain.ablation import ablate, hold_regions
from pyrafuse.explain.cam import MAX_CAMS, compute_cams
from pyrafuse.explain.recording import record
from pyrafuse.models.detector import Detector


def explain_image(
    detector: Detector,
    image: Frame | NDArray[Any] | Tensor | Image.Image | str | Path,
    *,
    score: float = 0.25,
    only: Sequence[float] | None = None,
) -> FusionExplanation:
    """Run ``detector`` once over one image and tell what its neck fused.

    Args:
        detector: Detector on the device to compute on; its parts are set to evaluation mode.
        image: A frame of a source, or whatever else `open_source` takes for a single image.
        score: Least score of a detection that is reported, 0..1.
        only: Box, xyxy in pixels of the image: only the detection nearest to it is explained.

    Raises:
        DataError: If the image cannot be read, or is not one image.
        PyrafuseError: If the score is out of its range.
    """
    if not 0 <= score <= 1:
        raise PyrafuseError(f"score must be in 0..1, got {score}")
    frame = image if isinstance(image, Frame) else _single_frame(image)
    if frame.image is None:
        raise DataError(frame.error or f"{frame.name} cannot be read")
    twin, neck = record(detector)
    (detections,) = twin.predict_frames([frame], score_threshold=score)
    if only is not None and len(detections):
        distances = (detections.boxes - torch.as_tensor(only, device=detections.boxes.device)).abs().sum(dim=1)
        detections = detections[int(distances.argmin())]
    preprocessing = detector.card.preprocessing
    inner_height, inner_width = compute_inner_size(*detections.image_size, preprocessing)
    fit = Fit.of(*detections.image_size, preprocessing)
    strides, scale = neck.features.strides, (fit.scale_x, fit.scale_y)

    def cut(cells: Map, stride: int) -> Map:
        """``cells`` (..., h, w) without the rows and columns that see padding alone."""
        return cells[..., : math.ceil(inner_height / stride), : math.ceil(inner_width / stride)]

    def strength(x: Tensor, stride: int) -> Map:
        return cut(x[0].float().abs().mean(dim=0).cpu().numpy(), stride)

    detector = hold_regions(detector, neck.made, fit.size)
    assert detections.rows is not None
    rows: Tensor = detections.rows.to(detector.device)
    ablation = ablate(detector, neck, detections, rows)
    best = slice(0, MAX_CAMS)
    levels = detections.levels[best]
    cams = compute_cams(detector, neck.made, rows[best], detections.labels[best], levels)

    fusions = []
    for f in neck.fusions:
        weights = (f.weights[0] if f.weights.ndim == 4 else f.weights).float().cpu().numpy()
        stride = f.module.stride
        weights = cut(weights, stride) if weights.ndim == 3 else weights
        fusions.append(Fusion(f.name, f.module.sources, stride, weights, strength(f.fused, stride)))
    last = {fusion.stride: fusion for fusion in fusions}
    return FusionExplanation(
        source=frame.name,
        detections=detections,
        strides=strides,
        scale=scale,
        fusions=tuple(fusions),
        fused=tuple(last[s].strength if s in last else strength(x, s) for x, s in zip(neck.made, strides, strict=True)),
        detection_weights=_weights_at(detections, [last.get(s) for s in strides], scale),
        ablation=replace(
            ablation,
            output_shares=tuple(cut(shares, s) for shares, s in zip(ablation.output_shares, strides, strict=True)),
        ),
        cams=tuple(
            DetectionCAM(cut(cam.classification, strides[level]), cut(cam.regression, strides[level]))
            for cam, level in zip(cams, levels.tolist(), strict=True)
        ),
    )


def _single_frame(image: Any) -> Frame:
    frames = iter(open_source(image))
    first = next(frames, None)
    if first is None or next(frames, None) is not None:
        raise DataError("one image is explained at a time; give one, or use explain_to for many")
    return first


def _weights_at(detections: Detections, fusions: Sequence[Fusion | None], scale: tuple[float, float]) -> Map | None:
    """(N, S) weights in the cell of each box's centre, by the fusion of the box's level; NaN past its sources."""
    most = max((len(f.sources) for f in fusions if f is not None), default=0)
    if not most:
        return None
    boxes = detections.boxes.numpy()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * np.asarray(scale, np.float32)
    levels = detections.levels.numpy()
    result = np.full((len(boxes), most), np.nan, np.float32)
    for level, fusion in enumerate(fusions):
        if fusion is not None:
            cells = np.floor(centres[levels == level] / fusion.stride).astype(np.int64)
            result[levels == level, : len(fusion.sources)] = fusion.weights_at(cells)
    return result
