"""Which pyramid level each detection came from, and whom that level listened to: one image -> `FusionExplanation`.

The picture is figure 3 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516.
"""

import json
import math
import os
from collections.abc import Sequence
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

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.fitting import Fit, compute_inner_size
from pyrafuse.base.images.sources import Frame, open_source
from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.explain.ablation import Ablation, Map, ablate, hold_regions
from pyrafuse.explain.cam import MAX_CAMS, DetectionCAM, compute_cams
from pyrafuse.explain.recording import record
from pyrafuse.explain.weighted_sums import Fusion
from pyrafuse.models.detector import Detector
from pyrafuse.visualization.cam import plot_cams
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.fusion import MapRow, plot_fusion

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
        fusions: Every weighted sum of the neck, in the order in which they run; none for a neck without weights.
        fused: For each output level (h, w), the mean over channels of what is fused there, absolute; of the neck's
            output where no fusion is at its stride.
        detection_weights: (N, S), the weights of the last fusion at the level that each detection came from, in the
            cell that holds the centre of its box; NaN past its sources. None without fusions at the output levels.
        ablation: What each level that the neck reads brings to its output and to each detection; of any neck. Its maps
            end where the image does, too.
        cams: Where class and box of the best detections look, one each.
    """

    source: str
    detections: Detections
    strides: tuple[int, ...]
    scale: tuple[float, float]
    fusions: tuple[Fusion, ...]
    fused: tuple[Map, ...]
    detection_weights: Map | None
    ablation: Ablation | None = None
    cams: tuple[DetectionCAM, ...] = ()

    def fusion_at(self, level: int) -> Fusion | None:
        """The last fusion at the stride of an output level."""
        return next((f for f in reversed(self.fusions) if f.stride == self.strides[level]), None)

    def figure(self) -> Figure:
        """The image with its detections coloured by level, and what each level brings to each of the best; below, a row
        an output level, the weights and the fused map.

        A neck without weights of positions has the share of each level that it reads in the change of its output in
        their place.
        """
        assert self.detections.image is not None
        image, factor = _reduce(self.detections.image)
        detections = replace(self.detections, boxes=self.detections.boxes * factor)
        rows = [
            MapRow(label_of(f.name), [f"from {label_of(s)}" for s in f.sources], f.stride, f.weights, f.strength)
            for f in self.fusions
            if f.is_spatial
        ]
        meaning = "weight of the source"
        if not rows and self.ablation is not None:
            sources = [f"from stride {s}" for s in self.ablation.strides]
            rows = [
                MapRow(f"stride {s}", sources, s, shares.numpy(), fused, is_output=self.fusion_at(level) is None)
                for level, (s, shares, fused) in enumerate(
                    zip(self.strides, self.ablation.output_shares, self.fused, strict=True)
                )
            ]
            meaning = "share of the change without the source level"
        figure = plot_fusion(
            image,
            detections,
            [
                replace(
                    row,
                    weights=np.stack([self._over_image(cells, row.stride) for cells in row.weights]),
                    fused=self._over_image(row.fused, row.stride),
                )
                for row in rows
            ],
            self.strides,
            meaning=meaning,
            attributions=None if self.ablation is None else self.ablation.shares,
            attribution_strides=() if self.ablation is None else self.ablation.strides,
        )
        if not self.fusions:
            figure.axes[0].set_title(f"{len(self.detections)} detections; a neck without weights", fontsize=10)
        return figure

    def cam_figure(self) -> Figure | None:
        """A row a detection of the best: its box, and where its class and its box look; none without detections."""
        if not self.cams:
            return None
        assert self.detections.image is not None
        image, factor = _reduce(self.detections.image)
        best = self.detections[: len(self.cams)]
        strides = [self.strides[level] for level in best.levels.tolist()]
        classification, regression = (
            [self._over_image(getattr(cam, name), s) for cam, s in zip(self.cams, strides, strict=True)]
            for name in ("classification", "regression")
        )
        return plot_cams(image, replace(best, boxes=best.boxes * factor), classification, regression, self.strides)

    def save(self, folder: str | os.PathLike[str], *, name: str | None = None) -> tuple[Path, Path, Path]:
        """Write NAME_fusion.png, .npz and .json to ``folder``, each whole or not at all, and return their paths.

        Beside them lies NAME_cam.png where there is a detection. The arrays are ``weights_stride8`` (or
        ``weights_P4``, of a graph), ``fused_stride8`` and so on, ``boxes``, ``scores``, ``labels``, ``levels``,
        ``strides``, ``scale`` and ``detection_weights``;
        ``changes_stride8`` and so on, ``attributions`` and ``score_changes`` of the ablation; ``cam_class_0``,
        ``cam_box_0`` and so on, of the best detections.

        Args:
            folder: Made when it is not there.
            name: By default the stem of the source; of frame 12 of ``clip.mp4``, ``clip_12``.

        Raises:
            PyrafuseError: If a file cannot be written.
        """
        stem = Path(folder) / f"{name or name_of(self.source)}_fusion"
        picture, arrays, values = (stem.with_name(stem.name + suffix) for suffix in (".png", ".npz", ".json"))
        save_figure(self.figure(), picture)
        if (cams := self.cam_figure()) is not None:
            save_figure(cams, cam_picture_of(picture))
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
        arrays |= {f"weights_{_key(f.name)}": f.weights for f in self.fusions}
        if self.detection_weights is not None:
            arrays["detection_weights"] = self.detection_weights
        if self.ablation is not None:
            shares = zip(self.strides, self.ablation.output_shares, strict=True)
            arrays |= {f"changes_stride{s}": share.numpy() for s, share in shares}
            arrays |= {"attributions": self.ablation.shares, "score_changes": self.ablation.score_changes}
        for rank, cam in enumerate(self.cams):
            arrays |= {f"cam_class_{rank}": cam.classification, f"cam_box_{rank}": cam.regression}
        return arrays

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: `Detections.to_dict` with each object's stride, weights and attribution to the
        levels that the neck reads; the mean weights, and the mean shares in the change of each output level.
        """
        values = self.detections.to_dict()
        for row, found in enumerate(values["objects"]):
            found["stride"] = self.strides[found["level"]]
            if self.detection_weights is not None and (fusion := self.fusion_at(found["level"])):
                found["weights"] = _by_source(fusion, self.detection_weights[row])
            if self.ablation is not None:
                found["attribution"] = _by_stride(self.ablation.strides, self.ablation.shares[row])
                found["score_change"] = _by_stride(self.ablation.strides, self.ablation.score_changes[row])
        shares = {_key(f.name): _by_source(f, f.shares) for f in self.fusions} or None
        values |= {"strides": list(self.strides), "scale": list(self.scale), "shares": shares}
        if self.ablation is not None:
            rows = zip(self.strides, self.change_shares(), strict=True)
            values["changes"] = {f"stride{s}": _by_stride(self.ablation.strides, row) for s, row in rows}
        return values

    def change_shares(self) -> Map:
        """(L, T), row an output level, column a level that the neck reads: its mean share in the change over the image.

        Of an explanation with an ablation.
        """
        assert self.ablation is not None
        return np.stack([shares.mean(dim=(1, 2)).numpy() for shares in self.ablation.output_shares])

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

    def cut(cells: Tensor, stride: int) -> Tensor:
        """``cells`` (..., h, w) without the rows and columns that see padding alone."""
        return cells[..., : math.ceil(inner_height / stride), : math.ceil(inner_width / stride)].float().cpu()

    def crop(cells: Tensor, stride: int) -> Map:
        return cut(cells, stride).numpy()

    detector = hold_regions(detector, neck.made, fit.size)
    assert detections.rows is not None
    rows: Tensor = detections.rows.to(detector.device)
    ablation = ablate(detector, neck, detections, rows)
    best = slice(0, MAX_CAMS)
    levels = detections.levels[best]
    cams = compute_cams(detector, neck.made, rows[best], detections.labels[best], levels)

    fusions = tuple(
        Fusion(
            name=f.name,
            sources=f.module.sources,
            stride=f.module.stride,
            weights=crop(f.weights[0], f.module.stride) if f.weights.ndim == 4 else f.weights.float().cpu().numpy(),
            strength=crop(f.fused[0].float().abs().mean(dim=0), f.module.stride),
        )
        for f in neck.fusions
    )
    last = {fusion.stride: fusion for fusion in fusions}
    outputs = (crop(x[0].float().abs().mean(dim=0), s) for x, s in zip(neck.made, strides, strict=True))
    return FusionExplanation(
        source=frame.name,
        detections=detections,
        strides=strides,
        scale=scale,
        fusions=fusions,
        fused=tuple(last[s].strength if s in last else output for s, output in zip(strides, outputs, strict=True)),
        detection_weights=_weights_at(detections, [last.get(s) for s in strides], scale),
        ablation=replace(
            ablation,
            output_shares=tuple(cut(shares, s) for shares, s in zip(ablation.output_shares, strides, strict=True)),
        ),
        cams=tuple(
            DetectionCAM(*(crop(torch.from_numpy(m), strides[level]) for m in (cam.classification, cam.regression)))
            for cam, level in zip(cams, levels.tolist(), strict=True)
        ),
    )


def name_of(source: str) -> str:
    """A file's stem for ``source``: ``photos/a.jpg`` gives ``a``, ``clip.mp4#12`` gives ``clip_12``."""
    place, _, number = (source, "", "") if Path(source).is_file() else source.partition("#")
    path = Path(unquote(urlsplit(place).path)) if "://" in place else Path(place)
    stem = path.stem or "image"
    return f"{stem}_{number}" if number else stem


def cam_picture_of(picture: Path) -> Path:
    """NAME_cam.png beside NAME_fusion.png."""
    return picture.with_name(picture.name.replace("_fusion.png", "_cam.png"))


def label_of(name: str) -> str:
    """``stride 8`` for ``stride_8``; other names are told as they are."""
    return name.replace("_", " ") if name.startswith("stride_") else name


def _key(name: str) -> str:
    return name.replace("stride_", "stride")


def _by_source(fusion: Fusion, weights: Map) -> dict[str, float]:
    return {_key(source): float(w) for source, w in zip(fusion.sources, weights, strict=False)}


def _by_stride(strides: tuple[int, ...], values: Map) -> dict[str, float]:
    return {f"stride{s}": float(value) for s, value in zip(strides, values, strict=True)}


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
