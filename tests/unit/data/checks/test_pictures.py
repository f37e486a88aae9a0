"""Pictures compared with each other: near-duplicates across and within splits, and those unlike all others."""

import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from pyrafuse.data.checks import pictures as pictures_module
from pyrafuse.data.checks.likeness import ALIKE_BITS, count_differences, find_nearest, hash_picture
from pyrafuse.data.checks.pictures import describe_look, find_near_copies, find_unlike, look_at
from pyrafuse.data.formats.shapes import draw_shapes


def test_the_nearest_is_that_of_a_loop(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = np.packbits(rng.integers(0, 2, (50, 256), dtype=np.uint8), axis=1).view(np.uint64)
    hashes[9] = 0
    hashes[20] = hashes[4]
    monkeypatch.setattr("pyrafuse.data.checks.likeness._MANY", 7)  # several blocks
    for is_earlier in (False, True):
        others = hashes if is_earlier else hashes[:30]
        nearest, bits = find_nearest(hashes[:40] if not is_earlier else hashes, others, is_earlier=is_earlier)
        for row, (other, count) in enumerate(zip(nearest.tolist(), bits.tolist(), strict=True)):
            candidates = [
                (int(count_differences(hashes[row], others[k])), k) for k in range(row if is_earlier else len(others))
                if k != 9 and row != 9
            ]  # fmt: skip
            assert (count, other if candidates else 0) == min(candidates, default=(257, 0))
    assert find_nearest(hashes[:2], hashes[:0])[1].tolist() == [257, 257]


@pytest.fixture
def write(tmp_path, make_data):
    """Files for a split's images, and the records."""

    def put(name, images):
        records = make_data([[] for _ in images], split=str(tmp_path / name)).records
        (tmp_path / name).mkdir()
        for record, pixels in zip(records, images, strict=True):
            Image.fromarray(pixels).save(record.path, quality=80)
        return records

    return put


def test_near_duplicates_across_splits_are_warnings_and_within_one_hints(write):
    drawn = [draw_shapes(i, size=96)[0] for i in range(5)]
    brighter = [np.clip(pixels.astype(int) + 10, 0, 255).astype(np.uint8) for pixels in drawn]
    train = write("train", [drawn[0], drawn[1], brighter[1], np.zeros((64, 64, 3), np.uint8)])
    val = write("val", [brighter[0], drawn[2], np.zeros((64, 64, 3), np.uint8)])
    records = [*train, *val]
    hashes = look_at([record.path for record in records]).hashes
    options = {"num_train": len(train), "train_name": "train"}
    problems = find_near_copies(records, hashes, known=frozenset(), **options)
    assert [(p.severity, p.kind, p.file, p.evidence.other) for p in problems] == [
        ("warning", "near-duplicate across splits", val[0].path, train[0].path),
        ("hint", "near-duplicate in one split", train[2].path, train[1].path),
    ]
    bits = int(count_differences(hashes[0], hashes[4]))
    assert bits <= ALIKE_BITS
    assert problems[0].message == (f"looks like {train[0].path} in train: {bits} of 256 bits of their hashes differ")
    left = find_near_copies(records, hashes, known=frozenset({val[0].path}), **options)
    assert [p.file for p in left] == [train[2].path]


def test_a_split_with_too_many_images_to_compare_is_noted(write, monkeypatch):
    monkeypatch.setattr("pyrafuse.data.checks.pictures.MOST_COMPARED", 2)
    drawn = draw_shapes(0, size=96)[0]
    train, val = write("train", [drawn] * 3), write("val", [draw_shapes(i, size=96)[0] for i in (1, 2)])
    records = [*train, *val]
    hashes = look_at([record.path for record in records]).hashes
    (problem,) = find_near_copies(records, hashes, known=frozenset(), num_train=3, train_name="train")
    assert (problem.severity, problem.file) == ("note", train[0].path.parent)
    assert problem.message == "3 images, and 2 are compared with each other at most"


def test_a_picture_of_another_kind_is_unlike_all_others(write):
    drawn = [draw_shapes(i, size=96)[0] for i in range(30)]
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[::8, :, 0] = 255
    records = write("train", [*drawn[:12], stripes, *drawn[12:]])
    (problem,) = find_unlike(records, look_at([record.path for record in records]))
    assert (problem.severity, problem.kind, problem.file) == ("hint", "image unlike all others", records[12].path)
    assert find_unlike(records[:19], look_at([record.path for record in records[:19]])) == []  # too few to know


def test_distances_of_many_are_to_a_sample(monkeypatch):
    looks = np.stack([describe_look(draw_shapes(i, size=64)[0]) for i in range(40)])
    whole = pictures_module._find_distances(looks)
    monkeypatch.setattr(pictures_module, "_BLOCK", 16)
    assert pictures_module._find_distances(looks) == pytest.approx(whole, abs=1e-6)
    squares = ((looks[:, None] - looks) ** 2).sum(axis=2)
    assert whole == pytest.approx(np.sqrt(np.sort(squares, axis=1)[:, 3]), abs=1e-5)
    monkeypatch.setattr(pictures_module, "NUM_REFERENCES", 30)
    assert (pictures_module._find_distances(looks) >= whole - 1e-6).all()


def test_unreadable_pictures_are_like_none(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    pictures = look_at([tmp_path / "a.jpg"])
    assert "a.jpg" in pictures.errors[0]
    assert not pictures.hashes.any()
    assert (hash_picture(np.zeros((9, 9, 3), np.uint8)) == 0).all()


def test_pixels_decoded_at_once_are_bounded(tmp_path, write_image, monkeypatch):
    paths = [write_image(tmp_path / f"{i}.png", 100, 80) for i in range(6)]
    big = write_image(tmp_path / "big.png", 400, 300)
    held, most, lock = [0], [0], threading.Lock()
    read = pictures_module.read_picture

    def watch(path):
        picture = read(path)
        size = picture.pixels.shape[0] * picture.pixels.shape[1]
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])
        time.sleep(0.01)
        with lock:
            held[0] -= size
        return picture

    monkeypatch.setattr(pictures_module, "read_picture", watch)
    monkeypatch.setattr(pictures_module, "MAX_PIXELS", 3 * 8000)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    looked = look_at([*paths, big])
    assert looked.errors == ("",) * 7
    assert most == [400 * 300]  # alone: it is larger than what all may hold
    assert look_at(paths).errors == ("",) * 6
    most[0] = 0
    look_at(paths)
    assert 8000 <= most[0] <= 3 * 8000
