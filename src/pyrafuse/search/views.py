"""Maps and objects of all images of a split, each in one variation, as a folder of .npy files.

batches of images -> frozen backbone -> fp16 files, whole or not at all -> memory-mapped `View` -> batches of maps
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.base.locking import part_suffix
from pyrafuse.core.pyramid import Pyramid
from pyrafuse.core.targets import Batch, Targets

OF_OBJECTS = ("boxes", "labels", "weights", "crowd")

Shapes = tuple[tuple[int, int, int], ...]
"""Channels, height and width of the maps, finest level first."""


@dataclass(frozen=True)
class MapBatch:
    """A batch of maps and what is learnt from them.

    Attributes:
        maps: (B, C_l, H_l, W_l) float32 of each level, channels next to each other in memory.
        targets: Objects in pixels of the network's input.
        sizes: Height and width in pixels that each image takes up of the network's input.
    """

    maps: Pyramid
    targets: Targets
    sizes: tuple[tuple[int, int], ...]


class View:
    """What `write_view` wrote, memory-mapped.

    Args:
        folder: Folder of the view.
        shapes: Shapes of its maps.
        num_images: Number of its images.
        size: Height and width of the network's input in pixels.

    Attributes:
        folder: Folder that was given.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is damaged, or holds something else.
    """

    def __init__(self, folder: Path, *, shapes: Shapes, num_images: int, size: tuple[int, int]) -> None:
        self.folder = folder
        self._shapes, self._size = shapes, size
        self._maps = [_open(folder / _name_of(level)) for level in range(len(shapes))]
        self._objects = [_open(folder / f"{name}.npy") for name in OF_OBJECTS]
        self._counts, self._sizes = (_open(folder / f"{name}.npy") for name in ("counts", "sizes"))
        expected = [(num_images, height, width, channels) for channels, height, width in shapes]
        if [maps.shape for maps in self._maps] != expected:
            raise ValueError(f"{folder} holds maps of {[maps.shape for maps in self._maps]}, not of {expected}")

    def __len__(self) -> int:
        return len(self._counts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process, it opens its files there."""
        return _reopen, (self.folder, self._shapes, len(self), self._size)

    def batch(self, rows: Sequence[int], device: torch.device) -> MapBatch:
        """The images of ``rows``, on ``device``."""
        counts, sizes = self._counts[rows], self._sizes[rows]
        most = int(counts.max(initial=0))
        boxes, labels, weights, crowd = (torch.from_numpy(np.array(each[rows, :most])) for each in self._objects)
        targets = Targets(
            boxes=boxes,
            labels=labels,
            weights=weights,
            valid=(torch.arange(most) < torch.from_numpy(counts)[:, None]) & ~crowd,
            crowd=crowd,
            sizes=None if (sizes == self._size).all() else torch.from_numpy(sizes.astype(np.float32)),
        )
        maps = [torch.from_numpy(np.array(level[rows])).to(device, non_blocking=True) for level in self._maps]
        return MapBatch(
            maps=tuple(level.permute(0, 3, 1, 2).float() for level in maps),
            targets=targets.to(device, non_blocking=True),
            sizes=tuple((height, width) for height, width in sizes.tolist()),
        )


def _reopen(folder: Path, shapes: Shapes, num_images: int, size: tuple[int, int]) -> View:
    try:
        return View(folder, shapes=shapes, num_images=num_images, size=size)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} cannot be read on {platform.node()} ({error}): keep the maps where all machines see them, by "
            "PYRAFUSE_CACHE=FOLDER before the command"
        ) from error


def write_view(
    folder: Path,
    computed: Iterable[tuple[Pyramid, Batch]],
    *,
    shapes: Shapes,
    num_images: int,
) -> Iterator[int]:
    """Write a view under a temporary name, which becomes ``folder`` at the end.

    Args:
        folder: Is not there yet.
        computed: Maps of each batch, and the batch; of all images, in order.
        shapes: Shapes of the maps.
        num_images: Number of images in all batches.

    Yields:
        The number of images of each batch that is written.

    Raises:
        OSError: If the file system refuses, a full disk included; nothing is left of the view.
        DataError: If a map holds a number that fp16 does not.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=part_suffix(), dir=folder.parent))
    targets, sizes = [], []
    try:
        with ExitStack() as stack:
            # written in a row: where the disk is full, a memory-mapped file would kill the process
            streams = [stack.enter_context((temporary / _name_of(level)).open("wb")) for level in range(len(shapes))]
            for stream, (channels, height, width) in zip(streams, shapes, strict=True):
                header = {"descr": "<f2", "fortran_order": False, "shape": (num_images, height, width, channels)}
                np.lib.format.write_array_header_1_0(stream, header)
            for maps, batch in computed:
                for level, stream in zip(maps, streams, strict=True):
                    half = level.permute(0, 2, 3, 1).half().cpu().contiguous().numpy()
                    if not np.isfinite(half).all():
                        raise DataError(
                            f"the backbone gives numbers up to {level.abs().max():.3g}, and maps are kept in fp16, "
                            "which ends at 65504: give another backbone, or weights that belong to this one"
                        )
                    stream.write(half.data)
                targets.append(batch.targets)
                sizes.extend(batch.sizes)
                yield len(batch.images)
            for stream in streams:
                stream.flush()
                os.fsync(stream.fileno())
        for name, values in _pack(targets, sizes).items():
            np.save(temporary / f"{name}.npy", values, allow_pickle=False)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _pack(targets: Sequence[Targets], sizes: Sequence[tuple[int, int]]) -> dict[str, NDArray[Any]]:
    """Objects of all images, padded to the most of one, at least one row; how many each has; sizes of the images."""
    counts = np.concatenate([(each.valid | each.crowd).sum(dim=1).numpy() for each in targets])
    most = max(1, int(counts.max()))

    def padded(values: torch.Tensor) -> NDArray[Any]:
        missing = most - values.shape[1]
        return F.pad(values, (0, 0) * (values.ndim - 2) + (0, missing)).numpy()

    packed = {name: np.concatenate([padded(getattr(each, name)) for each in targets]) for name in OF_OBJECTS}
    return {**packed, "counts": counts, "sizes": np.array(sizes, np.int64)}


def _name_of(level: int) -> str:
    return f"map{level}.npy"


def _open(path: Path) -> NDArray[Any]:
    return np.load(path, mmap_mode="r", allow_pickle=False)
