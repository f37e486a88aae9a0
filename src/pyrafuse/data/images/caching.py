"""Images kept in memory, shared by the loader's workers."""

import mmap
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


class ImageCache:
    """Keeps as many images as fit, in memory that forked processes share; whoever needs one first fills it in.

    Anonymous memory, because containers often cap /dev/shm at 64 MB. Workers that are spawned, not forked, begin
    with an empty cache of their own.

    Args:
        sizes: Height and width of each image, in pixels.
        budget_mb: Memory at most, in MiB; 0 keeps nothing. Pages that are never filled take none.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], budget_mb: int) -> None:
        self._sizes = tuple(sizes)
        self._budget_mb = budget_mb
        lengths = np.array([height * width * 3 for height, width in self._sizes], np.int64)
        self._ends = np.cumsum(lengths)
        self._num_kept = int(np.searchsorted(self._ends, budget_mb * 2**20, side="right"))
        if self._num_kept:
            memory = mmap.mmap(-1, self._num_kept + int(self._ends[self._num_kept - 1]))
            self._is_filled = np.frombuffer(memory, bool, self._num_kept)
            self._pixels = np.frombuffer(memory, np.uint8, offset=self._num_kept)

    def __reduce__(self) -> tuple[type["ImageCache"], tuple[tuple[tuple[int, int], ...], int]]:
        return ImageCache, (self._sizes, self._budget_mb)

    def __len__(self) -> int:
        """How many images have a place."""
        return self._num_kept

    def get(self, index: int, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Image ``index``, (H, W, 3) uint8, from memory or from ``read``; not to be written to."""
        if index >= self._num_kept:
            return read()
        height, width = self._sizes[index]
        end = int(self._ends[index])
        image = self._pixels[end - height * width * 3 : end].reshape(height, width, 3)
        if not self._is_filled[index]:
            image[...] = read()
            self._is_filled[index] = True  # last: two workers may both write, but the same, and none reads too early
        return image
