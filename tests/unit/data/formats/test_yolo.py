"""YOLO text: lines, outlines, data.yaml in its varieties, and label files where they are expected."""

import numpy as np
import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.layout import read_all, read_splits
from pyrafuse.data.formats.yolo import read_yolo
from pyrafuse.data.formats.yolo_lists import find_list, find_yolo, read_list
from pyrafuse.data.reading.folders import Tree


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_lines_and_outlines_become_boxes(tmp_path, write_image):
    write_image(tmp_path / "images" / "train" / "a.png")
    write_image(tmp_path / "images" / "train" / "b.png")
    write(tmp_path / "labels" / "train" / "a.txt", "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.2 0.3 0.25 0.2 0.75\n")
    path = write(tmp_path / "data.yaml", "train: images/train\nval: images/train\nnames: [dog, cat]\n")
    reading = read_yolo(read_list(path), split="train")
    first, second = reading.data.records
    assert reading.data.names == ("dog", "cat")
    assert first.boxes == pytest.approx(np.array([[40, 24, 60, 56], [10, 16, 30, 60]]))
    assert first.labels.tolist() == [1, 0]
    assert first.areas == pytest.approx([640, 880])
    assert (first.width, first.height, first.image_id, second.image_id) == (100, 80, 0, 1)
    assert len(second.labels) == 0
    (note,) = reading.problems
    assert (note.severity, note.kind, note.record) == ("note", "outlines", "line 3 of a.png")
    assert note.message == "1 of 2 objects are taken by their outline, this one first"


def test_keypoints_are_passed_over(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.4 0.9 0.9 2 0 0 0\n0 0.1 0.2 0.3 0.25 0.2 0.75\n")
    path = write(tmp_path / "data.yaml", "train: .\nval: .\nnames: [dog]\nkpt_shape: [2, 3]\n")
    reading = read_yolo(read_list(path), split="train")
    assert reading.data.records[0].boxes == pytest.approx(np.array([[40, 24, 60, 56]]))
    (problem,) = reading.problems
    assert problem.message.endswith("height), with its keypoints 11")


def test_a_confidence_is_no_part_of_a_label(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.4 0.93\n")
    (problem,) = read_yolo(find_yolo(Tree(tmp_path)), split="").problems
    assert (problem.kind, problem.record) == ("malformed line", "line 1")
    assert problem.message == (
        "6 values: the last one is a confidence, which a label has not, so drop it; or it is a rotation in radians, "
        "which --boxes rotated reads"
    )


def test_faulty_lines_are_told(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    lines = [
        "0 0.5 0.5 0.2 0.4",
        "2 0.5 0.5 0.2 0.4",
        "-1 0.5 0.5 0.2 0.4",
        "0 0.5 0.5 0.2",
        "dog 0.5 0.5 0.2 0.4",
        "0.5 0.5 0.5 0.2 0.4",
        "0 nan 0.5 0.2 0.4",
        "0 50 40 20 32",
        "0 0.5 0.5 -0.2 0.4",
        "0 0.5 0.5 0 0.4",
        "0 0.95 0.5 0.2 0.4",
    ]
    write(tmp_path / "a.txt", "\n".join(lines))
    path = write(tmp_path / "data.yaml", "train: .\nval: .\nnames: {0: dog, 1: cat}\n")
    reading = read_yolo(read_list(path), split="train")
    assert reading.data.records[0].boxes == pytest.approx(np.array([[40, 24, 60, 56], [85, 24, 100, 56]]))
    assert [(p.severity, p.kind, p.record.split(" of ")[0]) for p in reading.problems] == [
        ("error", "unknown class", "line 2"),
        ("error", "unknown class", "line 3"),
        ("error", "malformed line", "line 4"),
        ("error", "malformed line", "line 5"),
        ("error", "malformed line", "line 6"),
        ("error", "box that is no number", "line 7"),
        ("error", "inverted box", "line 9"),
        ("warning", "box without size", "line 10"),
        ("error", "box outside its image", "line 8"),
        ("warning", "box partly outside its image", "line 11"),
    ]
    assert reading.problems[0].message == "class 2 is not in 0..1"
    assert "are these pixels?" in reading.problems[8].remedy
    assert {p.file for p in reading.problems} == {tmp_path / "a.txt"}


@pytest.mark.parametrize(
    "text",
    [
        "path: ../set\ntrain: images/train\nval: images/val\nnames: {0: dog}",
        "train: ../images/train\nval: ../images/val\nnames: [dog]",  # as Roboflow writes it
        "train: [images/train]\nval: [images/val]\ntest: images/absent\nnc: 1\nnames: [dog]",
        "train: train.txt\nvalid: val.txt\nnames: [dog]",
    ],
)
def test_data_yaml_in_its_varieties(tmp_path, write_image, text):
    root = tmp_path / "set"
    for split in ("train", "val"):
        write_image(root / "images" / split / "a.png")
        write(root / "labels" / split / "a.txt", "0 0.5 0.5 0.2 0.4\n")
        write(root / f"{split}.txt", f"./images/{split}/a.png\n")
    path = write(root / "data.yaml", text)
    assert find_list(Tree(root)) == path
    folder = read_list(path)
    assert set(folder.splits) == {"train", "val"}
    for split in ("train", "val"):
        record = read_yolo(folder, split=split).data.records[0]
        assert record.path.resolve() == (root / "images" / split / "a.png").resolve()
        assert record.labels.tolist() == [0]


def test_a_split_may_be_one_image(tmp_path, write_image):
    image = write_image(tmp_path / "images" / "a.jpg")
    path = write(tmp_path / "data.yaml", "train: images/a.jpg\nval: images\nnames: [dog]\n")
    assert read_list(path).splits["train"] == (image,)


def test_a_list_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "train.txt").write_bytes("caf\u00e9.jpg\n".encode("latin-1"))
    path = write(tmp_path / "data.yaml", "train: train.txt\nnames: [dog]\n")
    with pytest.raises(DataError, match=r"train\.txt is no text in UTF-8"):
        read_list(path)


def test_one_label_of_a_class_in_the_millions_makes_no_names(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    label = write(tmp_path / "labels" / "a.txt", "1 0.5 0.5 0.2 0.2\n1000000000 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match=rf"^{label} speaks of 1,000,000,001 classes and names none, and 100,000 are"):
        read_all(tmp_path)


def test_a_number_of_classes_without_names(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    path = write(tmp_path / "data.yaml", "train: images\nval: images\nnc: 3\n")
    assert read_list(path).names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: nowhere\nnames: [a]", "gives 'nowhere' as train, but there is no /"),
        ("train: .\nnames: [a, b]\nnc: 3", "names 2 classes, but its nc is 3"),
        ("train: .\nnames: {1: a, 2: b}", r"numbers its classes \[1, 2\]"),
        ("train: .", "names no classes"),
        ("train: .\nnames: 3", r"gives 3 as names; write a list, \[3\]"),
        ("train: .\nnc: 1000000000000", "speaks of 1,000,000,000,000 classes and names none, and 100,000 are the most"),
        ("train: .\nnames: [a]\nnc: [1]", r"names 1 classes, but its nc is \[1\]"),
        ("train: .\nnames: a, b", r"gives 'a, b' as names; write a list, \[a, b\]"),
        ("train: .\nnames: [yes, no]", "class name True, which YAML takes for a bool .*; put names in quotes"),
        ("train: .\nnames: {0: a, '0': b}", "number them 0 to 1"),
        ("train: .\nnames: [a]\nkpt_shape: 17", "gives 17 as kpt_shape; write two numbers"),
        ("names: [a]", "names no training images"),
        ("train: [", "is no YAML"),
    ],
)
def test_a_faulty_data_yaml_says_why(tmp_path, text, message):
    path = write(tmp_path / "data.yaml", text)
    with pytest.raises(DataError, match=message):
        read_list(path)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.png", "labels/train/a.txt"),
        ("Images/train/a.png", "Labels/train/a.txt"),
        ("Images/train/a.png", "labels/train/a.txt"),
        ("train/images/a.png", "train/labels/a.txt"),
        ("train/a.png", "train/a.txt"),
        ("train/a.png", "train/labels/a.txt"),
    ],
)
def test_folders_without_data_yaml(tmp_path, write_image, image, label):
    write_image(tmp_path / image)
    write(tmp_path / label, "2 0.5 0.5 0.2 0.4\n")
    folder = find_yolo(Tree(tmp_path))
    assert folder.splits == {"train": (tmp_path / image,)}
    data = read_yolo(folder, split="train").data
    assert data.names == ("0", "1", "2")
    assert data.records[0].labels.tolist() == [2]
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert read_yolo(find_yolo(Tree(tmp_path)), split="train").data.names == ("a", "b", "c", "d")


def test_a_label_file_without_its_image_is_an_error(tmp_path, write_image):
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "b.jpg")
        for stem in ("a", "b") if split == "train" else ("b",):
            write(tmp_path / "labels" / split / f"{stem}.txt", "0 0.5 0.5 0.2 0.4\n")
    write(tmp_path / "labels" / "train" / "classes.txt", "dog\n")
    write(tmp_path / "labels" / "train" / "README.txt", "labels of dogs\n")
    write(tmp_path / "labels" / "train" / "empty.txt", "")
    write(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [dog]\n")
    (problem,) = read_splits(tmp_path).problems
    assert (problem.severity, problem.kind) == ("error", "missing image")
    assert problem.file == tmp_path / "labels" / "train" / "a.txt"
    assert problem.message == f"no image called a lies in {tmp_path / 'images' / 'train'}"


def test_a_missing_image_of_a_folder_in_both_splits_is_told_once(tmp_path, write_image):
    for stem in ("a", "b", "c"):
        write_image(tmp_path / f"{stem}.jpg")
        write(tmp_path / f"{stem}.txt", "0 0.5 0.5 0.2 0.4\n")
    write(tmp_path / "train.txt", "b.jpg\n")
    write(tmp_path / "val.txt", "c.jpg\n")
    write(tmp_path / "data.yaml", "train: train.txt\nval: val.txt\nnames: [dog]\n")
    assert read_splits(tmp_path).problems == ()  # a.jpg is in neither, but there
    (tmp_path / "a.jpg").unlink()
    assert [p.file.name for p in read_splits(tmp_path).problems] == ["a.txt"]


@pytest.mark.parametrize("place", ["inner", "outer/inner"])
def test_a_data_yaml_deeper_down_is_found(tmp_path, write_image, place):
    root = tmp_path / place
    for split in ("train", "val"):
        write_image(root / "images" / split / "a.jpg")
        write(root / "labels" / split / "a.txt", "0 0.5 0.5 0.2 0.4\n")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [dog, cat]\n")
    assert read_splits(tmp_path).train.names == ("dog", "cat")
    write(root.parent / "other" / "data.yaml", "train: images/train\nnames: [dog, cat]\n")
    with pytest.raises(DataError, match=r"holds 2 data sets; name one of .*inner/data\.yaml, .*other/data\.yaml"):
        read_splits(tmp_path)


def test_names_of_a_data_yaml_without_splits_are_taken(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.2 0.4\n")
    write(tmp_path / "data.yaml", "names: {0: dog, 1: cat}\n")
    write(tmp_path / "another.yaml", "names: some tool's\n")
    assert find_yolo(Tree(tmp_path)).names == ("dog", "cat")


def test_darknet_names_that_are_absent_are_not_passed_over(tmp_path, write_image):
    write_image(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.4\n")
    write(tmp_path / "obj.data", "train = train.txt\nnames = gone.names\n")
    with pytest.raises(DataError, match=r"obj\.data gives 'gone\.names' as names, but there is no"):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    "text", ["names: {'0': a, '1': b}", "names: [a, b]\nnc: '2'", "names: [a, b]\nnc:", "names: {1: b, '0': a}\nnc: 2"]
)
def test_numbers_may_be_texts(tmp_path, text):
    assert read_list(write(tmp_path / "data.yaml", f"train: .\n{text}")).names == ("a", "b")


def test_numbers_are_names(tmp_path):
    assert read_list(write(tmp_path / "data.yaml", "train: .\nnames: [7, 8]")).names == ("7", "8")


def test_duplicate_names_are_told(tmp_path, write_image):
    write_image(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.4\n")
    path = write(tmp_path / "data.yaml", "train: .\nval: .\nnames: [a, b, a]")
    (problem,) = read_yolo(read_list(path), split="train").problems
    assert (problem.severity, problem.kind, problem.message) == (
        "error", "duplicate class name", "'a' is the name of 2 classes",
    )  # fmt: skip


def test_images_alone_are_no_data_set(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    write(tmp_path / "notes.txt", "hello")
    assert find_yolo(Tree(tmp_path)) is None


def test_a_split_without_any_label_file_is_an_error(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png")
    path = write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [a]")
    problems = read_yolo(read_list(path), split="train").problems
    assert [(p.severity, p.kind) for p in problems] == [("error", "no label files at all")]
    assert str(tmp_path / "labels" / "a.txt") in problems[0].message


def test_shares_are_of_the_upright_image(tmp_path, write_image):
    write_image(tmp_path / "a.jpg", 50, 30, orientation=6)
    write(tmp_path / "a.txt", "0 0.5 0.5 1 0.5\n")
    record = read_yolo(find_yolo(Tree(tmp_path)), split="").data.records[0]
    assert (record.width, record.height) == (30, 50)
    assert record.boxes.tolist() == [[0, 12.5, 30, 37.5]]


@pytest.mark.parametrize("prefix", ["", "data/"])
def test_darknet_lists(tmp_path, write_image, prefix):
    for stem in ("a", "b", "c"):
        write_image(tmp_path / "obj_train_data" / f"{stem}.jpg")
        write(tmp_path / "obj_train_data" / f"{stem}.txt", "1 0.5 0.5 0.2 0.4\n")
    write(tmp_path / "obj.names", "dog\ncat\n")
    write(tmp_path / "train.txt", f"{prefix}obj_train_data/a.jpg\n{prefix}obj_train_data/b.jpg\n")
    write(tmp_path / "valid.txt", f"{prefix}obj_train_data/c.jpg\n")
    lists = f"train = {prefix}train.txt\nvalid = {prefix}valid.txt\nnames = {prefix}obj.names\nbackup = backup/\n"
    path = write(tmp_path / "obj.data", "classes = 2\n" + lists)
    expected = "YOLO text: 2 training and 1 validation images, 2 classes: dog, cat"
    splits = read_splits(tmp_path)
    assert splits.finding == read_splits(path).finding == expected
    assert splits.val.records[0].path == tmp_path / "obj_train_data" / "c.jpg"
    assert splits.problems == ()


def test_backslashes_in_double_quotes_are_told(tmp_path):
    (tmp_path / "data.yaml").write_text('train: "C:\\data\\train"\nnames: [cat]\n')
    with pytest.raises(DataError, match=r"write paths with / or in single quotes"):
        read_list(tmp_path / "data.yaml")
