"""Sums over the processes of a training, by which losses are divided, and what each of them has."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

_IS_ALONE = ContextVar("_IS_ALONE", default=False)


@contextmanager
def each_process_alone() -> Iterator[None]:
    """Within the block a loss is divided by what its own process holds.

    Processes that have different numbers of batches would wait for each other for ever.
    """
    before = _IS_ALONE.set(True)
    try:
        yield
    finally:
        _IS_ALONE.reset(before)


def num_processes() -> int:
    """How many processes share the batch; 1 within `each_process_alone`."""
    is_spread = dist.is_available() and dist.is_initialized() and not _IS_ALONE.get()
    return dist.get_world_size() if is_spread else 1


@torch.no_grad()
def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of ``value`` over all processes of a training."""
    if num_processes() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of ``value`` over all processes of a training, so that each object weighs the same in all of them."""
    return sum_over_processes(value) / num_processes()


def divisor_over_processes(count: Tensor) -> Tensor:
    """The mean of ``count`` over all processes of a training, by which each divides its losses; a total of at least 1.

    The total counts, as it would in one process: a process may have no object.
    """
    return mean_over_processes(count).clamp(min=1 / num_processes())


def gather(part: T) -> list[T]:
    """The parts of all processes, in the order of their numbers: the same list in each of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return [part]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts
