"""Files looked up by the names that annotations give them: which one is meant, and when none is taken."""

import os
from pathlib import Path

import pytest

from pyrafuse.data.reading.finding import FileFinder, image_finder, say_rule
from pyrafuse.data.reading.folders import Tree


@pytest.fixture
def find(tmp_path):
    """Looks names up among files, given by their paths, in the folders ``folders`` of the split ``split``."""

    def look(files, names, folders=(".",), split=""):
        for file in files:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        finder = image_finder([tmp_path / folder for folder in folders], Tree(tmp_path), split)
        found = finder.find_all([[name] for name in names])
        return [(os.path.relpath(f.path, tmp_path), say_rule(f.rule) if f.rule else "") if f.path else f for f in found]

    return look


@pytest.mark.parametrize(
    ("files", "name", "found"),
    [
        (["images/a.jpg", "other/a.jpg"], "images/a.jpg", ("images/a.jpg", "")),
        (["images/a.jpg"], r"images\a.jpg", ("images/a.jpg", "")),
        (["pictures/day 1/a.jpg"], "a.jpg", ("pictures/day 1/a.jpg", "")),
        (["x/IMG.JPG", "y/IMG.jpg"], "x/IMG.jpg", ("x/IMG.JPG", "other capitals of the name")),
        (["Images/a.jpg"], "images/a.jpg", ("Images/a.jpg", "")),
        (["a.jpg", "ab.jpg"], "a.jpeg", ("a.jpg", "the name with another suffix")),
        (["sub/a.png", "sub/a.webp", "sub/A.JPG"], "a.jpg", ("sub/A.JPG", "other capitals of the name")),
        (["obj/a.jpg", "x/a.jpg"], "/content/data/obj/a.jpg", ("obj/a.jpg", "the end of its path")),
        (["obj/a.jpg"], r"D:\x\obj\A.JPG", ("obj/a.jpg", "other capitals of the name")),
        (["pictures/a.jpg"], "https://host/bucket/a.jpg?v=2", ("pictures/a.jpg", "the end of its path")),
        (["sub/a.heic", "sub/a.png"], "a.jpg", ("sub/a.png", "the name with another suffix")),
        (["sub/a.heic"], "a.heic", ("sub/a.heic", "")),
    ],
)
def test_which_file_is_meant(find, files, name, found):
    assert find(files, [name]) == [found]


def test_a_name_that_fits_several_files_is_told_with_them(find, tmp_path):
    (item,) = find(["x/a.png", "y/a.jpeg"], ["a.jpg"])
    assert item.is_ambiguous
    assert item.fault.startswith(f"a.jpg fits 2 files equally well: {tmp_path}/x/a.png, {tmp_path}/y/a.jpeg")


def test_what_one_name_means_as_written_no_other_name_means(find):
    found = find(["a.jpg"], ["a.jpg", "a.png", "A.jpg", "a.jpg"])
    assert [found[0], found[3]] == [("a.jpg", ""), ("a.jpg", "")]
    assert found[1].path is None
    assert found[2].path is None


def test_two_names_that_may_mean_one_file_are_both_refused(find):
    found = find(["x.jpg"], ["aaaaaaaa-x.jpg", "bbbbbbbb-x.jpg"])
    assert [item.is_ambiguous for item in found] == [True, True]
    assert "bbbbbbbb-x.jpg" in found[0].fault


def test_frames_of_a_video_that_is_not_there_are_not_taken_from_another(find):
    names = [f"/home/me/{video}/frame_{i}.png" for video in ("video1", "video2") for i in range(3)]
    found = find([f"video1/frame_{i}.png" for i in range(3)], names)
    assert found[:3] == [(f"video1/frame_{i}.png", "the end of its path") for i in range(3)]
    assert [item.path for item in found[3:]] == [None] * 3


@pytest.mark.parametrize("own", ["images/Train", "images/train/Data", "TRAINING/images"])
def test_the_splits_own_folder_comes_first(find, own):
    files = [f"{own}/frame_0.PNG", "images/val/frame_0.PNG", "thumbs/frame_0.PNG"]
    assert find(files, ["frame_0.PNG"], ["images", "."], "train") == [(f"{own}/frame_0.PNG", "")]
    assert find(files, ["frame_0.png"], ["images", "."], "train") == [
        (f"{own}/frame_0.PNG", "other capitals of the name")
    ]


def test_another_splits_picture_is_never_taken_unless_its_folder_is_named(find):
    files = ["images/Train/frame_0.PNG", "images/Validation/other.PNG"]
    (lost,) = find(files, ["frame_0.PNG"], ["images/Validation", "images", "."], "val")
    assert lost.path is None
    assert "images/Train, which is the split train's: if it is meant, write its folder before" in lost.fault
    for name in ("Train/frame_0.PNG", "/mnt/set/images/train/frame_0.PNG"):
        assert find(files, [name], ["images/Validation", "."], "val")[0][0] == "images/Train/frame_0.PNG"
    assert find(files, ["frame_0.PNG"], ["images"], "trainval") == [("images/Train/frame_0.PNG", "")]


def test_a_near_name_is_offered_but_no_other_number(find):
    found = find(["racoon-1.jpg", "frame_000006.png"], ["raccoon-1.jpg", "frame_000007.png"])
    assert [item.fault for item in found] == ["did you mean racoon-1.jpg?", ""]


def test_spellings_are_tried_in_their_order(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    finder = image_finder([tmp_path], Tree(tmp_path), "")
    assert [f.path.name for f in finder.find_all([["gone.jpg", "b.jpg", "a.jpg"], ["x", "A.JPG"]])] == [
        "b.jpg",
        "a.jpg",
    ]


def test_names_that_no_system_has_are_only_missing(find):
    names = ["", "..", "a\0.jpg", "x" * 5000, "%E9%ZZ.jpg", "\udcff.jpg"]
    assert [item.path for item in find(["b.jpg"], names)] == [None] * len(names)


def test_files_are_listed_only_when_a_name_is_in_no_folder(tmp_path):
    (tmp_path / "a.jpg").touch()

    def refuse():
        raise AssertionError("nothing was to be listed")

    finder = FileFinder([tmp_path], refuse, split="", root=tmp_path, suffixes=frozenset({".jpg"}))
    assert finder.find_all([["a.jpg"]])[0].path == Path(tmp_path / "a.jpg")
