"""COCO JSON as each annotation tool writes it."""

import json

import pytest

from pyrafuse.data.formats.layout import read_split, read_splits


def box(i, image, category, numbers, **more):
    return {"id": i, "image_id": image, "category_id": category, "bbox": numbers, **more}


def write(path, images, annotations, categories, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories, **more}
    path.write_text(json.dumps(content))


def test_of_cvat(tmp_path, write_image):
    """Ids from 1, attributes with a rotation, masks in run lengths, images in folders of the subsets."""
    write_image(tmp_path / "images" / "Train" / "a.png", 100, 80)
    attributes = {"occluded": False, "rotation": 0.0}
    write(
        tmp_path / "annotations" / "instances_Train.json",
        [{"id": 1, "width": 100, "height": 80, "file_name": "a.png", "license": 0, "coco_url": "", "date_captured": 0}],
        [
            box(1, 1, 2, [10.0, 20.0, 30.0, 40.0], segmentation=[], area=1200.0, iscrowd=0, attributes=attributes),
            box(2, 1, 1, [40.0, 30.0, 20.0, 10.0], segmentation=[], area=200.0, iscrowd=0,
                attributes={"occluded": True, "rotation": 90.0}),
            # a column of zeros, then two columns with 3 pixels each from the top
            box(3, 1, 1, [], segmentation={"counts": [80, 3, 77, 3, 7837], "size": [80, 100]}, area=6, iscrowd=1),
        ],
        [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}],
        licenses=[{"name": "", "id": 0, "url": ""}],
        info={"contributor": ""},
    )  # fmt: skip
    reading = read_split(tmp_path, "train")
    (record,) = reading.data.records
    assert record.boxes.tolist() == [[10, 20, 40, 60], [45, 25, 55, 45], [1, 0, 3, 3]]
    assert (record.labels.tolist(), record.crowd.tolist()) == ([1, 0, 0], [False, False, True])
    assert {p.kind: p.severity for p in reading.problems} == {"rotated boxes": "note", "outlines": "note"}
    assert reading.unkept == {"outlines": 1, "rotated boxes": 1, "attributes of objects": 1}


def test_of_label_studio(tmp_path, write_image):
    """result.json, ids from 0, file names with a folder of the upload and a prefix, of Windows sometimes."""
    for name in ("1f2e3d4c-a.png", "0a0b0c0d-b.png"):
        write_image(tmp_path / "images" / name, 100, 80)
    write(
        tmp_path / "result.json",
        [
            {"width": 100, "height": 80, "id": 0, "file_name": "images\\1f2e3d4c-a.png"},
            {"width": 100, "height": 80, "id": 1, "file_name": "images/0a0b0c0d-b.png"},
        ],
        [box(0, 0, 0, [1, 2, 30, 40], segmentation=[], ignore=0, iscrowd=0, area=1200),
         box(1, 1, 1, [5, 6, 7, 8], segmentation=[], ignore=0, iscrowd=0, area=56)],
        [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        info={"year": 2026, "version": "1.0", "contributor": "Label Studio"},
    )  # fmt: skip
    reading = read_split(tmp_path, "")
    assert [(r.image_id, r.boxes.tolist(), r.labels.tolist()) for r in reading.data.records] == [
        (0, [[1, 2, 31, 42]], [0]), (1, [[5, 6, 12, 14]], [1]),
    ]  # fmt: skip
    assert (reading.problems, reading.unkept, reading.data.category_ids) == ((), {}, (0, 1))


def test_of_roboflow(tmp_path, write_image):
    """A file in the folder of each split, a class 0 that only groups, names with a hash."""
    name = "IMG_1_jpg.rf.0123456789abcdef0123456789abcdef.jpg"
    for split in ("train", "valid"):
        write_image(tmp_path / split / name, 100, 80)
        write(
            tmp_path / split / "_annotations.coco.json",
            [{"id": 0, "license": 1, "file_name": name, "height": 80, "width": 100, "extra": {"name": "IMG_1.jpg"}}],
            [box(0, 0, 2, [1, 2, 30, 40], area=1200, segmentation=[], iscrowd=0)],
            [{"id": 0, "name": "animals", "supercategory": "none"},
             {"id": 1, "name": "cat", "supercategory": "animals"},
             {"id": 2, "name": "dog", "supercategory": "animals"}],
        )  # fmt: skip
    splits = read_splits(tmp_path)
    assert (splits.train.names, splits.train.category_ids) == (("cat", "dog"), (1, 2))
    assert splits.val.records[0].labels.tolist() == [1]
    assert [(p.severity, p.kind) for p in splits.problems] == [("note", "class that only groups others")] * 2


@pytest.mark.parametrize("name", ["a.png", "/home/ann/fiftyone/data/a.png", "C:\\Users\\Ann\\data\\a.png"])
def test_of_fiftyone(tmp_path, write_image, name):
    """labels.json beside data/, names that may be paths of another machine, gaps in the ids."""
    write_image(tmp_path / "data" / "a.png", 100, 80)
    write(
        tmp_path / "labels.json",
        [{"id": 7, "file_name": name, "height": 80, "width": 100, "license": None, "coco_url": None}],
        [box(1, 7, 17, [1.5, 2, 30, 40.25], area=1207.5, iscrowd=0, supercategory="animal")],
        [{"id": 3, "name": "cat", "supercategory": None}, {"id": 17, "name": "dog", "supercategory": None}],
    )
    (record,) = read_split(tmp_path, "").data.records
    assert (record.path, record.boxes.tolist()) == (tmp_path / "data" / "a.png", [[1.5, 2, 31.5, 42.25]])
    assert record.labels.tolist() == [1]


def test_of_via(tmp_path, write_image):
    """Outlines as one flat list, text ids, a category that nobody chose."""
    write_image(tmp_path / "a.png", 100, 80)
    write(
        tmp_path / "via_project_coco.json",
        [{"id": "0", "width": 100, "height": 80, "file_name": "a.png", "license": 0, "date_captured": ""}],
        [
            box(1, "0", 1, [10, 20, 30, 40], segmentation=[10, 20, 40, 20, 40, 60, 10, 60], area=1200, iscrowd=0),
            box(2, "0", None, [1, 2, 30, 40], segmentation=[1, 2, 31, 2, 31, 42, 1, 42], area=1200, iscrowd=0),
        ],
        [{"supercategory": "kind", "id": 1, "name": "cat"}],
    )
    reading = read_split(tmp_path, "")
    assert reading.data.records[0].boxes.tolist() == [[10, 20, 40, 60]]
    assert [(p.severity, p.kind, p.record) for p in reading.problems] == [("error", "unknown class", "annotation 2")]
