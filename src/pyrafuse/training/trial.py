"""A pass on the side before anything is learnt: what images cost in time and in the memory of a GPU.

images -> detector -> gradients of its weights, which are dropped
"""

import time

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyrafuse.models.detector import Detector
from pyrafuse.training.loop import HALF
from pyrafuse.training.settings import Recipe

VALIDATED = 1 / 3
"""What an image costs that is not learnt from, of one that is: a forward pass, and none back."""


def pass_over(detector: Detector, images: Tensor, *, precision: str) -> None:
    """Run ``detector`` forth and back without losses; it stays as it is but for its mode, as do random numbers.

    Args:
        detector: Detector; it is in evaluation mode afterwards.
        images: Images (B, 3, H, W) on its device.
        precision: What convolutions compute in.
    """
    detector.eval()
    device = images.device.type
    with torch.autocast(device, HALF.get(precision), precision in HALF, cache_enabled=False):
        leaves = [leaf for leaf in tree_leaves(detector(images)) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if leaves:
        learning = [p for p in detector.parameters() if p.requires_grad]
        torch.autograd.grad(torch.stack([leaf.float().mean() for leaf in leaves]).sum(), learning, allow_unused=True)


def time_image(detector: Detector, recipe: Recipe, *, precision: str, device: torch.device) -> float:
    """Seconds of a pass for one image at the recipe's size, losses and loading apart; of a whole batch's on a GPU."""
    count = 1 if device.type == "cpu" else recipe.run.batch_size // recipe.run.accumulate
    images = torch.zeros(count, 3, *detector.card.preprocessing.size, device=device)
    seconds = []
    for _ in range(2):  # the first one chooses kernels
        began = time.perf_counter()
        pass_over(detector, images, precision=precision)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds) / count


def measure_gpu(detector: Detector, sides: tuple[int, int], *, precision: str, device: torch.device) -> tuple[int, int]:
    """Bytes of a GPU that a pass needs for each image, and those that are free for it."""

    def peak(count: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        pass_over(detector, torch.zeros(count, 3, *sides, device=device), precision=precision)
        return torch.cuda.max_memory_allocated(device)

    peak(1)  # chooses kernels, whose work spaces stay
    one, two = peak(1), peak(2)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(two - one, 1), torch.cuda.mem_get_info(device)[0] + unused


def estimate_seconds(
    image_s: float, *, num_train: int, num_val: int, epochs: int, validations: int
) -> tuple[float, float]:
    """Seconds of an epoch without its validation, and of the run with all of them."""
    epoch = image_s * num_train
    return epoch, epochs * epoch + validations * VALIDATED * image_s * num_val
