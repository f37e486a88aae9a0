"""Images of any size to the network's input, in plain tensor operations that every runtime has.

uint8 RGB (B, H, W, 3) -> resized by two matrix products, padded -> (B, 3, h, w) in 0..255
"""

import torch
from torch import Tensor

from pyrafuse.base.preprocessing import Interpolation, Preprocessing


def fit_in_graph(images: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor, Tensor]:
    """As `pyrafuse.base.images.fitting.fit_image`, for a batch of images of one size.

    The filters of Pillow and OpenCV are sums of weighted rows and columns: products with matrices that depend on the
    sizes alone. Pillow's are followed to the bit; pixels of ``opencv`` are within two grey levels.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        preprocessing: Fit ``stretch`` or ``letterbox``: the size of ``keep_ratio`` follows the image, and no graph's
            shapes do.

    Returns:
        The network's input (B, 3, h, w) float32 in 0..255, not normalised; its height and width that the images take
        up, (2,) int64; and their own.

    Raises:
        ValueError: If ``keep_ratio`` fits.
    """
    if preprocessing.fit == "keep_ratio":
        raise ValueError("the size of keep_ratio's input follows the image: fit it before, and give it fitted")
    own = torch.stack([torch.arange(images.shape[axis], device=images.device)[-1] + 1 for axis in (1, 2)])
    limits = torch.tensor(preprocessing.size, device=images.device)
    inner = limits
    if preprocessing.fit == "letterbox":
        inner = (own * (limits.double() / own).amin(dim=0)).round().clamp(min=1).long()
    height, width = preprocessing.size
    pixels = resize_rows(images.permute(0, 3, 2, 1), own[1], inner[1], width, preprocessing.interpolation)
    pixels = resize_rows(pixels.transpose(2, 3), own[0], inner[0], height, preprocessing.interpolation)
    if preprocessing.interpolation == "opencv":
        pixels = (pixels + _HALF).floor().clamp(0, 255)
    if preprocessing.fit == "letterbox":
        is_inner = (torch.arange(height)[:, None] < inner[0]) & (torch.arange(width) < inner[1])
        color = torch.tensor(preprocessing.fill_color(), dtype=torch.float32, device=images.device)
        pixels = pixels.where(is_inner, color[:, None, None])
    return pixels, inner, own


_BLOCK = 32
"""New rows that one product makes of the rows they lie over: of all rows it would make most of its effort in zeros."""


def resize_rows(pixels: Tensor, own: Tensor, inner: Tensor, count: int, interpolation: Interpolation) -> Tensor:
    """The N rows of images become ``inner`` of ``count``; the others are 0.

    Args:
        pixels: (B, C, N, M) in 0..255.
        own: () int64, N.
        inner: () int64, how many rows the N become.
        count: Number of new rows.
        interpolation: ``antialias`` and ``bicubic`` widen their filter where they reduce; ``opencv`` does not.

    Returns:
        (B, C, count, M) float32; of Pillow's filters whole grey levels, as Pillow keeps bytes between its two passes.
    """
    width = inner if interpolation == "opencv" else torch.maximum(own, inner)
    reach = (2 if interpolation == "bicubic" else 1) * width  # in steps of 1 / inner of a row
    new = torch.arange(-(-count // _BLOCK) * _BLOCK, device=pixels.device).view(-1, _BLOCK)
    first = (((2 * new[:, 0] + 1) * own - 2 * reach) // (2 * inner)).clamp(min=0)
    number = (((_BLOCK - 1) * own + 2 * reach) // inner + 3).item()
    torch._check(number >= 1)
    places = first[:, None] + torch.arange(number, device=pixels.device)
    under = pixels[:, :, places.minimum(own - 1)].float()  # (B, C, blocks, number, M)
    new, places = new[:, :, None], places[:, None]
    apart = ((2 * places + 1) * inner - (2 * new + 1) * own).abs()  # twice ``inner`` times the distance
    counts = (places < own) & (new < inner)
    if interpolation == "bicubic":
        high, low = _in_halves(_weigh_by_cubic(apart.double() / (2 * width).double(), counts))
        levels = _round(high @ under, low @ under)
    else:
        shares = (2 * width - apart).clamp(min=0).where(counts, 0)
        total = shares.sum(dim=2, keepdim=True).clamp(min=1)
        if interpolation == "opencv":
            levels = (shares.double() / total).float() @ under
        else:
            high, low = _in_halves(_divide(shares, total))
            levels = _round(high @ under, low @ under)
    return levels.flatten(2, 3)[:, :, :count]


def _weigh_by_cubic(distance: Tensor, counts: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, as Pillow's, of what ``counts``: float64 weights in whole units of 2^-22."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = near.where(distance < 1, far.where(distance < 2, 0)).where(counts, 0)
    weights = weights / weights.sum(dim=2, keepdim=True).where(counts.any(dim=2, keepdim=True), 1)
    return (weights.abs() * 2**22 + 0.5).floor() * weights.sign()


def _divide(shares: Tensor, total: Tensor) -> Tensor:
    """2^22 ``shares`` / ``total``, rounded: the weights of Pillow's triangle, float64 in whole units of 2^-22.

    Long division in whole numbers below 2^31: as exact in runtimes that know no float64 and no int64.
    """
    rest = shares * 2**8
    units, rest = rest // total, rest % total
    rest = rest * 2**7
    units, rest = units * 2**7 + rest // total, rest % total
    rest = 2 * rest * 2**7 + total
    return (units * 2**7 + rest // (2 * total)).double()


_HALF = 0.5 + 2**-9
"""Sums of few weighted bytes often end in exactly one half, which runtimes that add in another order would round to
either side: the border lies a little below."""


def _in_halves(units: Tensor) -> tuple[Tensor, Tensor]:
    """Weights in units of 2^-22, as Pillow holds them, as high + low / 2^11, each a float32 in units of 2^-11.

    Sums of bytes times either are whole multiples of 2^-11 below 2^13: exact in float32, in whatever order they are
    added, for filters of up to 64 pixels.
    """
    high = (units / 2**11).round()
    return (high / 2**11).float(), ((units - high * 2**11) / 2**11).float()


def _round(high: Tensor, low: Tensor) -> Tensor:
    """Weighted sums of bytes, high + low / 2^11, rounded to whole grey levels 0..255."""
    return (high + low.floor() / 2**11 + 0.5).floor().clamp(0, 255)
