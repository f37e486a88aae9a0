"""Averaged weights: a second detector that follows the one that learns, and is evaluated and kept in its place."""

from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor

from pyrafuse.models.detector import Detector


def copy_to_average(detector: Detector) -> Detector:
    """A copy of ``detector`` that `follow` moves, in evaluation mode."""
    return deepcopy(detector).eval().requires_grad_(False)


def own_buffers(detector: Detector) -> None:
    """Give each value of a buffer its own memory, so that it can be written to: ``expand`` shares one among many."""
    for part in detector.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if 0 in buffer.stride():
                part._buffers[name] = buffer.clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def follow(average: Detector, detector: Detector, *, step: int, decay: float) -> None:
    """Move ``average`` towards ``detector``: weights and statistics.

    Args:
        average: Averages of the steps before.
        detector: Weights after this step.
        step: Number of this step, from 0. The first one is copied; decay is min(``decay``, (1 + step) / (10 + step)).
        decay: Share of the averages that stays.
    """
    share = min(decay, (1 + step) / (10 + step)) if step else 0.0
    moved: tuple[list[Tensor], list[Tensor]] = ([], [])
    copied: tuple[list[Tensor], list[Tensor]] = ([], [])
    theirs = chain(detector.parameters(), detector.buffers())
    for old, new in zip(chain(average.parameters(), average.buffers()), theirs, strict=True):
        olds, news = moved if step and old.is_floating_point() else copied
        olds.append(old)
        news.append(new)
    if moved[0]:
        torch._foreach_lerp_(*moved, 1 - share)  # type: ignore[attr-defined]
    if copied[0]:
        torch._foreach_copy_(*copied)  # type: ignore[attr-defined]
