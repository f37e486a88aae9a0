"""What a detector or a part of one costs: parameters, arithmetic, memory, and time beside others."""

import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pyrafuse.inference.turns import take_turns


def count_parameters(module: nn.Module) -> int:
    """Numbers in all parameters of ``module``, frozen ones included; statistics of batch norm are none."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_gflops(module: nn.Module, *inputs: Tensor | tuple[Tensor, ...]) -> float:
    """Billions of floating-point operations of ``module(*inputs)``; a multiplication and its addition are two.

    Convolutions and matrix products are counted; norms, activations, pooling and resizing are not. Count on a CPU:
    torchvision's deformable convolution, which a GPU runs, is unknown to the counter.
    """
    was_training = module.training
    module.eval()
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    module.train(was_training)
    return counter.get_total_flops() / 1e9


def measure_peak_memory_mb(module: nn.Module, *inputs: Tensor | tuple[Tensor, ...]) -> float:
    """Most megabytes (1e6 bytes) that ``module(*inputs)`` holds at a time, beyond its parameters and inputs.

    On CUDA what its allocator tells. Elsewhere the tensors that are alive between two operations, which leaves out what
    an operation needs for itself. In evaluation mode, without gradients.
    """
    was_training = module.training
    module.eval()
    device = next((x.device for x in tree_leaves(inputs)), torch.device("cpu"))
    with torch.inference_mode():
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            module(*inputs)
            torch.cuda.synchronize(device)
            peak = torch.cuda.max_memory_allocated(device) - before
        else:
            with _LiveTensors((*tree_leaves(inputs), *module.parameters(), *module.buffers())) as live:
                module(*inputs)
            peak = live.peak
    module.train(was_training)
    return peak / 1e6


class _LiveTensors(TorchDispatchMode):
    """Bytes of all tensors that operations have made and nobody has dropped, and the most there were."""

    def __init__(self, given: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._seen = {x.untyped_storage()._cdata for x in given}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, Tensor) and (place := x.untyped_storage())._cdata not in self._seen:
                self._seen.add(place._cdata)
                self._now += place.nbytes()
                weakref.finalize(place, self._drop, place._cdata, place.nbytes())
        self.peak = max(self.peak, self._now)
        return made

    def _drop(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self._now -= num_bytes


def measure_latencies(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    device: torch.device | str = "cpu",
    before: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each of several works that take turns; see `time_in_turns`."""
    times = time_in_turns(work, rounds=rounds, warmup=warmup, device=device, before=before, clock=clock)
    return {name: median(values) for name, values in times.items()}


def time_in_turns(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    device: torch.device | str = "cpu",
    before: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """`pyrafuse.inference.turns.take_turns` without gradients, the queue of ``device`` waited for."""
    with torch.inference_mode():
        wait = partial(_wait_for, torch.device(device))
        return take_turns(work, rounds=rounds, warmup=warmup, wait=wait, before=before, clock=clock)


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
