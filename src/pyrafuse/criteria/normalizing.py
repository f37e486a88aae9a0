"""By what losses are divided."""

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of ``value`` over all processes of a training."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of ``value`` over all processes of a training, so that each object weighs the same in all of them."""
    is_spread = dist.is_available() and dist.is_initialized()
    return sum_over_processes(value) / dist.get_world_size() if is_spread else value


def sum_by_level(values: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Sums (L,) of ``values`` (B, A) over the rows of each level, of which there are ``counts``."""
    return torch.stack([of_level.sum() for of_level in values.split(counts, dim=1)])
