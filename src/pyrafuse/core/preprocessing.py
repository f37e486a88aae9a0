"""How an image becomes the network's input; stored in every checkpoint, so that evaluation needs no flags."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Size, fit and normalisation of the network's input.

    Attributes:
        size: Height and width in pixels.
        fit: ``stretch`` gives up the aspect ratio (what ASFF's published figures used); ``letterbox`` keeps it and
            pads with the mean colour at right and bottom.
        interpolation: ``antialias`` is the filtered bilinear resize of Pillow; ``opencv`` the unfiltered one of
            OpenCV, for checkpoints that were trained and measured with it.
        mean: Of each RGB channel, in 0..1.
        std: Of each RGB channel, in 0..1.
    """

    size: tuple[int, int] = (416, 416)
    fit: Literal["stretch", "letterbox"] = "stretch"
    interpolation: Literal["antialias", "opencv"] = "antialias"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB -> float32 with zero mean and unit deviation; works on the images' device."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1) * 255
        return (images.float() - mean) / std

    def fill_color(self) -> tuple[int, int, int]:
        """The mean colour, 0..255: what padding is made of."""
        red, green, blue = (round(255 * m) for m in self.mean)
        return red, green, blue
