"""Which pyramid level each detection came from, and whom that level listened to: one image -> `FusionExplanation`.

The picture is figure 3 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516.
"""

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pyrafuse.core.detections import Detections
from pyrafuse.core.errors import DataError, PyrafuseError
from pyrafuse.core.storage import write_atomically, write_text
from pyrafuse.data.fitting import Fit, compute_inner_size
from pyrafuse.data.sources import Frame, open_source
from pyrafuse.explain.recording import record
from pyrafuse.models.detector import Detector
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.fusion import plot_fusion

Map = NDArray[np.float32]

MAX_PICTURE_SIDE_PX = 1024
"""Larger images are reduced to this before they are drawn upon: a map is smaller on paper."""


@dataclass(frozen=True, eq=False)
class FusionExplanation:
    """What was found in one image, and what the neck fused to find it.

    The maps end where the image does: of a padded input, rows and columns that see padding alone are cut off. The cell
    in row i and column j of a level covers the image's pixels from ``j * stride / scale[0]`` and
    ``i * stride / scale[1]`` on.

    Attributes:
        source: Where the image came from.
        detections: In pixels of the image, which is kept, with the level that each came from.
        strides: Pixels of the network's input a cell, for each of the L levels, finest first.
        scale: Pixels of the network's input an image pixel, along x and y.
        weights: For each output level (L, h, w), the weight of each source level at each position, finest source
            first; none for a neck that has no weights of positions.
        fused: For each output level (h, w), the mean over channels of the absolute weighted sum; of the neck's output
            where there are no weights.
        shares: (L, L), row an output level, column a source level: the weight's mean over the image.
        detection_weights: (N, L), the weights of the source levels in the cell that holds the centre of each box, at
            the level that it came from.
    """

    source: str
    detections: Detections
    strides: tuple[int, ...]
    scale: tuple[float, float]
    weights: tuple[Map, ...] | None
    fused: tuple[Map, ...]
    shares: Map | None
    detection_weights: Map | None

    def figure(self) -> Figure:
        """The image with its detections coloured by level; below, a row an output level, weights and fused map."""
        assert self.detections.image is not None
        image, factor = _reduce(self.detections.image)
        weights = None
        if self.weights is not None:
            weights = [
                np.stack([self._over_image(cells, stride) for cells in level])
                for level, stride in zip(self.weights, self.strides, strict=True)
            ]
        fused = [self._over_image(cells, stride) for cells, stride in zip(self.fused, self.strides, strict=True)]
        detections = replace(self.detections, boxes=self.detections.boxes * factor)
        figure = plot_fusion(image, detections, weights, fused, self.strides)
        if self.weights is None:
            found, *maps = figure.axes
            found.set_title("")
            found.set_title(f"{len(self.detections)} detections; a neck without weights", loc="left", fontsize=10)
            for axes, stride in zip(maps, self.strides, strict=True):
                axes.set_title(f"output of stride {stride}, own scale", fontsize=8)
        return figure

    def save(self, folder: str | os.PathLike[str], *, name: str | None = None) -> tuple[Path, Path, Path]:
        """Write NAME_fusion.png, .npz and .json to ``folder``, each whole or not at all, and return their paths.

        The arrays are ``weights_stride8``, ``fused_stride8`` and so on, ``boxes``, ``scores``, ``labels``, ``levels``,
        ``strides``, ``scale`` and ``detection_weights``.

        Args:
            folder: Made when it is not there.
            name: By default the stem of the source; of frame 12 of ``clip.mp4``, ``clip_12``.

        Raises:
            PyrafuseError: If a file cannot be written.
        """
        stem = Path(folder) / f"{name or name_of(self.source)}_fusion"
        picture, arrays, values = (stem.with_name(stem.name + suffix) for suffix in (".png", ".npz", ".json"))
        save_figure(self.figure(), picture)
        with write_atomically(arrays) as stream:
            np.savez_compressed(stream, **self.arrays())
        write_text(values, json.dumps(self.to_dict(), indent=1))
        return picture, arrays, values

    def arrays(self) -> dict[str, Any]:
        """All maps and detections by name, as in the ``.npz``."""
        found = self.detections
        arrays: dict[str, Any] = {
            name: getattr(found, name).numpy() for name in ("boxes", "scores", "labels", "levels")
        }
        arrays |= {"strides": np.asarray(self.strides), "scale": np.asarray(self.scale)}
        arrays |= {f"fused_stride{s}": strength for s, strength in zip(self.strides, self.fused, strict=True)}
        if self.weights is not None and self.detection_weights is not None:
            arrays |= {f"weights_stride{s}": weight for s, weight in zip(self.strides, self.weights, strict=True)}
            arrays["detection_weights"] = self.detection_weights
        return arrays

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: `Detections.to_dict` with each object's stride and weights, and the shares."""
        values = self.detections.to_dict()
        for row, found in enumerate(values["objects"]):
            found["stride"] = self.strides[found["level"]]
            if self.detection_weights is not None:
                found["weights"] = self._by_stride(self.detection_weights[row])
        shares = None
        if self.shares is not None:
            shares = {f"stride{s}": self._by_stride(row) for s, row in zip(self.strides, self.shares, strict=True)}
        return {**values, "strides": list(self.strides), "scale": list(self.scale), "shares": shares}

    def _by_stride(self, weights: Map) -> dict[str, float]:
        return {f"stride{s}": float(weight) for s, weight in zip(self.strides, weights, strict=True)}

    def _over_image(self, cells: Map, stride: int) -> Map:
        """``cells`` resampled to what the image alone covers, where the last row or column sees padding too."""
        height, width = self.detections.image_size
        covered = width * self.scale[0] / stride, height * self.scale[1] / stride
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


def explain_image(
    detector: Detector, image: Frame | NDArray[Any] | Tensor | Image.Image | str | Path, *, score: float = 0.25
) -> FusionExplanation:
    """Run ``detector`` once over one image and tell what its neck fused.

    Args:
        detector: On the device to compute on; its parts are set to evaluation mode.
        image: A frame of a source, or whatever else `open_source` takes for a single image.
        score: Least score of a detection that is told, 0..1.

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
    preprocessing = detector.card.preprocessing
    inner_height, inner_width = compute_inner_size(*detections.image_size, preprocessing)
    fit = Fit.of(*detections.image_size, preprocessing)
    strides, scale = neck.features.strides, (fit.scale_x, fit.scale_y)

    def crop(cells: Tensor, stride: int) -> Map:
        """``cells`` (..., h, w) without the rows and columns that see padding alone."""
        rows, columns = math.ceil(inner_height / stride), math.ceil(inner_width / stride)
        return cells[..., :rows, :columns].float().cpu().numpy()

    weights = None
    if neck.weights is not None:
        weights = tuple(crop(w[0], stride) for w, stride in zip(neck.weights, strides, strict=True))
    return FusionExplanation(
        source=frame.name,
        detections=detections,
        strides=strides,
        scale=scale,
        weights=weights,
        fused=tuple(crop(x[0].float().abs().mean(dim=0), s) for x, s in zip(neck.fused, strides, strict=True)),
        shares=None if weights is None else np.stack([w.mean(axis=(1, 2)) for w in weights]),
        detection_weights=None if weights is None else _weights_at(detections, weights, strides, scale),
    )


def name_of(source: str) -> str:
    """A file's stem for ``source``: ``photos/a.jpg`` gives ``a``, ``clip.mp4#12`` gives ``clip_12``."""
    place, _, number = (source, "", "") if Path(source).is_file() else source.partition("#")
    path = Path(unquote(urlsplit(place).path)) if "://" in place else Path(place)
    stem = path.stem or "image"
    return f"{stem}_{number}" if number else stem


def _reduce(image: Tensor) -> tuple[Tensor, float]:
    """``image`` (3, H, W) with at most `MAX_PICTURE_SIDE_PX` a side, and the factor that it was scaled by."""
    height, width = image.shape[-2:]
    factor = min(1.0, MAX_PICTURE_SIDE_PX / max(height, width))
    if factor == 1:
        return image, factor
    size = max(1, round(width * factor)), max(1, round(height * factor))
    pixels = cv2.resize(image.permute(1, 2, 0).numpy(), size, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(pixels).permute(2, 0, 1), factor


def _single_frame(image: Any) -> Frame:
    frames = iter(open_source(image))
    first = next(frames, None)
    if first is None or next(frames, None) is not None:
        raise DataError("one image is explained at a time; give one, or use explain_to for many")
    return first


def _weights_at(
    detections: Detections, weights: tuple[Map, ...], strides: tuple[int, ...], scale: tuple[float, float]
) -> Map:
    """(N, L) weights in the cell of each box's centre, at the box's own level; of the nearest cell for one outside."""
    boxes = detections.boxes.numpy()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * np.asarray(scale, np.float32)
    levels = detections.levels.numpy()
    result = np.zeros((len(boxes), len(strides)), np.float32)
    for level, (level_weights, stride) in enumerate(zip(weights, strides, strict=True)):
        rows = levels == level
        _, height, width = level_weights.shape
        cells = np.floor(centres[rows] / stride).astype(np.int64).clip(0, (width - 1, height - 1))
        result[rows] = level_weights[:, cells[:, 1], cells[:, 0]].T
    return result
