"""Learning rate and DropBlock as plain functions of where training stands: nothing to save, nothing to resume."""

import math

from pyrafuse.training.settings import DropBlockSettings, ScheduleSettings

STEP_SHARES = (0.6, 0.8)
"""Where the step schedule falls if nothing else is said: ASFF's epochs 180 and 240 of 301."""


def lr_factor(settings: ScheduleSettings, *, epoch: int, step: int, steps_per_epoch: float, epochs: float) -> float:
    """The learning rate at ``step`` of ``epoch`` (both from 0), relative to the base rate.

    Burn-in by the step; then the base rate until ``hold_epochs``; then half a cosine down to ``min_lr`` where the
    closing epochs begin, or a tenth at each of ``steps``.

    Args:
        settings: Settings of the schedule.
        epoch: Number of the epoch, from 0.
        step: Number of the step in the epoch, from 0.
        steps_per_epoch: Images over batch size: a fraction says that the last batch is not full.
        epochs: Epochs of the whole run, whole or not.
    """
    steps = math.ceil(steps_per_epoch)
    counted = max(1, math.floor(steps_per_epoch)) if settings.burn_in_full_batches else steps
    burnt_in, burn_in = epoch + step / counted, settings.burn_in_epochs
    if settings.burn_in_steps:
        burnt_in, burn_in = epoch * steps + step, settings.burn_in_steps
    if burnt_in < burn_in:
        start = settings.burn_in_start
        return start + (1 - start) * (burnt_in / burn_in) ** settings.burn_in_power
    if settings.kind == "step":
        milestones = settings.steps or tuple(math.floor(share * epochs) for share in STEP_SHARES)
        return 0.1 ** sum(epoch >= milestone for milestone in milestones)
    start = max(settings.hold_epochs, 0.0 if settings.by_epoch else settings.burn_in_epochs)
    end = epochs - settings.closing_epochs
    place = epoch if settings.by_epoch else epoch + step / steps
    if place <= start:
        return 1.0
    if place >= end:
        return settings.min_lr
    return settings.min_lr + (1 - settings.min_lr) * (1 + math.cos(math.pi * (place - start) / (end - start))) / 2


def mixed_epochs(settings: ScheduleSettings, *, epochs: int) -> int:
    """How many of the first epochs have mixup and mosaic."""
    return epochs - (settings.closing_epochs if settings.unmixed_epochs is None else settings.unmixed_epochs)


def scaled_epochs(settings: ScheduleSettings, *, epochs: int) -> int:
    """How many of the first epochs draw from several input sizes."""
    return epochs - (settings.closing_epochs if settings.one_size_epochs is None else settings.one_size_epochs)


def block_sizes(settings: DropBlockSettings, *, epoch: int) -> tuple[int, ...]:
    """Sides in cells of the squares that DropBlock drops in ``epoch`` (from 0), a level each; none before it begins."""
    begun = [sizes for first, *sizes in sorted(settings.phases) if first <= epoch]
    return tuple(begun[-1]) if begun else ()
