"""LabelMe's JSON, and X-AnyLabeling's."""

import json

import numpy as np
import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.layout import read_split


def shape(label, points, kind="rectangle", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write(path, *shapes, image, **more):
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None,
               "imageHeight": 80, "imageWidth": 100, **more}  # fmt: skip
    path.write_text(json.dumps(content))


def test_every_shape(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    write(
        tmp_path / "a.json",
        shape("cat", [[30, 40], [10, 20]]),  # drawn from the lower right
        shape("dog", [[1, 2], [9, 2], [5, 30]], "polygon", description="asleep"),
        shape("cat", [[50, 40], [53, 44]], "circle"),
        shape("dog", [[60, 10], [80, 10], [80, 30], [60, 30]], "rectangle", difficult=True),
        shape("dog", [[20.5, 50], [30, 60.25]], "mask", mask="iVBORw0K"),
        shape("cat", [[1, 1]], "point"),
        shape("cat", [[1, 1], [2, 2], [3, 1]], "linestrip"),
        image="..\\pictures\\a.png",
    )
    reading = read_split(tmp_path, "")
    (record,) = reading.data.records
    assert reading.data.names == ("cat", "dog")
    np.testing.assert_array_equal(
        record.boxes, [[10, 20, 30, 40], [1, 2, 9, 30], [45, 35, 55, 45], [60, 10, 80, 30], [20.5, 50, 30, 60.25]]
    )
    assert record.labels.tolist() == [0, 1, 0, 1, 1]
    assert record.crowd.tolist() == [False, False, False, True, False]
    assert [(p.kind, p.message.partition(",")[0]) for p in reading.problems] == [
        ("annotations without a box", "1 point"), ("outlines", "3 of 5 objects are taken by their outline"),
    ]  # fmt: skip
    assert reading.unkept == {"outlines": 3, "flags and descriptions": 1}


def test_outlines_of_one_group_are_one_object_and_boxes_are_not(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    write(
        tmp_path / "a.json",
        shape("cat", [[1, 2], [9, 2], [5, 30]], "polygon", group_id=1),
        shape("cat", [[41, 2], [49, 2], [45, 60]], "polygon", group_id=1),
        shape("dog", [[41, 2], [49, 2], [45, 60]], "polygon", group_id=1),
        shape("cat", [[60, 10], [70, 20]], group_id=1),
        shape("cat", [[80, 10], [90, 20]], group_id=1),
        image="a.png",
    )
    (record,) = read_split(tmp_path, "").data.records
    assert record.boxes.tolist() == [[1, 2, 49, 60], [41, 2, 49, 60], [60, 10, 70, 20], [80, 10, 90, 20]]


def test_images_are_found_by_the_files_own_name_and_classes_in_labels_txt(tmp_path, write_image):
    for split in ("train", "val"):
        write_image(tmp_path / split / "renamed.jpg", 100, 80)
        write(tmp_path / split / "renamed.json", shape("cat", [[1, 2], [30, 40]]), image="before.jpg")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    reading = read_split(tmp_path, "val")
    assert reading.data.names == ("dog", "cat")
    assert [record.path for record in reading.data.records] == [tmp_path / "val" / "renamed.jpg"]
    assert reading.problems == ()


def test_a_picture_inside_the_file_does_not_hide_it(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    content = {"imageData": "A" * 200_000, "imageHeight": 80, "imagePath": "a.png", "imageWidth": 100,
               "shapes": [shape("cat", [[1, 2], [30, 40]])]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_split(tmp_path, "").data.records[0].boxes.tolist() == [[1, 2, 30, 40]]


def test_damaged_files_are_told_and_the_others_read(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", 100, 80)
        write(tmp_path / f"{name}.json", shape("cat", [[1, 2], [30, 40]]), shape("cat", "no"), image=f"{name}.png")
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text[:-20])
    reading = read_split(tmp_path, "")
    assert [record.path.name for record in reading.data.records] == ["b.png"]
    assert [(p.kind, p.file.name, p.record) for p in reading.problems] == [
        ("unreadable annotation", "a.json", ""), ("box that is no number", "b.json", "shape 1 (cat) of b.png"),
    ]  # fmt: skip
    (tmp_path / "b.json").write_text(text[:-10])
    with pytest.raises(DataError, match="none of 2 LabelMe files can be read; the first: unreadable annotation"):
        read_split(tmp_path, "")
