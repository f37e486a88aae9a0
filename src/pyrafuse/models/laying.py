"""From fitted images to the network's input, and from its pixels back to the images'."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyrafuse.base.detections import Detections
from pyrafuse.base.images.fitting import Fit
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing


@dataclass(frozen=True)
class LaidBatch:
    """A batch as the network reads it.

    Attributes:
        images: (B, 3, H, W), normalised.
        fits: How each image was laid into it.
    """

    images: Tensor
    fits: Sequence[Fit]

    @classmethod
    def of(
        cls, images: Tensor, fits: Sequence[Fit], preprocessing: Preprocessing, *, device: torch.device
    ) -> "LaidBatch":
        """Fitted ``images`` (B, 3, H, W) uint8, normalised on ``device``."""
        images = images.to(device, non_blocking=True)
        return cls(normalize(preprocessing, images, [fit.size for fit in fits]), fits)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width that each image takes up of the network's input."""
        return [fit.size for fit in self.fits]

    @property
    def scales(self) -> list[tuple[float, float]]:
        """Network pixels that a pixel of each image takes up across and down."""
        return [(fit.scale_x, fit.scale_y) for fit in self.fits]

    def to_images(self, found: Sequence[Detections]) -> tuple[Detections, ...]:
        """Detections of the network's input, in pixels of the images themselves, in main memory."""
        return tuple(
            replace(each, boxes=fit.to_image(each.boxes), image_size=(fit.height, fit.width))
            for each, fit in zip((each.cpu() for each in found), self.fits, strict=True)
        )
