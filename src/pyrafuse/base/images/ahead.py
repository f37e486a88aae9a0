"""Images that are read while the detector works on those before: source -> thread -> queue -> frames in order."""

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, TypeVar

from pyrafuse.base.images.sources import Frame, Source

T = TypeVar("T")

PATIENCE_S = 1.0
"""So long the thread is waited for at the end; past it, it ends by itself once the image that it reads is read."""


def read_ahead(source: Source, *, batch: int = 1, limit: int | None = None) -> Iterator[Frame]:
    """The frames of ``source``, the next ones being read while the caller works; close it, and the source is closed.

    A stream's frames come as they are asked for: what waits in a queue is no longer what the camera sees.

    Args:
        source: Where the frames come from.
        batch: Frames that the caller works on at a time; one more than these is read ahead.
        limit: Only so many frames, the first ones.
    """
    frames = islice(source, limit)
    return frames if source.is_stream or source.num_frames == 1 else make_ahead(frames, depth=batch + 1)


def make_ahead(items: Iterable[T], *, depth: int) -> Generator[T, None, None]:
    """``items`` in order, made by a thread that is at most ``depth`` ahead; what making them raises, at its place."""
    ready: Queue[tuple[T] | BaseException | None] = Queue(depth)
    is_over = Event()

    def make() -> None:
        making = iter(items)
        try:
            for item in making:
                ready.put((item,))
                if is_over.is_set():
                    break
            ready.put(None)
        except BaseException as error:  # raised again where the items are read
            ready.put(error)
        finally:
            if isinstance(making, Generator):
                making.close()

    thread = Thread(target=make, name="read ahead", daemon=True)
    thread.start()
    try:
        while (made := ready.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made[0]
    finally:
        is_over.set()
        _let_end(thread, ready)


def _let_end(thread: Thread, ready: Queue[Any]) -> None:
    """Take from the queue what the thread may wait to put there, until it ends."""
    for _ in range(int(PATIENCE_S / 0.02)):
        try:
            while True:
                ready.get_nowait()
        except Empty:
            thread.join(0.02)
        if not thread.is_alive():
            return
