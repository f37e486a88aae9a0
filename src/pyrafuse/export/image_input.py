"""Images of any size to the network's input, in plain tensor operations that every runtime has.

uint8 RGB (B, H, W, 3) -> resized by two matrix products, padded -> (B, 3, h, w) in 0..255
"""

import torch
from torch import Tensor

from pyrafuse.base.preprocessing import Interpolation, Preprocessing


def fit_in_graph(images: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor, Tensor]:
    """As `pyrafuse.base.images.fitting.fit_image`, for a batch of images of one size.

    The filters of Pillow and OpenCV are sums of weighted rows and columns: products with a matrix that depends on the
    sizes alone. Pixels are within two grey levels of Pillow's, most are equal.

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
    pixels = images.permute(0, 3, 1, 2).float()
    rows, columns = (torch.arange(side, device=images.device) for side in pixels.shape[-2:])
    own = torch.stack((rows[-1], columns[-1])) + 1
    limits = torch.tensor(preprocessing.size, device=images.device)
    if preprocessing.fit == "letterbox":
        inner = (own * (limits.double() / own).amin(dim=0)).round().clamp(min=1).long()
    else:
        inner = limits
    height, width = preprocessing.size
    down = resizing_matrix(rows, inner[0], height, preprocessing.interpolation)
    across = resizing_matrix(columns, inner[1], width, preprocessing.interpolation)
    pixels = pixels @ across.T
    if preprocessing.interpolation != "opencv":  # Pillow keeps bytes between its two passes
        pixels = _to_levels(pixels)
    pixels = _to_levels(down @ pixels)
    if preprocessing.fit == "letterbox":
        is_inner = (torch.arange(height)[:, None] < inner[0]) & (torch.arange(width) < inner[1])
        color = torch.tensor(preprocessing.fill_color(), dtype=torch.float32, device=images.device)
        pixels = pixels.where(is_inner, color[:, None, None])
    return pixels, inner, own


def resizing_matrix(places: Tensor, inner: Tensor, count: int, interpolation: Interpolation) -> Tensor:
    """(count, N) float32: the weight of each of N pixels in each of ``count`` new ones.

    Args:
        places: (N,) int64, 0..N-1.
        inner: () int64, how many new pixels the N become; the weights of further ones are 0.
        count: Number of new pixels.
        interpolation: ``antialias`` and ``bicubic`` widen their filter where they reduce; ``opencv`` does not.
    """
    ratio = (places[-1] + 1) / inner
    width = torch.ones_like(ratio) if interpolation == "opencv" else ratio.clamp(min=1)
    new = torch.arange(count, device=places.device)
    distance = ((places + 0.5 - (new[:, None] + 0.5) * ratio) / width).abs()
    if interpolation == "bicubic":  # Keys' cubic with a = -0.5, as Pillow's
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = near.where(distance < 1, far.where(distance < 2, 0))
    else:
        weights = (1 - distance).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True).where(new[:, None] < inner, 1)
    return weights.where(new[:, None] < inner, 0)


def _to_levels(pixels: Tensor) -> Tensor:
    """Rounded to whole grey levels 0..255, as bytes hold them.

    Sums of few weighted bytes often end in exactly one half, which runtimes that add in another order would round to
    either side: the border lies a little below.
    """
    return (pixels + (0.5 + 2**-9)).floor().clamp(0, 255)
