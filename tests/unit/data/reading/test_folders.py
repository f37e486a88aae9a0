"""Names of splits, and walks that end."""

from pathlib import Path

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.reading.class_lists import find_class_lists
from pyrafuse.data.reading.folders import Tree, read_text, split_of_file, split_of_folder


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("instances_train2017", "train"),
        ("instances_val", "val"),
        ("Validation-set", "val"),
        ("trainval", "trainval"),
        ("annotations", ""),
        ("train_and_test", ""),
        ("constrained", ""),
    ],
)
def test_splits_in_names_of_files(stem, split):
    assert split_of_file(stem) == split


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("images/val2017", "val"),
        ("valid/images", "val"),
        ("train_images", "train"),
        ("test-set/labels", "test"),
        ("train-station", ""),
        ("images", ""),
        ("", ""),
    ],
)
def test_splits_in_names_of_folders(folder, split):
    assert split_of_folder(Path("train/root", folder), Path("train/root")) == split


def test_hidden_files_and_circles_are_passed_over(tmp_path):
    for name in ("b.JPG", "a.txt", "c.json", ".hidden.jpg", "__MACOSX/d.jpg", ".git/e.jpg", "sub/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    tree = Tree(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tree.files] == ["a.txt", "b.JPG", "c.json", "sub/f.png"]
    assert [path.name for path in tree.images] == ["b.JPG", "f.png"]


def test_text_is_utf_8_or_refused_with_its_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("caf\u00e9\n", encoding="utf-8-sig")
    assert read_text(path) == "caf\u00e9\n"
    path.write_text("caf\u00e9\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"classes\.txt is no text in UTF-8: byte 0xe9 at position 3; save it in UTF-8"):
        find_class_lists(tmp_path, [])
    with pytest.raises(DataError, match=r"absent\.txt cannot be read: No such file"):
        read_text(tmp_path / "absent.txt")
