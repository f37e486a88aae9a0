"""Batches that cannot be: more images than there are, or than memory holds."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.models.detector import Card
from pyrafuse.models.factory import create_model
from pyrafuse.training import batches
from pyrafuse.training.batches import (
    count_kept_bytes,
    find_available_memory,
    fit_batch,
    fit_gpu,
    fit_memory,
    memory_errors,
)
from pyrafuse.training.settings import DataSettings, Recipe, RunSettings


def recipe_of(**run) -> Recipe:
    return Recipe(data=DataSettings(size=64, sizes=(64, 128)), run=RunSettings(precision="32", **run))


def test_a_batch_of_more_images_than_there_are_is_reduced_and_said():
    said: list[str] = []
    assert fit_batch(recipe_of(batch_size=8), 8, processes=1, say=said.append) == recipe_of(batch_size=8)
    assert not said
    reduced = fit_batch(recipe_of(batch_size=5000, accumulate=2), 9, processes=2, say=said.append)
    assert reduced == recipe_of(batch_size=8, accumulate=2)
    assert said == ["run.batch_size 5000 is more than there are images: a batch of 8, and its learning rate"]
    with pytest.raises(PyrafuseError, match=r"shared among 2 accumulated batches of 3 processes, and there are 5"):
        fit_batch(recipe_of(batch_size=60, accumulate=2), 5, processes=3, say=said.append)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    made = create_model("yolov3_small", num_classes=2, backbone={"width": 0.25})
    made.card = replace(made.card, preprocessing=Preprocessing(size=(64, 64)))
    return made


def test_what_is_kept_of_a_forward_pass_grows_with_the_images_and_leaves_the_detector_alone(detector):
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    state = torch.get_rng_state()
    one, two, large = (count_kept_bytes(detector, torch.zeros(n, 3, x, x)) for n, x in ((1, 64), (2, 64), (1, 128)))
    assert one > 64 * 64 * 4
    assert large - one == pytest.approx(3 * (two - one), rel=0.05)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_that_does_not_fit_into_memory_is_refused_with_the_one_that_does(detector):
    one, two = (count_kept_bytes(detector, torch.zeros(n, 3, 128, 128)) for n in (1, 2))  # of the largest size
    kept = two - one + 5 * 3 * 128 * 128
    of_weights = 12 * sum(p.numel() for p in detector.parameters())
    free = of_weights + 10 * kept + kept // 2
    silent = pytest.fail
    assert fit_memory(detector, recipe_of(batch_size=10), available=free, say=silent).run.accumulate == 1
    assert fit_memory(detector, recipe_of(batch_size=64), available=None, say=silent).run.accumulate == 1
    with pytest.raises(PyrafuseError, match=r"a batch of 12 images of 128 x 128 px .*: --batch 10 fits, and"):
        fit_memory(detector, recipe_of(batch_size=12), available=free, say=silent)
    with pytest.raises(PyrafuseError, match=r"choose a smaller --size, or a smaller model"):
        fit_memory(detector, recipe_of(batch_size=12, fit_memory=True), available=of_weights, say=silent)


def test_a_batch_that_does_not_fit_is_learnt_in_parts_where_the_recipe_lets_it(detector, monkeypatch):
    monkeypatch.setattr(batches, "count_kept_bytes", lambda _, images: 10**7 * len(images))
    of_image = 10**7 + 5 * 3 * 128 * 128
    free = 12 * sum(p.numel() for p in detector.parameters()) + 10 * of_image + 1
    said: list[str] = []
    for asked, parts in (((10, 1), 1), ((20, 2), 2), ((12, 1), 2), ((21, 1), 3), ((60, 4), 6)):
        recipe = recipe_of(batch_size=asked[0], accumulate=asked[1], fit_memory=True)
        fitted = fit_memory(detector, recipe, available=free, say=said.append)
        assert fitted == replace(recipe, run=replace(recipe.run, accumulate=parts))
    ends = [text.rpartition(": ")[2] for text in said]
    assert ends == ["learnt in 2 parts of 6", "learnt in 3 parts of 7", "learnt in 6 parts of 10"]
    assert said[0].startswith(
        "a batch of 12 images of 128 x 128 px needs at least 0.1 GB of memory, and 0.1 GB are free"
    )


def test_all_processes_go_by_the_one_with_the_least_memory(in_processes, monkeypatch):
    def find(frees):
        def of_process(rank):
            monkeypatch.setattr(batches, "find_available_memory", lambda: frees[rank])
            return batches.find_least_memory()

        return of_process

    assert in_processes(3, find([7, None, 5])) == [5, 5, 5]
    assert [find([9])(0), find([None])(0)] == [9, None]


@pytest.mark.parametrize(("free", "parts"), [(20.0, 1), (10.0, 2), (0.001, 8)])
def test_a_batch_that_a_gpu_does_not_hold_is_learnt_in_parts(monkeypatch, free, parts):
    """By numbers of a GPU that is not there: 1 GB an image, of which four fifths of what is free are used."""
    asked = []

    def measure(detector, size, *, precision, device):
        asked.append((size, precision))
        return 10**9, int(free * 1e9)

    monkeypatch.setattr(batches, "measure_gpu", measure)
    small = SimpleNamespace(card=Card(preprocessing=Preprocessing(size=(64, 64))), parameters=lambda: [torch.zeros(9)])
    small.to = lambda device: small
    said: list[str] = []
    gpu = torch.device("cuda", 0)
    recipe = recipe_of(batch_size=8, fit_memory=True)
    fitted = fit_gpu(small, recipe, precision="bf16", device=gpu, say=said.append)
    assert fitted.run.accumulate == parts
    assert asked == [((128, 128), "bf16")]
    assert len(said) == (parts > 1)
    for other, device in ((recipe_of(batch_size=8), gpu), (recipe, torch.device("cpu"))):
        assert fit_gpu(small, other, precision="32", device=device, say=said.append) == other
    assert len(asked) == 1


def test_memory_that_is_free_is_the_least_of_machine_and_container(tmp_path):
    assert find_available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   50 kB\n")
    assert find_available_memory(tmp_path) == 50 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    (group / "memory.max").write_text("max\n")
    assert find_available_memory(tmp_path) == 50 * 1024
    (group / "memory.max").write_text("31000\n")
    assert find_available_memory(tmp_path) == 30_000


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_the_end_of_memory_is_a_sentence(error):
    said = r"not enough memory for batches of 8 images of 128 px.*--run.accumulate 4"
    with pytest.raises(PyrafuseError, match=said), memory_errors(recipe_of(batch_size=16, accumulate=2)):
        raise error
    with pytest.raises(RuntimeError, match="shapes differ"), memory_errors(recipe_of()):
        raise RuntimeError("shapes differ")
