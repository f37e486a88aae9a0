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


@dataclass(frozen=True)
class InputSizes:
    """Which images a backbone takes.

    Attributes:
        unit: Both sides are multiples of so many pixels.
        only: The side in pixels of the only, square images that it takes; None where there is a choice.
    """

    unit: int = 1
    only: int | None = None

    @property
    def are_any(self) -> bool:
        """Whether it takes images of every size."""
        return self.unit == 1 and self.only is None

    def fit(self, height: int, width: int) -> bool:
        """Whether it takes images of this size."""
        if self.only is not None:
            return height == width == self.only
        return height % self.unit == 0 and width % self.unit == 0

    def __str__(self) -> str:
        if self.only is not None:
            return f"images of {self.only} x {self.only} px alone"
        return "images of any size" if self.are_any else f"images whose sides are multiples of {self.unit} px"


class Backbone(nn.Module, ABC):
    """Images (B, 3, H, W) -> Pyramid."""

    features: PyramidSpec
    sizes: InputSizes = InputSizes()

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size of images that it cannot take: ``PyrafuseError``, with the sizes that it can."""

    @abstractmethod
    def forward(self, images: Tensor) -> Pyramid: ...


class Neck(nn.Module, ABC):
    """Pyramid -> Pyramid; the constructor takes the `PyramidSpec` of what comes in."""

    features: PyramidSpec

    @abstractmethod
    def forward(self, pyramid: Pyramid) -> Pyramid: ...
