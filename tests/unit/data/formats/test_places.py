"""Data sets laid out as tools leave them: where images, labels, lists and classes lie, and what is said of the rest."""

import json
import shutil
import unicodedata

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.checks.checking import check
from pyrafuse.data.formats.layout import read_split, read_splits
from pyrafuse.data.reading.rules import ReadingRules

LINES = "0 0.5 0.5 0.2 0.4\n1 0.3 0.3 0.2 0.2\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def write_yolo(tmp_path, write_image):
    """Writes images and their labels, each at its path below the folder."""

    def put(pairs, *, root=tmp_path, text=LINES):
        for image, label in pairs:
            write_image(root / image)
            if label:
                write(root / label, text)
        return root

    return put


@pytest.fixture
def write_voc(tmp_path, write_image):
    """Writes images called by names, with an XML file each."""

    def put(names, suffix=".jpg", root=tmp_path):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        for name in names:
            write_image(root / "JPEGImages" / f"{name}{suffix}")
            text = f"<annotation><filename>{name}{suffix}</filename><object><name>dog</name>{box}</object></annotation>"
            write(root / "Annotations" / f"{name}.xml", text)
        return root

    return put


def names(data):
    return [record.path.name for record in data.records]


def kinds(problems):
    return [(p.severity, p.kind) for p in problems]


# --- COCO ---


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("images/Train", "images/Validation"),
        ("images/TRAIN/Data", "images/VALIDATION/Data"),
        ("Train", "Val"),
        ("Train/images", "valid/Images"),
        ("train2017", "val2017"),
    ],
)
@pytest.mark.parametrize("folder", ["annotations", "Annotations"])
def test_equal_frame_names_are_those_of_the_split(tmp_path, write_image, write_coco, train, val, folder):
    listed = [(i, f"frame_{i}.PNG", 100, 80) for i in range(3)]
    for split, place in (("Train", train), ("Validation", val)):
        for _, name, *_ in listed:
            write_image(tmp_path / place / name)
        write_coco(tmp_path / folder / f"instances_{split}.json", listed, [(1, 1, [0, 0, 9, 9])])
    splits = read_splits(tmp_path)
    assert splits.problems == ()
    assert {r.path.parent for r in splits.train.records} == {tmp_path / train}
    assert {r.path.parent for r in splits.val.records} == {tmp_path / val}
    shutil.rmtree(tmp_path / val)
    with pytest.raises(
        DataError, match=r"leaves no image to validate on; first of 3 problems: missing image: .*train's"
    ):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    ("listed", "there", "rule"),
    [
        ("images/Capture%20d%C3%A9cran%20%280%29.png", "Capture décran (0).png", "percent signs decoded"),
        ("IMG_0.jpg", "IMG_0.JPG", "other capitals"),
        ("raccoon-0.png", "raccoon-0.jpg", "another suffix"),
        (unicodedata.normalize("NFD", "été.png"), unicodedata.normalize("NFC", "été.png"), "Unicode form"),
        ("../../data/media/upload/1/3f2a1b9c-a_1.png", "a (1).png", "a tool gave at the upload"),
        ("/home/else/a.png", "a.png", "the end of its path"),
    ],
)
def test_names_spelt_otherwise_are_found_and_counted(tmp_path, write_image, write_coco, listed, there, rule):
    write_image(tmp_path / "images" / there)
    write_image(tmp_path / "images" / "other.png")
    images = [(1, listed, 100, 80), (2, "other.png", 100, 80)]
    write_coco(tmp_path / "result.json", images, [(1, 1, [0, 0, 9, 9]), (2, 1, [0, 0, 9, 9])])
    (problem,) = read_splits(tmp_path, val_fraction=0.5).problems
    assert problem.severity == "warning"
    assert problem.kind.endswith(rule) or rule in problem.kind
    assert problem.message == f"1 of 2 images; the first is {listed!r}, taken for {tmp_path / 'images' / there}"


def test_a_file_name_that_is_not_there_is_taken_from_the_address(tmp_path, write_image, write_coco):
    for split in ("train", "val"):
        write_image(tmp_path / f"{split}2017" / "000000000001.jpg")
        path = write_coco(
            tmp_path / "annotations" / f"lvis_v1_{split}.json", [(1, "", 100, 80)], [(1, 1, [0, 0, 9, 9])]
        )
        content = json.loads(path.read_text())
        del content["images"][0]["file_name"]
        content["images"][0]["coco_url"] = "http://images.cocodataset.org/train2017/000000000001.jpg"
        path.write_text(json.dumps(content))
    splits = read_splits(tmp_path)
    assert splits.problems == ()
    for data in (splits.train, splits.val):  # LVIS validates on some of COCO's training images, too
        assert data.records[0].path == tmp_path / "train2017" / "000000000001.jpg"


def test_every_problem_has_its_kind_in_its_sentence(tmp_path, write_coco):
    path = write_coco(tmp_path / "train.json", [(1, "", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    with pytest.raises(DataError) as caught:
        read_splits(path)
    assert "first of 2 problems: image without file name: " in str(caught.value)
    assert "images[0]: it is {'id': 1" in str(caught.value)


# --- Pascal VOC ---


@pytest.mark.parametrize(
    ("train", "val", "line"),
    [
        ("Train.txt", "Validation.txt", "{}"),
        ("TRAIN.TXT", "VAL.TXT", "{}\r"),
        ("train.txt", "val.txt", "{}.jpg"),
        ("train.txt", "val.txt", "{}.xml  "),
        ("train.txt", "val.txt", "JPEGImages/{}.jpg"),
        ("train.txt", "val.txt", "/content/VOC2007/JPEGImages/{}.jpg"),
        ("train.txt", "val.txt", "data\\JPEGImages\\{}.jpg"),
        ("train.txt", "valid.txt", "{}\t1"),
        ("dog_train.txt", "dog_val.txt", "{}  1"),
    ],
)
@pytest.mark.parametrize("stem", ["site visit ", "frame_00"])
@pytest.mark.parametrize("folder", ["ImageSets/Main", "imagesets/main", "ImageSets"])
def test_lists_are_honoured(write_voc, train, val, line, stem, folder):
    root = write_voc([f"{stem}{i}" for i in range(5)])
    write(root / folder / train, "\ufeff" + "\n".join(line.format(f"{stem}{i}") for i in range(3)) + "\n")
    write(root / folder / val, "\n".join(line.format(f"{stem}{i}") for i in (3, 4)))
    splits = read_splits(root)
    assert splits.problems == ()
    assert names(splits.train) == [f"{stem}{i}.jpg" for i in range(3)]
    assert names(splits.val) == [f"{stem}{i}.jpg" for i in (3, 4)]


def test_a_number_at_the_end_of_a_name_is_no_mark(write_voc):
    root = write_voc(["site visit", "site visit 0", "site visit 1", "a"])
    write(root / "ImageSets/Main/train.txt", "site visit 1\nsite visit 0\n")
    write(root / "ImageSets/Main/val.txt", "a\n")
    assert names(read_splits(root).train) == ["site visit 1.jpg", "site visit 0.jpg"]
    (root / "Annotations" / "site visit 1.xml").unlink()
    splits = read_splits(root)
    assert names(splits.train) == ["site visit 0.jpg"]
    (problem, *_) = splits.problems
    assert problem.kind == "missing annotation"
    assert "train.txt lists 'site visit 1', and no XML file is called so" in problem.message


def test_lists_of_classes_stand_in_for_a_list_of_the_split(write_voc):
    root = write_voc(["a", "b", "c", "d"])
    for name in ("cat", "dog"):
        write(root / "ImageSets/Main" / f"{name}_train.txt", "a  1\nb -1\nc  0\n")
        write(root / "ImageSets/Main" / f"{name}_val.txt", "d -1\n")
    splits = read_splits(root)
    assert (names(splits.train), names(splits.val)) == (["a.jpg", "b.jpg", "c.jpg"], ["d.jpg"])
    write(root / "ImageSets/Main/train.txt", "b\n")
    assert names(read_splits(root).train) == ["b.jpg"]


def test_xml_files_of_another_spelling_are_found(write_voc):
    root = write_voc(["IMG_1", "IMG_2"], suffix=".JPG")
    write(root / "ImageSets/Main/train.txt", "img_1\n")
    write(root / "ImageSets/Main/val.txt", "img_2.jpg\n")
    splits = read_splits(root)
    assert (names(splits.train), names(splits.val)) == (["IMG_1.JPG"], ["IMG_2.JPG"])


def test_voc_images_that_are_not_there_may_be_skipped(write_voc):
    root = write_voc(["a", "b", "c", "d"])
    (root / "JPEGImages" / "a.jpg").unlink()
    assert ("error", "missing image") in kinds(read_splits(root).problems)
    splits = read_splits(root, rules=ReadingRules(missing="skip"))
    assert kinds(splits.problems) == [("warning", "missing images")]
    assert sorted(names(splits.train) + names(splits.val)) == ["b.jpg", "c.jpg", "d.jpg"]


# --- YOLO ---


@pytest.mark.parametrize(
    "place",
    [
        "classes.txt",
        "images/classes.txt",
        "labels/classes.txt",
        "labels/train/classes.txt",
        "images/train/Classes.txt",
        "labels/obj.names",
        "labels/_notes/../classes.txt",
        "images/train/_darknet.labels",
        "pets.names",
        "labels/predefined_classes.txt",
    ],
)
@pytest.mark.parametrize("text", ["cat\ndog\n", "\ufeffcat  \r\n\r\n\tdog\r\n\r\n"])
def test_classes_are_found_where_tools_put_them(write_yolo, place, text):
    root = write_yolo([(f"images/{s}/{i}.png", f"labels/{s}/{i}.txt") for s in ("train", "val") for i in range(2)])
    (root / "labels" / "_notes").mkdir()
    write(root / place, text)
    splits = read_splits(root)
    assert splits.train.names == ("cat", "dog")
    assert splits.problems == ()


def test_of_several_files_that_may_name_classes_none_is_guessed(write_yolo):
    root = write_yolo([(f"images/{i}.png", f"labels/{i}.txt") for i in range(2)])
    write(root / "coco.names", "person\nbicycle\n")
    write(root / "pets.names", "cat\ndog\n")
    report = check(read_splits(root))
    assert [(p.kind, p.message[-6:]) for p in report.notes] == [("classes without names", "0 to 1")]
    write(root / "classes.txt", "cat\ndog\n")
    splits = read_splits(root)
    assert splits.train.names == ("cat", "dog")
    assert check(splits).notes == ()


@pytest.mark.parametrize("layout", ["{0}/images/{1}.png {0}/labels/{1}.txt {0}/labels", "{0}/{1}.png {0}/{1}.txt {0}"])
def test_classes_in_the_folder_of_each_split(write_yolo, layout):
    pairs = [layout.format(s, i).split() for s in ("train", "val") for i in range(2)]
    root = write_yolo([pair[:2] for pair in pairs])
    for pair in pairs:
        write(root / pair[2] / "classes.txt", "cat\ndog\n")
    assert read_splits(root).train.names == ("cat", "dog")
    write(root / pairs[-1][2] / "classes.txt", "cat\ndog\ncow\n")  # a longer list with the same numbers
    assert read_splits(root).train.names == ("cat", "dog", "cow")
    write(root / pairs[-1][2] / "classes.txt", "dog\ncat\n")
    with pytest.raises(DataError, match=r"/classes\.txt and .*/classes\.txt list different classes: .*dog, cat"):
        read_splits(root)


def test_notes_of_label_studio_name_the_classes(write_yolo):
    root = write_yolo([("images/a.png", "labels/a.txt"), ("images/b.png", "labels/b.txt")])
    notes = {"categories": [{"id": 1, "name": "dog"}, {"id": 0, "name": "cat"}], "info": {}}
    write(root / "notes.json", json.dumps(notes))
    assert read_splits(root).train.names == ("cat", "dog")
    write(root / "classes.txt", "cat\ncow\n")
    with pytest.raises(DataError, match="list different classes: cat, cow; and cat, dog; remove"):
        read_splits(root)
    write(root / "notes.json", "[]")
    assert read_splits(root).train.names == ("cat", "cow")


def test_labels_called_classes_are_no_list(write_yolo):
    root = write_yolo([("a/labels.png", "a/labels.txt"), ("a/classes.png", "a/classes.txt")])
    splits = read_splits(root)
    assert splits.train.names == ("0", "1")
    assert len(splits.train.records[0].labels) == 2


def test_a_list_of_classes_that_disagrees_with_the_data_yaml_is_told(write_yolo):
    root = write_yolo([("images/a.png", "labels/a.txt"), ("images/b.png", "labels/b.txt")])
    write(root / "labels" / "classes.txt", "dog\ncat\n")
    write(root / "data.yaml", "train: images\nval: images\nnames: [cat, dog]\n")
    (problem,) = read_splits(root).problems
    assert (problem.kind, problem.file) == ("lists of classes disagree", root / "labels" / "classes.txt")
    write(root / "labels" / "classes.txt", "cat\n")
    assert read_splits(root).problems == ()


@pytest.mark.parametrize(("text", "kind"), [("cat\n", "unknown class"), ("cat\ndog\ncow\n", "class without objects")])
def test_fewer_and_more_classes_than_the_labels_use(write_yolo, text, kind):
    root = write_yolo([(f"images/{i}.png", f"labels/{i}.txt") for i in range(4)])
    write(root / "classes.txt", text)
    assert {p.kind for p in check(read_splits(root)).certain} == {kind}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("VOC2007/JPEGImages/a.jpg", "VOC2007/labels/a.txt"),
        ("Images/Train/a.jpg", "Labels/train/a.txt"),
        ("images/train/a.jpg", "LABELS/Train/a.txt"),
        ("train_images/a.jpg", "train_labels/a.txt"),
        ("images/images/a.jpg", "images/labels/a.txt"),
    ],
)
def test_labels_lie_beside_images_whatever_the_capitals(write_yolo, image, label):
    root = write_yolo([(image, label)])
    write(root / "classes.txt", "cat\ndog\n")
    reading = read_split(root, "train" if "rain" in image else "")
    assert reading.data.records[0].labels.tolist() == [0, 1]
    assert reading.problems == ()


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/IMG_1.JPG", "labels/img_1.txt"),
        ("images/IMG_1.jpg", "labels/IMG_1.TXT"),
        ("images/a 1.jpg", "labels/3f2a1b9c-a_1.txt"),
        (unicodedata.normalize("NFD", "images/é.jpg"), unicodedata.normalize("NFC", "labels/é.txt")),
    ],
)
def test_labels_of_another_spelling_are_found_and_counted(write_yolo, image, label):
    root = write_yolo([(image, label), ("images/b.jpg", "labels/b.txt"), ("images/c.jpg", None)])
    write(root / "classes.txt", "cat\ndog\n")
    splits = read_splits(root)
    assert sum(len(r.labels) for data in (splits.train, splits.val) for r in data.records) == 4
    (problem,) = splits.problems
    assert problem.severity == "warning"
    assert problem.kind.startswith("label file found by ")
    assert problem.message.startswith("1 label files; the first is ")


@pytest.mark.parametrize(
    "line",
    [
        "obj/{}.jpg",
        "./obj/{}.jpg",
        "data/obj/{}.jpg",
        "../set/obj/{}.jpg",
        "obj\\{}.jpg",
        "C:\\Users\\me\\darknet\\data\\obj\\{}.jpg",
        "/content/darknet/data/obj/{}.jpg",
        '"obj/{}.jpg"',
        "OBJ/{}.JPG\t",
        "https://host/data/obj/{}.jpg?raw=1",
    ],
)
@pytest.mark.parametrize("base", ["{}", "C:\\x\\{}", "/content/darknet/data/{}", "data/{}"])
def test_darknet_lists_of_other_machines(tmp_path, write_yolo, line, base):
    root = write_yolo([(f"obj/{i}.jpg", f"obj/{i}.txt") for i in range(4)], root=tmp_path / "set")
    write(root / "obj.names", "cat\ndog\n")
    write(root / "train.txt", "\ufeff" + "\r\n".join(line.format(i) for i in range(3)))
    write(root / "test.txt", line.format(3) + "\n")
    keys = {"train": "train.txt", "valid": "test.txt", "names": "obj.names"}
    write(root / "obj.data", "classes = 2\n" + "".join(f"{k} = {base.format(v)}\n" for k, v in keys.items()))
    splits = read_splits(root)
    assert {p.severity for p in splits.problems} <= {"warning"}
    assert [r.path.resolve() for r in splits.train.records] == [root / "obj" / f"{i}.jpg" for i in range(3)]
    assert [r.path.resolve() for r in splits.val.records] == [root / "obj" / "3.jpg"]
    assert all(r.labels.tolist() == [0, 1] for r in splits.train.records)
    is_foreign = "/content" in line or "C:" in line or "https" in line
    assert ("image found by the end of its path" in {p.kind for p in splits.problems}) == is_foreign


@pytest.mark.parametrize(
    "text",
    [
        "path: C:\\Users\\me\\set\ntrain: images\\train\nval: images\\val\n",
        "train: C:\\Users\\me\\set\\images\\train\nval: C:\\Users\\me\\set\\images\\val\n",
        "path: /content/drive/MyDrive/set\ntrain: /content/drive/MyDrive/set/images/train\nval: ./images/val\n",
        "train: ..\\images\\train\nval: ../images/val\n",
        "train: Images/Train\nval: IMAGES/VAL/\n",
    ],
)
def test_a_data_yaml_of_another_machine(write_yolo, text):
    root = write_yolo([(f"images/{s}/a.jpg", f"labels/{s}/a.txt") for s in ("train", "val")])
    write(root / "data.yaml", f"{text}names: [cat, dog]\n")
    splits = read_splits(root)
    assert [r.path.resolve() for r in splits.train.records] == [root / "images" / "train" / "a.jpg"]
    assert [r.path.resolve() for r in splits.val.records] == [root / "images" / "val" / "a.jpg"]
    assert {p.kind for p in splits.problems} <= {"place found by the end of its path"}


def test_two_foreign_entries_that_end_alike_are_one_folder(write_yolo):
    root = write_yolo([("images/a.jpg", "labels/a.txt")])
    write(root / "data.yaml", "train: /x/one/images\nval: /x/two/images\nnames: [cat, dog]\n")
    found = [p.kind for p in check(read_splits(root)).certain]
    assert found == ["place found by the end of its path"] * 2 + ["one folder for two splits"]


def test_missing_images_are_told_and_not_missing_labels(write_yolo):
    root = write_yolo([("obj/kept.jpg", "obj/kept.txt")])
    write(root / "train.txt", "obj/a.jpg\nobj/b.jpg\n")
    write(root / "obj.names", "cat\ndog\n")
    write(root / "obj.data", "train = train.txt\nvalid = train.txt\nnames = obj.names\n")
    with pytest.raises(
        DataError, match=r"first of 2 problems: missing image: .*obj\.data: .*obj/a\.jpg does not exist"
    ):
        read_splits(root)


def test_a_set_in_a_folder_of_its_own_within_the_archive(write_yolo):
    root = write_yolo([(f"set/set/images/{s}/a.jpg", f"set/set/labels/{s}/a.txt") for s in ("train", "val")])
    write(root / "set/set/classes.txt", "cat\ndog\n")
    (root / "__MACOSX").mkdir()
    assert read_splits(root).finding == "YOLO text: 1 training and 1 validation images, 2 classes: cat, dog"


# --- what is passed over, links, depth ---


def test_pictures_that_are_not_read_are_counted_by_suffix(write_yolo):
    root = write_yolo([(f"images/{i}.jpg", f"labels/{i}.txt") for i in range(4)])
    write(root / "classes.txt", "cat\ndog\n")
    for name in ("x.heic", "y.HEIC", "z.cr2"):
        write(root / "images" / name, "no picture")
    shutil.copy(root / "images" / "0.jpg", root / "images" / "bare")
    write(root / "images" / "LICENSE", "a text")
    write(root / "labels" / "x.txt", LINES)
    problems = read_splits(root).problems
    assert kinds(problems) == [("error", "missing image")] + [("warning", "pictures that are not read")] * 3
    assert problems[0].message.endswith("; x.heic is there, but is not read")
    assert [p.message.partition(";")[0] for p in problems[1:]] == ["1 pictures without suffix", "1 .cr2", "2 .heic"]
    assert [p.remedy for p in problems[1:]] == [
        "passed over; give them the suffix of their kind, .jpg say",
        "passed over; develop it to JPEG or PNG",
        "passed over; pip install pillow-heif",
    ]
    assert kinds(read_split(root, "").problems) == kinds(problems)


def test_a_folder_of_pictures_that_are_not_read_says_so(tmp_path):
    for i in range(3):
        write(tmp_path / "images" / f"{i}.cr2", "no picture")
        write(tmp_path / "labels" / f"{i}.txt", LINES)
    with pytest.raises(DataError, match=r"and 3 pictures that are not read: 3 \.cr2 \(develop it to JPEG or PNG\)"):
        read_splits(tmp_path)
    write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat, dog]\n")
    with pytest.raises(
        DataError, match=r"no images in a folder: .*data\.yaml, train: .*images holds no image that is read"
    ):
        read_splits(tmp_path)


def test_files_without_suffix_that_the_annotations_name_are_used(tmp_path, write_image, write_coco):
    for name in ("a", "b"):
        shutil.move(write_image(tmp_path / f"{name}.png"), tmp_path / name)
    write_coco(tmp_path / "all.json", [(1, "a", 100, 80), (2, "b", 100, 80)], [(1, 1, [0, 0, 9, 9])])
    assert read_splits(tmp_path).problems == ()


def test_both_splits_linked_to_one_folder_are_named(tmp_path, write_yolo):
    write_yolo([(f"images/{i}.png", f"labels/{i}.txt") for i in range(3)], root=tmp_path / "store")
    root = tmp_path / "set"
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            (root / kind / split).symlink_to(f"../../store/{kind}")
    write(root / "classes.txt", "cat\ndog\n")
    splits = read_splits(root)
    assert (len(splits.train), len(splits.val), splits.problems) == (3, 3, ())
    (problem,) = check(splits).certain
    assert problem.kind == "one folder for two splits"
    assert problem.message == (
        f"all 3 validation images are training images: {root}/images/train and {root}/images/val are both "
        f"{tmp_path.resolve()}/store/images"
    )


def test_linked_folders_and_images_have_the_labels_of_what_they_link_to(tmp_path, write_yolo):
    write_yolo([(f"images/{i}.png", f"labels/{i}.txt") for i in range(2)], root=tmp_path / "store")
    root = write_yolo([("own.png", "own.txt")], root=tmp_path / "set")
    (root / "camera1").symlink_to(tmp_path / "store" / "images")
    (root / "single.png").symlink_to(tmp_path / "store" / "images" / "0.png")
    reading = read_split(root, "")
    assert names(reading.data) == ["0.png", "1.png", "own.png", "single.png"]
    assert all(record.labels.tolist() == [0, 1] for record in reading.data.records)


def test_deep_folders_and_circles(write_yolo):
    deep = "site/north/cam1/2024/05/12/08/30/15"
    root = write_yolo([(f"{deep}/a.png", f"{deep}/a.txt"), ("site/b.png", "site/b.txt")])
    (root / deep / "up").symlink_to(root / "site")
    (root / deep / "out").symlink_to("/")
    (root / "site" / "self").symlink_to(".")
    assert len(read_split(root, "").data) == 2


def test_the_image_of_an_annotation_lies_behind_a_link(tmp_path, write_image, write_coco):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "store" / "deep" / name)
    root = tmp_path / "set"
    root.mkdir()
    (root / "pictures").symlink_to(tmp_path / "store")
    images = [(1, "a.png", 100, 80), (2, "b.png", 100, 80)]
    write_coco(root / "all.json", images, [(1, 1, [0, 0, 9, 9]), (2, 1, [0, 0, 9, 9])])
    splits = read_splits(root)
    assert splits.problems == ()
    assert {r.path.parent for r in splits.train.records} == {root / "pictures" / "deep"}


def test_names_of_a_list_without_xml_file_may_be_skipped(write_voc):
    root = write_voc(["a", "b", "c"])
    write(root / "ImageSets/Main/train.txt", "a\nb\ngone\nlost\n")
    write(root / "ImageSets/Main/val.txt", "c\n")
    assert kinds(read_splits(root).problems) == [("error", "missing annotation")] * 2
    (problem,) = read_splits(root, rules=ReadingRules(missing="skip")).problems
    assert (problem.severity, problem.kind) == ("warning", "missing annotations")
    assert problem.message.startswith("2 of 4 names have no XML file; the first: ")


def test_an_empty_list_is_not_replaced_by_a_draw(write_voc):
    root = write_voc(["a", "b", "c"])
    write(root / "ImageSets/Main/train.txt", "a\nb\n")
    write(root / "ImageSets/Main/val.txt", "\n")
    with pytest.raises(DataError, match="leaves no image to validate on"):
        read_splits(root)


def test_label_files_without_image_may_be_skipped(write_yolo):
    root = write_yolo([(f"images/{i}.jpg", f"labels/{i}.txt") for i in range(5)])
    write(root / "classes.txt", "cat\ndog\n")
    for i in (1, 3):
        (root / "images" / f"{i}.jpg").unlink()
    assert kinds(read_splits(root).problems) == [("error", "missing image")] * 2
    splits = read_splits(root, rules=ReadingRules(missing="skip"))
    (problem,) = splits.problems
    assert (problem.severity, problem.kind) == ("warning", "missing images")
    assert problem.message == "2 label files have no image; the first is 1.txt"
    assert len(splits.train) + len(splits.val) == 3


def test_empty_lists_links_to_nothing_and_folders_in_lists_are_told(write_yolo):
    root = write_yolo([("obj/a.jpg", "obj/a.txt")])
    write(root / "data.yaml", "train: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    write(root / "val.txt", "obj/a.jpg\n")
    write(root / "train.txt", " \n\n")
    with pytest.raises(DataError, match=r"empty list: .*data\.yaml, train: .*train\.txt lists no image"):
        read_splits(root)
    (root / "obj" / "b.jpg").symlink_to("/nowhere/b.jpg")
    write(root / "train.txt", "obj/b.jpg\nobj\nobj/a.jpg\n")
    problems = read_splits(root).problems
    assert kinds(problems) == [("error", "missing image"), ("error", "unreadable image")]
    assert problems[0].message == f"{root}/obj/b.jpg does not exist; it is a link to /nowhere/b.jpg"


def test_images_named_with_their_folder_may_lie_in_another_splits(tmp_path, write_image, write_coco):
    for i in range(3):
        write_image(tmp_path / "train" / f"{i}.png")
    write_coco(tmp_path / "train.json", [(0, "0.png", 100, 80), (1, "1.png", 100, 80)], [(0, 1, [0, 0, 9, 9])])
    write_coco(tmp_path / "val.json", [(2, "2.png", 100, 80)], [(2, 1, [0, 0, 9, 9])])
    with pytest.raises(DataError, match="if it is meant, write its folder before the name"):
        read_splits(tmp_path)
    write_coco(tmp_path / "val.json", [(2, "train/2.png", 100, 80)], [(2, 1, [0, 0, 9, 9])])
    splits = read_splits(tmp_path)
    assert splits.problems == ()
    assert [r.path for r in splits.val.records] == [tmp_path / "train" / "2.png"]


def test_a_class_called_train_makes_no_split(write_voc):
    root = write_voc(["a", "b", "c"])
    write(root / "ImageSets/Main/trainval.txt", "a\nb\n")
    write(root / "ImageSets/Main/test.txt", "c\n")
    write(root / "ImageSets/Main/train_train.txt", "a  1\n")
    assert names(read_splits(root).train) == ["a.jpg", "b.jpg"]


def test_names_that_end_in_numbers_stand_in_lists_of_any_name(write_voc):
    root = write_voc([f"site visit {i}" for i in (0, 1)] + ["a", "b"])
    write(root / "ImageSets/Main/my_train.txt", "site visit 0\nsite visit 1\n")
    write(root / "ImageSets/Main/my_val.txt", "a\nb\n")
    assert names(read_splits(root).train) == ["site visit 0.jpg", "site visit 1.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])  # as Windows' editor and shell write them
def test_texts_with_a_byte_order_mark(tmp_path, write_image, write_coco, write_voc, encoding):
    def encode(path, text=None):
        text = path.read_text(encoding="utf-8") if text is None else text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode(encoding))

    for name in ("a", "b"):
        write_image(tmp_path / f"yolo/images/{name}.png")
        encode(tmp_path / f"yolo/labels/{name}.txt", "1 0.5 0.5 0.2 0.4\r\n")
    encode(tmp_path / "yolo/classes.txt", "Käfer\r\nhund\r\n")
    encode(
        tmp_path / "yaml/data.yaml", "train: [../yolo/images/a.png]\r\nval: [../yolo/images/b.png]\r\nnames: [x, y]\r\n"
    )
    for place, classes in (("yolo", ("Käfer", "hund")), ("yaml", ("x", "y"))):
        splits = read_splits(tmp_path / place)
        assert splits.train.names == classes
        assert splits.train.records[0].labels.tolist() == [1]
        assert [p for p in splits.problems if p.severity == "error"] == []
    write_voc(["a", "b"], root=tmp_path / "voc")
    for split, name in (("Train", "a"), ("Val", "b")):
        encode(tmp_path / f"voc/ImageSets/Main/{split}.txt", f"{name}\r\n")
    splits = read_splits(tmp_path / "voc")
    assert (names(splits.train), names(splits.val), splits.problems) == (["a.jpg"], ["b.jpg"], ())
    for name in ("a", "b"):
        write_image(tmp_path / f"coco/{name}.png")
    path = write_coco(
        tmp_path / "coco/result.json",
        [(1, "a.png", 0, 0), (2, "b.png", 0, 0)],
        [(i, 1, [1, 2, 9, 9]) for i in (1, 2)],
        [(1, "Käfer")],
    )
    encode(path)
    splits = read_splits(tmp_path / "coco")
    assert (splits.layout, splits.train.names) == ("coco", ("Käfer",))
    assert splits.train.records[0].boxes.tolist() == [[1, 2, 10, 11]]


def test_subsets_of_cvat_name_the_keys_and_folders(write_yolo):
    pairs = [(f"obj_{s}_data/f{i}.png", f"obj_{s}_data/f{i}.txt") for s in ("Train", "Validation") for i in range(2)]
    root = write_yolo(pairs)
    for s in ("Train", "Validation"):
        write(root / f"{s}.txt", "".join(f"data/obj_{s}_data/f{i}.png\n" for i in range(2)))
    write(root / "obj.names", "cat\ndog\n")
    file = write(
        root / "obj.data", "Train = data/Train.txt\nValidation = data/Validation.txt\nnames = data/obj.names\n"
    )
    for is_listed in (True, False):  # by its lists, and by its folders
        if not is_listed:
            file.unlink()
        splits = read_splits(root)
        for data, folder in ((splits.train, "obj_Train_data"), (splits.val, "obj_Validation_data")):
            assert [r.path.relative_to(root).as_posix() for r in data.records] == [f"{folder}/f{i}.png" for i in (0, 1)]
        assert splits.train.names == ("cat", "dog")
        assert splits.problems == ()
