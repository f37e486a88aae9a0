"""A pyramid of feature maps, finest first, and what is known of it before any forward pass."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

Pyramid = tuple[Tensor, ...]
"""Feature maps (B, C_l, H_l, W_l), finest level first."""


@dataclass(frozen=True)
class PyramidSpec:
    """Channels and strides (input pixels a cell) of a pyramid, finest level first.

    Raises:
        ValueError: If the two differ in length, are empty or not positive, or the strides do not grow.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.strides):
            raise ValueError(f"a pyramid needs one stride a level: channels {self.channels}, strides {self.strides}")
        if min(self.channels) < 1 or min(self.strides) < 1:
            raise ValueError(f"channels {self.channels} and strides {self.strides} must be positive")
        if any(fine >= coarse for fine, coarse in zip(self.strides, self.strides[1:], strict=False)):
            raise ValueError(f"strides must grow from the finest level to the coarsest, got {self.strides}")

    def __len__(self) -> int:
        return len(self.channels)


class Backbone(nn.Module, ABC):
    """Images (B, 3, H, W) -> Pyramid."""

    features: PyramidSpec

    @abstractmethod
    def forward(self, images: Tensor) -> Pyramid: ...


class Neck(nn.Module, ABC):
    """Pyramid -> Pyramid; the constructor takes the `PyramidSpec` of what comes in."""

    features: PyramidSpec

    @abstractmethod
    def forward(self, pyramid: Pyramid) -> Pyramid: ...
