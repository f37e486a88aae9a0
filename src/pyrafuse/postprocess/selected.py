"""What post-processing gives: the detections of a batch, in tensors of fixed shape."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrafuse.base.detections import Detections


@dataclass(frozen=True)
class Selected:
    """K places per image, the best detection first; those after the last one are not valid.

    Attributes:
        rows: (B, K) int64, the row of the candidates that each one is.
        boxes: (B, K, 4) float32, xyxy in pixels of the network's input.
        scores: (B, K) float32.
        labels: (B, K) int64.
        levels: (B, K) int64, the pyramid level that each row came from.
        valid: (B, K) bool.
    """

    rows: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    levels: Tensor
    valid: Tensor

    def in_places(self, count: int) -> "Selected":
        """The same with at least ``count`` places; what is not valid becomes 0."""
        missing = max(count - self.valid.shape[1], 0)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, column in columns.items():
            of_places = self.valid.view(*self.valid.shape, *[1] * (column.ndim - 2))
            columns[name] = F.pad(column.where(of_places, 0), (*[0, 0] * (column.ndim - 2), 0, missing))
        return Selected(**columns)

    def to_detections(self) -> tuple[Detections, ...]:
        """One `Detections` per image, in main memory."""
        host = Selected(*(getattr(self, field.name).cpu() for field in fields(self)))
        return tuple(
            Detections(
                boxes=host.boxes[i, :count],
                scores=host.scores[i, :count],
                labels=host.labels[i, :count],
                levels=host.levels[i, :count],
                rows=host.rows[i, :count],
            )
            for i, count in enumerate(host.valid.sum(dim=1).tolist())
        )


torch.export.register_dataclass(Selected)
