"""Where an epoch pauses to save: after so many minutes, and when a signal asks the run to end.

SIGTERM or Ctrl-C -> the step is finished -> all processes agree -> last.ckpt -> `KeyboardInterrupt`
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from pyrafuse.base.interrupts import ENDING

LOOK_EVERY = 10
"""Steps between two looks where several processes have to agree: each look waits for all of them."""


class Pause(IntEnum):
    """What is due after a step; of several processes the largest counts for all."""

    NONE = 0
    SAVE = 1
    END = 2


class Pauses:
    """Says after each step whether the run is to be saved, and whether it is to end.

    Args:
        minutes: Minutes between two checkpoints; 0 for none by time.
        device: Where the processes of the training agree.
        clock: Seconds from any start.
    """

    def __init__(self, minutes: float, *, device: torch.device, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = 60 * minutes
        self._device = device
        self._clock = clock
        self._saved = clock()
        self._end: Callable[[], None] | None = None
        self._looks = 0

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Within the block the first signal that ends a command waits for `look`, and Ctrl-C after it ends at once.

        A further SIGTERM is passed over: torchrun and batch systems send it to a group and to its processes.

        One that came after the last `look` ends the command when the block is left.
        """
        handlers: dict[int, Any] = {number: signal.getsignal(number) for number in ENDING}
        handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
        if threading.current_thread() is not threading.main_thread():
            handlers = {}

        def note(number: int, frame: FrameType | None) -> None:
            if self._end is not None and number == signal.SIGINT:
                handlers[number](number, frame)
            self._end = self._end or (lambda: handlers[number](number, None))

        for number in handlers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._end is not None:
            self._end()

    def look(self, *, is_last: bool) -> Pause:
        """What is due now; called after every step by every process.

        Args:
            is_last: Whether it was the last step of the epoch.
        """
        self._looks += 1
        is_old = 0 < self._every_s <= self._clock() - self._saved
        pause = Pause.END if self._end is not None else Pause.SAVE if is_old else Pause.NONE
        if not (dist.is_available() and dist.is_initialized()):
            return pause
        if self._looks % LOOK_EVERY and not is_last:
            return Pause.NONE
        most = torch.tensor(int(pause), device=self._device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return Pause(int(most))

    def saved(self) -> None:
        """A checkpoint is there: count the minutes from now."""
        self._saved = self._clock()

    def end(self) -> None:
        """End the command as the signal would have, once no process is still writing.

        Raises:
            KeyboardInterrupt: Always.
        """
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        if self._end is not None:
            self._end()
        raise KeyboardInterrupt
