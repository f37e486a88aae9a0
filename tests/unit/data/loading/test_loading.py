import multiprocessing
import os
import pickle
import signal
import threading
import time
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.fitting import Fit
from pyrafuse.base.images.reading import read_image
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.images.caching import ImageCache
from pyrafuse.data.images.fitting import fit_image
from pyrafuse.data.loading.batching import EpochBatchSampler, create_generator
from pyrafuse.data.loading.loaders import (
    collate,
    create_eval_loader,
    create_train_loader,
    default_num_workers,
)

SMALL = Preprocessing(size=(32, 48))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven images of different sizes; the i-th holds i objects, the first of them a crowd."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    records = []
    for i in range(7):
        height, width = 40 + 3 * i, 60 - 2 * i
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        corners = rng.uniform(0, 20, (i, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 20, (i, 2))], axis=1).astype(np.float32)
        records.append(
            ImageRecord(path, 100 + i, width, height, boxes, np.arange(i), np.arange(i) < 1, np.ones(i, np.float32))
        )
    return DetectionData(tuple(records), ("thing",) * 7, tuple(range(7)), "coco", "train")


def train_loader(data, **options):
    options = {"batch_size": 4, "num_workers": 0, "seed": 3, **options}
    return create_train_loader(data, preprocessing=SMALL, augmentation=Augmentation(mosaic_probability=0.3), **options)


def content(batch):
    """Every tensor of a batch as plain values."""
    tensors = {f.name: getattr(batch.targets, f.name) for f in fields(batch.targets)}
    targets = {name: None if values is None else values.tolist() for name, values in tensors.items()}
    return batch.images.shape, batch.images.numpy().tobytes(), targets, batch.indices.tolist()


def epochs_of(loader, epochs):
    batches = []
    for epoch in epochs:
        loader.batch_sampler.set_epoch(epoch)
        batches.append([content(batch) for batch in loader])
    return batches


def sampler_of(**options):
    return EpochBatchSampler(**{"num_images": 7, "batch_size": 4, "seed": 3, **options})


def test_an_epoch_holds_every_image_and_is_filled_up_from_its_beginning():
    first, second = list(sampler_of())
    assert sorted([r.index for r in first + second][:7]) == list(range(7))
    assert second[3].index == first[0].index
    assert [r.position for r in first + second] == list(range(8))


def test_a_last_batch_can_be_left_out():
    assert [len(batch) for batch in sampler_of(drop_last=True)] == [4]
    assert len(sampler_of(drop_last=True)) == 1


def test_a_batch_larger_than_the_data_repeats_it():
    (batch,) = sampler_of(num_images=3, batch_size=8, shuffle=False)
    assert [r.index for r in batch] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_without_shuffling_the_order_is_the_data_sets():
    assert [[r.index for r in batch] for batch in sampler_of(shuffle=False)] == [[0, 1, 2, 3], [4, 5, 6, 0]]


def test_each_epoch_and_seed_has_its_own_order():
    def order(epoch, seed):
        sampler = sampler_of(num_images=100, batch_size=100, seed=seed)
        sampler.set_epoch(epoch)
        return tuple(r.index for r in next(iter(sampler)))

    assert len({order(epoch, seed) for epoch in range(4) for seed in range(4)}) == 16
    assert order(2, 1) == order(2, 1)


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_together_see_the_batches_of_one(world_size):
    options = {"num_images": 50, "batch_size": 8, "sizes": ((32, 32), (64, 64), (96, 96)), "change_every": 2}
    whole = sampler_of(**options)
    parts = [sampler_of(rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for sampler in (whole, *parts):
        sampler.set_epoch(5)
    assert all(len(part) == len(whole) for part in parts)
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {len(share) for share in shares} == {8 // world_size}
        assert [request for share in shares for request in share] == batch


def test_sizes_change_every_few_batches_and_end():
    sizes = ((32, 32), (64, 64), (96, 96))
    sampler = sampler_of(num_images=600, batch_size=2, size=(80, 80), sizes=sizes, change_every=10, scale_epochs=2)

    def drawn(epoch):
        sampler.set_epoch(epoch)
        return [{r.size for r in batch} for batch in sampler]

    assert all(len(batch) == 1 for batch in drawn(0))
    blocks = [set.union(*drawn(0)[i : i + 10]) for i in range(0, 300, 10)]
    assert all(len(block) == 1 for block in blocks)
    assert set.union(*blocks) == set(sizes)
    assert drawn(0) != drawn(1)
    assert set.union(*drawn(2)) == {(80, 80)}


def test_an_epoch_can_be_continued_in_the_middle():
    sampler = sampler_of(num_images=20)
    sampler.set_epoch(1)
    whole = list(sampler)
    sampler.start_at(1, 3)
    assert list(sampler) == whole[3:]
    assert len(sampler) == 5
    sampler.set_epoch(1)  # a training loop says so again
    assert list(sampler) == whole[3:]
    sampler.set_epoch(2)
    assert len(list(sampler)) == 5


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(
        PyrafuseError, match="batch of 5 images cannot be shared by 2 processes; choose a multiple of 2"
    ):
        sampler_of(batch_size=5, world_size=2)
    with pytest.raises(PyrafuseError, match="3 images are not one batch of 4"):
        sampler_of(num_images=3, drop_last=True)
    with pytest.raises(PyrafuseError, match="0 images are not one batch"):
        sampler_of(num_images=0)


def test_streams_differ_even_by_a_trailing_zero():
    draws = {create_generator(1, *key).random() for key in [(0, 2), (0, 2, 0), (0, 2, 0, 0), (1, 2), (0, 0, 2)]}
    assert len(draws) == 5


def test_batches_depend_on_seed_epoch_and_place_alone(data):
    in_this_process = epochs_of(train_loader(data), [0, 1, 2])
    in_workers = epochs_of(train_loader(data, num_workers=2), [0, 1, 2])
    assert in_workers == in_this_process
    assert epochs_of(train_loader(data), [2]) == in_this_process[2:]
    assert epochs_of(train_loader(data, seed=4), [0]) != in_this_process[:1]
    assert in_this_process[0] != in_this_process[1]


def test_loading_leaves_the_random_numbers_of_training_alone(data):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    epochs_of(train_loader(data), [0])
    assert torch.rand(1) == expected


def test_two_processes_load_what_one_does(data):
    options = {"sizes": (32, 64), "change_every": 1}
    whole = list(train_loader(data, **options))
    parts = [list(train_loader(data, rank=rank, world_size=2, **options)) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert torch.equal(torch.cat([share.indices for share in shares]), batch.indices)
        valid = torch.cat([share.targets.boxes[share.targets.valid] for share in shares])
        assert torch.equal(valid, batch.targets.boxes[batch.targets.valid])
    assert {batch.images.shape[-1] for batch in whole} <= {32, 64}


def test_a_training_batch_is_what_its_records_say(data):
    loader = create_train_loader(
        data, preprocessing=SMALL, augmentation=Augmentation.none(), batch_size=7, num_workers=0, seed=0
    )
    (batch,) = loader
    assert batch.images.shape == (7, 3, 32, 48)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert sorted(batch.indices.tolist()) == list(range(7))
    for row, index in enumerate(batch.indices.tolist()):
        record = data.records[index]
        image, fit = fit_image(read_image(record.path), SMALL)
        assert (batch.images[row].int() - image.int()).abs().max() <= 1  # torch resizes what is trained on
        assert batch.sizes[row] == fit.size
        assert torch.equal(batch.targets.boxes[row, :index], torch.from_numpy(fit.to_network(record.boxes)))
        assert batch.targets.labels[row, :index].tolist() == list(range(index))
        assert batch.targets.weights[row].tolist() == [1] * index + [0] * (6 - index)
        assert batch.targets.crowd[row].nonzero().flatten().tolist() == ([0] if index else [])
        assert batch.targets.valid[row].sum() == max(0, index - 1)


def test_mixing_ends(data):
    def weights(epoch):
        augmentation = replace(Augmentation.none(), mixup_probability=1)
        loader = create_train_loader(
            data, preprocessing=SMALL, augmentation=augmentation, batch_size=7, num_workers=0, seed=0, mix_epochs=1
        )
        loader.batch_sampler.set_epoch(epoch)
        (batch,) = loader
        return set(batch.targets.weights[batch.targets.valid].tolist())

    assert max(weights(0)) < 1
    assert weights(1) == {1}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_cache_changes_nothing_and_reads_once(data, num_workers, tmp_path):
    copies = []
    for record in data.records:
        copies.append(replace(record, path=tmp_path / record.path.name))
        copies[-1].path.write_bytes(record.path.read_bytes())
    loader = train_loader(replace(data, records=tuple(copies)), cache_mb=1, num_workers=num_workers)
    assert epochs_of(loader, [0]) == epochs_of(train_loader(data), [0])
    for record in copies:
        record.path.unlink()
    assert epochs_of(loader, [1]) == epochs_of(train_loader(data), [1])


def test_a_cache_keeps_large_images_small(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (400, 200), (10, 200, 30)).save(path)
    box = np.array([[100, 50, 200, 150]], np.float32)
    record = ImageRecord(path, 0, 400, 200, box, np.zeros(1, int), np.zeros(1, bool), np.ones(1, np.float32))
    loader = create_train_loader(
        DetectionData((record,), ("a",), (0,), "coco", "train"),
        preprocessing=SMALL, augmentation=Augmentation.none(), batch_size=1, num_workers=0, seed=0, cache_mb=1,
    )  # fmt: skip
    assert loader.dataset._sizes == [(48, 96)]
    (batch,) = loader
    assert batch.targets.boxes.tolist() == [[[12, 8, 24, 24]]]


def test_a_cache_holds_what_fits():
    sizes = [(512, 512), (300, 400), (10, 10)]
    cache = ImageCache(sizes, budget_mb=1)  # 768 KiB, then 352 KiB more
    assert len(cache) == 1
    assert len(ImageCache(sizes, 2)) == 3
    assert len(ImageCache(sizes, 0)) == 0
    reads = []

    def read(index):
        reads.append(index)
        return np.full((*sizes[index], 3), index + 7, np.uint8)

    for _ in range(2):
        for index in range(3):
            assert np.array_equal(cache.get(index, lambda i=index: read(i)), np.full((*sizes[index], 3), index + 7))
    assert reads == [0, 1, 2, 1, 2]
    copy = pickle.loads(pickle.dumps(cache))  # to a spawned worker
    copy.get(0, lambda: read(0))
    assert reads[-1] == 0


def test_evaluation_sees_each_image_once_in_order(data):
    batches = list(create_eval_loader(data, preprocessing=SMALL, batch_size=3, num_workers=0))
    assert [b.batch.indices.tolist() for b in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    for index in range(7):
        record, batch, row = data.records[index], batches[index // 3], index % 3
        image, fit = fit_image(read_image(record.path), SMALL)
        assert torch.equal(batch.batch.images[row], image)
        assert batch.batch.sizes[row] == fit.size
        assert batch.fits[row] == fit == Fit(48 / record.width, 32 / record.height, record.height, record.width)
        found = batch.fits[row].to_image(batch.batch.targets.boxes[row, :index])
        assert torch.allclose(found, torch.from_numpy(record.boxes), atol=1e-4)


def test_evaluation_is_shared_without_repeats(data):
    loaders = [
        create_eval_loader(data, preprocessing=SMALL, batch_size=2, num_workers=0, rank=rank, world_size=2)
        for rank in range(2)
    ]
    assert [[b.batch.indices.tolist() for b in loader] for loader in loaders] == [[[0, 2], [4, 6]], [[1, 3], [5]]]


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "keep_ratio"])
def test_a_cache_changes_nothing_in_evaluation(data, fit):
    preprocessing = replace(SMALL, fit=fit)
    plain = create_eval_loader(data, preprocessing=preprocessing, batch_size=3, num_workers=0)
    cached = create_eval_loader(data, preprocessing=preprocessing, batch_size=3, num_workers=2, cache_mb=1)
    expected = [(content(b.batch), b.fits) for b in plain]
    for _ in range(2):
        assert [(content(b.batch), b.fits) for b in cached] == expected


def failure_of(loader):
    batches = iter(loader)
    with pytest.raises(DataError) as caught:
        list(batches)
    if loader.num_workers:
        batches._shutdown_workers()  # left to the garbage collector, an iterator that failed takes five seconds
    return str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(data, num_workers, tmp_path):
    path = tmp_path / "gone.jpg"
    records = (*data.records[:6], replace(data.records[6], path=path))
    loader = train_loader(replace(data, records=records), num_workers=num_workers, batch_size=8)
    assert failure_of(loader) == f"no such image: {path}"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_of_another_size_is_named(data, num_workers):
    records = (replace(data.records[0], width=61), *data.records[1:])
    loader = create_eval_loader(
        replace(data, records=records), preprocessing=SMALL, batch_size=7, num_workers=num_workers
    )
    assert failure_of(loader) == (
        f"{data.records[0].path} has 60 x 40 pixels, its annotation says 61 x 40; "
        "correct the annotation or replace the image"
    )


@pytest.mark.parametrize(("cores", "processes", "expected"), [(1, 1, 1), (2, 1, 1), (4, 1, 3), (64, 1, 8), (16, 4, 3)])
def test_workers_follow_the_cores(monkeypatch, cores, processes, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert default_num_workers() == expected


def test_smaller_images_lie_at_the_top_left_of_a_batch():
    samples = [
        Sample(
            np.full((*size, 3), value, np.uint8),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            np.zeros(0, bool),
        )
        for size, value in (((4, 8), 50), ((6, 2), 90))
    ]
    samples[1] = replace(samples[1], size=(5, 2))  # its last row is padding already
    batch = collate([(0, samples[0]), (1, samples[1])], fill=(1, 2, 3))
    images = batch.images
    assert batch.sizes == batch.to("cpu").sizes == ((4, 8), (5, 2))
    expected = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, 6, 8)
    expected[0, :, :4] = 50
    expected[1, :, :, :2] = 90
    assert torch.equal(images, expected)
    assert batch.targets.sizes.tolist() == [[4, 8], [5, 2]]
    assert batch.targets.padded_sizes.tolist() == [[4, 8], [6, 2]]
    alone = collate([(0, samples[1])] * 2).targets
    assert (alone.sizes.tolist(), alone.padded_sizes) == ([[5, 2], [5, 2]], None)
    assert collate([(0, samples[0])] * 2).targets.sizes is None


def test_an_interrupt_waits_until_the_workers_have_started():
    handler = signal.getsignal(signal.SIGINT)
    done = []

    def start():
        with hold_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert done
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interrupt_is_heard_while_a_later_epoch_waits_for_a_worker(data):
    others, loader = multiprocessing.active_children(), train_loader(data, num_workers=1)
    list(loader)
    (worker,) = (child for child in multiprocessing.active_children() if child not in others)
    os.kill(worker.pid, signal.SIGSTOP)

    def interrupt_then_end():
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2)
        os.kill(worker.pid, signal.SIGKILL)

    threading.Thread(target=interrupt_then_end).start()
    with pytest.raises(KeyboardInterrupt):
        iter(loader)
    worker.join()
