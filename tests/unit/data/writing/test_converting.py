"""Data sets written in other formats: what is kept exactly, what is lost, and what is left alone."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.cli.main import main
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.formats.registry import FORMATS
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.reading.rules import ORDERS, UNITS, BoxFormat
from pyrafuse.data.reading.units import to_pixels
from pyrafuse.data.writing.converting import check_destination, plan, writable_formats, write
from pyrafuse.data.writing.encoding import encode_boxes, whole_pixels
from pyrafuse.data.writing.layouts import AREAS, ASIDE, BARE_CLASSES, FRACTIONS, NUMBERS

NAMES = ("yes", "1", "dog & <cat>", "größe, rot", "bare")


def record(path, boxes, labels, crowd=(), areas=(), image_id=0):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return ImageRecord(
        path, image_id, 100, 80, boxes, np.array(labels, np.int64),
        np.array(crowd or [False] * len(boxes), np.bool_), np.array(areas or sides.prod(axis=1), np.float32),
    )  # fmt: skip


def data(records, split="train"):
    return DetectionData(tuple(records), NAMES, (3, 1, 90, 7, 8), "", split)


@pytest.fixture
def rich(tmp_path, write_image):
    """All that data can hold: fractions, crowds, areas, an empty image, equal names, ids of their own."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "source"
    low = rng.uniform(0, 40, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 39, (40, 2))], axis=1).round(rng.integers(0, 6))
    paths = [write_image(folder / name) for name in ("x/a.jpg", "y/a.jpg", "x/A.png", "ä b.jpg", "empty.png", "v.png")]
    return [
        Reading(data([
            record(paths[0], boxes[:8], rng.integers(0, 4, 8), image_id=9),
            record(paths[1], boxes[8:10], [0, 1], crowd=[True, False], areas=[5.5, 60.25], image_id=4),
            record(paths[2], boxes[10:30], rng.integers(0, 4, 20), image_id=5),
            record(paths[3], [[0, 0, 100, 80], [0.1, 0.2, 99.99, 79.5]], [2, 3], image_id=6),
            record(paths[4], [], [], image_id=7),
        ]), ()),
        Reading(data([record(paths[5], boxes[30:], rng.integers(0, 4, 10), image_id=9)], "val"), ()),
    ]  # fmt: skip


def reduced(readings, keeps):
    """The data without what a format does not keep."""
    found = []
    for reading in readings:
        records = []
        for rank, r in enumerate(reading.data.records):
            sides = r.boxes[:, 2:] - r.boxes[:, :2]
            r = r if AREAS in keeps else replace(r, areas=sides.prod(axis=1))
            r = r if ASIDE in keeps else replace(r, crowd=np.zeros(len(r.labels), np.bool_))
            records.append(r if NUMBERS in keeps else replace(r, image_id=rank))
        found.append(replace(reading.data, records=tuple(records)))
    return found


@pytest.mark.parametrize("name", writable_formats())
def test_what_a_format_keeps_is_read_again_exactly(name, rich, tmp_path):
    writing = FORMATS.create(name).writing
    if FRACTIONS not in writing.keeps:
        for k, reading in enumerate(rich):
            whole = [
                replace(r, boxes=b.astype(np.float32), areas=(b[:, 2:] - b[:, :2]).prod(axis=1).astype(np.float32))
                for r, b in zip(reading.data.records, whole_pixels(reading.data), strict=True)
            ]
            rich[k] = replace(reading, data=replace(reading.data, records=tuple(whole)))
    write(plan(rich, name, allow_loss=True), tmp_path / "out")
    found = {reading.data.split: reading.data for reading in read_all(tmp_path / "out")}
    for expected in reduced(rich, writing.keeps):
        read = found[expected.split]
        if BARE_CLASSES in writing.keeps:
            assert read.names == (
                NAMES if name != "coco" else ("1", "yes", "größe, rot", "bare", "dog & <cat>")
            )  # by id
        by_pixels = {r.path.read_bytes(): r for r in read.records}
        assert len(read.records) == len(expected.records)
        for one in expected.records:
            other = by_pixels[one.path.read_bytes()]
            assert [read.names[k] for k in other.labels] == [NAMES[k] for k in one.labels]
            np.testing.assert_array_equal(other.boxes, one.boxes)
            np.testing.assert_array_equal(other.crowd, one.crowd)
            np.testing.assert_allclose(other.areas, one.areas, rtol=1e-6)
            if NUMBERS in writing.keeps:
                assert (other.image_id, read.category_ids) == (one.image_id, tuple(sorted(expected.category_ids)))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("is_one_based", [False, True])
def test_numbers_of_every_kind_are_read_as_the_same_boxes(unit, order, is_one_based):
    form = BoxFormat(unit, order, is_one_based and unit == "pixels")
    rng = np.random.default_rng(1)
    sizes = rng.integers(200, 5000, (500, 2))
    low = rng.uniform(0, 150, (500, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 50, (500, 2))], axis=1).astype(np.float32)
    numbers = encode_boxes(boxes, form, sizes)
    np.testing.assert_array_equal(to_pixels(numbers, form, sizes, np.zeros(500, bool)).astype(np.float32), boxes)
    tenths = (boxes * 10).round() / 10
    if unit == "pixels":
        assert np.abs(encode_boxes(tenths, form, sizes) * 100).round(6).astype(str)[0, 0].endswith(".0")


def test_losses_are_counted_and_need_consent(rich, tmp_path):
    with pytest.raises(DataError) as raised:
        plan(rich, "yolo")
    assert str(raised.value).splitlines() == [
        "yolo would lose:",
        "  set aside: 1 of 42 objects would count as objects to be found",
        "  areas: 2 of 42 objects have one that is not that of the box",
        "--allow-loss writes it all the same",
    ]
    with pytest.raises(DataError, match="classes without objects: bare"):
        plan(rich, "csv")
    held = [replace(rich[0], unkept={"outlines": 3}), replace(rich[1], unkept={"outlines": 2, "keypoints": 1})]
    assert plan(held, "coco", allow_loss=True).losses == ("outlines: 5", "keypoints: 1")
    planned = plan(rich, "yolo", allow_loss=True)
    assert planned.notes == ("images and classes are numbered anew",)
    assert plan(rich, "coco").notes == ()


def test_rounded_boxes_have_a_size_and_lie_in_their_image(rich):
    thin = record(Path("a.png"), [[10.3, 10.3, 10.4, 10.4], [99.6, 79.7, 100, 80], [0, 0, 0.2, 0.2]], [0, 0, 0])
    (boxes,) = whole_pixels(data([thin]))
    assert boxes.tolist() == [[10, 10, 11, 11], [99, 79, 100, 80], [0, 0, 1, 1]]


def test_images_of_one_name_get_the_name_of_their_folder(rich):
    places = plan(rich, "coco").splits[0].places
    assert places == (
        "images/train/a.jpg", "images/train/y-a.jpg", "images/train/x-A.png", "images/train/ä b.jpg",
        "images/train/empty.png",
    )  # fmt: skip


@pytest.mark.parametrize("how", ["copy", "link", "reference"])
def test_images_are_copied_linked_or_left(rich, tmp_path, how):
    source = rich[1].data.records[0].path
    write(plan(rich, "coco", images=how), tmp_path / "out")
    (val,) = (reading.data for reading in read_all(tmp_path / "out") if reading.data.split == "val")
    path = val.records[0].path
    assert path.samefile(source) is (how != "copy")
    assert (path == source) is (how == "reference")
    assert source.stat().st_nlink == (2 if how == "link" else 1)
    if how == "reference":
        with pytest.raises(PyrafuseError, match=r"yolo finds images by the folders .* --images link.*or --to coco"):
            plan(rich, "yolo", images=how, allow_loss=True)


def test_nothing_is_left_where_writing_fails(rich, tmp_path, monkeypatch):
    planned = plan(rich, "coco")
    os.remove(rich[1].data.records[0].path)
    with pytest.raises(PyrafuseError, match=r"cannot write .*out: No such file"):
        write(planned, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(PyrafuseError, match=r"out needs 0\.[01] MB, and 0\.0 MB are free; .*--images link"):
        write(plan(rich[:1], "coco"), tmp_path / "out")


def test_what_a_format_cannot_spell_is_found_by_reading_it_again(rich, tmp_path):
    names = ("two\nlines", *NAMES[1:])
    odd = [replace(reading, data=replace(reading.data, names=names)) for reading in rich]
    with pytest.raises(PyrafuseError, match="these data cannot be held by labelme"):
        write(plan(odd, "labelme", allow_loss=True), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_empty_folder_keeps_its_permissions_and_a_link_to_one_stays(rich, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o750)
    (tmp_path / "out").symlink_to("elsewhere", target_is_directory=True)
    write(plan(rich, "coco"), tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o750
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*.json")] != []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out", "source"]


def test_destinations_that_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    with pytest.raises(PyrafuseError, match="full holds something already; name a new folder"):
        check_destination(tmp_path / "full")
    with pytest.raises(PyrafuseError, match=r"inside lies inside .*; name a folder beside it"):
        check_destination(tmp_path / "full" / "inside", tmp_path / "full")
    with pytest.raises(PyrafuseError, match="is a file, and no folder"):
        check_destination(tmp_path / "full" / "a")
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty", tmp_path / "full")


def test_the_command(tmp_path, write_image, capsys):
    write_image(tmp_path / "source" / "a.jpg")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40],
                         "segmentation": [[1, 2, 31, 2, 31, 42]]}],
        "categories": [{"id": 2, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "source" / "train.json").write_text(json.dumps(coco))
    words = ["data", "convert", str(tmp_path / "source"), str(tmp_path / "out")]
    assert main([*words, "--to", "yolo"]) == 2
    assert "yolo would lose:\n  outlines: 1\n--allow-loss" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--to", "yolo", "--allow-loss"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"{tmp_path / 'out'}: YOLO text: train 1 image with 1 object; 1 class: cat\nlost: outlines: 1"
    )
    assert (tmp_path / "out" / "labels" / "train" / "a.txt").read_text() == "0 0.16 0.275 0.3 0.5\n"
    assert main([*words, "--to", "yolo", "--allow-loss"]) == 2
    assert "holds something already" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "b"), "--to", "yollo"]) == 2
    assert "unknown format to write 'yollo'; did you mean 'yolo'?" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "b"), "--to", "open_images"]) == 2
    assert "open_images is read and not written; choose from coco, " in capsys.readouterr().err
