"""Maps of a frozen backbone, computed once and found again: views of the training images, and the validation images.

detector, data, variation -> fingerprints -> what is missing is computed -> `Features` -> batches of maps
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from torch import nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.base.errors import DataError, PyrafuseError, check_between, check_count
from pyrafuse.base.folders import cache_folder
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.locking import remove_leftovers
from pyrafuse.base.parts import Part, to_plain
from pyrafuse.base.printable import counted
from pyrafuse.base.records import DetectionData
from pyrafuse.base.terminal import Terminal
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.core.targets import Batch
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.loading.batching import EpochBatchSampler
from pyrafuse.data.loading.loaders import create_eval_loader, create_view_loader, default_num_workers
from pyrafuse.evaluation.collecting import require_objects
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import NECKS
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
        num_bytes: Size of all maps on disk.
        num_computed: Views, the validation images' too, that were not there yet.
    """

    spec: PyramidSpec
    size: tuple[int, int]
    views: tuple[View, ...]
    val: View
    num_bytes: int
    num_computed: int

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
    seed: int = 0,
    limit_gb: float = 10.0,
    folder: Path | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    console: Console | None = None,
) -> Features:
    """The maps that the backbone of ``detector`` gives of all images; those that were computed before are found again.

    A view is found by the fingerprint of images, objects, backbone, weights, preprocessing and variation, and only when
    it is whole: after an interruption the same call goes on with the view that was begun.

    Args:
        detector: With the weights of its backbone, on the device to compute on; in evaluation mode afterwards.
        splits: Training and validation images.
        augmentation: How views of the training images are varied: as in a training.
        views: Number of views of each training image.
        seed: Seed of the variation.
        limit_gb: Size in GiB that ``folder`` may take. Views of other searches, the longest unused first, make room.
        folder: Where views are kept; by default ``features`` in `cache_folder`.
        batch_size: Images at a time.
        workers: Processes that load; by default as many as there are cores for it.
        console: Where to say what is computed, and how far it is; nowhere when none.

    Raises:
        DataError: If there are fewer than two training images, a split has no object, or an image cannot be read.
        PyrafuseError: If the backbone cannot be frozen, or the maps do not fit into ``limit_gb`` or onto the disk;
            nothing half-written is left.
    """
    check_count("views", views, 1)
    check_between("cache_gb", limit_gb, 0)
    check_images(splits)
    check_backbone(detector)
    folder = cache_folder() / "features" if folder is None else folder
    console = console or Terminal(quiet=True)
    shapes, size = _find_shapes(detector), detector.card.preprocessing.size
    parts = _list_parts(detector, splits, augmentation, views=views, seed=seed, batch_size=batch_size, workers=workers)
    per_image = 2 * sum(channels * height * width for channels, height, width in shapes)
    num_bytes = per_image * sum(part.num_images for part in parts)
    what = (
        f"the maps of {len(splits.train)} training images in {counted(views, 'view')} and {len(splits.val)} validation "
        f"images at {size[0]} x {size[1]} px take {num_bytes / GIB:.3g} GiB"
    )
    if num_bytes > limit_gb * GIB:
        fitting = int((limit_gb * GIB / per_image - len(splits.val)) / len(splits.train))
        room = f"{counted(fitting, 'view')} would fit" if fitting > 0 else "one view would not fit either"
        raise PyrafuseError(
            f"{what}, and cache_gb allows {limit_gb:g}: allow more, or give fewer views ({room}) or a smaller size"
        )

    def find(part: _Part) -> View | None:
        try:
            view = View(folder / part.name, shapes=shapes, num_images=part.num_images, size=size)
            os.utime(folder / part.name)
        except (OSError, ValueError):
            return None
        return view

    missing = [part for part in parts if find(part) is None]
    console.print(f"{what}; {len(missing)} of {counted(len(parts), 'part')} to compute, into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        _make_room(folder, keep={part.name for part in parts}, limit=int(limit_gb * GIB) - num_bytes)
        _check_disk(folder, what, needed=per_image * sum(part.num_images for part in missing))
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("maps of the backbone", total=sum(part.num_images for part in missing))
            for part in missing:
                with _hold(folder, part.name):
                    if find(part) is not None:  # another process has written it meanwhile
                        continue
                    shutil.rmtree(folder / part.name, ignore_errors=True)
                    maps = (_compute_maps(detector, batch) for batch in part.load())
                    for done in write_view(folder / part.name, maps, shapes=shapes, num_images=part.num_images):
                        bar.advance(task, done)
    except OSError as error:
        raise PyrafuseError(
            f"cannot write {folder}: {error.strerror or error}; free space, give fewer views or a smaller size, or set "
            "PYRAFUSE_CACHE to another place"
        ) from error
    found = [view for view in map(find, parts) if view is not None]
    assert len(found) == len(parts), "each was there, or is written now"
    return Features(detector.backbone.features, size, tuple(found[:-1]), found[-1], num_bytes, len(missing))


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


def check_backbone(detector: Detector[Any]) -> None:
    """Refuse a detector whose backbone cannot be frozen, or whose maps do not lie in one array.

    Raises:
        PyrafuseError: With the reason.
    """
    spec = detector.card.spec
    if spec is None:
        raise PyrafuseError(
            "this detector was put together by hand: a search needs one that `build` made of a description"
        )
    entry = BACKBONES.entry(spec.backbone.name)
    if NECKS in {**entry.parts, **entry.makers}.values():
        trunk = spec.backbone.options.get("backbone")
        other = f", such as {trunk.name}" if isinstance(trunk, Part) else ""
        raise PyrafuseError(
            f"the backbone {spec.backbone.name} holds a neck that feeds back into it, which a search would freeze and "
            f"not replace: give another backbone{other}"
        )
    if detector.card.preprocessing.fit == "keep_ratio":
        raise PyrafuseError(
            "fit keep_ratio gives each image maps of another size, and cached maps have one: search with fit letterbox"
        )


def fingerprint_data(data: DetectionData) -> str:
    """32 letters that depend on the content of all image files, the objects and the classes, and not on where they lie.

    Raises:
        DataError: If a file cannot be read.
    """
    digest = blake2b(json.dumps([data.names, len(data)]).encode(), digest_size=16)
    for record in data.records:
        try:
            digest.update(blake2b(record.path.read_bytes()).digest())
        except OSError as error:
            raise DataError(f"{record.path} cannot be read: {error.strerror or error}") from error
        digest.update(json.dumps([record.height, record.width]).encode())
        for values in (record.boxes, record.labels, record.crowd):
            digest.update(values.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Part:
    """One view: the name of its folder, and what loads its images in order."""

    name: str
    num_images: int
    load: Callable[[], Iterable[Batch]]


def _list_parts(
    detector: Detector[Any],
    splits: Splits,
    augmentation: Augmentation,
    *,
    views: int,
    seed: int,
    batch_size: int,
    workers: int | None,
) -> list[_Part]:
    """The views of the training images, then the validation images."""
    preprocessing, spec = detector.card.preprocessing, detector.card.spec
    assert spec is not None
    num_workers = default_num_workers() if workers is None else workers
    backbone = _digest(VERSION, to_plain(spec.backbone), _digest_weights(detector.backbone), asdict(preprocessing))
    of_train, of_val = fingerprint_data(splits.train), fingerprint_data(splits.val)

    def load_view(view: int) -> Iterable[Batch]:
        return create_view_loader(
            splits.train,
            preprocessing=preprocessing,
            augmentation=augmentation,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            view=view,
        )

    def load_val() -> Iterable[Batch]:
        loader = create_eval_loader(
            splits.val, preprocessing=preprocessing, batch_size=batch_size, num_workers=num_workers
        )
        return (batch.batch for batch in loader)

    names = [PREFIX + _digest(backbone, of_train, asdict(augmentation), seed, view) for view in range(views)]
    parts = [_Part(name, len(splits.train), partial(load_view, view)) for view, name in enumerate(names)]
    return [*parts, _Part(PREFIX + _digest(backbone, of_val), len(splits.val), load_val)]


def _digest(*values: Any) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _digest_weights(module: nn.Module) -> str:
    digest = blake2b(digest_size=16)
    for name, values in module.state_dict().items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.inference_mode()
def _find_shapes(detector: Detector[Any]) -> Shapes:
    """Shapes of the maps of one image; a backbone that gives others the next time is refused.

    Raises:
        PyrafuseError: If the maps are not as the backbone describes them, or differ.
    """
    detector.eval()
    backbone, size = detector.backbone, detector.card.preprocessing.size
    backbone.check_size(*size)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(detector.device)
    first, second = backbone(images), backbone(images)
    name = detector.card.spec.backbone.name if detector.card.spec else type(backbone).__name__
    if any(not torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(first, second, strict=True)):
        raise PyrafuseError(
            f"the backbone {name} cannot be frozen: it gives other maps of the same image each time, in evaluation "
            "mode too; give another backbone"
        )
    if tuple(level.shape[1] for level in first) != backbone.features.channels:
        raise PyrafuseError(
            f"the backbone {name} describes maps of {backbone.features.channels} channels, and gives "
            f"{tuple(level.shape[1] for level in first)}"
        )
    return tuple((level.shape[1], level.shape[2], level.shape[3]) for level in first)


@torch.inference_mode()
def _compute_maps(detector: Detector[Any], batch: Batch) -> tuple[Pyramid, Batch]:
    images = normalize(detector.card.preprocessing, batch.images.to(detector.device, non_blocking=True), batch.sizes)
    return detector.backbone(images.contiguous(memory_format=torch.channels_last)), batch


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
            f"{free / GIB:.3g} GiB left: free space, give fewer views or a smaller size, or set PYRAFUSE_CACHE to "
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
