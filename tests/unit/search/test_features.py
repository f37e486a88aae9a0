"""Cached maps of a frozen backbone: what is computed, found again, and refused."""

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.data.loading.loaders import create_eval_loader, create_train_loader, create_view_loader
from pyrafuse.models.building import build
from pyrafuse.models.describing import describe
from pyrafuse.search import features as features_module
from pyrafuse.search.features import cache_features, fingerprint_data
from pyrafuse.search.frozen import check_backbone
from pyrafuse.search.views import write_view

CPU = torch.device("cpu")
SIZE = 64
PER_IMAGE = 2 * (8 * 8 * 16 + 4 * 4 * 32 + 2 * 2 * 64)
"""Bytes of the maps of one image: a ResNet of width 8 at strides 8, 16 and 32."""


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> Splits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRAFUSE_CACHE", str(tmp_path_factory.mktemp("shapes")))
        return read_splits(f"shapes:train=6,val=4,size={SIZE}")


@pytest.fixture
def detector():
    torch.manual_seed(0)
    spec = describe("atss", backbone={"name": "resnet18", "width": 8}, neck={"name": "fpn", "out_channels": 16})
    detector = build(replace(spec, num_classes=5))
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(SIZE, SIZE)))
    return detector


@pytest.fixture
def written(monkeypatch):
    """Folders of the views that were computed since it was cleared."""
    folders = []
    monkeypatch.setattr(
        features_module,
        "write_view",
        lambda folder, *rest, **options: folders.append(folder) or write_view(folder, *rest, **options),
    )
    return folders


@pytest.fixture
def cache(detector, splits, tmp_path, written):
    def cache(**changes):
        written.clear()
        options = {"augmentation": Augmentation.light(), "views": 2, "folder": tmp_path / "maps", "workers": 0}
        found = cache_features(detector, changes.pop("splits", splits), **{**options, **changes})
        return found if "sizes" in changes else next(iter(found.values()))

    return cache


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "maps").iterdir())


def test_maps_are_those_of_the_backbone_and_boxes_move_with_the_views(cache, detector, splits, written):
    features = cache(batch_size=4, seed=3)
    assert len(written) == 3
    seen = []
    for view in range(2):
        loader = create_view_loader(
            splits.train, preprocessing=detector.card.preprocessing, augmentation=Augmentation.light(),
            batch_size=6, num_workers=0, seed=3, view=view,
        )  # fmt: skip
        (batch,) = loader
        with torch.no_grad():
            expected = detector.backbone(normalize(detector.card.preprocessing, batch.images))
        found = features.views[view].batch(range(6), CPU)
        for ours, theirs in zip(found.maps, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
            assert ours.is_contiguous(memory_format=torch.channels_last)
            assert ours.dtype == torch.float32
        for name in ("boxes", "labels", "weights", "valid", "crowd"):
            assert torch.equal(getattr(found.targets, name), getattr(batch.targets, name))
        assert found.targets.sizes is None
        seen.append(batch.targets.boxes)
    assert seen[0].shape != seen[1].shape or not torch.equal(*seen)


def test_rows_come_in_the_order_that_is_asked_for_and_padding_ends_with_the_most_objects(cache, splits):
    val = cache().val
    counts = [len(record.labels) for record in splits.val.records]
    both = val.batch([3, 1], CPU)
    assert both.targets.valid.sum(dim=1).tolist() == [counts[3], counts[1]]
    assert both.targets.boxes.shape == (2, max(counts[3], counts[1]), 4)
    np.testing.assert_allclose(both.targets.boxes[1, : counts[1]], splits.val.records[1].boxes, atol=1e-4)
    assert torch.equal(both.maps[2][0], val.batch([3], CPU).maps[2][0])


def test_an_epoch_has_each_image_once_and_the_next_epoch_has_the_next_view(cache, splits, detector):
    features = cache()
    batches = dict(features.batches(0, 9, batch_size=2, seed=5, device=CPU))
    assert list(batches) == list(range(9))
    loader = create_train_loader(
        splits.train, preprocessing=detector.card.preprocessing, augmentation=Augmentation.none(), batch_size=2,
        num_workers=0, seed=5,
    )  # fmt: skip
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        for place, requests in enumerate(loader.batch_sampler):
            rows = [request.index for request in requests]
            expected = features.views[epoch % 2].batch(rows, CPU)
            assert torch.equal(batches[3 * epoch + place].maps[0], expected.maps[0])
            assert torch.equal(batches[3 * epoch + place].targets.boxes, expected.targets.boxes)
    for step, batch in features.batches(4, 9, batch_size=2, seed=5, device=CPU):
        assert torch.equal(batch.maps[0], batches[step].maps[0])


def test_the_next_run_finds_what_is_there_and_more_views_add_to_it(cache, tmp_path, written):
    cache(views=1)
    first = {path.name: path.stat().st_ino for path in (tmp_path / "maps").iterdir()}
    cache(views=1)
    assert written == []
    assert {path.name: path.stat().st_ino for path in (tmp_path / "maps").iterdir()} == first
    cache(views=3)
    assert len(written) == 2
    assert set(first) < set(folders(tmp_path))
    assert len(folders(tmp_path)) == 4


@pytest.mark.parametrize(
    ("change", "num_computed"),
    [
        ({"seed": 1}, 2),
        ({"augmentation": Augmentation.none()}, 2),
        ({"weights": 1}, 3),
        ({"preprocessing": {"std": (0.5, 0.5, 0.5)}}, 3),
        ({"preprocessing": {"size": (96, 64)}}, 3),
        ({"boxes": 1}, 2),
        ({"pixels": 1}, 2),
    ],
)
def test_what_differs_is_computed_anew(cache, detector, splits, tmp_path, written, change, num_computed):
    cache()
    change = dict(change)
    if change.pop("weights", None):
        with torch.no_grad():
            next(detector.backbone.parameters()).mul_(1.001)
    if preprocessing := change.pop("preprocessing", None):
        detector.card = replace(detector.card, preprocessing=replace(detector.card.preprocessing, **preprocessing))
    record, *others = splits.train.records
    if change.pop("boxes", None):
        record = replace(record, boxes=record.boxes + np.float32(0.5))
    if change.pop("pixels", None):
        copy = tmp_path / "other.png"
        shutil.copy(splits.train.records[1].path, copy)
        record = replace(record, path=copy)
    changed = replace(splits, train=replace(splits.train, records=(record, *others)))
    cache(splits=changed, **change)
    assert len(written) == num_computed


def test_where_the_images_lie_does_not_matter(splits, tmp_path):
    for record in splits.train.records:
        shutil.copy(record.path, tmp_path)
    moved = tuple(replace(record, path=tmp_path / record.path.name) for record in splits.train.records)
    assert fingerprint_data(replace(splits.train, records=moved)) == fingerprint_data(splits.train)
    assert fingerprint_data(replace(splits.train, records=moved[::-1])) != fingerprint_data(splits.train)
    assert fingerprint_data(replace(splits.train, names=("a", *splits.train.names[1:]))) != fingerprint_data(
        splits.train
    )


def test_a_damaged_file_is_computed_anew(cache, written):
    features = cache()
    whole = [level.clone() for level in features.views[0].batch(range(6), CPU).maps]
    os.truncate(features.views[0].folder / "map1.npy", 500)
    again = cache()
    assert len(written) == 1
    assert all(map(torch.equal, again.views[0].batch(range(6), CPU).maps, whole))


def test_pickled_objects_in_a_file_are_not_read(cache, written):
    folder = cache().views[0].folder
    np.save(folder / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    cache()
    assert len(written) == 1


def test_a_full_disk_leaves_nothing_half_written(cache, full_disk, tmp_path, written):
    cache(views=1)
    before = folders(tmp_path)
    with (
        full_disk(8000),
        pytest.raises(PyrafuseError, match=r"cannot write .*maps: File too large; free space, give fewer"),
    ):
        cache(views=2)
    assert folders(tmp_path) == before
    cache(views=2)
    assert len(written) == 1


def test_an_interrupt_keeps_the_views_that_are_whole(cache, tmp_path, monkeypatch, written):
    compute, done = features_module.compute_maps, []

    def compute_some(*args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return compute(*args)

    monkeypatch.setattr(features_module, "compute_maps", compute_some)
    with pytest.raises(KeyboardInterrupt):
        cache(batch_size=3)
    assert len(folders(tmp_path)) == 1
    monkeypatch.setattr(features_module, "compute_maps", compute)
    cache(batch_size=3)
    assert len(written) == 2


def test_what_a_killed_process_left_is_removed(cache, tmp_path):
    left = tmp_path / "maps" / ".maps-0.999999999.part"
    left.mkdir(parents=True)
    (left / "map0.npy").write_bytes(b"0")
    cache()
    assert not left.exists()


def test_the_limit_is_told_before_anything_is_written(cache, tmp_path):
    needed = 16 * PER_IMAGE / 2**30
    message = (
        r"the maps of 6 training images in 2 views and 4 validation images at 64 x 64 px take 5.34e-05 GiB, and "
        r"cache_gb allows 4e-05: allow more, or give fewer views \(1 view would fit\) or smaller sizes"
    )
    assert f"{needed:.3g}" == "5.34e-05"
    with pytest.raises(PyrafuseError, match=message):
        cache(limit_gb=4e-5)
    with pytest.raises(PyrafuseError, match="one view would not fit either"):
        cache(limit_gb=1e-6)
    assert not (tmp_path / "maps").exists()


def test_views_of_other_searches_make_room_the_longest_unused_first(cache, tmp_path):
    older, newer = (cache(views=1, seed=seed).views[0].folder for seed in (1, 2))
    os.utime(older, (1, 1))
    a_view = sum(file.stat().st_size for file in newer.iterdir())
    cache(views=1, seed=3, limit_gb=(10 * PER_IMAGE + a_view) / 2**30)
    assert not older.exists()
    assert newer.exists()
    assert len(folders(tmp_path)) == 3


def test_too_little_space_is_told_before_anything_is_written(cache, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PyrafuseError, match=r"the disk of .*maps has 9.31e-07 GiB left: free space, give fewer views"):
        cache()
    assert folders(tmp_path) == []


def test_a_folder_that_cannot_be_written(cache, tmp_path):
    (tmp_path / "maps").write_text("a file")
    with pytest.raises(PyrafuseError, match=r"cannot write .*maps: File exists; free space"):
        cache()


def with_train(splits, records):
    return replace(splits, train=replace(splits.train, records=tuple(records)))


def test_images_that_nothing_can_be_learnt_from(cache, splits):
    first, *others = splits.train.records
    with pytest.raises(DataError, match=r"the data have 1 training image: .* give two or more"):
        cache(splits=with_train(splits, [first]))
    empty = replace(first, boxes=first.boxes[:0], labels=first.labels[:0], crowd=first.crowd[:0], areas=first.areas[:0])
    with pytest.raises(DataError, match="none of the 2 training images has an object to learn"):
        cache(splits=with_train(splits, [empty, empty]))
    with pytest.raises(DataError, match="cannot be evaluated on"):
        cache(splits=replace(splits, val=replace(splits.val, records=(empty,))))
    gone = replace(first, path=first.path.with_name("gone.png"))
    with pytest.raises(DataError, match=r"gone.png cannot be read: No such file"):
        cache(splits=with_train(splits, [gone, *others]))


def test_images_without_objects_are_among_others(cache, splits):
    first, *others = splits.train.records
    empty = replace(first, boxes=first.boxes[:0], labels=first.labels[:0], crowd=first.crowd[:0], areas=first.areas[:0])
    targets = cache(splits=with_train(splits, [empty, *others])).views[0].batch([0], CPU).targets
    assert targets.boxes.shape == (1, 0, 4)
    assert targets.valid.shape == (1, 0)


def test_a_letterbox_tells_what_each_image_takes_up(cache, detector, splits):
    letterbox = Preprocessing(size=(SIZE, 96), fit="letterbox")
    detector.card = replace(detector.card, preprocessing=letterbox)
    val = cache().val.batch([0, 2], CPU)
    (batch,) = create_eval_loader(splits.val, preprocessing=letterbox, batch_size=4, num_workers=0)
    assert val.sizes == ((64, 64), (64, 64))
    assert torch.equal(val.targets.sizes, batch.batch.targets.sizes[:2])


def test_backbones_that_cannot_be_frozen_are_refused_by_name(cache, detector, monkeypatch):
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(SIZE, SIZE), fit="keep_ratio"))
    with pytest.raises(PyrafuseError, match="fit keep_ratio gives each image maps of another size"):
        cache()
    detector.card = replace(detector.card, preprocessing=Preprocessing(size=(SIZE, SIZE)))
    forward = detector.backbone.forward
    monkeypatch.setattr(detector.backbone, "forward", lambda x: tuple(m + torch.rand(()) for m in forward(x)))
    with pytest.raises(PyrafuseError, match="the backbone resnet18 cannot be frozen: it gives other maps"):
        cache()
    monkeypatch.setattr(detector.backbone, "forward", lambda x: tuple(1e6 + m for m in forward(x)))
    with pytest.raises(DataError, match=r"numbers up to 1e\+06, and maps are kept in fp16, which ends at 65504"):
        cache()
    monkeypatch.setattr(detector.backbone, "forward", lambda x: (*forward(x)[:2], forward(x)[2][:, :5]))
    with pytest.raises(PyrafuseError, match=r"describes maps of \(16, 32, 64\) channels, and gives \(16, 32, 5\)"):
        cache()


def test_a_backbone_that_holds_a_neck_is_refused_by_name():
    with torch.device("meta"):
        detector = build(describe("atss", backbone="recursive_fpn", neck="identity"))
    with pytest.raises(
        PyrafuseError, match=r"the backbone recursive_fpn holds a neck .* another backbone, such as resnet50"
    ):
        check_backbone(detector)


def test_two_processes_write_a_view_once(cache, tmp_path, monkeypatch):
    waits = []

    def let_another_one_write(folder, name):
        if not waits:
            waits.append(name)
            cache()  # clears `written`
        return nullcontext()

    monkeypatch.setattr(features_module, "_hold", let_another_one_write)
    features = cache()
    assert len(folders(tmp_path)) == 3
    assert len(features.views) == 2


def test_sizes_share_the_limit_and_none_takes_the_room_of_another(cache, detector, tmp_path, written):
    with pytest.raises(
        PyrafuseError, match=r"at 64 x 64 and 96 x 96 px take 0.000174 GiB, and .* \(1 view would fit\)"
    ):
        cache(sizes=(64, 96), limit_gb=1.3e-4)
    both = cache(sizes=(64, 96), limit_gb=1.8e-4)
    assert {side: features.size for side, features in both.items()} == {64: (64, 64), 96: (96, 96)}
    assert len(folders(tmp_path)) == len(written) == 6
    assert [level.shape[2:] for level in both[96].val.batch([0], CPU).maps] == [(12, 12), (6, 6), (3, 3)]
    only = cache(sizes=(64,))[64]
    assert written == []
    assert torch.equal(only.views[1].batch([4], CPU).maps[0], both[64].views[1].batch([4], CPU).maps[0])


def test_a_folder_that_can_only_be_read(cache, tmp_path, written, monkeypatch):
    cache()
    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError("read-only")))
    assert len(cache().views) == 2
    assert written == []
