"""Where a training stands and how long it still takes: bars on a terminal, a line a minute in a log file."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

FIRST_ESTIMATE = 10
"""Steps after which the time that is left is told for the first time."""
BETWEEN_LINES_S = 60.0
"""How often a log file gets a line."""


class StepClock:
    """Seconds a step and a validation take, measured in this session; the first step, which starts everything, apart.

    Args:
        clock: Seconds from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mark = clock()
        self._trained_s = 0.0
        self.num_steps = 0
        self.validation_s: float | None = None

    def begin(self) -> None:
        """Measure from now on: what came before was no training."""
        self._mark = self._clock()

    def step(self) -> None:
        """A step has ended."""
        now = self._clock()
        if self.num_steps:
            self._trained_s += now - self._mark
        self._mark = now
        self.num_steps += 1

    def validated(self) -> None:
        """The validation that began at `begin` has ended."""
        self.validation_s = self._clock() - self._mark
        self.begin()

    @property
    def step_s(self) -> float | None:
        """Seconds a step; none before there are enough of them."""
        return self._trained_s / (self.num_steps - 1) if self.num_steps >= FIRST_ESTIMATE else None

    def left_s(self, *, steps: int, validations: int) -> float | None:
        """Seconds for so many steps and validations; a validation counts nothing before one was measured."""
        step_s = self.step_s
        return None if step_s is None else steps * step_s + validations * (self.validation_s or 0.0)


class Narrator:
    """Tells where the run stands, how long the epoch and the whole still take, and what each epoch brought.

    Args:
        epochs: Epochs of the run.
        steps_per_epoch: Batches in each.
        evaluate_every: Epochs between validations; the last one is always validated.
        console: Bars if it is a terminal; otherwise lines: after ten steps, then once a minute.
        clock: Seconds from any start.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        evaluate_every: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._every = evaluate_every
        self._console = console
        self._now = clock
        self._clock = StepClock(clock)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=max(8, min(40, console.width - 72))),  # what is told has to fit beside it
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self._training: Any = None
        self._validation: Any = None
        self._started = self._last_line = clock()

    @contextmanager
    def telling(self, *, done: int) -> Iterator[None]:
        """Show the bar within the block, which goes on after ``done`` batches; an error finds it gone."""
        self._started = self._last_line = self._now()
        total = self._epochs * self._steps
        self._training = self._progress.add_task("training", total=total, completed=done, loss="", left="")
        self._validation = self._progress.add_task("validation", total=1, visible=False, loss="", left="")
        with self._progress:
            yield

    def begin_epoch(self) -> None:
        """Measure steps from here."""
        self._clock.begin()

    def tell_step(self, epoch: int, step: int, loss: torch.Tensor) -> None:
        """Move the bar, or write the line that is due; read the loss rarely, since reading waits for the device.

        Args:
            epoch: Number of the epoch, from 1.
            step: Number of the step in the epoch, from 1.
            loss: Loss () of this step.
        """
        self._clock.step()
        if not self._progress.disable:
            if step % 10 == 1:
                self._progress.update(self._training, loss=f"loss {float(loss):.3g}")
            left = self._tell_left(epoch, step, is_short=True)
            self._progress.update(self._training, advance=1, description=f"epoch {epoch}/{self._epochs}", left=left)
        elif self._is_due() or (self._clock.num_steps == FIRST_ESTIMATE and self._tell_left(epoch, step)):
            left = self._tell_left(epoch, step)
            self._write(
                f"epoch {epoch:>3}/{self._epochs}  batch {step}/{self._steps}  loss {float(loss):.4g}"
                f"{f'  {left}' if left else ''}"
            )

    @contextmanager
    def validating(self, total: int) -> Iterator[Callable[[], None]]:
        """Show the validation's own bar within the block.

        Yields:
            What to call after each of ``total`` batches.
        """
        done = 0

        def tell() -> None:
            nonlocal done
            done += 1
            self._progress.update(self._validation, advance=1)
            if self._progress.disable and self._is_due():
                self._write(f"validating: batch {done}/{total}")

        self._clock.begin()
        self._progress.update(self._validation, total=total, completed=0, visible=True, description="validating")
        yield tell
        self._clock.validated()
        self._progress.update(self._validation, visible=False)

    def tell_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Say what ``epoch`` (from 1) brought; ``metrics`` of a validation only where there was one."""
        left = self._clock.left_s(steps=(self._epochs - epoch) * self._steps, validations=self._validations(epoch))
        line = f"epoch {epoch:>3}/{self._epochs}  {self._now() - self._started:6.0f} s"
        if left:
            line += f"  about {duration(left)} left"
        if "train/loss" in metrics:
            line += f"  loss {metrics['train/loss']:.4g}"
        if "val/ap50" in metrics:
            line += f"  AP {metrics['val/ap']:.3f}  AP50 {metrics['val/ap50']:.3f}"
        elif "val/ap" in metrics:
            line += "  no AP: the validation images hold no objects"
        self._write(line)

    def _tell_left(self, epoch: int, step: int, *, is_short: bool = False) -> str:
        is_validated = epoch % self._every == 0 or epoch == self._epochs
        in_epoch = self._clock.left_s(steps=self._steps - step, validations=int(is_validated))
        rest = (self._epochs - epoch) * self._steps + self._steps - step
        in_all = self._clock.left_s(steps=rest, validations=self._validations(epoch - 1))
        if in_epoch is None or in_all is None:
            return ""
        if is_short:
            return f"epoch {duration(in_epoch)}, run {duration(in_all)} left"
        apart = "" if self._clock.validation_s is not None else ", validation not counted yet"
        return f"about {duration(in_epoch)} left of the epoch, {duration(in_all)} of the run{apart}"

    def _validations(self, after: int) -> int:
        """How many epochs after ``after`` (from 1) are validated."""
        regular = self._epochs // self._every - after // self._every
        return regular + int(self._epochs % self._every > 0 and after < self._epochs)

    def _is_due(self) -> bool:
        return self._now() - self._last_line >= BETWEEN_LINES_S

    def _write(self, line: str) -> None:
        self._last_line = self._now()
        self._console.print(line, highlight=False, markup=False)


def duration(seconds: float) -> str:
    """``41 s``, ``3 min``, ``1 h 02 min``, ``2 d 03 h``: as exact as an estimate can be."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"
