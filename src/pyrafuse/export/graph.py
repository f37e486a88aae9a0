"""A detector as one graph: images in, detections out, nothing left for the one who runs it.

image -> fitted -> normalised -> detector -> decode -> select -> boxes in pixels of the image
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import DETECTION_OUTPUTS, Interface
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.predictions import Candidates, DensePredictions, GuidedPredictions
from pyrafuse.export.image_input import fit_in_graph
from pyrafuse.models.detector import Detector
from pyrafuse.models.optimizing import fold_norms
from pyrafuse.ops.boxes import centers_and_sizes
from pyrafuse.postprocess.dense import DensePostprocess

MOST_IMAGES = 1024
"""Bound of a free batch."""

MOST_PIXELS = 4096
"""Bound of a free side of the network's input."""


class DetectionGraph(nn.Module):
    """``images`` (``sizes``, ``score``) -> a tuple of tensors, as `Interface` says.

    Args:
        detector: Detector in evaluation mode.
        interface: What goes in and comes out.
        preprocessing: How images are fitted and normalised.
        postprocess: What selects.
    """

    def __init__(
        self, detector: Detector[Any], interface: Interface, preprocessing: Preprocessing, postprocess: DensePostprocess
    ) -> None:
        super().__init__()
        self.detector = detector
        self.interface = interface
        self.preprocessing = preprocessing
        self.postprocess = postprocess

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs in their order."""
        return self.interface.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs in their order."""
        if self.interface.output == "levels":
            return tuple(f"{name}_{level}" for level in range(self._num_levels) for name in self._map_names)
        return {"nms": DETECTION_OUTPUTS, "rows": ("output",), "raw": ("output0",)}[self.interface.output]

    def forward(self, images: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs[1:], others, strict=True))
        sizes, score, scales = given.get("sizes"), given.get("score"), None
        if self.interface.input == "image":
            images, inner, own = fit_in_graph(images, self.preprocessing)
            sizes = inner.expand(images.shape[0], 2)
            scales = (inner / own).flip(0).expand(images.shape[0], 2)
            images = normalize(self.preprocessing, images)
        elif self.interface.input == "fitted":
            images = self._normalize(images.permute(0, 3, 1, 2), sizes)
        elif self.interface.input == "scaled":
            images = normalize(self.preprocessing, images * 255)
        if self.interface.output == "levels":
            return self._levels(images)
        candidates = self.detector.decode(images, sizes=sizes)
        if self.interface.output == "raw":
            return (self._raw(candidates, scales),)
        if sizes is None:
            whole = torch.tensor([images.shape[-2], images.shape[-1]], device=images.device)
            sizes = whole.expand(images.shape[0], 2)
        if self.interface.output == "rows":
            return (self._rows(candidates, sizes, scales),)
        return self._select(candidates, sizes, scales, score)

    def _normalize(self, images: Tensor, sizes: Tensor | None) -> Tensor:
        normalized = normalize(self.preprocessing, images)
        if self.preprocessing.fit != "keep_ratio" or sizes is None:
            return normalized
        y, x = (torch.arange(side, device=images.device) for side in images.shape[-2:])
        is_own = (y[:, None] < sizes[:, 0, None, None]) & (x < sizes[:, 1, None, None])
        return normalized.where(is_own[:, None], 0)

    def _select(
        self, candidates: Candidates, sizes: Tensor, scales: Tensor | None, score: Tensor | None
    ) -> tuple[Tensor, ...]:
        least = None if score is None else score.clamp(min=self.interface.score)
        found = self.postprocess.select(candidates, sizes, scales, least)
        return (
            _in_images(found.boxes, scales),
            found.scores,
            found.labels,
            found.levels,
            found.rows,
            found.valid.sum(dim=1),
        )

    def _score(self, candidates: Candidates) -> Tensor:
        """(B, A, K) as suppression ranks them."""
        if candidates.quality is None:
            return candidates.scores
        weighed = candidates.scores * candidates.quality[..., None]
        return weighed.sqrt() if self.postprocess.joint_quality else weighed

    def _rows(self, candidates: Candidates, sizes: Tensor, scales: Tensor | None) -> Tensor:
        found = self.postprocess.choose(candidates, sizes)
        boxes = _in_images(found.boxes, scales)
        return torch.cat((boxes, found.scores[..., None], found.labels[..., None].to(boxes)), dim=2)

    def _raw(self, candidates: Candidates, scales: Tensor | None) -> Tensor:
        boxes = _in_images(candidates.boxes, scales)
        return torch.cat((*centers_and_sizes(boxes), self._score(candidates)), dim=2).transpose(1, 2)

    @property
    def _num_levels(self) -> int:
        return len(self.detector.neck.features)

    @property
    def _map_names(self) -> tuple[str, ...]:
        with torch.no_grad():
            return tuple(_rows_of(self.detector(small_images(self.detector))))

    def _levels(self, images: Tensor) -> tuple[Tensor, ...]:
        pyramid = self.detector.pyramid(images)
        predictions = self.detector.head(pyramid)
        sizes = [(x.shape[-2], x.shape[-1]) for x in pyramid]
        maps = {name: _maps_of(rows, predictions, sizes) for name, rows in _rows_of(predictions).items()}
        return tuple(maps[name][level] for level in range(len(sizes)) for name in maps)


def small_images(detector: Detector[Any]) -> Tensor:
    """One black image (1, 3, H, W), the smallest that has several cells at each level."""
    side = 2 * max(detector.neck.features.strides)
    return next(detector.parameters()).new_zeros(1, 3, side, side)


def _in_images(boxes: Tensor, scales: Tensor | None) -> Tensor:
    """Boxes (B, N, 4) in pixels of the images, which ``scales`` (B, 2) made the network's input; None leaves them."""
    return boxes if scales is None else boxes / scales.repeat(1, 2)[:, None].to(boxes)


def _rows_of(predictions: Any) -> dict[str, Tensor]:
    """What a head says of each row, (B, A, C) by name.

    Raises:
        PyrafuseError: If its predictions are no maps.
    """
    if isinstance(predictions, GuidedPredictions):
        rows = {"classes": predictions.classes, "deltas": predictions.deltas, "guides": predictions.guides}
        return {**rows, "objectness": predictions.objectness[..., None]}
    if not isinstance(predictions, DensePredictions) or predictions.guides is not None:
        raise PyrafuseError("the maps of a level end before the boxes are known: export nms, or rows")
    rows = {"classes": predictions.classes, "deltas": predictions.deltas}
    return rows if predictions.quality is None else {**rows, "quality": predictions.quality[..., None]}


def _maps_of(rows: Tensor, predictions: Any, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """(B, slots * C, h, w) of each level, finest first, of rows (B, A, C)."""
    batch, width = rows.shape[0], rows.shape[2]
    maps, start = [], 0
    if isinstance(predictions, GuidedPredictions):  # coarsest level first, by slot, then cell
        slots = predictions.grid.starts.shape[1]
        for h, w in reversed(sizes):
            level = rows[:, start : start + slots * h * w].view(batch, slots, h * w, width)
            maps.append(level.transpose(2, 3).reshape(batch, slots * width, h, w))
            start += slots * h * w
        return maps[::-1]
    for (h, w), count in zip(sizes, predictions.grid.counts, strict=True):
        level = rows[:, start : start + count].reshape(batch, h, w, -1)
        maps.append(level.permute(0, 3, 1, 2))
        start += count
    return maps


def capture(graph: DetectionGraph, example: Sequence[Tensor]) -> ExportedProgram:
    """The graph as torch captures it, for batches and sizes as free as its interface says.

    Args:
        graph: In evaluation mode, on the processor; left as it is.
        example: Inputs; of a free batch two images or more.

    Raises:
        PyrafuseError: If torch cannot capture it.
    """
    interface = graph.interface
    images: dict[int, Any] = {} if interface.batch else {0: Dim("batch", min=1, max=MOST_IMAGES)}
    others, captured = dict(images), tuple(example)
    if interface.input == "image":
        images |= {1: Dim("height", min=2, max=2**15), 2: Dim("width", min=2, max=2**15)}
    elif interface.size is None:
        rows = 2 if interface.input in ("scaled", "tensor") else 1
        steps = (Dim(name, min=1, max=MOST_PIXELS // interface.stride) for name in ("rows", "columns"))
        images |= {side: interface.stride * step for side, step in enumerate(steps, rows)}
        captured = (_roomy(example[0], rows, graph), *example[1:])
    with torch.no_grad():
        free = (images, (others,) * (len(example) - 1)) if len(example) > 1 else (images,)
        program = torch.export.export(_simplify(graph), captured, dynamic_shapes=free if images else None, strict=False)
    program.example_inputs = (tuple(example), {})
    return program


def _simplify(graph: DetectionGraph) -> DetectionGraph:
    """A copy that gives the same in fewer operations: each costs time in every step of an export."""
    twin = deepcopy(graph)
    for part in twin.modules():
        if hasattr(part, "inplace"):  # the exporters would take each such operation to pieces
            setattr(part, "inplace", False)  # noqa: B010
    fold_norms(twin.detector, lambda: twin.detector.decode(small_images(twin.detector)))
    return twin


def _roomy(images: Tensor, rows: int, graph: DetectionGraph) -> Tensor:
    """As many images, of which the coarsest level has several cells: a size of 1 would stay 1, equal ones equal."""
    stride = graph.interface.stride
    unit = -(-max(graph.detector.neck.features.strides) // stride) * stride
    return images.new_empty([{rows: 5 * unit, rows + 1: 7 * unit}.get(i, n) for i, n in enumerate(images.shape)])
