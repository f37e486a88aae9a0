"""Which images make up which batch, as a pure function of seed, epoch and place in the epoch."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from pyrafuse.base.errors import PyrafuseError

ORDER, SIZES, VARIATION = range(3)
"""What random numbers are drawn for; each has its own stream."""


@dataclass(frozen=True)
class Request:
    """One image to be loaded, with all that its random variation depends on.

    Attributes:
        index: Row in the data set.
        epoch: Number of the epoch, from 0.
        position: Place in the epoch, over all processes.
        size: Height and width of the network's input in pixels.
    """

    index: int
    epoch: int
    position: int
    size: tuple[int, int]


class EpochBatchSampler(Sampler[list[Request]]):
    """Yields the batches of one epoch, the same ones however many processes share them.

    Nothing is remembered from epoch to epoch: after `set_epoch` the batches are those of an uninterrupted training,
    and `start_at` begins in the middle of an epoch, as a resumed training does. The last batch is filled up from the
    epoch's beginning.

    Args:
        num_images: Rows of the data set.
        batch_size: Images a step, over all processes.
        seed: Seed of order and sizes.
        shuffle: Draw a new order each epoch; otherwise that of the data set.
        rank: This process; it gets the ``rank``-th part of every batch.
        world_size: How many processes share each batch.
        size: Height and width of the network's input in pixels.
        sizes: Heights and widths to draw from instead, the same for all processes.
        change_every: Batches until a new size is drawn.
        scale_epochs: Epochs with ``sizes``; later ones have ``size``. All of them by default.
        drop_last: Leave out a last batch that is not full.
        factors: (``num_images``,) of 1 or more, how often each image comes in an epoch on average; a fraction is its
            probability of coming once more. All epochs have the same number of batches. By default once.

    Raises:
        PyrafuseError: If the batch cannot be shared evenly, or there is not a single batch.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        size: tuple[int, int] = (416, 416),
        sizes: Sequence[tuple[int, int]] = (),
        change_every: int = 10,
        scale_epochs: int | None = None,
        drop_last: bool = False,
        factors: NDArray[np.float64] | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise PyrafuseError(
                f"a batch of {batch_size} images cannot be shared by {world_size} processes; "
                f"choose a multiple of {world_size}"
            )
        length = num_images if factors is None else count_repeated(factors)
        self._num_batches = length // batch_size if drop_last else -(-length // batch_size)
        if not self._num_batches:
            raise PyrafuseError(
                f"{num_images} images are not one batch of {batch_size}; add images or choose a smaller batch"
            )
        self._num_images = num_images
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._rank = rank
        self._world_size = world_size
        self._size = size
        self._sizes = tuple(sizes)
        self._change_every = change_every
        self._scale_epochs = scale_epochs
        self._factors = factors
        self._epoch = 0
        self._start = (0, 0)

    def __len__(self) -> int:
        return self._num_batches

    def set_epoch(self, epoch: int) -> None:
        """Yield the batches of ``epoch`` from now on."""
        self._epoch = epoch

    def start_at(self, epoch: int, batch: int) -> None:
        """Yield ``epoch`` from ``batch`` on; other epochs stay whole, and ``len`` is that of a whole one."""
        self._epoch = epoch
        self._start = (epoch, batch)

    def __iter__(self) -> Iterator[list[Request]]:
        epoch = self._epoch
        rng = create_generator(self._seed, ORDER, epoch)
        order = np.arange(self._num_images) if self._factors is None else repeat(self._factors, rng)
        if self._shuffle:
            order = rng.permutation(order)
        order = np.resize(order, self._num_batches * self._batch_size)  # cuts, or begins anew
        share = self._batch_size // self._world_size
        for batch in range(self._start[1] if epoch == self._start[0] else 0, self._num_batches):
            size = self._size_of(epoch, batch)
            first = batch * self._batch_size + self._rank * share
            yield [Request(int(order[i]), epoch, i, size) for i in range(first, first + share)]

    def _size_of(self, epoch: int, batch: int) -> tuple[int, int]:
        if not self._sizes or (self._scale_epochs is not None and epoch >= self._scale_epochs):
            return self._size
        draw = create_generator(self._seed, SIZES, epoch, batch // self._change_every)
        return self._sizes[draw.integers(len(self._sizes))]


def count_repeated(factors: NDArray[np.float64]) -> int:
    """Images of an epoch in which each comes as often as its factor on average."""
    return math.ceil(round(float(factors.sum()), 6))


def repeat(factors: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows in order, each as often as its factor, rounded down or up so that the factor is its mean over draws.

    The fractions are drawn together, by one random offset and a random order: every draw has as many rows as the
    factors sum to, but for less than one.
    """
    shuffled = rng.permutation(len(factors))
    whole = np.floor(factors).astype(np.int64)
    ends = np.floor(np.cumsum((factors - whole)[shuffled]) + rng.random())
    whole[shuffled] += np.diff(ends, prepend=0).astype(np.int64)
    return np.repeat(np.arange(len(factors)), whole)


def create_generator(seed: int, stream: int, *key: int) -> np.random.Generator:
    """A generator for one ``stream`` (`ORDER`, `SIZES`, `VARIATION`) and ``key``, independent of all others."""
    # a spawn key, because numpy takes the entropies (1, 2) and (1, 2, 0) for the same
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *key)))
