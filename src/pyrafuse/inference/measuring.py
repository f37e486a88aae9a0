"""What a detector costs: parameters, arithmetic of one image, and time of one image beside other detectors."""

import time
from collections.abc import Callable, Mapping
from random import Random
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Numbers in all parameters of ``module``, frozen ones included; statistics of batch norm are none."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_gflops(module: nn.Module, *inputs: Tensor) -> float:
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


def measure_latencies(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median milliseconds of each of several works that take turns, so that the machine's load hits all alike.

    The order changes from round to round: what runs just before leaves its traces in the caches.

    Args:
        work: By name; each one is called once a round.
        rounds: Timed rounds.
        warmup: Rounds before, which are not timed.
        device: Where the work is done; its queue is waited for.
        clock: Seconds.

    Raises:
        ValueError: If no round is timed.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    device = torch.device(device)
    times: dict[str, list[float]] = {name: [] for name in work}
    order = Random(0)
    with torch.inference_mode():
        for number in range(-warmup, rounds):
            for name in order.sample(list(work), len(work)):
                _wait_for(device)
                start = clock()
                work[name]()
                _wait_for(device)
                if number >= 0:
                    times[name].append(1000 * (clock() - start))
    return {name: median(values) for name, values in times.items()}


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
