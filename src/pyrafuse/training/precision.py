"""What a training computes in: bf16 where this machine is faster so, and what half precision does badly kept out of it.

Processors differ: without instructions for bf16 a step can take eight times as long as in float32, and no name or flag
tells for sure. So the choice is measured, with the model that will be trained.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.models.detector import Detector
from pyrafuse.training.processes import device_type
from pyrafuse.training.settings import RunSettings

LEAST_SPEEDUP = 1.1
"""``auto`` leaves float32 for no less: bf16 has 8 bits for a fraction, float32 24."""

HINDERED = 4.0
"""Times as long as in one thread from which threads wait for each other: other programs hold their cores."""

MEASURED_SIZE = 320
"""Side in pixels of the image that is measured, if the training's are not smaller."""


def choose_precision(
    run: RunSettings, detector: Detector, *, size: int, began: str | None, say: Callable[[str], None]
) -> str:
    """What convolutions compute in: ``32``, ``bf16`` or ``fp16``; why is said.

    Args:
        run: The precision that is wanted, and where the training runs.
        detector: What will be trained; on the processor yet, and left as it is but for its mode.
        size: Side of its input in pixels.
        began: What a run that goes on has computed in so far: ``auto`` keeps it where this machine is not slow with it.
        say: Takes a sentence.

    Raises:
        PyrafuseError: If fp16 is wanted of a processor.
    """
    device = device_type(run)
    if run.precision == "fp16" and device == "cpu":
        raise PyrafuseError("run.precision fp16 needs a GPU, and this training runs on the processor: give auto")
    if run.precision in ("32", "fp16"):
        return run.precision
    if run.precision == "bf16":
        if (speedup := _measure(detector, device, size, say)) < 1:
            say(
                f"bf16 takes about {1 / speedup:.1f} times as long as float32 on this {_WORDS[device]}: "
                "--run.precision auto takes the faster one"
            )
        return "bf16"
    if began == "32":
        return "32"
    if device == "cpu" and not _is_alone(run):
        return "32"  # each process would measure for itself, and all have to choose the same
    speedup = _measure(detector, device, size, say)
    is_faster = speedup >= (LEAST_SPEEDUP if began is None else 1)
    only = "" if is_faster else "only "
    ratio = f"is {only}{speedup:.1f} times as fast" if speedup >= 1 else f"takes {1 / speedup:.1f} times as long"
    other = "; the run began in bf16" if began == "bf16" and not is_faster else ""
    say(f"computing in {'bf16' if is_faster else 'float32'}: bf16 {ratio} on this {_WORDS[device]}{other}")
    return "bf16" if is_faster else "32"


_WORDS = {"cpu": "processor", "cuda": "GPU", "mps": "GPU"}


def _is_alone(run: RunSettings) -> bool:
    is_one = run.devices in ("auto", 1) or (isinstance(run.devices, tuple) and len(run.devices) == 1)
    return is_one and run.nodes == 1 and os.environ.get("WORLD_SIZE", "1") == "1"


def _measure(detector: Detector, device: str, size: int, say: Callable[[str], None]) -> float:
    """How many times as fast as in float32 a step of ``detector`` is in bf16."""
    if device == "cpu":
        with _unhindered(say):
            of_one = measure_speedup(*_one_convolution(), rounds=6)
            # without instructions for bf16 the model would take long to show it
            return of_one if of_one < 0.5 else measure_speedup(*_pyramid_of(detector, size))
    is_native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return 2.0 if is_native else 0.5  # what its units are built for; nothing is measured there


@contextmanager
def _unhindered(say: Callable[[str], None]) -> Iterator[None]:
    """Measure in one thread where several wait for each other: a step would take minutes in place of a second."""
    threads = torch.get_num_threads()
    several = _time_convolution()
    torch.set_num_threads(1)
    try:
        slowdown = several / _time_convolution()
        if slowdown < HINDERED:
            torch.set_num_threads(threads)
        else:
            say(
                f"other programs keep this processor busy: a convolution takes {slowdown:.0f} times as long in "
                f"{threads} threads as in one. With OMP_NUM_THREADS=1 in the environment a training uses one"
            )
        yield
    finally:
        torch.set_num_threads(threads)


def _time_convolution() -> float:
    """Seconds of a convolution and its gradient, the median of five."""
    with torch.random.fork_rng(devices=[]):  # what a training draws from its seed must not depend on a measurement
        forward, parameters = _one_convolution()
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        torch.autograd.grad(forward().mean(), parameters)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])  # the first one chooses kernels


def _one_convolution() -> tuple[Callable[[], Tensor], Sequence[Tensor]]:
    images = torch.full((2, 64, 40, 40), 0.5).contiguous(memory_format=torch.channels_last)
    weight = torch.full((64, 64, 3, 3), 0.01, requires_grad=True)
    return lambda: F.conv2d(images, weight, padding=1), [weight]


def _pyramid_of(detector: Detector, size: int) -> tuple[Callable[[], Tensor], Sequence[Tensor]]:
    side = min(size, MEASURED_SIZE)
    side = side if detector.backbone.sizes.fit(side, side) else size
    images = torch.full((1, 3, side, side), 0.5)
    detector.eval()  # statistics and random numbers stay as they are
    learning = [p for part in (detector.backbone, detector.neck) for p in part.parameters() if p.requires_grad]
    return lambda: torch.stack([level.float().mean() for level in detector.pyramid(images)]).sum(), learning


def measure_speedup(forward: Callable[[], Tensor], parameters: Sequence[Tensor], *, rounds: int = 3) -> float:
    """Seconds of ``forward`` and its gradients on the processor in float32, over those in bf16.

    The least of ``rounds`` of each, in turn; other programs can only make a round slower.
    """

    def seconds(*, in_half: bool) -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_half):
            loss = forward().float().mean()
        torch.autograd.grad(loss, parameters, allow_unused=True)
        return time.perf_counter() - start

    full, half = [], []
    for _ in range(1 + rounds):
        full.append(seconds(in_half=False))
        half.append(seconds(in_half=True))
    return min(full[1:]) / min(half[1:])  # the first one chooses kernels


class _SparedConv2d(nn.Conv2d):
    """A convolution that computes in float32 on a processor, whatever autocast says, where `_is_bad` in bfloat16.

    The output has the input's type.
    """

    def _is_bad(self, images: Tensor, /) -> bool:
        raise NotImplementedError

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if input.device.type != "cpu" or not self._is_bad(input):
            return super()._conv_forward(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return super()._conv_forward(input.float(), weight, bias).to(input.dtype)


class StridedDepthwiseConv2d(_SparedConv2d):
    """A depthwise convolution with a stride: there is no fast kernel for its gradient in bfloat16.

    Three of them took a seventh of MobileNetV2's training step, and take a tenth of that in float32.
    """

    def _is_bad(self, images: Tensor, /) -> bool:
        return images.requires_grad


class NarrowStridedConv2d(nn.Conv2d):
    """A convolution of one tap with a stride and fewer than `NARROW` input channels, on a processor.

    oneDNN's kernel for the gradient of its weight writes past its buffer, in float32 and bfloat16, for some sizes and
    numbers of threads (torch 2.15: aborts and segmentation faults with 4 to 12 channels, none from 16 on). The same
    convolution without a stride of every so many-th position is spared.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if input.device.type != "cpu" or not weight.requires_grad:
            return super()._conv_forward(input, weight, bias)
        down, across = self.stride
        return F.conv2d(input[..., ::down, ::across], weight, bias, groups=self.groups)


class SmallMapConv2d(_SparedConv2d):
    """A convolution whose map may be smaller than its kernel.

    Taps that see padding alone have a gradient of zero. oneDNN's bfloat16 kernels do not write it where they stride
    over a map of one cell: the gradient is then what lay in memory, often NaN. Such maps cost next to nothing in
    float32.
    """

    def _is_bad(self, images: Tensor, /) -> bool:
        spans = (d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))
        is_covered = all(side >= span for side, span in zip(images.shape[-2:], spans, strict=True))
        return self.weight.requires_grad and not is_covered


NARROW = 16


def spare(module: nn.Module) -> None:
    """Keep what bfloat16 does badly on a processor in float32: such convolutions change their class."""
    for part in module.modules():
        if type(part) is nn.Conv2d and (kind := _spared(part)):
            part.__class__ = kind  # alike in all but how it computes: parameters and names stay


def _spared(conv: nn.Conv2d) -> type[nn.Conv2d] | None:
    is_strided = max(conv.stride) > 1
    if is_strided and conv.groups == conv.in_channels > 1:
        return StridedDepthwiseConv2d
    if max(conv.kernel_size) > 1:
        return SmallMapConv2d
    is_bare = conv.padding in ((0, 0), "valid")
    return NarrowStridedConv2d if is_strided and is_bare and conv.in_channels < NARROW else None
