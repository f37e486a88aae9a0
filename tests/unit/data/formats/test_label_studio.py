"""Label Studio's JSON and JSON-MIN."""

import json
import math

import numpy as np
import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.layout import read_split, read_splits


def rectangle(label, x, y, width, height, rotation=0, **more):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": [label]}
    return {"original_width": 200, "original_height": 100, "type": "rectanglelabels", "value": value, **more}


def task(image, *results, **more):
    return {"id": 5, "data": {"image": image}, "annotations": [{"id": 1, "result": [*results], **more}]}


def write(path, tasks):
    path.write_text(json.dumps(tasks))
    return path


def test_percent_become_pixels_and_rotation_about_the_corner_a_hull(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png", 200, 100)
    write_image(tmp_path / "images" / "b.png", 200, 100)
    write(
        tmp_path / "project.json",
        [
            task(
                "/data/upload/1/3f2a1b9c-a.png",
                rectangle("cat", 10, 20, 30, 40),
                rectangle("dog", 50, 50, 10, 10, rotation=90, id="r"),
                {"original_width": 200, "original_height": 100, "type": "polygonlabels",
                 "value": {"points": [[1, 2], [5, 2], [3, 40]], "polygonlabels": ["dog"]}},
                {"original_width": 200, "original_height": 100, "type": "ellipselabels",
                 "value": {"x": 50, "y": 50, "radiusX": 5, "radiusY": 10, "rotation": 0, "ellipselabels": ["cat"]}},
                {"type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["cat"]}},
                {"type": "choices", "value": {"choices": ["night"]}},
            ),
            task("s3://bucket/b.png"),
        ],
    )  # fmt: skip
    reading = read_split(tmp_path, "")
    assert reading.data.names == ("cat", "dog")
    first, empty = reading.data.records
    # the corner (100, 50) stays; 20 px to the right become 20 down, 10 down become 10 to the left
    np.testing.assert_allclose(first.boxes, [[20, 20, 80, 60], [90, 50, 100, 70], [2, 2, 10, 40], [90, 40, 110, 60]])
    assert first.labels.tolist() == [0, 1, 1, 0]
    assert (empty.path.name, len(empty.labels)) == ("b.png", 0)
    assert {p.kind: p.message for p in reading.problems}["annotations without a box"] == "1 brushlabels"
    assert [p.kind for p in reading.problems] == [
        "annotations without a box", "image found by the name that a tool gave at the upload", "rotated boxes",
        "outlines",
    ]  # fmt: skip
    assert reading.unkept == {"rotated boxes": 1, "outlines": 2, "choices and texts": 1}


def test_numbers_that_are_none_are_faults_of_their_region(tmp_path, write_image):
    write_image(tmp_path / "a.png", 200, 100)
    regions = [
        rectangle("cat", 10**400, 10, 20, 20),
        rectangle("cat", 10, 10, 20, 20, rotation=math.inf),
        rectangle("cat", 10**400, 10, 20, 20, rotation=30),
        rectangle("cat", 10, 10, 20, 20),
    ]
    write(tmp_path / "p.json", [task("a.png", *regions), {"id": 2, "data": {"image": "a.png"}, "annotations": 3}])
    reading = read_split(tmp_path, "")
    assert reading.data.records[0].boxes.tolist() == [[20, 10, 60, 30]]
    assert "task without an annotation" in {problem.kind for problem in reading.problems}


def test_the_hull_of_any_rotation_is_that_of_the_turned_corners(tmp_path, write_image):
    write_image(tmp_path / "a.png", 200, 100)
    write(tmp_path / "p.json", [task("a.png", rectangle("cat", 40, 30, 20, 30, rotation=33))])
    turn = math.radians(33)
    corners = np.array([[0, 0], [40, 0], [40, 30], [0, 30]])
    turned = np.array([80, 30]) + corners @ np.array(
        [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    )
    (record,) = read_split(tmp_path, "").data.records
    np.testing.assert_allclose(record.boxes[0], [*turned.min(0), *turned.max(0)], rtol=1e-6)


def test_which_annotation_counts(tmp_path, write_image):
    for name in "abcd":
        write_image(tmp_path / f"{name}.png", 200, 100)
    older = {"result": [rectangle("cat", 1, 1, 10, 10)], "updated_at": "2026-01-01"}
    newer = {"result": [rectangle("cat", 2, 1, 10, 10)], "updated_at": "2026-02-01"}
    write(
        tmp_path / "p.json",
        [
            {"id": 1, "data": {"image": "a.png"}, "annotations": [newer, older]},
            {"id": 2, "data": {"image": "b.png"}, "annotations": [newer, {**older, "ground_truth": True}]},
            {"id": 3, "data": {"image": "c.png"}, "annotations": [{**newer, "was_cancelled": True}]},
            {"id": 4, "data": {"image": "d.png"}, "annotations": [], "predictions": [newer]},
            {"id": 6, "data": {"text": "hello"}, "annotations": [older]},
        ],
    )
    reading = read_split(tmp_path, "")
    assert {r.path.stem: r.boxes[:, 0].tolist() for r in reading.data.records} == {"a": [4], "b": [2]}
    told = {problem.kind: problem.message for problem in reading.problems}
    assert told == {
        "several annotations of one task": "2 have several; the first is task 1",
        "task without an annotation": "2 were not annotated, or skipped; the first is task 3",
        "task without an image": "1 name no image; the first is task 6",
    }


def test_a_box_and_its_label_may_stand_apart(tmp_path, write_image):
    write_image(tmp_path / "a.png", 200, 100)
    shape = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}
    results = [
        {"id": "q", "type": "rectangle", "value": shape},
        {"id": "q", "type": "labels", "value": {**shape, "labels": ["cat"]}},
        {"id": "z", "type": "rectangle", "value": {**shape, "x": 50}},
    ]
    write(tmp_path / "p.json", [task("a.png", *results)])
    reading = read_split(tmp_path, "")
    assert reading.data.records[0].boxes.tolist() == [[20, 10, 60, 30]]
    assert [(p.kind, p.record) for p in reading.problems] == [("region without a label", "region z of task 5")]


def test_the_short_form(tmp_path, write_image):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", 200, 100)
    region = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"],
              "original_width": 200, "original_height": 100}  # fmt: skip
    write(
        tmp_path / "min.json",
        [{"image": "a.png", "id": 1, "label": [region], "annotator": 1}, {"image": "b.png", "id": 2, "annotator": 1}],
    )
    splits = read_splits(tmp_path)
    assert splits.finding.startswith("Label Studio JSON: 1 training and 1 validation images")
    boxes = {r.path.stem: r.boxes.tolist() for r in (*splits.train.records, *splits.val.records)}
    assert boxes == {"a": [[20, 20, 80, 60]], "b": []}


def test_a_file_named_by_itself_and_one_without_annotations(tmp_path, write_image):
    write_image(tmp_path / "a.png", 200, 100)
    path = write(tmp_path / "p.json", [task("a.png", rectangle("cat", 1, 1, 10, 10))])
    assert len(read_split(path, "").data) == 1
    write(path, [{"id": 1, "data": {"image": "a.png"}, "annotations": []}])
    with pytest.raises(DataError, match=r"p\.json holds no task that was annotated; submit annotations"):
        read_splits(path)
