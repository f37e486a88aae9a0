"""Signals that end a command: SIGTERM as Ctrl-C, and both held back where they would be lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def as_interrupts() -> Iterator[list[int]]:
    """Within, SIGTERM raises `KeyboardInterrupt` once, as Ctrl-C does.

    Yields:
        The signal's number once it came; later ones are passed over, so that what is being ended ends.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is not signal.SIG_DFL:
        yield received
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def as_term(name: str) -> Iterator[None]:
    """Within, the signal ``name`` (``USR1``) does what SIGTERM does: batch systems warn a job by one of its choice."""
    number = getattr(signal, f"SIG{name}", None)
    if number in (None, signal.SIGTERM) or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends; processes that are forked within never hear of them."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield
        return
    held: list[int] = []
    for number in handlers:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in held[:1]:
        handlers[signal.Signals(number)](number, None)
