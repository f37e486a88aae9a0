"""The report: what only a close look finds, and how it is told."""

import json
import shutil

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.checks.checking import check, tell_crowded
from pyrafuse.data.formats.layout import read_splits


@pytest.fixture
def folder(tmp_path, write_image, write_coco):
    """Two training images and one for validation, without a fault."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / "images" / f"{name}.png", 100, 80)
    write_coco(
        tmp_path / "train.json",
        [(1, "a.png", 100, 80), (2, "b.png", 100, 80)],
        [(1, 1, [0, 0, 20, 20]), (1, 3, [0, 0, 99, 79])],
    )
    write_coco(tmp_path / "val.json", [(1, "c.png", 100, 80)], [(1, 1, [10, 10, 40, 40])])
    return tmp_path


def test_sound_data(folder):
    seen = []
    report = check(read_splits(folder), progress=lambda done, total: seen.append((done, total)))
    assert report.certain == ()
    assert not report.has_errors
    assert (report.num_images, report.num_empty) == (3, 1)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    report.raise_on_errors(strict=True)
    assert report.text() == (
        "COCO JSON: 2 training and 1 validation images, 2 classes: dog, cat\n"
        "3 objects in 3 images; 1 image holds none\n"
        "\n"
        "class  objects  small  medium  large   side in pixels (5 %, half, 95 %)\n"
        "dog          2      1       1      0   21, 30, 39\n"
        "cat          1      0       1      0   88, 88, 88\n"
        "all          3      1       2      0   22, 40, 84\n"
        "\n"
        "hint: class with few training objects (2): annotate more, 20 at least, or leave the class out\n"
        f"  {folder / 'images'}, dog: 1 object of the class dog for training\n"
        f"  {folder / 'images'}, cat: 1 object of the class cat for training\n"
        "\n"
        "hint: class with few validation objects (2): its figures will be chance; annotate more, or divide anew: 10 at "
        "least\n"
        f"  {folder / 'images'}, dog: 1 object of the class dog for validation\n"
        f"  {folder / 'images'}, cat: 0 objects of the class cat for validation\n"
        "\n"
        "0 errors, 0 warnings, 4 hints"
    )


def test_damage_behind_the_header_is_found_by_decoding(folder, write_image):
    path = folder / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:2000])
    splits = read_splits(folder)
    assert not check(splits, decode=False).has_errors
    report = check(splits)
    assert [(p.kind, p.file, p.record) for p in report.errors] == [("unreadable image", path, "image 1")]
    with pytest.raises(DataError, match=r"error: unreadable image \(1\): replace it.*\n.*a\.png, image 1: .*damaged"):
        report.raise_on_errors()


def test_the_same_picture_twice(folder):
    shutil.copy(folder / "images" / "a.png", folder / "images" / "b.png")
    shutil.copy(folder / "images" / "a.png", folder / "images" / "c.png")
    report = check(read_splits(folder))
    assert [(p.severity, p.kind, p.file.name) for p in report.certain] == [
        ("warning", "image twice in one split", "b.png"),
        ("warning", "image in both splits", "c.png"),
    ]
    assert report.certain[1].message == f"the same as {folder / 'images' / 'a.png'} in train"
    report.raise_on_errors()
    with pytest.raises(DataError, match="image in both splits"):
        report.raise_on_errors(strict=True)


def test_one_file_in_both_splits(folder, write_coco):
    write_coco(folder / "val.json", [(1, "b.png", 100, 80)], [(1, 1, [10, 10, 40, 40])])
    assert [p.kind for p in check(read_splits(folder)).certain] == ["image in both splits"]


def test_tiny_boxes_and_classes_without_objects(folder, write_coco):
    write_coco(
        folder / "train.json",
        [(1, "a.png", 100, 80)],
        [(1, 1, [0, 0, 20, 1.5]), (1, 1, [0, 0, 1, 20]), (1, 1, [0, 0, 2, 2])],
    )
    report = check(read_splits(folder))
    assert [(p.severity, p.kind, p.record) for p in report.certain] == [
        ("warning", "tiny box", "image 1"),
        ("warning", "class without objects", "cat"),
    ]
    assert report.certain[0].message == "2 boxes thinner than 2 px; the first is 20.00 x 1.50 at [0, 0, 20, 1.5] (xyxy)"


@pytest.mark.parametrize(("split", "purpose"), [("train", "training"), ("val", "validation")])
@pytest.mark.parametrize(
    ("objects", "kind", "end"),
    [
        ([], "no objects at all", ""),
        (
            [(1, 1, [0, 0, 9, 9], {"iscrowd": 1})],
            "only objects that are set aside",
            " to be found: all 1 are crowds (iscrowd 1)",
        ),
    ],
)
def test_a_split_without_objects_is_an_error(folder, write_coco, split, purpose, objects, kind, end):
    write_coco(folder / f"{split}.json", [(1, "a.png", 100, 80)], objects)
    (error,) = check(read_splits(folder)).errors
    assert (error.kind, error.record) == (kind, f"split {split}")
    assert error.message == f"none of the 1 image for {purpose} holds an object{end}"


def test_what_is_set_aside_is_counted_by_class(folder, write_coco):
    crowd = {"iscrowd": 1}
    objects = [(1, 1, [0, 0, 20, 20]), (1, 1, [30, 0, 20, 20]), (2, 1, [0, 0, 20, 20], crowd), (2, 3, [9, 9, 60, 60])]
    write_coco(folder / "train.json", [(1, "a.png", 100, 80), (2, "b.png", 100, 80)], objects)
    report = check(read_splits(folder))
    (note,) = report.certain
    assert (note.severity, note.kind) == ("note", "objects set aside")
    assert note.message == "1 of 5 objects are crowds (iscrowd 1): dog 1 of 4"
    assert note.remedy == "they count neither as found nor as missed"
    assert report.text().endswith(", 1 note")
    assert report.to_json()["notes"][0]["message"] == note.message
    report.raise_on_errors(strict=True)  # a note is no fault


def test_half_set_aside_is_a_warning_and_a_class_of_crowds_is_no_class_without_objects(folder, write_coco):
    crowd = {"iscrowd": 1}
    objects = [(1, 3, [0, 0, 20, 20], crowd), (2, 3, [0, 0, 20, 20], crowd), (2, 1, [9, 9, 60, 60])]
    categories = [(1, "dog"), (3, "cat"), (4, "bird")]
    images = [(1, "a.png", 100, 80), (2, "b.png", 100, 80)]
    write_coco(folder / "train.json", images, objects, categories)
    write_coco(folder / "val.json", [(1, "c.png", 100, 80)], [(1, 1, [9, 9, 60, 60])], categories)
    report = check(read_splits(folder))
    assert [(p.severity, p.kind, p.record, p.message) for p in report.certain] == [
        ("warning", "objects set aside", "", "2 of 4 objects are crowds (iscrowd 1): cat 2 of 2"),
        ("warning", "class with all objects set aside", "cat",
         "all 2 objects of the class cat are crowds (iscrowd 1)"),
        ("warning", "class without objects", "bird", "no object of the class bird in any split"),
    ]  # fmt: skip
    assert "set iscrowd to 0; tools write 1 for masks drawn with a brush" in report.certain[0].remedy


def test_difficult_objects_are_called_so(tmp_path, write_image):
    for i in range(4):
        write_image(tmp_path / f"{i}.png")
        objects = "".join(
            f"<object><name>dog</name><difficult>{flag}</difficult><bndbox><xmin>{x}</xmin><ymin>9</ymin>"
            f"<xmax>{x + 9}</xmax><ymax>40</ymax></bndbox></object>"
            for flag, x in ((1, 5), (0, 50))
        )
        (tmp_path / f"{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    (warning,) = check(read_splits(tmp_path)).certain
    assert warning.message == "4 of 8 objects are difficult: dog 4 of 8"
    assert warning.remedy == "if they are to be found, set <difficult> to 0"


def test_names_that_differ_in_case_are_told(folder, write_coco):
    objects = [(1, i, [20 * i, 0, 15, 15]) for i in range(1, 5)]
    names = ["Cat", "cat", "traffic light", "traffic_light"]
    for split in ("train", "val"):
        write_coco(folder / f"{split}.json", [(1, f"{split[0]}.png", 100, 80)], objects, list(enumerate(names, 1)))
    for name in "tv":
        shutil.copy(folder / "images" / ("a.png" if name == "t" else "b.png"), folder / "images" / f"{name}.png")
    warnings = check(read_splits(folder)).warnings
    assert [(p.kind, p.message) for p in warnings] == [
        ("classes with almost the same name", "'Cat' and 'cat' are 2 classes"),
        ("classes with almost the same name", "'traffic light' and 'traffic_light' are 2 classes"),
    ]


def test_no_objects_in_any_layout(tmp_path, write_image):
    for name in ("a", "b"):
        write_image(tmp_path / "yolo" / f"{name}.png")
        (tmp_path / "yolo" / f"{name}.txt").touch()
        write_image(tmp_path / "voc" / f"{name}.png")
        (tmp_path / "voc" / f"{name}.xml").write_text("<annotation></annotation>")
    for layout in ("yolo", "voc"):
        assert [p.kind for p in check(read_splits(tmp_path / layout)).errors] == ["no objects at all"] * 2


def test_groups_are_counted_and_the_first_are_shown(folder, write_coco):
    outside = [(1, 1, [200, 0, 9, 9])] * 7
    write_coco(folder / "train.json", [(1, "a.png", 100, 80)], [*outside, (1, 3, [0, 0, 9, 9]), (1, 3, [0, 0, 0, 9])])
    report = check(read_splits(folder))
    text = report.text(num_examples=2)
    assert (
        "error: box outside its image (7): left out; annotate the object anew\n"
        f"  {folder / 'train.json'}, annotation 10 of a.png: box [200, 0, 209, 9] (xyxy) in an image of 100 x 80\n"
        f"  {folder / 'train.json'}, annotation 11 of a.png: box [200, 0, 209, 9] (xyxy) in an image of 100 x 80\n"
        "  ... and 5 more\n"
    ) in text
    assert text.endswith("7 errors, 2 warnings, 2 hints")
    assert text.index("error:") < text.index("warning:")


def test_json_holds_everything(folder, write_coco):
    write_coco(folder / "val.json", [(1, "c.png", 100, 80)], [(1, 1, [90, 10, 40, 40])])
    content = json.loads(json.dumps(check(read_splits(folder)).to_json()))
    assert content["errors"] == []
    assert content["warnings"] == [
        {
            "severity": "warning",
            "kind": "box partly outside its image",
            "file": str(folder / "val.json"),
            "record": "annotation 10 of c.png",
            "message": "box [90, 10, 130, 50] (xyxy) in an image of 100 x 80",
            "remedy": "clipped to the image",
        }
    ]
    assert content["sizes"][0] == {
        "name": "dog", "num_objects": 2, "small": 2, "medium": 0, "large": 0,
        "sides_px": pytest.approx([20, 20, 20]),
    }  # fmt: skip


def test_real_data(shared_dir):
    report = check(read_splits(shared_dir / "data" / "aquarium"), decode=False)
    assert [(p.severity, p.kind, p.file.name) for p in report.certain] == [("warning", "tiny box", "IMG_8580_jpg.jpg")]
    assert (report.num_images, report.num_empty) == (638, 1)
    fish, everything = report.sizes[0], report.sizes[-1]
    assert (fish.name, fish.num_objects, everything.num_objects) == ("fish", 2669, 4815)
    assert (everything.small, everything.medium, everything.large) == (1976, 2356, 483)


def test_images_with_more_objects_than_are_counted_are_told(folder, write_coco):
    boxes = [(1, 1, [9 * (i % 11), 6 * (i // 11), 7, 5]) for i in range(120)]
    write_coco(folder / "train.json", [(1, "a.png", 100, 80), (2, "b.png", 100, 80)], [*boxes, (2, 3, [0, 0, 99, 79])])
    splits = read_splits(folder)
    (note,) = check(splits).certain
    assert (note.severity, note.kind) == ("note", "images with many objects")
    assert note.message == (
        "1 of 3 images hold more than 100 objects, up to 120: evaluation counts 100 detections an image and class, as "
        "COCO does; --max-detections 120 counts more"
    )
    assert tell_crowded([splits.train], 120) == tell_crowded([splits.val], None) == ""
    assert "counts 110 detections an image and class; --max-detections 120" in tell_crowded([splits.train], 110)
