"""Data sets divided and put together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.cli.main import main
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.writing.merging import merge_readings
from pyrafuse.data.writing.splitting import (
    count_kinds,
    group_by_name,
    join_groups,
    join_splits,
    split_reading,
    tell_shares,
)


def record(name, labels=(), side=10.0):
    boxes = np.array([[0, 0, side, side]] * len(labels), np.float32).reshape(-1, 4)
    return ImageRecord(
        Path("/data", name), name, 200, 200, boxes, np.array(labels, np.int64), np.zeros(len(labels), np.bool_),
        np.full(len(labels), side * side, np.float32),
    )  # fmt: skip


def reading(records, names=("a", "b", "c"), split=""):
    return Reading(DetectionData(tuple(records), names, tuple(range(len(names))), "coco", split), ())


@pytest.fixture
def many():
    rng = np.random.default_rng(0)
    return reading([
        record(f"{i}.jpg", rng.choice(3, rng.integers(0, 5), p=[0.8, 0.15, 0.05]).tolist(), [10.0, 50.0, 120.0][i % 3])
        for i in range(300)
    ])  # fmt: skip


def test_kinds_are_classes_and_sizes():
    counts = count_kinds([record("x", [0, 0, 2], 31.9), record("y", [1], 32.0), record("z", [1], 96.0), record("e")], 3)
    assert counts.tolist() == [
        [2, 0, 0, 0, 0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0, 0, 0, 1], [0] * 9 + [1],
    ]  # fmt: skip


def test_every_split_has_its_share_of_every_class_and_size(many):
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    parts = split_reading(many, shares, seed=3)
    assert [(part.data.split, len(part.data)) for part in parts] == [("train", 210), ("val", 60), ("test", 30)]
    whole = count_kinds(many.data.records, 3).sum(axis=0)
    for part, share in zip(parts, shares.values(), strict=True):
        counts = count_kinds(part.data.records, 3).sum(axis=0)
        assert np.abs(counts - share * whole).max() <= 2
    names = [r.image_id for part in parts for r in part.data.records]
    assert sorted(names) == sorted(r.image_id for r in many.data.records)
    assert [[r.image_id for r in p.data.records] for p in split_reading(many, shares, seed=3)] == [
        [r.image_id for r in p.data.records] for p in parts
    ]
    other = split_reading(many, shares, seed=4)
    assert [r.image_id for r in other[1].data.records] != [r.image_id for r in parts[1].data.records]


def test_groups_stay_together(many):
    groups, num_alone = group_by_name(many.data.records, r"^(\d)\d*\.jpg")
    assert (len(set(groups.tolist())), num_alone) == (10, 0)
    parts = split_reading(many, {"train": 0.6, "val": 0.4}, groups=groups)
    firsts = [{r.path.name[0] for r in part.data.records} for part in parts]
    assert not firsts[0] & firsts[1]
    assert firsts[0] | firsts[1] == set("0123456789")
    _, num_alone = group_by_name(many.data.records, r"\d\d\d")
    assert num_alone == 100
    with pytest.raises(PyrafuseError, match=r"--group '\(' is no regular expression: missing \)"):
        group_by_name(many.data.records, "(")


def test_groups_are_joined_by_way_of_others():
    assert join_groups(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8])).tolist() == [0, 0, 0, 3, 4]
    assert join_groups(np.array([0, 1, 2, 1]), np.array([0, 0, 1, 1])).tolist() == [0, 0, 0, 0]


def test_shares_and_sizes_that_cannot_be(many):
    with pytest.raises(PyrafuseError, match="the share of train is 1; it must lie between 0 and 1"):
        split_reading(many, {"train": 1, "val": 0})
    with pytest.raises(DataError, match="2 images in 1 group cannot be divided into 2 splits"):
        split_reading(reading([record("a"), record("b")]), {"train": 0.5, "val": 0.5}, groups=np.array([3, 3]))
    few = split_reading(
        reading([record("a", [0] * 9), record("b"), record("c")]), {"train": 0.98, "val": 0.01, "test": 0.01}
    )
    assert [len(part.data) for part in few] == [1, 1, 1]


def test_the_table_of_shares():
    parts = [reading([record("a", [0, 0, 0, 1])], split="train"), reading([record("b", [0])], split="val")]
    assert (
        tell_shares(parts)
        == "class  train     val\na      3 (75%)   1 (25%)\nb      1 (100%)  0 (0%)\nc      0 (0%)    0 (0%)"
    )


def test_images_of_two_splits_are_taken_once():
    both = [reading([record("a", [0]), record("b")], split="train"), reading([record("b"), record("c")], split="val")]
    assert [r.path.name for r in join_splits(both).data.records] == ["a", "b", "c"]


def test_classes_of_one_name_are_merged():
    one = [reading([record("a", [0, 2])], split="train"), reading([record("b", [1])], split="val")]
    other = [reading([record("c", [0, 1])], ("c", "B"), "train")]
    (train, val), problems = merge_readings([one, other])
    assert train.data.names == ("a", "b", "c", "B")
    assert [r.labels.tolist() for r in train.data.records] == [[0, 2], [2, 3]]
    assert (train.data.category_ids, val.data.names) == ((0, 1, 2, 3), train.data.names)
    assert [p.message for p in problems] == ["'b' and 'B' are 2 classes"]
    with pytest.raises(DataError, match="has one split without a name, and others have train, val; divide it first"):
        merge_readings([one, [replace(other[0], data=replace(other[0].data, split=""))]])


def test_a_file_of_several_data_sets_is_taken_once():
    one = [reading([record("a", [0]), record("b", [1])], split="train")]
    other = [reading([record("b", [2])], split="train"), reading([record("a"), record("c")], split="val")]
    (train, val), (problem,) = merge_readings([one, other])
    assert [(r.path.name, r.labels.tolist()) for r in (*train.data.records, *val.data.records)] == [
        ("a", [0]), ("b", [1]), ("c", []),
    ]  # fmt: skip
    assert problem.message == "2 images listed before, in another data set or split; this is the first"


def test_the_commands(tmp_path, capsys):
    write_shapes(tmp_path / "a", num_train=8, num_val=2, size=64)
    write_shapes(tmp_path / "b", num_train=4, num_val=2, size=64, seed=1)
    words = ["--val", "0.3", "--group", r"train|val", "--near-duplicates", "--to", "yolo"]
    assert main(["data", "split", str(tmp_path / "a"), str(tmp_path / "divided"), *words]) == 0
    out = capsys.readouterr().out
    assert "--group: 2 groups, 0 of them images in which it finds nothing" in out
    assert "divided: YOLO text: train 8 images with 55 objects; val 2 images with" in out
    assert {r.data.split: len(r.data) for r in read_all(tmp_path / "divided")} == {"train": 8, "val": 2}
    sources = [str(tmp_path / "divided"), str(tmp_path / "b")]
    assert main(["data", "merge", *sources, "-o", str(tmp_path / "merged"), "--images", "link"]) == 0
    assert {r.data.split: len(r.data) for r in read_all(tmp_path / "merged")} == {"train": 12, "val": 4}
    assert "YOLO text" in capsys.readouterr().out
    assert main(["data", "merge", sources[0], "-o", str(tmp_path / "c")]) == 2
    assert "1 data set cannot be merged; name two or more" in capsys.readouterr().err
