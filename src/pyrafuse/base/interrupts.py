"""Signals that end a command: SIGTERM as Ctrl-C, and both held back where they would be lost."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)

_AGAIN_S = 0.05


@contextmanager
def as_interrupts() -> Iterator[list[int]]:
    """Within, SIGTERM raises `KeyboardInterrupt` once, as Ctrl-C does, and neither is lost.

    A thread that waits for the batch of a loading process which a signal ended shows no traceback.

    Yields:
        The signal's number once it came; later ones are passed over, so that what is being ended ends.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    process, lost_hook, hook = os.getpid(), sys.unraisablehook, sys.excepthook

    def raise_again(lost: Any) -> None:
        # Python passes over what is raised in a finaliser or in a weak reference's callback, an interrupt too
        if not issubclass(lost.exc_type, KeyboardInterrupt) or os.getpid() != process:
            lost_hook(lost)
            return
        timer = threading.Timer(_AGAIN_S, os.kill, (process, received.pop() if received else signal.SIGINT))
        timer.daemon = True
        timer.start()

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main or not isinstance(error, (ConnectionError, EOFError)):
            hook(kind, error, trace)

    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is not signal.SIG_DFL:
        yield received
        return
    signal.signal(signal.SIGTERM, end)
    sys.unraisablehook, sys.excepthook = raise_again, show
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook, sys.excepthook = lost_hook, hook


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
