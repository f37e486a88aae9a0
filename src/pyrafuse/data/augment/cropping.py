"""How a classifier sees an image: its middle, after its shorter side was brought to a fixed length.

pixels -> shorter side to ``resize_px`` -> square of ``size_px`` in the middle -> normalised
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@dataclass(frozen=True)
class CenterCrop:
    """A classifier's preprocessing.

    Attributes:
        size_px: Side of the network's input.
        resize_px: Length that the shorter side of the image is brought to, before the middle is cut out.
        interpolation: Pillow's filter.
        mean: Mean of each RGB channel, in 0..1.
        std: Standard deviation of each RGB channel, in 0..1.

    Raises:
        ValueError: If the middle is larger than the resized image, or a length is not positive.
    """

    size_px: int = 224
    resize_px: int = 256
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 1 <= self.size_px <= self.resize_px:
            raise ValueError(
                f"a crop of {self.size_px} px does not fit into {self.resize_px} px; resize_px must be size_px or more"
            )

    def crop(self, image: NDArray[np.uint8]) -> Tensor:
        """The middle of an image (H, W, 3) uint8 RGB, as (3, size_px, size_px) uint8."""
        height, width = image.shape[:2]
        shorter = min(height, width)
        # as torchvision does: the longer side is cut to a whole number, and the crop's corner rounded
        size = (width * self.resize_px // shorter, height * self.resize_px // shorter)
        resample = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        picture = Image.fromarray(image)
        resized = picture if picture.size == size else picture.resize(size, resample)
        left, top = (round((side - self.size_px) / 2) for side in size)
        cut = resized.crop((left, top, left + self.size_px, top + self.size_px))
        return torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous()

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB -> float32 with zero mean and unit deviation, on the images' device."""
        return normalize(Preprocessing(mean=self.mean, std=self.std), images)

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (self.mean, self.std))
        return (
            f"shorter side to {self.resize_px} px ({self.interpolation}), middle {self.size_px} x {self.size_px} px, "
            f"mean {mean}, std {std}"
        )
