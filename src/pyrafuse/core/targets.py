"""What a model learns from: a padded batch of objects beside a batch of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch, padded to G rows an image.

    Attributes:
        boxes: (B, G, 4) float32, xyxy in pixels of the network's input.
        labels: (B, G) int64, 0..K-1.
        weights: (B, G) float32, the mixup weight of each object; 1 without mixup.
        valid: (B, G) bool, true for an object to be found; rows of padding and of crowds are false.
        crowd: (B, G) bool, true for a region in which detections are neither right nor wrong.
        sizes: (B, 2) float32, height and width in pixels that each image takes up of the network's input, at the top
            left; None where each takes up all of it.
        padded_sizes: The same with the padding that each image would have had by itself. Anchors beyond learn nothing
            where overlap or ATSS assigns them; points, and the anchors of YOLOv3 and M2Det, learn there too.
        class_weights: (B, G) float32, how much the class of each object counts; None where all count alike.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    valid: Tensor
    crowd: Tensor
    sizes: Tensor | None = None
    padded_sizes: Tensor | None = None
    class_weights: Tensor | None = None

    @property
    def weights_of_classes(self) -> Tensor:
        """(B, G) float32, the weight of each object in the class loss: that of mixup and that of its class."""
        return self.weights if self.class_weights is None else self.weights * self.class_weights

    @classmethod
    def empty(cls, batch_size: int, num_rows: int = 0) -> "Targets":
        """Targets of ``batch_size`` images without any object."""
        shape = (batch_size, num_rows)
        return cls(
            boxes=torch.zeros(*shape, 4),
            labels=torch.zeros(shape, dtype=torch.int64),
            weights=torch.zeros(shape),
            valid=torch.zeros(shape, dtype=torch.bool),
            crowd=torch.zeros(shape, dtype=torch.bool),
        )

    @classmethod
    def pad(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        *,
        weights: Sequence[Tensor] | None = None,
        crowd: Sequence[Tensor] | None = None,
        sizes: Tensor | None = None,
        padded_sizes: Tensor | None = None,
    ) -> "Targets":
        """Pad lists, one entry an image, of boxes (G_i, 4), labels (G_i,), weights (G_i,) and crowd flags (G_i,)."""
        empty = cls.empty(len(boxes), max((len(b) for b in boxes), default=0))
        targets = replace(empty, sizes=sizes, padded_sizes=padded_sizes)
        for i, (image_boxes, image_labels) in enumerate(zip(boxes, labels, strict=True)):
            rows = slice(0, len(image_boxes))
            targets.boxes[i, rows] = image_boxes.float()
            targets.labels[i, rows] = image_labels.long()
            targets.weights[i, rows] = 1.0 if weights is None else weights[i].float()
            is_crowd = torch.zeros(len(image_boxes), dtype=torch.bool) if crowd is None else crowd[i].bool()
            targets.crowd[i, rows] = is_crowd
            targets.valid[i, rows] = ~is_crowd
        return targets

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Targets":
        """The same targets on ``device``."""
        return self._each(lambda values: values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Targets":
        """The same targets in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {name: value if value is None else change(value) for name, value in values.items()}
        return replace(self, **changed)


@dataclass(frozen=True)
class Batch:
    """Images and their targets as a loader gives them.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; normalised on the device by the detector's preprocessing.
        targets: Objects in pixels of ``images``.
        indices: (B,) int64, the row of each image in its data set.
        sizes: Height and width in pixels that each image takes up of ``images``, at the top left; the rest is padding.
    """

    images: Tensor
    targets: Targets
    indices: Tensor
    sizes: tuple[tuple[int, int], ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The same batch on ``device``."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.indices,
            self.sizes,
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; called by a `DataLoader`."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices, self.sizes)
