"""Whether a batch can be: as many images as there are, and as much memory as it takes.

On a processor a batch that does not fit takes the machine's memory until the system ends some process, so what it
needs is estimated beforehand: what autograd keeps of one image, times the batch. That is a lower bound, so nothing
that fits is refused. A GPU refuses by itself, at once, and harms nobody: its answer gets a sentence. Where a recipe
asks for it, a pass measures what an image takes of it, and gradients are accumulated over parts of the batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.over_processes import gather
from pyrafuse.models.detector import Detector
from pyrafuse.training.settings import Recipe
from pyrafuse.training.trial import measure_gpu

MEANINGFUL = 1000
"""Where so many times the batch's own pixels fit into memory, no detector needs more, and nothing is measured."""

GPU_SHARE = 0.8
"""Share of a GPU's free memory that passes may take: losses and fragments need the rest."""


def fit_batch(recipe: Recipe, num_images: int, *, processes: int, say: Callable[[str], None]) -> Recipe:
    """The recipe with a batch of at most ``num_images``; the learning rate follows the batch.

    Args:
        recipe: Its batch is shared among accumulated batches and processes.
        num_images: Training images.
        processes: How many share a batch.
        say: Called with a sentence if the batch is reduced.

    Raises:
        PyrafuseError: If there are fewer images than shares.
    """
    run = recipe.run
    if run.batch_size <= num_images:
        return recipe
    shares = run.accumulate * processes
    size = num_images // shares * shares
    if not size:
        raise PyrafuseError(
            f"run.batch_size {run.batch_size} is shared among {run.accumulate} accumulated batches of {processes} "
            f"processes, and there are {num_images} training images: lower run.accumulate, or add images"
        )
    say(f"run.batch_size {run.batch_size} is more than there are images: a batch of {size}, and its learning rate")
    return replace(recipe, run=replace(run, batch_size=size))


def fit_memory(detector: Detector, recipe: Recipe, *, available: int | None, say: Callable[[str], None]) -> Recipe:
    """The recipe with a batch that the memory of a processor holds, in parts if ``run.fit_memory`` allows it.

    Args:
        detector: On the processor; in evaluation mode afterwards.
        recipe: Size of the images and of the batch.
        available: Bytes that are free, the same number in all processes; None where nobody knows.
        say: Called with a sentence if gradients are accumulated over parts of the batch.

    Raises:
        PyrafuseError: If the batch does not fit, with the one that does.
    """
    run = recipe.run
    batch = run.batch_size // run.accumulate
    height, width = _largest_size(detector, recipe)
    pixels = 3 * height * width
    if available is None or batch * pixels * 4 * MEANINGFUL < available:
        return recipe
    try:
        # what does not grow with the images, anchors say, is in both
        one, two = (count_kept_bytes(detector, torch.zeros(number, 3, height, width)) for number in (1, 2))
    except RuntimeError:  # a model that takes no such image alone: its own error is told when it trains
        return recipe
    kept = (two - one) // (1 if run.precision == "32" else 2)
    of_weights = 4 * sum(p.numel() for p in detector.parameters()) * 3
    fitting = (available - of_weights) // (kept + 5 * pixels)  # pixels as they are loaded and as numbers
    if batch <= fitting:
        return recipe
    needed = of_weights + batch * (kept + 5 * pixels)
    reason = _say_needs(batch, (height, width), needed=needed, free=available)
    if fitting < 1:
        raise PyrafuseError(f"{reason}: choose a smaller --size, or a smaller model")
    if run.fit_memory:
        return _in_parts(recipe, fitting, reason=reason, say=say)
    parts = _count_parts(recipe, fitting)
    raise PyrafuseError(
        f"{reason}: --batch {fitting} fits, and --run.accumulate {parts} keeps the batch and learns it in parts"
    )


def fit_gpu(
    detector: Detector, recipe: Recipe, *, precision: str, device: torch.device, say: Callable[[str], None]
) -> Recipe:
    """The recipe with a batch that a GPU holds, in parts if need be; as it is on other devices, or as it asks for that.

    Args:
        detector: It is moved to ``device``; in evaluation mode afterwards.
        recipe: Size of the images and of the batch; ``run.fit_memory`` asks for the parts.
        precision: What convolutions compute in.
        device: Device of the training.
        say: Called with a sentence if gradients are accumulated over parts of the batch.
    """
    run = recipe.run
    if device.type != "cuda" or not run.fit_memory:
        return recipe
    size, batch = _largest_size(detector, recipe), run.batch_size // run.accumulate
    of_image, free = measure_gpu(detector.to(device), size, precision=precision, device=device)
    of_weights = 4 * sum(p.numel() for p in detector.parameters()) * 4  # gradients, two moments, averaged weights
    fitting = int((GPU_SHARE * free - of_weights) // of_image)
    if batch <= fitting:
        return recipe
    reason = _say_needs(batch, size, needed=of_weights + batch * of_image, free=free)
    return _in_parts(recipe, max(1, fitting), reason=reason, say=say)


def _largest_size(detector: Detector, recipe: Recipe) -> tuple[int, int]:
    """Height and width of the largest images of the training."""
    sizes = [detector.card.preprocessing.size, *((side, side) for side in recipe.data.sides)]
    return max(sizes, key=lambda size: size[0] * size[1])


def _say_needs(batch: int, size: tuple[int, int], *, needed: float, free: float) -> str:
    height, width = size
    return (
        f"a batch of {batch} images of {width} x {height} px needs at least {needed / 1e9:.1f} GB of memory, and "
        f"{free / 1e9:.1f} GB are free"
    )


def _count_parts(recipe: Recipe, fitting: int) -> int:
    """The fewest accumulated batches of which each has ``fitting`` images or fewer."""
    size, least = recipe.run.batch_size, recipe.run.accumulate
    return next(n for n in range(least, size + 1) if size % n == 0 and size // n <= fitting)


def _in_parts(recipe: Recipe, fitting: int, *, reason: str, say: Callable[[str], None]) -> Recipe:
    parts = _count_parts(recipe, fitting)
    say(f"{reason}: learnt in {parts} parts of {recipe.run.batch_size // parts}")
    return replace(recipe, run=replace(recipe.run, accumulate=parts))


def count_kept_bytes(detector: Detector, images: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass for the backward one, weights apart; the detector stays as it is."""
    weights = {p.untyped_storage().data_ptr() for p in (*detector.parameters(), *detector.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    detector.eval()  # statistics and random numbers stay where they are
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        detector(images)
    return sum(kept.values())


def find_available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: of the machine, and of its container if that has a limit."""
    limits = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        limits.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):  # fmt: skip
        with suppress(OSError, ValueError):  # "max" is no number, and no limit
            folder = root / "sys/fs/cgroup"
            limits.append(int((folder / limit).read_text()) - int((folder / used).read_text()))
    return min(limits, default=None)


def find_least_memory() -> int | None:
    """The least that a process of the training may still take: all of them have to choose the same parts."""
    return min((free for free in gather(find_available_memory()) if free is not None), default=None)


@contextmanager
def memory_errors(recipe: Recipe) -> Iterator[None]:
    """Turn the end of memory, of a processor's or a GPU's, into a sentence.

    Raises:
        PyrafuseError: If there was not enough.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        run = recipe.run
        raise PyrafuseError(
            f"not enough memory for batches of {run.batch_size // run.accumulate} images of "
            f"{max((recipe.data.size or 0, *recipe.data.sides))} px: choose a smaller --batch, --run.accumulate "
            f"{2 * run.accumulate} to learn the same batch in parts, a smaller --size or fewer --data.workers; what "
            "was saved stays whole, and --resume goes on"
        ) from error
