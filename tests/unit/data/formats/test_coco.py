"""COCO JSON, by hand and on real data."""

import json

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.coco import find_coco, read_coco
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.reading.folders import Tree


@pytest.fixture
def read(tmp_path):
    return lambda path: read_coco(path, split="train", tree=Tree(tmp_path))


def test_ids_become_labels_in_their_order(tmp_path, write_image, write_coco, read):
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "images" / name)
    path = write_coco(
        tmp_path / "instances_train.json",
        [(7, "b.png", 100, 80), (5, "a.png", 100, 80), (9, "c.png", 100, 80)],
        [(5, 3, [10, 20, 30, 40]), (7, 1, [1.5, 2, 3, 4], {"area": 6.5, "iscrowd": 1}), (5, 90, [0, 0, 9, 9])],
        [(90, "bird"), (3, "cat"), (1, "dog")],
    )
    data = read(path).data
    assert data.names == ("dog", "cat", "bird")
    assert data.category_ids == (1, 3, 90)
    assert [record.image_id for record in data.records] == [7, 5, 9]
    first, second, empty = data.records
    assert first.boxes.tolist() == [[1.5, 2, 4.5, 6]]
    assert (first.labels.tolist(), first.crowd.tolist(), first.areas.tolist()) == ([0], [True], [6.5])
    assert second.boxes.tolist() == [[10, 20, 40, 60], [0, 0, 9, 9]]
    assert (second.labels.tolist(), second.areas.tolist()) == ([1, 2], [1200, 81])
    assert len(empty.labels) == 0
    assert read(path).problems == ()


@pytest.mark.parametrize(
    ("json_path", "image_path", "file_name"),
    [
        ("instances_train.json", "images/a.png", "a.png"),
        ("instances_train.json", "a.png", "a.png"),
        ("instances_train.json", "images/a.png", "images/a.png"),
        ("instances_train.json", "images/a.png", "images\\a.png"),
        ("instances_train.json", "train/a.png", "a.png"),
        ("annotations/instances_train2017.json", "train2017/a.png", "a.png"),
        ("annotations/instances_train2017.json", "images/train2017/a.png", "a.png"),
        ("train/_annotations.coco.json", "train/a.png", "a.png"),
        ("annotations/train.json", "pictures/of/it/a.png", "a.png"),
        ("annotations/train.json", "pictures/a.png", "/home/somebody/else/a.png"),
    ],
)
def test_images_are_found_where_people_put_them(
    tmp_path, write_image, write_coco, read, json_path, image_path, file_name
):
    write_image(tmp_path / image_path)
    path = write_coco(tmp_path / json_path, [(1, file_name, 100, 80)], [(1, 1, [0, 0, 9, 9])])
    assert find_coco(Tree(tmp_path)) == {"train": path}
    assert [record.path for record in read(path).data.records] == [tmp_path / image_path]


def test_a_name_in_several_folders_is_not_guessed(tmp_path, write_image, write_coco, read):
    write_image(tmp_path / "x" / "a.png")
    write_image(tmp_path / "y" / "a.png")
    path = write_coco(tmp_path / "train.json", [(1, "a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    (problem,) = read(path).problems
    assert problem.kind == "ambiguous image name"
    assert f"a.png fits 2 files equally well: {tmp_path}/x/a.png, {tmp_path}/y/a.png" in problem.message
    path = write_coco(tmp_path / "train.json", [(1, "elsewhere/y/a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    assert [record.path for record in read(path).data.records] == [tmp_path / "y" / "a.png"]
    assert [(p.severity, p.kind) for p in read(path).problems] == [("warning", "image found by the end of its path")]
    path = write_coco(tmp_path / "train.json", [(1, "./y/a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    assert len(read(path).data) == 1


def test_every_fault_is_told_with_its_record(tmp_path, write_image, write_coco, read):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    path = write_coco(
        tmp_path / "train.json",
        [(1, "a.png", 100, 80), (1, "b.png", 100, 80), (2, "gone.png", 100, 80)],
        [
            (1, 1, [0, 0, 9, 9]),
            (4, 1, [0, 0, 9, 9]),
            (1, 2, [0, 0, 9, 9]),
            (1, 1, [0, 0, 9]),
            (1, 1, [0, 0, -5, 9]),
            (1, 1, None),
            (1, 1, [50, 50, 9, 9], {"id": 10}),
        ],
    )
    reading = read(path)
    assert [record.boxes.tolist() for record in reading.data.records] == [[[0, 0, 9, 9], [50, 50, 59, 59]]]
    assert [(p.severity, p.kind, p.record) for p in reading.problems] == [
        ("error", "duplicate image id", "images[1] (b.png)"),
        ("warning", "duplicate annotation id", "annotation 10"),
        ("error", "object of an unknown image", "annotation 11"),
        ("error", "unknown class", "annotation 12"),
        ("error", "missing image", "image 2 (gone.png)"),
        ("error", "box that is no number", "annotation 13 of a.png"),
        ("error", "box that is no number", "annotation 15 of a.png"),
        ("error", "inverted box", "annotation 14 of a.png"),
    ]
    assert reading.problems[3].message == "category_id 2 is none of [1, 3]"
    assert {p.file for p in reading.problems} == {path}


def test_a_file_cut_in_the_middle_says_where(tmp_path, write_coco, read):
    path = write_coco(tmp_path / "train.json", [(1, "a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    path.write_text(path.read_text()[:60])
    assert find_coco(Tree(tmp_path)) == {"train": path}
    with pytest.raises(DataError, match=r"train\.json is no complete JSON: .* line 1, column 59 .*58 of 60"):
        read(path)


@pytest.mark.parametrize("name", ["instances_train.json", "train/_annotations.coco.json", "train.json"])
@pytest.mark.parametrize(("length", "message"), [(0, "is empty"), (8, "is no complete JSON")])
def test_an_empty_or_cut_file_is_not_passed_over(tmp_path, write_coco, read, name, length, message):
    write_coco(tmp_path / "val.json", [(1, "a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    path = write_coco(tmp_path / name, [(1, "a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    path.write_bytes(path.read_bytes()[:length])
    assert find_coco(Tree(tmp_path)) == {"train": path, "val": tmp_path / "val.json"}
    with pytest.raises(DataError, match=rf"{path.name} {message}"):
        read(path)


def test_a_size_that_is_no_number_counts_as_none(tmp_path, write_image, write_coco, read):
    write_image(tmp_path / "a.png")
    path = write_coco(tmp_path / "train.json", [(1, "a.png", float("inf"), float("nan"))], [(1, 1, [0, 0, 9, 9])])
    assert (len(read(path).data), read(path).problems) == (1, ())


def test_other_damaged_json_is_passed_over(tmp_path, write_coco):
    path = write_coco(tmp_path / "train.json", [(1, "a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    for name in ("train_log.json", "notes.json", "elsewhere/val.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "val_stats.json").write_text('{"images": {"val": 3}}')
    assert find_coco(Tree(tmp_path)) == {"train": path}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1}], "holds COCO results and no annotations"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        ({"images": [], "annotations": [], "categories": []}, "lists no categories"),
        *(
            (
                {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, category]},
                r"train\.json, categories\[1\] is .*; it needs a name, and a whole number or a text as id",
            )
            for category in (
                {"id": 1.5, "name": "b"},
                {"id": True, "name": "b"},
                {"id": None, "name": "b"},
                {"name": "b"},
                {"id": "", "name": "b"},
                {"id": [2], "name": "b"},
                {"id": 2},
                {"id": 2, "name": ""},
            )
        ),
    ],
)
def test_other_json_is_refused(tmp_path, read, content, message):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read(path)


def test_duplicate_categories_are_told(tmp_path, write_image, write_coco, read):
    write_image(tmp_path / "a.png")
    objects = [(1, 1, [0, 0, 9, 9]), (1, 2, [0, 20, 9, 9])]
    path = write_coco(
        tmp_path / "train.json", [(1, "a.png", 100, 80)], objects, [(1, "a"), (1, "b"), (2, "a"), (3, "a")]
    )
    reading = read(path)
    assert [p.kind for p in reading.problems] == ["duplicate category id", "duplicate class name"]
    assert reading.data.category_ids == (1, 2)


@pytest.mark.parametrize(("used", "ids"), [([1], (1, 2)), ([0], (0, 2)), ([2], (0, 2))])
def test_a_category_called_like_its_unused_parent(tmp_path, write_image, write_coco, read, used, ids):
    write_image(tmp_path / "a.png")
    objects = [(1, i, [0, 0, 9, 9]) for i in used]
    path = write_coco(tmp_path / "train.json", [(1, "a.png", 100, 80)], objects, [(0, "a"), (1, "a"), (2, "b")])
    reading = read(path)
    assert (reading.data.names, reading.data.category_ids, reading.problems) == (("a", "b"), ids, ())
    assert reading.data.records[0].labels.tolist() == [ids.index(i) for i in used]


@pytest.mark.parametrize(
    ("image", "of_object", "category", "of_class", "written"),
    [
        ("1", 1, "7", 7, ("1", "7")),
        (1, "1", 7, "7", (1, 7)),
        (1.0, 1, 7.0, 7, (1, 7)),
        (1, 1.0, 7, 7.0, (1, 7)),
        ("x/1", "x/1", "7", "7", ("x/1", "7")),
        ("01", "01", "7", 7.0, ("01", "7")),
        (0, "0", "-7", -7, (0, "-7")),
        ("海", "海", "cell a", "cell a", ("海", "cell a")),
    ],
)
def test_ids_in_other_spellings(tmp_path, write_image, write_coco, read, image, of_object, category, of_class, written):
    write_image(tmp_path / "a.png")
    path = write_coco(
        tmp_path / "train.json", [(image, "a.png", 100, 80)], [(of_object, of_class, [0, 0, 9, 9])], [(category, "a")]
    )
    reading = read(path)
    assert reading.problems == ()
    (record,) = reading.data.records
    assert (record.image_id, *reading.data.category_ids) == written
    assert (type(record.image_id), type(reading.data.category_ids[0])) == tuple(map(type, written))
    assert record.labels.tolist() == [0]


def test_numbers_come_before_texts(tmp_path, write_coco, read):
    categories = [("b", "ant"), ("10", "bee"), (9, "cat"), ("a", "dog"), ("01", "elk"), (5, 0)]
    reading = read(write_coco(tmp_path / "train.json", [], [], categories))
    assert reading.data.category_ids == (5, 9, "10", "01", "a", "b")
    assert reading.data.names == ("0", "cat", "bee", "elk", "dog", "ant")


@pytest.mark.parametrize("bad", [True, None, 1.5, "", [1]])
def test_an_image_whose_id_is_none_is_told(tmp_path, write_image, write_coco, read, bad):
    write_image(tmp_path / "a.png")
    reading = read(write_coco(tmp_path / "train.json", [(bad, "a.png", 100, 80)], [(1, 1, [0, 0, 9, 9])]))
    assert [(p.record, p.remedy) for p in reading.problems] == [
        ("images[0]", "left out; every image needs a file_name, and a whole number or a text as id"),
        ("annotation 10", "left out; correct the id"),
    ]


def test_ids_that_only_look_alike_stay_apart(tmp_path, write_image, write_coco, read):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    path = write_coco(
        tmp_path / "train.json", [("01", "a.png", 100, 80), ("1", "b.png", 100, 80)], [("1", 1, [0, 0, 9, 9])]
    )
    reading = read(path)
    assert [(r.image_id, len(r.labels)) for r in reading.data.records] == [("01", 0), ("1", 1)]
    assert reading.problems == ()


def test_other_tasks_of_coco_are_passed_over(tmp_path, write_coco):
    for task in ("instances", "person_keypoints", "captions"):
        write_coco(tmp_path / "annotations" / f"{task}_val2017.json", [], [])
    (tmp_path / "stats.json").write_text('{"images": {"train": 3}}')
    assert find_coco(Tree(tmp_path)) == {"val": tmp_path / "annotations" / "instances_val2017.json"}


def test_two_files_for_one_split_are_not_guessed(tmp_path, write_coco):
    write_coco(tmp_path / "train_a.json", [], [])
    write_coco(tmp_path / "train_b.json", [], [])
    with pytest.raises(DataError, match=r"2 COCO files for the split train: .*train_a\.json, .*train_b\.json"):
        read_splits(tmp_path)


def test_subsets_of_any_name_have_folders_of_their_own(tmp_path, write_image, write_coco):
    for subset, x in (("Backyard", 1), ("street", 5)):
        write_image(tmp_path / "images" / subset / "frame_1.png")
        path = tmp_path / "annotations" / f"instances_{subset}.json"
        write_coco(path, [(1, "frame_1.png", 100, 80)], [(1, 1, [x, 2, 9, 9])])
    with pytest.raises(DataError, match=r"2 COCO files for the split without a name: .*--data.train FILE"):
        read_splits(tmp_path)
    names = [f"annotations/instances_{subset}.json" for subset in ("Backyard", "street")]
    splits = read_splits(tmp_path, train=names[0], val=names[1])
    records = [splits.train.records[0], splits.val.records[0]]
    assert [r.path.parent.name for r in records] == ["Backyard", "street"]
    assert [r.boxes.tolist() for r in records] == [[[1, 2, 10, 11]], [[5, 2, 14, 11]]]
    assert [p for p in splits.problems if p.severity == "error"] == []
    (tmp_path / "images" / "Backyard" / "frame_1.png").unlink()  # that of the other subset does not stand in for it
    with pytest.raises(
        DataError, match=r"no image to train on.*missing image: .*Backyard.frame_1\.png does not exist.*another split's"
    ):
        read_splits(tmp_path, train=names[0], val=names[1])


def test_boxes_of_the_stored_frame_are_turned(tmp_path, write_image, write_coco, read):
    write_image(tmp_path / "a.jpg", 50, 30, orientation=6)
    path = write_coco(tmp_path / "train.json", [(1, "a.jpg", 50, 30)], [(1, 1, [0, 20, 10, 10])])
    record = read(path).data.records[0]
    assert (record.width, record.height) == (30, 50)
    assert record.boxes.tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize(
    ("name", "images", "objects", "names"),
    [
        ("bccd", (292, 72), (3941, 945), ("Platelets", "RBC", "WBC")),
        ("aquarium", (448, 190), (3324, 1491),
         ("fish", "jellyfish", "penguin", "puffin", "shark", "starfish", "stingray")),
    ],
)  # fmt: skip
def test_real_data(shared_dir, name, images, objects, names):
    tree = Tree(shared_dir / "data" / name)
    files = find_coco(tree)
    readings = [read_coco(files[split], split=split, tree=tree) for split in ("train", "val")]
    assert tuple(len(reading.data) for reading in readings) == images
    assert tuple(sum(len(r.labels) for r in reading.data.records) for reading in readings) == objects
    assert all(reading.data.names == names and not reading.problems for reading in readings)


def test_annotations_of_no_split_beside_those_of_a_split_are_told(tmp_path, write_image, write_coco):
    for name in ("train", "val", "default"):
        write_image(tmp_path / f"{name}.png")
        path = tmp_path / f"instances_{name}.json"
        write_coco(path, [(1, f"{name}.png", 100, 80)], [(1, 1, [1, 2, 9, 9])])
    splits = read_splits(tmp_path)
    assert [r.path.name for r in (*splits.train.records, *splits.val.records)] == ["train.png", "val.png"]
    assert [(p.severity, p.kind, p.file.name) for p in splits.problems] == [
        ("note", "annotations of no split", "instances_default.json")
    ]
    splits = read_splits(tmp_path, train="instances_default.json")
    assert splits.train.records[0].path.name == "default.png"
    assert splits.problems == ()
