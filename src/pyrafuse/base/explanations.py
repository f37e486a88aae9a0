"""What an explanation of one image holds, in plain arrays: `explain/` computes it, `visualization/` draws it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.detections import Detections

Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Fusion:
    """One weighted sum of a network over one image.

    Attributes:
        name: Name of what is fused: ``stride_8`` of ASFF, ``P4`` of a graph.
        sources: Names of what it is fused of.
        stride: Pixels of the network's input a cell.
        weights: (S,), or (S, h, w) where every position has its own.
        strength: (h, w), mean over channels of the fused map, absolute.
    """

    name: str
    sources: tuple[str, ...]
    stride: int
    weights: Map
    strength: Map

    @property
    def is_spatial(self) -> bool:
        """Whether every position has its own weights."""
        return self.weights.ndim == 3

    @property
    def shares(self) -> Map:
        """(S,) mean weight of each source over the image."""
        return self.weights.reshape(len(self.sources), -1).mean(axis=1)

    def weights_at(self, cells: NDArray[np.int64]) -> Map:
        """(N, S) weights in the ``cells`` (N, 2), x and y; of the nearest for one outside."""
        if not self.is_spatial:
            return np.repeat(self.weights[None], len(cells), axis=0)
        _, height, width = self.weights.shape
        column, row = cells.clip(0, (width - 1, height - 1)).T
        return self.weights[:, row, column].T


@dataclass(frozen=True, eq=False)
class Ablation:
    """Changes in one image when each of the T levels that the neck reads is flattened in turn.

    Attributes:
        strides: Pixels a cell of the T levels, finest first.
        output_shares: For each output level (T, h, w): the share of each in the change of this position; the change is
            the L2 norm over channels. All 0 where nothing changes.
        score_changes: (N, T), a detection's score less its score without the level; below 0 where the level harms it.
        shares: (N, T), the absolute changes of a detection's score, divided by their sum; all 0 where nothing changes.
    """

    strides: tuple[int, ...]
    output_shares: tuple[Map, ...]
    score_changes: Map
    shares: Map

    def mean_output_shares(self) -> Map:
        """(L, T), row an output level, column a level that the neck reads: its mean share in the change."""
        return np.stack([shares.mean(axis=(1, 2)) for shares in self.output_shares])


@dataclass(frozen=True, eq=False)
class DetectionCAM:
    """Grad-CAM maps (h, w) of one detection at its own level, 0..1 by their greatest value.

    Attributes:
        classification: What raises the score of its class: equation 2, negative values cut off.
        regression: What moves its box: the mean over left, top, right and bottom of the absolute weighted sum, since a
            side that is moved either way is placed by what moves it.
    """

    classification: Map
    regression: Map


@dataclass(frozen=True, eq=False)
class FusionExplanation:
    """What was found in one image, and what the network fused to find it.

    The maps end where the image does: of a padded input, rows and columns that see padding alone are cut off. The cell
    in row i and column j of a level covers the image's pixels from ``j * stride / scale[0]`` and
    ``i * stride / scale[1]`` on.

    Attributes:
        source: Source of the image.
        detections: In pixels of the image, which is kept, with the level that each came from.
        strides: Pixels of the network's input a cell, for each of the L levels, finest first.
        scale: Pixels of the network's input an image pixel, along x and y.
        fusions: Every weighted sum, in the order in which they run; none for a network without fusion weights.
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
    ablation: Ablation
    cams: tuple[DetectionCAM, ...] = ()

    def fusion_at(self, level: int) -> Fusion | None:
        """The last fusion at the stride of an output level."""
        return next((f for f in reversed(self.fusions) if f.stride == self.strides[level]), None)

    def without_maps(self) -> "FusionExplanation":
        """The same without pixels, each map as its mean: many of these fit in memory."""
        means = self.ablation.mean_output_shares()[:, :, None, None]
        return replace(
            self,
            detections=replace(self.detections, image=None),
            fusions=tuple(replace(f, weights=f.shares, strength=f.strength.mean(keepdims=True)) for f in self.fusions),
            fused=tuple(fused.mean(keepdims=True) for fused in self.fused),
            ablation=replace(self.ablation, output_shares=tuple(means)),
            cams=(),
        )

    def arrays(self) -> dict[str, Any]:
        """All maps and detections by name, as in the ``.npz``."""
        found = self.detections
        arrays: dict[str, Any] = {
            name: to_numpy(getattr(found, name)) for name in ("boxes", "scores", "labels", "levels")
        }
        arrays |= {"strides": np.asarray(self.strides), "scale": np.asarray(self.scale)}
        arrays |= {f"fused_stride{s}": strength for s, strength in zip(self.strides, self.fused, strict=True)}
        arrays |= {f"weights_{_key(f.name)}": f.weights for f in self.fusions}
        if self.detection_weights is not None:
            arrays["detection_weights"] = self.detection_weights
        shares = zip(self.strides, self.ablation.output_shares, strict=True)
        arrays |= {f"changes_stride{s}": share for s, share in shares}
        arrays |= {"attributions": self.ablation.shares, "score_changes": self.ablation.score_changes}
        for rank, cam in enumerate(self.cams):
            arrays |= {f"cam_class_{rank}": cam.classification, f"cam_box_{rank}": cam.regression}
        return arrays

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: `Detections.to_dict` with each object's stride, weights and attribution to the
        levels that the neck reads; the mean weights, and the mean shares in the change of each output level.
        """
        values, ablation = self.detections.to_dict(), self.ablation
        for row, found in enumerate(values["objects"]):
            found["stride"] = self.strides[found["level"]]
            if self.detection_weights is not None and (fusion := self.fusion_at(found["level"])):
                found["weights"] = _by_source(fusion, self.detection_weights[row])
            found["attribution"] = _by_stride(ablation.strides, ablation.shares[row])
            found["score_change"] = _by_stride(ablation.strides, ablation.score_changes[row])
        shares = {_key(f.name): _by_source(f, f.shares) for f in self.fusions} or None
        values |= {"strides": list(self.strides), "scale": list(self.scale), "shares": shares}
        changes = zip(self.strides, ablation.mean_output_shares(), strict=True)
        return values | {"changes": {f"stride{s}": _by_stride(ablation.strides, row) for s, row in changes}}


def label_of(name: str) -> str:
    """``stride 8`` for ``stride_8``; other names are told as they are."""
    return name.replace("_", " ") if name.startswith("stride_") else name


def _key(name: str) -> str:
    return name.replace("stride_", "stride")


def _by_source(fusion: Fusion, weights: Map) -> dict[str, float]:
    return {_key(source): float(w) for source, w in zip(fusion.sources, weights, strict=False)}


def _by_stride(strides: Sequence[int], values: Map) -> dict[str, float]:
    return {f"stride{s}": float(value) for s, value in zip(strides, values, strict=True)}
