"""Boxes of rotated rectangles, outlines and masks, against corners and pixels that are drawn by hand."""

import json

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_masks
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.coco import read_coco
from pyrafuse.data.formats.layout import read_split, read_splits
from pyrafuse.data.formats.voc import find_voc, read_voc
from pyrafuse.data.formats.yolo import read_yolo
from pyrafuse.data.formats.yolo_lists import find_yolo
from pyrafuse.data.reading.folders import Tree
from pyrafuse.data.reading.hulls import NO_BOX, box_of_segmentation, hull_of_rotated
from pyrafuse.data.reading.rules import ReadingRules


def corners_of(box, degrees):
    """The hull by turning the four corners about the centre."""
    x1, y1, x2, y2 = box
    center = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - center) @ matrix.T + center
    return [*points.min(0), *points.max(0)]


HULL = corners_of((40, 54, 120, 66), 45)  # 80 x 12, centre (80, 60)


@given(
    box=st.tuples(*[st.floats(-500, 500)] * 2, *[st.floats(0.5, 300)] * 2),
    degrees=st.floats(-720, 720),
)
def test_hulls_are_those_of_the_turned_corners(box, degrees):
    x, y, width, height = box
    xyxy = (x, y, x + width, y + height)
    found = hull_of_rotated(np.array([xyxy]), np.array([np.deg2rad(degrees)]))
    assert found[0] == pytest.approx(corners_of(xyxy, degrees), abs=1e-6)


@settings(deadline=None)
@given(st.data())
def test_boxes_of_masks_are_those_of_their_pixels(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits, np.uint8).reshape(height, width)
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    counts = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    packed = coco_masks.encode(np.asfortranarray(mask))["counts"]
    ys, xs = np.nonzero(mask)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
    for given_counts in (counts, packed.decode() if isinstance(packed, bytes) else packed):
        found = box_of_segmentation({"counts": given_counts, "size": [height, width]})
        if expected is None:
            assert np.isnan(found).all()
        else:
            assert found == expected


@pytest.mark.parametrize(
    "segmentation",
    [
        None, [], {}, "x", 3, [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [["a"] * 6], [None], [[None] * 6],
        {"counts": [5], "size": [0, 0]}, {"counts": [1, 10**9], "size": [4, 4]}, {"counts": [1, -1], "size": [4, 4]},
        {"counts": "ooooooooooooooooooooooooo", "size": [4, 4]}, {"counts": "é", "size": [4, 4]},
        {"counts": [1, 1], "size": [4]}, {"counts": [1, 1]}, {"counts": "o", "size": [4, 4]},
        {"counts": [10**30, 10**30], "size": [10**30, 10**30]}, {"counts": [1.5, 2], "size": [4, 4]},
    ],
)  # fmt: skip
def test_what_is_no_outline_has_no_box(segmentation):
    assert np.isnan(box_of_segmentation(segmentation)).all()
    assert NO_BOX[0] != NO_BOX[0]


@pytest.fixture
def read(tmp_path, write_image):
    """Reads annotations of four images 160 x 120 as COCO has them."""

    def reader(annotations, **options):
        for i in range(4):
            write_image(tmp_path / f"{i}.png", 160, 120)
        content = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 160, "height": 120} for i in range(4)],
            "annotations": [{"id": i, "image_id": i, "category_id": 1, **a} for i, a in enumerate(annotations)],
            "categories": [{"id": 1, "name": "cat"}],
        }
        path = tmp_path / "train.json"
        path.write_text(json.dumps(content))
        return read_coco(path, split="train", tree=Tree(tmp_path), rules=ReadingRules(**options))

    return reader


BOX = [40, 54, 80, 12]


@pytest.mark.parametrize(
    ("annotation", "unit"),
    [
        ({"bbox": BOX, "attributes": {"rotation": 45.0}}, "degrees"),
        ({"bbox": BOX, "attributes": {"rotation": "45"}}, "degrees"),
        ({"bbox": BOX, "rotation": 45}, "degrees"),
        ({"bbox": BOX, "rotation": -315}, "degrees"),
        ({"bbox": BOX, "angle": 135}, "degrees"),
        ({"bbox": BOX, "angle": 0.785398163}, "radians"),
        ({"bbox": BOX, "theta": -0.785398163}, "radians"),
        ({"bbox": [*BOX, 45.0]}, "degrees"),
        ({"bbox": [*BOX, -0.785398163]}, "radians"),
        ({"bbox": [*BOX, 45.0], "attributes": {"rotation": 45.0, "occluded": False}, "segmentation": []}, "degrees"),
        ({"bbox": BOX, "rotation": 45, "segmentation": [[40, 54, 120, 54, 120, 66, 40, 66]]}, "degrees"),
    ],
)
def test_rotations_become_the_upright_hull_with_a_count(read, annotation, unit):
    reading = read([annotation, annotation, {"bbox": BOX}])
    boxes = [record.boxes.tolist() for record in reading.data.records]
    assert boxes[0][0] == pytest.approx(HULL, abs=1e-3)
    assert boxes[1][0] == pytest.approx(HULL, abs=1e-3)
    assert boxes[2:] == [[[40, 54, 120, 66]], []]
    (note,) = reading.problems
    assert (note.severity, note.kind, note.record) == ("note", "rotated boxes", "annotation 0 of 0.png")
    assert note.message.startswith(f"2 of 3 boxes are rotated (angles taken as {unit}), this one by ")
    assert note.remedy == "the upright box around each one is taken"


@pytest.mark.parametrize(
    "annotation",
    [
        {"rotation": 0}, {"rotation": 0.0, "attributes": {"rotation": 0.0}}, {"rotation": 180}, {"rotation": -360},
        {"rotation": None}, {"rotation": "front"}, {"attributes": None}, {"attributes": []}, {"rotation": True},
        {"angle": float("nan")}, {"angle": float("inf")}, {"rotation": "1e999"}, {"rotation": [45]},
    ],
)  # fmt: skip
def test_no_rotation_changes_nothing(read, annotation):
    reading = read([{"bbox": BOX, **annotation}])
    assert reading.data.records[0].boxes.tolist() == [[40, 54, 120, 66]]
    assert reading.problems == ()


def test_a_hull_is_clipped_without_a_warning(read):
    reading = read([{"bbox": [0, 0, 80, 20], "rotation": 45}])
    x1, y1, x2, y2 = corners_of((0, 0, 80, 20), 45)
    assert (x1, y1) < (10, 0)
    assert reading.data.records[0].boxes[0] == pytest.approx([max(x1, 0), 0, x2, y2], abs=1e-3)
    assert [p.kind for p in reading.problems] == ["rotated boxes"]


def test_an_outline_that_stands_aslant_is_rotated_already(read):
    outline = [50, 50, 90, 60, 80, 90, 40, 80]
    reading = read([{"bbox": [40, 50, 50, 40], "rotation": 30, "segmentation": [outline]}])
    assert reading.data.records[0].boxes.tolist() == [[40, 50, 90, 90]]
    assert [p.kind for p in reading.problems] == ["outlines"]


def test_a_fifth_number_that_can_be_a_score_is_refused_unless_it_is_said_to_be_an_angle(read):
    scored = [{"bbox": [*BOX, 0.9]}, {"bbox": [*BOX, 0.785398163]}]
    refused = read(scored)
    assert [p.kind for p in refused.problems] == ["box that is no number"] * 2
    taken = read(scored, boxes="rotated")
    assert taken.data.records[1].boxes[0] == pytest.approx(HULL, abs=1e-3)
    assert [p.kind for p in taken.problems] == ["rotated boxes"]


def test_centres_with_an_angle_are_read_where_they_are_said_to_be(read):
    reading = read([{"bbox": [80, 60, 80, 12, 45]}], boxes="centers")
    assert reading.data.records[0].boxes[0] == pytest.approx(HULL, abs=1e-3)


@pytest.mark.parametrize("bbox", [{}, {"bbox": []}, {"bbox": None}, {"bbox": [0, 0, 0, 0]}, {"bbox": [1, 2]}])
def test_the_box_of_an_outline(read, bbox):
    square = {"segmentation": [[10, 20, 50, 20, 50.5, 60, 10, 60], [70, 5, 80, 5, 80, 15]]}
    mask = {"segmentation": {"counts": [2 * 120 + 10, 30, 90, 30, 120 * 156 - 40], "size": [120, 160]}, "iscrowd": 1}
    reading = read([{**bbox, **square}, {**bbox, **mask}, {"bbox": [1, 2, 3, 4], **square}])
    first, second, third, _ = reading.data.records
    assert first.boxes.tolist() == [[10, 5, 80, 60]]
    assert second.boxes.tolist() == [[2, 10, 4, 40]]
    assert (second.crowd.tolist(), third.boxes.tolist()) == ([True], [[1, 2, 4, 6]])
    (note,) = reading.problems
    assert (note.severity, note.kind, note.record) == ("note", "outlines", "annotation 0 of 0.png")
    assert note.message == "2 of 3 objects are taken by their outline, this one first"


def test_four_corners_in_a_box(read):
    assert read([{"bbox": [50, 50, 90, 60, 80, 90, 40, 80]}]).data.records[0].boxes.tolist() == [[40, 50, 90, 90]]


def test_neither_box_nor_outline_is_an_error(read):
    reading = read([{"segmentation": []}, {"bbox": [1, 2, "x", 4]}, {"bbox": BOX}])
    assert [(p.severity, p.kind) for p in reading.problems] == [("error", "box that is no number")] * 2
    assert sum(len(record.labels) for record in reading.data.records) == 1


def write_voc(folder, *items):
    for i, item in enumerate(items):
        (folder / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.png</filename><object><name>cat</name>{item}</object></annotation>"
        )


@pytest.mark.parametrize(
    ("item", "unit"),
    [
        ("<robndbox><cx>80</cx><cy>60</cy><w>80</w><h>12</h><angle>0.785398163</angle></robndbox>", "radians"),
        ("<robndbox><cx>80</cx><cy>60</cy><w>80</w><h>12</h><angle>2.35619449</angle></robndbox>", "radians"),
        ("<robndbox><cx>80</cx><cy>60</cy><w>80</w><h>12</h><angle>135</angle></robndbox>", "degrees"),
        (
            "<bndbox><xmin>41</xmin><ymin>55</ymin><xmax>120</xmax><ymax>66</ymax></bndbox><attributes><attribute>"
            "<name>rotation</name><value>45.0</value></attribute></attributes>",
            "degrees",
        ),
    ],
)
def test_rotated_objects_of_voc(tmp_path, write_image, item, unit):
    write_image(tmp_path / "0.png", 160, 120)
    write_voc(tmp_path, item)
    reading = read_voc(find_voc(Tree(tmp_path)), split="", tree=Tree(tmp_path))
    assert reading.data.records[0].boxes[0] == pytest.approx(HULL, abs=1e-3)
    (note,) = reading.problems
    assert note.message.startswith(f"1 of 1 boxes are rotated (angles taken as {unit})")


def test_outlines_of_voc(tmp_path, write_image):
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 160, 120)
    corners = "".join(
        f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate([(9, 5), (60, 9), (50, 40), (5, 30)])
    )
    write_voc(
        tmp_path,
        f"<bndbox>{corners}</bndbox>",
        f"<polygon>{corners}</polygon>",
        "<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in [(9, 5), (60, 9), (5, 40)]) + "</polygon>",
        f"<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox><polygon>{corners}</polygon>",
    )
    reading = read_voc(find_voc(Tree(tmp_path)), split="", tree=Tree(tmp_path))
    assert [record.boxes.tolist() for record in reading.data.records] == [
        [[5, 5, 60, 40]], [[5, 5, 60, 40]], [[5, 5, 60, 40]], [[0, 0, 9, 9]],
    ]  # fmt: skip
    (note,) = reading.problems
    assert note.message == "3 of 4 objects are taken by their outline, this one first"


@pytest.mark.parametrize(("angle", "unit"), [("45", "degrees"), ("-0.785398163", "radians"), ("2.35619449", "radians")])
def test_lines_with_an_angle(tmp_path, write_image, angle, unit):
    write_image(tmp_path / "0.png", 160, 120)
    (tmp_path / "0.txt").write_text(f"0 0.5 0.5 0.5 0.1 {angle}\n0 0.2 0.2 0.1 0.1 0\n0 0.3 0.3 0.1 0.1\n")
    reading = read_yolo(find_yolo(Tree(tmp_path)), split="")
    boxes = reading.data.records[0].boxes
    assert boxes[0] == pytest.approx(HULL, abs=1e-3)  # in pixels: the shares of a wide image cannot be turned
    assert boxes[1] == pytest.approx([24, 18, 40, 30], abs=1e-3)
    (note,) = reading.problems
    assert note.message.startswith(f"1 of 3 boxes are rotated (angles taken as {unit}), this one by ")


def test_lines_with_a_number_that_can_be_a_score(tmp_path, write_image):
    write_image(tmp_path / "0.png", 160, 120)
    (tmp_path / "0.txt").write_text("0 0.5 0.5 0.5 0.1 0.785398163\n0 0.2 0.2 0.1 0.1\n")
    refused = read_yolo(find_yolo(Tree(tmp_path)), split="")
    assert [(p.kind, p.record) for p in refused.problems] == [("malformed line", "line 1")]
    assert len(refused.data.records[0].labels) == 1
    taken = read_yolo(find_yolo(Tree(tmp_path)), split="", rules=ReadingRules(boxes="rotated"))
    assert taken.data.records[0].boxes[0] == pytest.approx(HULL, abs=1e-3)


def test_oriented_boxes_of_eight_numbers(tmp_path, write_image):
    write_image(tmp_path / "0.png", 160, 120)
    (tmp_path / "0.txt").write_text("0 0.1 0.2 0.5 0.25 0.45 0.75 0.05 0.5\n")
    reading = read_yolo(find_yolo(Tree(tmp_path)), split="")
    assert reading.data.records[0].boxes[0] == pytest.approx([8, 24, 80, 90], abs=1e-3)
    assert [p.kind for p in reading.problems] == ["outlines"]


def test_outlines_in_shares_are_read_with_the_boxes(tmp_path, write_image):
    """A file without boxes, its outlines in shares."""
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 160, 120)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 160, "height": 120} for i in range(4)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [[0.25, 0.1, 0.5, 0.1, 0.5, 0.6]]}
            for i in range(4)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"4 of 4 boxes have no number above 1.* --boxes shares reads them so"):
        read_splits(tmp_path)
    splits = read_splits(tmp_path, rules=ReadingRules(boxes="shares"))
    assert splits.train.records[0].boxes[0] == pytest.approx([40, 12, 80, 72])


@pytest.mark.parametrize(
    "outline", [[[10, 20], [40, 20], [40, 60]], [[[10, 20], [40, 20], [40, 60]]], [[10, 20, 40, 20, 40, 60]]]
)
def test_outlines_of_points_are_read_as_those_of_numbers(read, outline):
    reading = read([{"segmentation": outline}])
    assert [p.kind for p in reading.problems] == ["outlines"]
    assert reading.data.records[0].boxes.tolist() == [[10, 20, 40, 60]]


def test_numbers_too_large_for_a_float_are_told(read):
    huge = 10**400
    reading = read([{"bbox": [1, 2, huge, 4]}, {"segmentation": [[huge, 1, 2, 3, 4, 5]]}, {"bbox": BOX, "area": huge}])
    assert [(p.severity, p.kind, p.record) for p in reading.problems] == [
        ("error", "box that is no number", "annotation 0 of 0.png"),
        ("error", "box that is no number", "annotation 1 of 1.png"),
    ]
    (box,) = reading.data.records[2].boxes.tolist()
    assert reading.data.records[2].areas.tolist() == [(box[2] - box[0]) * (box[3] - box[1])]


def test_a_box_of_zeros_gives_way_to_the_outline(tmp_path, write_image):
    write_image(tmp_path / "0.png", 160, 120)
    zeros = "".join(f"<{corner}>0</{corner}>" for corner in ("xmin", "ymin", "xmax", "ymax"))
    polygon = "<polygon><x1>10</x1><y1>20</y1><x2>40</x2><y2>20</y2><x3>40</x3><y3>60</y3></polygon>"
    write_voc(tmp_path, f"<bndbox>{zeros}</bndbox>{polygon}")
    reading = read_split(tmp_path, "")
    assert reading.data.records[0].boxes.tolist() == [[10, 20, 40, 60]]
    assert [p.kind for p in reading.problems] == ["outlines"]
