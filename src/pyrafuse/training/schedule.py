"""The learning rate as a plain function of where training stands: nothing to save, nothing to resume."""

import math

from pyrafuse.training.settings import ScheduleSettings


def lr_factor(settings: ScheduleSettings, *, epoch: int, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate at ``step`` of ``epoch`` (both from 0), relative to the base rate.

    Burn-in by the step; then the base rate until ``hold_epochs``; then half a cosine down to ``min_lr`` where the
    closing epochs begin, or a tenth at each of ``steps``.
    """
    now = epoch + step / steps_per_epoch
    if now < settings.burn_in_epochs:
        return (now / settings.burn_in_epochs) ** settings.burn_in_power
    if settings.kind == "step":
        return 0.1 ** sum(epoch >= milestone for milestone in settings.steps)
    start = max(settings.hold_epochs, 0.0 if settings.by_epoch else settings.burn_in_epochs)
    end = epochs - settings.closing_epochs
    place = epoch if settings.by_epoch else now
    if place <= start:
        return 1.0
    if place >= end:
        return settings.min_lr
    return settings.min_lr + (1 - settings.min_lr) * (1 + math.cos(math.pi * (place - start) / (end - start))) / 2
