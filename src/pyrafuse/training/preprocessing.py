"""The recipe's section on colours, resizing and padding of the input; free of torch, so that --help is fast."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from pyrafuse.base.errors import PyrafuseError, check_between
from pyrafuse.base.preprocessing import Interpolation


@dataclass(frozen=True)
class PreprocessingSettings:
    """How an image becomes numbers. ``data`` gives the size and the fit; what is None here is decided by the weights.

    Each value comes from the checkpoint that training starts from, else from the pretrained backbone, else it is that
    of ImageNet and of this package. The recipe that a run writes has them all.

    Attributes:
        mean: Mean of red, green and blue, each in 0..1.
        std: Standard deviation of red, green and blue, each in 0..1.
        bgr: Whether the channels come as blue, green, red, as networks that come from Caffe expect.
        interpolation: Resizing: ``antialias`` is the filtered bilinear of Pillow, ``bicubic`` its filtered bicubic,
            ``opencv`` the unfiltered bilinear of OpenCV.
        padding: Colour of what ``letterbox`` adds and of the canvases of augmentation: ``mean`` or ``black``.
        pad_multiple: Pixels that both sides of the input are multiples of, where ``keep_ratio`` fits.
        round_down: Whether ``keep_ratio`` drops the rest of a pixel at the end of a side, instead of rounding.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    bgr: bool | None = None
    interpolation: Interpolation | None = None
    padding: Literal["mean", "black"] | None = None
    pad_multiple: int | None = None
    round_down: bool | None = None

    def __post_init__(self) -> None:
        _check_colours("mean", self.mean, is_zero_allowed=True)
        _check_colours("std", self.std, is_zero_allowed=False)
        _check_word("interpolation", self.interpolation, get_args(Interpolation))
        _check_word("padding", self.padding, ("mean", "black"))
        check_between("preprocessing.pad_multiple", self.pad_multiple, 1)


def _check_word(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value not in (None, *allowed):
        choices = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise PyrafuseError(f"preprocessing.{name} must be {choices}, got {value!r}")


def _check_colours(name: str, values: tuple[float, ...] | None, *, is_zero_allowed: bool) -> None:
    if values is None:
        return
    if len(values) == 3 and all(0 <= v <= 1 and (v or is_zero_allowed) for v in values):
        return
    allowed = "in 0..1" if is_zero_allowed else "above 0 and at most 1"
    remedy = ""
    if len(values) == 3 and all(isfinite(v) and 0 <= v <= 255 and (v or is_zero_allowed) for v in values):
        remedy = f"; as shares of 255 these are [{', '.join(f'{v / 255:.4g}' for v in values)}]"
    raise PyrafuseError(
        f"preprocessing.{name} must be three numbers {allowed}, of red, green and blue; got {list(values)}{remedy}"
    )
