"""Maps of a frozen backbone, computed once and found again: views of the training images, and the validation images.

detector, data, variation -> fingerprints -> what is missing is computed -> `Features` -> batches of maps
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console

from pyrafuse.base.errors import DataError, PyrafuseError, check_between, check_count
from pyrafuse.base.folders import cache_folder
from pyrafuse.base.locking import remove_leftovers
from pyrafuse.base.members import read_bytes
from pyrafuse.base.parts import to_plain
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import counted
from pyrafuse.base.progress import create_bar
from pyrafuse.base.records import DetectionData
from pyrafuse.base.terminal import Terminal
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Batch
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.loading.batching import EpochBatchSampler
from pyrafuse.data.loading.loaders import create_eval_loader, create_view_loader, default_num_workers
from pyrafuse.evaluation.collecting import require_objects
from pyrafuse.models.detector import Detector
from pyrafuse.search.frozen import check_backbone, compute_maps, digest_weights, find_shapes
from pyrafuse.search.views import MapBatch, Shapes, View, write_view

VERSION = 1
"""Another one, and all maps are computed anew."""

PREFIX = "maps-"
"""How the names of the views' folders begin."""

GIB = 2**30


@dataclass(frozen=True)
class Features:
    """What candidates learn from, and are judged on.

    Attributes:
        spec: Channels and strides of the maps.
        size: Height and width of the network's input in pixels.
        views: Views of the training images.
        val: Validation images, plainly fitted.
    """

    spec: PyramidSpec
    size: tuple[int, int]
    views: tuple[View, ...]
    val: View

    def batches(
        self, first: int, until: int, *, batch_size: int, seed: int, device: torch.device
    ) -> Iterator[tuple[int, MapBatch]]:
        """Steps ``first`` to ``until`` - 1 of a training, each with its batch: a function of ``seed`` and step alone.

        Each image is there once an epoch, and each epoch has the next view.
        """
        sampler = EpochBatchSampler(len(self.views[0]), batch_size, seed=seed, size=self.size)
        step = first
        while step < until:
            epoch, place = divmod(step, len(sampler))
            sampler.start_at(epoch, place)
            for requests in sampler:
                if step == until:
                    return
                view = self.views[epoch % len(self.views)]
                yield step, view.batch([request.index for request in requests], device)
                step += 1

    def val_batches(self, *, batch_size: int, device: torch.device) -> Iterator[tuple[list[int], MapBatch]]:
        """The validation images in their order: rows of the data set, and their batch."""
        for first in range(0, len(self.val), batch_size):
            rows = list(range(first, min(first + batch_size, len(self.val))))
            yield rows, self.val.batch(rows, device)


def cache_features(
    detector: Detector[Any],
    splits: Splits,
    *,
    augmentation: Augmentation,
    views: int,
    sizes: Sequence[int] = (),
    seed: int = 0,
    limit_gb: float = 10.0,
    folder: Path | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    console: Console | None = None,
) -> dict[int, Features]:
    """The maps that the backbone of ``detector`` gives of all images; those that were computed before are found again.

    A view is found by the fingerprint of images, objects, backbone, weights, preprocessing and variation, and only when
    it is whole: after an interruption the same call goes on with the view that was begun.

    Args:
        detector: With the weights of its backbone, on the device to compute on; in evaluation mode afterwards.
        splits: Training and validation images.
        augmentation: How views of the training images are varied: as in a training.
        views: Number of views of each training image.
        sizes: Sides of the network's input in pixels; by default the size that ``detector`` is made for.
        seed: Seed of the variation.
        limit_gb: Size in GiB that ``folder`` may take. Views of other searches, the longest unused first, make room.
        folder: Where views are kept; by default ``features`` in `cache_folder`.
        batch_size: Images at a time.
        workers: Processes that load; by default as many as there are cores for it.
        console: Where to say what is computed, and how far it is; nowhere when none.

    Returns:
        The maps of each size; that of a detector by its height.

    Raises:
        DataError: If there are fewer than two training images, a split has no object, or an image cannot be read.
        PyrafuseError: If the backbone cannot be frozen, or the maps do not fit into ``limit_gb`` or onto the disk;
            nothing half-written is left.
    """
    check_count("views", views, 1)
    check_between("cache_gb", limit_gb, 0)
    check_images(splits)
    check_backbone(detector)
    own = detector.card.preprocessing
    inputs = {size: own.at_size(size) for size in sizes} if sizes else {own.size[0]: own}
    folder = cache_folder() / "features" if folder is None else folder
    console = console or Terminal(quiet=True)
    parts = _list_parts(
        detector,
        splits,
        augmentation,
        tuple(inputs.values()),
        views=views,
        seed=seed,
        batch_size=batch_size,
        workers=default_num_workers() if workers is None else workers,
    )
    num_bytes = sum(part.num_bytes for part in parts)
    what = (
        f"the maps of {len(splits.train)} training images in {counted(views, 'view')} and {len(splits.val)} validation "
        f"images at {' and '.join('{} x {}'.format(*given.size) for given in inputs.values())} px take "
        f"{num_bytes / GIB:.3g} GiB"
    )
    if num_bytes > limit_gb * GIB:
        of_val = sum(part.num_bytes for part in parts if part.is_val)
        fitting = int((limit_gb * GIB - of_val) * views / (num_bytes - of_val))
        room = f"{counted(fitting, 'view')} would fit" if fitting > 0 else "one view would not fit either"
        raise PyrafuseError(
            f"{what}, and cache_gb allows {limit_gb:g}: allow more, or give fewer views ({room}) or smaller sizes"
        )
    missing = [part for part in parts if part.find(folder) is None]
    console.print(f"{what}; {len(missing)} of {counted(len(parts), 'part')} to compute, into {folder}")
    if missing:
        _compute_missing(
            detector, missing, folder, what, rest=int(limit_gb * GIB) - num_bytes, keep=parts, console=console
        )
    found = [view for view in (part.find(folder) for part in parts) if view is not None]
    assert len(found) == len(parts), "each was there, or is written now"
    features = {}
    for number, (side, given) in enumerate(inputs.items()):
        *own_views, val = found[number * (views + 1) : (number + 1) * (views + 1)]
        features[side] = Features(detector.backbone.features, given.size, tuple(own_views), val)
    return features


def check_images(splits: Splits) -> None:
    """Refuse images that nothing can be learnt from, or that no neck can be told from another on.

    Raises:
        DataError: With the reason.
    """
    count = len(splits.train)
    if count < 2:
        raise DataError(
            f"the data have {counted(count, 'training image')}: whichever neck learns a single image by heart would be "
            "the best one; give two or more, better hundreds"
        )
    if not any((~record.crowd).any() for record in splits.train.records):
        raise DataError(
            f"none of the {count} training images has an object to learn: annotate them, or give other data"
        )
    require_objects(splits.val)


def fingerprint_data(data: DetectionData) -> str:
    """32 letters that depend on the content of all image files, the objects and the classes, and not on where they lie.

    Raises:
        DataError: If a file cannot be read.
    """
    digest = blake2b(json.dumps([data.names, len(data)]).encode(), digest_size=16)
    for record in data.records:
        try:
            digest.update(blake2b(read_bytes(record.path)).digest())
        except OSError as error:
            raise DataError(f"{record.path} cannot be read: {error.strerror or error}") from error
        digest.update(json.dumps([record.height, record.width]).encode())
        for values in (record.boxes, record.labels, record.crowd):
            digest.update(values.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Part:
    """One view of a split at one size: the name of its folder, what it holds, and what loads its images in order."""

    name: str
    is_val: bool
    num_images: int
    shapes: Shapes
    preprocessing: Preprocessing
    load: Callable[[], Iterable[Batch]]

    @property
    def num_bytes(self) -> int:
        return 2 * self.num_images * sum(channels * height * width for channels, height, width in self.shapes)

    def find(self, folder: Path) -> View | None:
        """The view, where it is there and whole."""
        path = folder / self.name
        try:
            view = View(path, shapes=self.shapes, num_images=self.num_images, size=self.preprocessing.size)
        except (OSError, ValueError):
            return None
        with suppress(OSError):  # a folder of others, that can be read alone
            os.utime(path)
        return view


def _list_parts(
    detector: Detector[Any],
    splits: Splits,
    augmentation: Augmentation,
    inputs: Sequence[Preprocessing],
    *,
    views: int,
    seed: int,
    batch_size: int,
    workers: int,
) -> list[_Part]:
    """For each of ``inputs`` the views of the training images, then the validation images."""
    spec = detector.card.spec
    assert spec is not None
    backbone = _digest(VERSION, to_plain(spec.backbone), digest_weights(detector.backbone))
    of_train, of_val = fingerprint_data(splits.train), fingerprint_data(splits.val)

    def load_view(preprocessing: Preprocessing, view: int) -> Iterable[Batch]:
        return create_view_loader(
            splits.train,
            preprocessing=preprocessing,
            augmentation=augmentation,
            batch_size=batch_size,
            num_workers=workers,
            seed=seed,
            view=view,
        )

    def load_val(preprocessing: Preprocessing) -> Iterable[Batch]:
        loader = create_eval_loader(splits.val, preprocessing=preprocessing, batch_size=batch_size, num_workers=workers)
        return (batch.batch for batch in loader)

    parts = []
    for given in inputs:
        shapes = find_shapes(detector, given.size)
        for view in range(views):
            name = PREFIX + _digest(backbone, asdict(given), of_train, asdict(augmentation), seed, view)
            parts.append(_Part(name, False, len(splits.train), shapes, given, partial(load_view, given, view)))
        name = PREFIX + _digest(backbone, asdict(given), of_val)
        parts.append(_Part(name, True, len(splits.val), shapes, given, partial(load_val, given)))
    return parts


def _compute_missing(
    detector: Detector[Any],
    missing: Sequence[_Part],
    folder: Path,
    what: str,
    *,
    rest: int,
    keep: Sequence[_Part],
    console: Console,
) -> None:
    """Write the parts that are ``missing``, after views other than those to ``keep`` were reduced to ``rest`` bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        _make_room(folder, keep={part.name for part in keep}, limit=rest)
        _check_disk(folder, what, needed=sum(part.num_bytes for part in missing))
        with create_bar(console) as bar:
            task = bar.add_task("maps of the backbone", total=sum(part.num_images for part in missing))
            for part in missing:
                with _hold(folder, part.name):
                    if part.find(folder) is not None:  # another process has written it meanwhile
                        continue
                    shutil.rmtree(folder / part.name, ignore_errors=True)
                    maps = (compute_maps(detector, batch, part.preprocessing) for batch in part.load())
                    for done in write_view(folder / part.name, maps, shapes=part.shapes, num_images=part.num_images):
                        bar.advance(task, done)
    except OSError as error:
        raise PyrafuseError(
            f"cannot write {folder}: {error.strerror or error}; free space, give fewer views or smaller sizes, or set "
            "PYRAFUSE_CACHE to another place"
        ) from error


def _digest(*values: Any) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _make_room(folder: Path, *, keep: Collection[str], limit: int) -> None:
    """Remove views other than ``keep``, the longest unused first, until the rest of them takes ``limit`` at most."""
    others = [path for path in folder.glob(f"{PREFIX}*") if path.name not in keep]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    taken = 0
    for path in others:
        taken += sum(file.stat().st_size for file in path.iterdir())
        if taken > limit:
            shutil.rmtree(path, ignore_errors=True)


def _check_disk(folder: Path, what: str, *, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PyrafuseError(
            f"{what}, of which {needed / GIB:.3g} GiB are still to be written, and the disk of {folder} has "
            f"{free / GIB:.3g} GiB left: free space, give fewer views or smaller sizes, or set PYRAFUSE_CACHE to "
            "another place"
        )


@contextmanager
def _hold(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process writes the view ``name``, and keep others waiting."""
    lock = FileLock(folder / f".{name}.lock")
    lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: who waits sees that the file is gone, and makes a new one
            Path(lock.lock_file).unlink()
        lock.release()
