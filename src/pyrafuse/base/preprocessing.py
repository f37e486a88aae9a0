"""How an image becomes the network's input; stored in every checkpoint, so that evaluation needs no flags."""

from dataclasses import dataclass, replace
from typing import Literal

Interpolation = Literal["antialias", "bicubic", "opencv"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Size, fit and normalisation of the network's input.

    Attributes:
        size: Height and width in pixels; where ``keep_ratio`` fits, the limits of the shorter and the longer side,
            however the image lies.
        fit: ``stretch`` gives up the aspect ratio (what ASFF's published figures used); ``letterbox`` keeps it and
            pads with ``padding`` at right and bottom; ``keep_ratio`` keeps it too, pads no further than to the
            next multiples of ``pad_multiple``, and with what is 0 once normalised (mmdetection's way), so that the
            input's size follows the image.
        interpolation: ``antialias`` is the filtered bilinear resize of Pillow, ``bicubic`` its filtered bicubic one;
            ``opencv`` the unfiltered bilinear one of OpenCV, for checkpoints that were trained and measured with it.
        mean: Mean of each RGB channel, in 0..1.
        std: Standard deviation of each RGB channel, in 0..1.
        pad_multiple: Pixels that both sides of the input are multiples of, where ``keep_ratio`` fits.
        bgr: Give the channels in the order blue, green, red, as networks that come from Caffe expect.
        round_down: Where ``keep_ratio`` fits, drop what is left of a pixel at the end of a resized side (torchvision);
            else round to the nearest (mmdetection).
        padding: Colour of what ``letterbox`` adds, and of the canvases of augmentation: ``mean`` or ``black``.
    """

    size: tuple[int, int] = (416, 416)
    fit: Literal["stretch", "letterbox", "keep_ratio"] = "stretch"
    interpolation: Interpolation = "antialias"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pad_multiple: int = 32
    bgr: bool = False
    round_down: bool = False
    padding: Literal["mean", "black"] = "mean"

    def at_size(self, size: int | tuple[int, int]) -> "Preprocessing":
        """The same at another size: height and width, or one side, in pixels.

        Where ``keep_ratio`` fits, one side is the limit of the shorter, and that of the longer follows in proportion.
        """
        if isinstance(size, int):
            short, long = sorted(self.size)
            size = (size, round(size * long / short)) if self.fit == "keep_ratio" else (size, size)
        return replace(self, size=size)

    def fill_color(self) -> tuple[int, int, int]:
        """What padding is made of, 0..255."""
        if self.padding == "black":
            return 0, 0, 0
        red, green, blue = (round(255 * m) for m in self.mean)
        return red, green, blue
