"""Which layout a folder has, which images train and which validate, and what is said about it."""

import numpy as np
import pytest

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.data.formats.layout import read_split, read_splits
from pyrafuse.data.reading.rules import ReadingRules


@pytest.fixture
def coco_folder(tmp_path, write_image, write_coco):
    """Ten images in one file without a split's name."""
    for i in range(10):
        write_image(tmp_path / "set" / "images" / f"{i}.png", 20, 20)
    write_coco(
        tmp_path / "set" / "annotations.json",
        [(i, f"{i}.png", 20, 20) for i in range(10)],
        [(i, 1, [0, 0, 9, 9]) for i in range(10)],
    )
    return tmp_path / "set"


def ids(data):
    return [record.image_id for record in data.records]


def test_one_split_is_drawn_in_two_the_same_way_each_time(coco_folder):
    splits = read_splits(coco_folder, val_fraction=0.3, seed=4)
    assert (len(splits.train), len(splits.val)) == (7, 3)
    assert sorted(ids(splits.train) + ids(splits.val)) == list(range(10))
    assert ids(splits.train) == sorted(ids(splits.train))
    assert ids(read_splits(coco_folder, val_fraction=0.3, seed=4).val) == ids(splits.val)
    assert ids(read_split(coco_folder, "val", val_fraction=0.3, seed=4).data) == ids(splits.val)
    assert any(ids(read_splits(coco_folder, val_fraction=0.3, seed=s).val) != ids(splits.val) for s in range(3))
    assert splits.finding == (
        "COCO JSON: 7 training and 3 validation images (30 % drawn for validation with seed 4), 2 classes: dog, cat"
    )
    assert (splits.layout, splits.train.split, splits.val.split) == ("coco", "train", "val")


@pytest.mark.parametrize("val_fraction", [0.2, 0.8])
def test_both_parts_of_a_draw_hold_an_object_where_two_images_do(coco_folder, write_coco, val_fraction):
    images = [(i, f"{i}.png", 20, 20) for i in range(10)]
    write_coco(coco_folder / "annotations.json", images, [(i, 1, [0, 0, 9, 9]) for i in (2, 7)])
    for seed in range(8):
        splits = read_splits(coco_folder, val_fraction=val_fraction, seed=seed)
        assert len(splits.val) == round(10 * val_fraction)
        assert sorted(ids(splits.train) + ids(splits.val)) == list(range(10))
        for data in (splits.train, splits.val):
            assert sum(len(record.labels) for record in data.records) == 1


def test_a_json_file_alone(coco_folder):
    assert len(read_splits(coco_folder / "annotations.json").train) == 8
    assert len(read_splits(str(coco_folder / "annotations.json")).val) == 2


def test_named_splits(tmp_path, write_image, write_coco):
    for split in ("train", "valid", "test"):
        write_image(tmp_path / split / "a.png", 20, 20)
        write_coco(tmp_path / split / "_annotations.coco.json", [(1, "a.png", 20, 20)], [(1, 1, [0, 0, 9, 9])])
    splits = read_splits(tmp_path)
    assert splits.train.records[0].path == tmp_path / "train" / "a.png"
    assert splits.val.records[0].path == tmp_path / "valid" / "a.png"
    assert splits.finding == "COCO JSON: 1 training and 1 validation images, 2 classes: dog, cat"
    assert read_split(tmp_path, "test").data.records[0].path == tmp_path / "test" / "a.png"
    assert read_split(tmp_path, "validation").data.split == "val"
    assert read_splits(tmp_path, val="test").val.records[0].path == tmp_path / "test" / "a.png"
    with pytest.raises(DataError, match=r"has no split 'minival'; it has test, train, val"):
        read_split(tmp_path, "minival")
    (tmp_path / "valid" / "_annotations.coco.json").unlink()
    assert "(validated on test: there is no split called val)" in read_splits(tmp_path).finding


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_that_is_not_for_training_is_not_trained_on_unasked(coco_folder, split):
    (coco_folder / "annotations.json").rename(coco_folder / f"{split}.json")
    with pytest.raises(DataError, match=rf"has {split}, and none called train; add .*--data\.train NAME"):
        read_splits(coco_folder)
    assert len(read_splits(coco_folder, train=split).train) == 8
    assert len(read_split(coco_folder, split).data) == 10


def test_files_may_be_named(tmp_path, write_image, write_coco):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", 20, 20)
        write_coco(tmp_path / f"{name}.json", [(1, f"{name}.png", 20, 20)], [(1, 1, [0, 0, 9, 9])])
    with pytest.raises(DataError, match="2 COCO files for the split without a name"):
        read_splits(tmp_path)
    splits = read_splits(tmp_path / "a.json", train="a.json", val="b.json")
    assert [data.records[0].path.name for data in (splits.train, splits.val)] == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"has no split 'c\.json', nor is there such a file"):
        read_splits(tmp_path / "a.json", val="c.json")


def test_validation_takes_the_labels_of_training(tmp_path, write_image, write_coco):
    write_image(tmp_path / "a.png", 20, 20)
    write_coco(
        tmp_path / "train.json", [(1, "a.png", 20, 20)], [(1, 1, [0, 0, 9, 9])], [(1, "dog"), (2, "cat"), (3, "cow")]
    )
    write_coco(
        tmp_path / "val.json",
        [(1, "a.png", 20, 20)],
        [(1, 1, [0, 0, 9, 9]), (1, 5, [1, 0, 9, 9]), (1, 7, [2, 0, 9, 9])],
        [(1, "cat"), (5, "dog"), (7, "fox")],
    )
    splits = read_splits(tmp_path)
    assert splits.val.names == ("dog", "cat", "cow")
    assert splits.val.category_ids == (5, 1, 10)
    assert splits.val.records[0].labels.tolist() == [1, 0]
    assert splits.val.records[0].boxes[:, 0].tolist() == [0, 1]
    assert [(p.severity, p.kind) for p in splits.problems] == [
        ("error", "class without training images"),
        ("warning", "class without validation images"),
    ]


@pytest.mark.parametrize(("own", "others"), [("a", "b"), (4, "b"), ("7", 7)])
def test_category_ids_of_validation_stay_whatever_those_of_training_are(tmp_path, write_image, write_coco, own, others):
    write_image(tmp_path / "a.png", 20, 20)
    for split, category in (("train", others), ("val", own)):
        categories = [(category, "cat"), *([(9, "dog")] if split == "train" else [])]
        write_coco(tmp_path / f"{split}.json", [(1, "a.png", 20, 20)], [(1, category, [0, 0, 9, 9])], categories)
    splits = read_splits(tmp_path)
    ids = dict(zip(splits.val.names, splits.val.category_ids, strict=True))
    assert ids["cat"] == own
    assert ids["dog"] in {10, 11}  # one that neither split has
    assert splits.val.records[0].labels.tolist() == [splits.val.names.index("cat")]


def test_names_of_classes_give_a_terminal_no_order(tmp_path, write_image, write_coco):
    write_image(tmp_path / "a.png", 20, 20)
    for split in ("train", "val"):
        write_coco(
            tmp_path / f"{split}.json",
            [(1, "a.png", 20, 20)],
            [(1, 1, [0, 0, 9, 9])],
            [(1, "car [old]\x1b[31m[/b]\nx")],
        )
    assert read_splits(tmp_path).finding == (
        r"COCO JSON: 1 training and 1 validation images, 1 class: car [old]\x1b[31m[/b]\nx"
    )


def test_a_folder_of_images_names_the_one_above(tmp_path, write_image):
    write_image(tmp_path / "images" / "a.png", 20, 20)
    with pytest.raises(DataError) as raised:
        read_splits(tmp_path / "images")
    assert str(raised.value).endswith(f". If its annotations lie in {tmp_path}, name that folder")
    (tmp_path / "images" / "note.md").write_text("x")
    with pytest.raises(DataError, match=r"xmin,ymin,xmax,ymax\)$"):
        read_splits(tmp_path / "images")


def test_layouts_are_told_apart(tmp_path, write_image):
    voc, yolo, named = tmp_path / "voc", tmp_path / "yolo", tmp_path / "named"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for i in range(4):
        write_image(voc / "JPEGImages" / f"{i}.png", 20, 20)
        (voc / "Annotations").mkdir(exist_ok=True)
        (voc / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><object><name>dog</name>{box}</object></annotation>"
        )
        for root, folder in ((yolo, "train" if i else "val"), (named, "train" if i else "val")):
            write_image(root / "images" / folder / f"{i}.png", 20, 20)
            (root / "labels" / folder).mkdir(parents=True, exist_ok=True)
            (root / "labels" / folder / f"{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (named / "pets.yaml").write_text("train: images/train\nval: images/val\nnames: [dog]\n")
    (named / "broken.yaml").write_text("{")
    assert read_splits(voc, val_fraction=0.25).finding == (
        "Pascal VOC: 3 training and 1 validation images (25 % drawn for validation with seed 0), 1 class: dog"
    )
    assert read_splits(yolo).finding == "YOLO text: 3 training and 1 validation images, 1 class: 0"
    expected = "YOLO text: 3 training and 1 validation images, 1 class: dog"
    assert read_splits(named).finding == read_splits(named / "pets.yaml").finding == expected


def test_what_is_not_there_is_said(tmp_path, write_image, coco_folder):
    with pytest.raises(DataError, match=r"no such data set: .*sett; did you mean .*set\?"):
        read_splits(tmp_path / "sett")
    with pytest.raises(DataError, match=r"there is no folder .* either"):
        read_splits(tmp_path / "no" / "where")
    (tmp_path / "empty").mkdir()
    looked_for = r"COCO JSON \(.*\); Pascal VOC \(.*\); YOLO text \(a data\.yaml or obj\.data, or labels/"
    with pytest.raises(DataError, match=rf"no data set in .*empty, which holds nothing; looked for {looked_for}"):
        read_splits(tmp_path / "empty")
    image = write_image(tmp_path / "pictures" / "a.png")
    with pytest.raises(DataError, match="holds 1 files, 1 of them images"):
        read_splits(tmp_path / "pictures")
    with pytest.raises(DataError, match="is no data set"):
        read_splits(image)
    with pytest.raises(DataError, match="val_fraction is 1"):
        read_splits(coco_folder, val_fraction=1)


def test_no_usable_image_says_why(coco_folder):
    for image in (coco_folder / "images").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"leaves no image to train on; first of 10 problems: .*image 0 \(0\.png\): .*"):
        read_splits(coco_folder)


def test_one_usable_image_tells_what_became_of_the_others(tmp_path, write_image, write_coco):
    write_image(tmp_path / "a.png", 20, 20)
    write_coco(tmp_path / "all.json", [(1, "a.png", 20, 20), (2, "b.png", 20, 20)], [(1, 1, [0, 0, 9, 9])])
    with pytest.raises(DataError, match=r"only usable image.*missing image: .*image 2 \(b.png\)"):
        read_splits(tmp_path)


def test_one_image_cannot_be_split(tmp_path, write_image, write_coco):
    write_image(tmp_path / "a.png", 20, 20)
    write_coco(tmp_path / "all.json", [(1, "a.png", 20, 20)], [(1, 1, [0, 0, 9, 9])])
    with pytest.raises(DataError, match="is the only usable image"):
        read_splits(tmp_path)


def test_shapes_by_their_word(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path))
    splits = read_splits("shapes:train=3,val=2,size=64")
    assert splits.finding == (
        "shapes (generated images): 3 training and 2 validation images, 5 classes: circle, square, triangle, star, "
        "cross"
    )
    assert splits.problems == ()
    assert all((record.width, record.height) == (64, 64) for record in splits.train.records)
    assert np.concatenate([record.labels for record in splits.train.records]).max() <= 4


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("bccd", "COCO JSON: 292 training and 72 validation images, 3 classes: Platelets, RBC, WBC"),
        ("aquarium", "COCO JSON: 448 training and 190 validation images, 7 classes: fish, jellyfish, penguin, puffin, "
         "shark, starfish, stingray"),
    ],
)  # fmt: skip
def test_real_data(shared_dir, name, finding):
    assert read_splits(shared_dir / "data" / name).finding == finding


def test_missing_images_are_skipped_if_asked_for_and_counted(coco_folder):
    for i in (2, 5, 7):
        (coco_folder / "images" / f"{i}.png").unlink()
    refused = read_splits(coco_folder, seed=1)
    assert [(p.severity, p.kind) for p in refused.problems] == [("error", "missing image")] * 3
    assert all("--missing skip" in p.remedy for p in refused.problems)
    skipped = read_splits(coco_folder, seed=1, rules=ReadingRules(missing="skip"))
    (problem,) = skipped.problems
    assert (problem.severity, problem.kind) == ("warning", "missing images")
    assert problem.message.startswith("3 of 10 images are not there; the first is ")
    assert problem.message.endswith("2.png")
    assert sorted(ids(skipped.train) + ids(skipped.val)) == [0, 1, 3, 4, 6, 8, 9]
    assert ids(read_split(coco_folder, "val", seed=1, rules=ReadingRules(missing="skip")).data) == ids(skipped.val)


def test_a_set_without_any_image_is_refused_though_missing_ones_are_skipped(coco_folder):
    for image in (coco_folder / "images").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"leaves no image to train on; .*10 of 10 images are not there; the first is"):
        read_splits(coco_folder, rules=ReadingRules(missing="skip"))
    with pytest.raises(PyrafuseError, match="missing must be one of error, skip, got 'ignore'"):
        ReadingRules(missing="ignore")  # type: ignore[arg-type]
