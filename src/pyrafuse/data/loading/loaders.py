"""From a data set to batches: request -> read -> mix -> augment -> batch; for evaluation plainly fitted."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from ctypes import c_bool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.sharedctypes import RawValue
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyrafuse.base.images.fitting import Fit
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.core.targets import Batch, Targets
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.loading.batching import EpochBatchSampler, Request
from pyrafuse.data.loading.datasets import EvalSet, TrainSet

CACHED_SCALE = 2
"""A cache keeps images at this many times the largest training size at most."""


@dataclass(frozen=True)
class EvalBatch:
    """A batch for evaluation.

    Attributes:
        batch: Images and targets, in pixels of the network's input.
        fits: How each image was fitted; the way back to its own pixels.
    """

    batch: Batch
    fits: tuple[Fit, ...]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "EvalBatch":
        """The same batch on ``device``."""
        return EvalBatch(self.batch.to(device, non_blocking=non_blocking), self.fits)

    def pin_memory(self) -> "EvalBatch":
        """The same batch in page-locked memory; called by a `DataLoader`."""
        return EvalBatch(self.batch.pin_memory(), self.fits)


def create_train_loader(
    data: DetectionData,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    batch_size: int,
    num_workers: int,
    seed: int,
    sizes: Sequence[int] | None = None,
    change_every: int = 10,
    scale_epochs: int | None = None,
    mix_epochs: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    cache_mb: int = 0,
    factors: NDArray[np.float64] | None = None,
    class_weights: NDArray[np.float32] | None = None,
) -> "Loader[Batch]":
    """Build the loader of training batches; call ``loader.batch_sampler.set_epoch(epoch)`` before each epoch.

    A batch depends on ``seed``, epoch and its place in the epoch alone: not on the number of workers or processes,
    nor on what was loaded before.

    Args:
        data: The images and their objects.
        preprocessing: How they become the network's input.
        augmentation: How they are varied.
        batch_size: Images a step, over all processes.
        num_workers: Processes that load; 0 loads in this one. See `default_num_workers`.
        seed: Seed of order, sizes and variation.
        sizes: Sides in pixels of square inputs to draw from; by default always ``preprocessing.size``.
        change_every: Batches until a new size is drawn.
        scale_epochs: Epochs with ``sizes``; later ones have ``preprocessing.size``. All of them by default.
        mix_epochs: Epochs with mixup and mosaic. All of them by default.
        rank: This process.
        world_size: How many processes share each batch.
        drop_last: Leave out a last batch that is not full; otherwise it is filled up from the epoch's beginning.
        cache_mb: Memory in MiB, a process, for decoded images. With a cache, images larger than twice the largest
            training size are shrunk to it, which changes their pixels a little; smaller ones are the same with and
            without.
        factors: How often each image comes in an epoch, 1 or more; by default once.
        class_weights: (K,), how much an object of each class counts for the class loss; by default 1.

    Raises:
        PyrafuseError: If the batch cannot be shared evenly, or there is not a single batch.
        LoadingError: While iterating, if an image cannot be read or has another size than its annotation says.
    """
    squares = tuple((side, side) for side in sizes or ())
    largest = max(side for size in (preprocessing.size, *squares) for side in size)
    dataset = TrainSet(
        data,
        preprocessing=preprocessing,
        augmentation=augmentation,
        seed=seed,
        mix_epochs=mix_epochs,
        longest_px=CACHED_SCALE * largest if cache_mb else None,
        cache_mb=cache_mb,
    )
    sampler = EpochBatchSampler(
        len(data),
        batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        size=preprocessing.size,
        sizes=squares,
        change_every=change_every,
        scale_epochs=scale_epochs,
        drop_last=drop_last,
        factors=factors,
    )
    collated = partial(collate, fill=preprocessing.fill_color(), class_weights=class_weights)
    return _create_loader(dataset, sampler, collated, num_workers)


def create_view_loader(
    data: DetectionData,
    *,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    batch_size: int,
    num_workers: int,
    seed: int,
    view: int,
) -> "Loader[Batch]":
    """Build the loader of one view of the training images: each once, in the data set's order, varied.

    Args:
        data: The images and their objects.
        preprocessing: How they become the network's input.
        augmentation: How they are varied.
        batch_size: Images at a time.
        num_workers: Processes that load; 0 loads in this one.
        seed: Seed of the variation.
        view: Number of the view; each varies an image in another way.

    Raises:
        LoadingError: While iterating, if an image cannot be read or has another size than its annotation says.
    """
    dataset = TrainSet(data, preprocessing=preprocessing, augmentation=augmentation, seed=seed)
    requests = [Request(row, view, row, preprocessing.size) for row in range(len(data))]
    batches = [requests[i : i + batch_size] for i in range(0, len(data), batch_size)]
    return _create_loader(dataset, batches, partial(collate, fill=preprocessing.fill_color()), num_workers)


def create_eval_loader(
    data: DetectionData,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    cache_mb: int = 0,
) -> "Loader[EvalBatch]":
    """Build the loader of evaluation batches: each image once, in the data set's order, the last batch not filled up.

    Args:
        data: The images and their objects.
        preprocessing: How they become the network's input.
        batch_size: Images a step of this process.
        num_workers: Processes that load; 0 loads in this one.
        rank: This process; it gets the images ``rank``, ``rank + world_size``, and so on.
        world_size: How many processes share the images.
        cache_mb: Memory in MiB, a process, for images at network size; results are the same with and without.

    Raises:
        LoadingError: While iterating, if an image cannot be read or has another size than its annotation says.
    """
    rows = range(rank, len(data), world_size)
    batches = [list(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    dataset = EvalSet(data, preprocessing=preprocessing, cache_mb=cache_mb)
    return _create_loader(dataset, batches, collate_eval, num_workers)


def collate(
    items: Sequence[tuple[int, Sample]],
    fill: tuple[int, int, int] = (0, 0, 0),
    class_weights: NDArray[np.float32] | None = None,
) -> Batch:
    """Put samples into a batch: smaller images at the top left over ``fill``, objects padded to the most of one."""
    samples = [sample for _, sample in items]
    size = [max(sample.image.shape[side] for sample in samples) for side in (0, 1)]
    images = torch.empty(len(items), 3, *size, dtype=torch.uint8)
    for image, sample in zip(images, samples, strict=True):
        height, width = sample.image.shape[:2]
        if [height, width] != size:
            image[:] = torch.tensor(fill).view(3, 1, 1)
        image[:, :height, :width] = torch.from_numpy(sample.image).permute(2, 0, 1)

    def tensors(name: str) -> list[Tensor]:
        return [torch.from_numpy(getattr(sample, name)) for sample in samples]

    def unless_whole(sides: Sequence[tuple[int, ...]]) -> Tensor | None:
        return torch.tensor(sides, dtype=torch.float32) if set(sides) != {tuple(size)} else None

    sizes = tuple(sample.size or (sample.image.shape[0], sample.image.shape[1]) for sample in samples)
    targets = Targets.pad(
        tensors("boxes"),
        tensors("labels"),
        weights=tensors("weights"),
        crowd=tensors("crowd"),
        sizes=unless_whole(sizes),
        padded_sizes=unless_whole([sample.image.shape[:2] for sample in samples]),
    )
    if class_weights is not None:
        targets = replace(targets, class_weights=torch.from_numpy(class_weights)[targets.labels])
    return Batch(images, targets, torch.tensor([index for index, _ in items]), sizes)


def collate_eval(items: Sequence[tuple[int, Sample, Fit]]) -> EvalBatch:
    """Put fitted samples into a batch for evaluation."""
    return EvalBatch(collate([(index, sample) for index, sample, _ in items]), tuple(fit for *_, fit in items))


def default_num_workers() -> int:
    """How many processes should load beside this one: a core each, less one for the training, 1 to 8.

    The cores are those this process may use, shared with the other training processes of this machine (torchrun
    says how many).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


def _create_loader(
    dataset: Dataset[Any], batches: Iterable[Any], collate_fn: Callable[..., Any], num_workers: int
) -> "Loader[Any]":
    return Loader(
        dataset,
        batch_sampler=batches,  # pyright: ignore[reportArgumentType]  # rows are requests, not numbers
        collate_fn=collate_fn,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own, so that loading leaves the training's random numbers alone
    )


T = TypeVar("T")


class Loader(DataLoader[T]):
    """Starts its workers without Ctrl-C: between forks Python drops it unseen, and a worker ended by it is an error.

    Only starting them holds it back: a later epoch waits for its first batch, which a worker that has ended never
    sends.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._is_kept: Any = RawValue(c_bool, False)
        super().__init__(*args, worker_init_fn=partial(_start_worker, self._is_kept), **options)

    def __iter__(self) -> Any:
        with nullcontext() if self._iterator else hold_interrupts():
            return super().__iter__()

    @contextmanager
    def keeping_workers(self) -> Iterator[None]:
        """Within the block SIGTERM does not end the workers: the step under way may need more batches."""
        self._is_kept.value = True
        try:
            yield
        finally:
            self._is_kept.value = False


def _start_worker(is_kept: Any, _: int) -> None:
    # who tells a whole group to end tells the workers too: that is no error, the training itself says what was kept
    signal.signal(signal.SIGTERM, lambda *_: None if is_kept.value else os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training sends them off
    cv2.setNumThreads(0)  # torch does the same to itself: the workers are the threads
