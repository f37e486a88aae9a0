"""Classes that only group others are left out of both splits; those with objects of their own stay."""

import json

import pytest

from pyrafuse.data.formats.layout import read_split, read_splits


@pytest.fixture
def write(tmp_path, write_image):
    """Writes a split: categories as (id, name, supercategory), objects as category ids."""

    def writer(split, categories, used):
        write_image(tmp_path / split / "a.png", 100, 80)
        content = {
            "images": [{"id": 7, "file_name": "a.png", "width": 100, "height": 80}],
            "annotations": [
                {"id": n, "image_id": 7, "category_id": c, "bbox": [10 * n, 5, 8, 8]} for n, c in enumerate(used)
            ],
            "categories": [
                {"id": i, "name": name} | ({} if above is None else {"supercategory": above})
                for i, name, above in categories
            ],
        }
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
        return tmp_path

    return writer


ROBOFLOW = [(0, "animals", "none"), (1, "cat", "animals"), (2, "dog", "animals")]


def test_a_group_is_left_out_of_both_splits_and_ids_are_kept(write):
    write("train", ROBOFLOW, [1, 2, 2])
    splits = read_splits(write("valid", ROBOFLOW, [2]))
    for data in (splits.train, splits.val):
        assert data.names == ("cat", "dog")
        assert data.category_ids == (1, 2)
    assert splits.train.records[0].labels.tolist() == [0, 1, 1]
    assert splits.val.records[0].labels.tolist() == [1]
    assert "2 classes: cat, dog" in splits.finding
    assert {(p.severity, p.kind, p.record) for p in splits.problems} == {
        ("note", "class that only groups others", "animals")
    }
    assert splits.problems[0].message == (
        "no object is of the class animals, and other classes have it as their supercategory"
    )
    assert read_split(splits.val.records[0].path.parent.parent, "val").data.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("categories", "used", "names"),
    [
        ([(5, "thing", "thing"), (1, "cat", "thing")], [1], ("cat",)),  # its own group
        ([(1, "life", "x"), (2, "animals", "life"), (3, "cat", "animals")], [3], ("cat",)),  # groups of groups
        (ROBOFLOW, [0, 1], ("animals", "cat", "dog")),  # it has an object of its own
        ([(1, "cat", "animals"), (2, "dog", "animals")], [1], ("cat", "dog")),  # no such class
        ([(1, "person", "person"), (2, "cat", "animal")], [2], ("person", "cat")),  # as COCO has it
        ([(1, "a", "b"), (2, "b", "a")], [], ("a", "b")),  # nothing would be left
        ([(1, "cat", None), (2, "none", None)], [1], ("cat", "none")),
        ([(1, "cat", "none"), (2, "none", None)], [1], ("cat",)),
        ([(5, "Pets ", None), (1, "cat", "pets")], [1], ("cat",)),  # spelt otherwise where it is named
        ([(5, "Cat", None), (1, "cat", "cat")], [1], ("cat", "Cat")),  # its own group, and another class
    ],
)
def test_what_is_a_group(write, categories, used, names):
    write("train", categories, used)
    splits = read_splits(write("valid", categories, used))
    assert splits.train.names == splits.val.names == names


def test_a_class_with_an_object_in_one_split_stays_in_both(write):
    write("train", ROBOFLOW, [0, 1])
    splits = read_splits(write("valid", ROBOFLOW, [1, 2]))
    assert splits.train.names == splits.val.names == ("animals", "cat", "dog")
    assert splits.problems == ()


def test_another_case_is_offered_for_an_unknown_class(write):
    write("train", [(1, "Cat", None), (2, "traffic light", None)], [1, 2])
    splits = read_splits(write("valid", [(1, "cat", None), (2, "traffic_light", None)], [1, 2]))
    (error,) = (p for p in splits.problems if p.severity == "error")
    assert error.kind == "class without training images"
    assert error.message.endswith("; did you mean 'Cat' for 'cat', 'traffic light' for 'traffic_light'?")
