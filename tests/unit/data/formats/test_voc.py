"""Pascal VOC: corners, splits, classes, and where images lie."""

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.voc import find_voc, read_voc
from pyrafuse.data.reading.folders import Tree


def write_xml(path, objects, *, filename=None, size=(100, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    items = "".join(
        f"<object><name>{name}</name><difficult>{int(is_difficult)}</difficult><bndbox>"
        + "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
        "</part></object>"
        for name, box, is_difficult in objects
    )
    width, height = size
    path.write_text(
        f"<annotation><filename>{filename or path.stem + '.png'}</filename>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{items}</annotation>"
    )
    return path


def read(root, split):
    tree = Tree(root)
    return read_voc(find_voc(tree), split=split, tree=tree)


def test_corners_are_one_based_and_inclusive(tmp_path, write_image):
    write_image(tmp_path / "JPEGImages" / "a.png")
    write_xml(tmp_path / "Annotations" / "a.xml", [("dog", (1, 1, 100, 80), False), ("cat", (11, 21, 30, 60.5), True)])
    reading = read(tmp_path, "")
    record = reading.data.records[0]
    assert reading.data.names == ("cat", "dog")
    assert record.boxes.tolist() == [[0, 0, 100, 80], [10, 20, 30, 60.5]]
    assert record.labels.tolist() == [1, 0]
    assert record.crowd.tolist() == [False, True]
    assert record.areas.tolist() == [8000, 810]
    assert reading.problems == ()


def test_lists_name_the_splits_and_years_are_joined(tmp_path, write_image):
    for year, stems in (("VOC2007", ("a", "b", "c")), ("VOC2012", ("d", "e"))):
        for stem in stems:
            write_image(tmp_path / year / "JPEGImages" / f"{stem}.png")
            write_xml(tmp_path / year / "Annotations" / f"{stem}.xml", [("dog", (1, 1, 9, 9), False)])
        lists = tmp_path / year / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text(f"{stems[0]}\n")
        (lists / "val.txt").write_text("\n".join(stems[1:]))
        (lists / "trainval.txt").write_text("\n".join(stems))
        (lists / "dog_train.txt").write_text(f"{stems[0]} 1\n")
    assert {split: len(files) for split, files in find_voc(Tree(tmp_path)).splits.items()} == {
        "train": 2, "val": 3, "trainval": 5,
    }  # fmt: skip
    assert [record.path.stem for record in read(tmp_path, "val").data.records] == ["b", "c", "e"]
    assert [record.image_id for record in read(tmp_path, "val").data.records] == [0, 1, 2]


def test_folders_name_the_splits_and_images_lie_beside(tmp_path, write_image):
    for split, count in (("train", 2), ("valid", 1)):
        for i in range(count):
            write_image(tmp_path / split / f"{i}.png")
            write_xml(tmp_path / split / f"{i}.xml", [("dog" if split == "train" else "cat", (1, 1, 9, 9), False)])
    assert [record.path for record in read(tmp_path, "train").data.records] == [
        tmp_path / "train" / "0.png", tmp_path / "train" / "1.png",
    ]  # fmt: skip
    assert read(tmp_path, "val").data.records[0].path == tmp_path / "valid" / "0.png"
    # the classes are those of all splits
    assert read(tmp_path, "train").data.names == read(tmp_path, "val").data.names == ("cat", "dog")


def test_split_folders_below_images_and_annotations(tmp_path, write_image):
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "same.png")
        write_xml(tmp_path / "annotations" / split / "same.xml", [("dog", (1, 1, 9, 9), False)])
    assert read(tmp_path, "val").data.records[0].path == tmp_path / "images" / "val" / "same.png"


@pytest.mark.parametrize("filename", ["wrong.jpg", "a", " ", "C:\\pictures\\a.png"])
def test_a_wrong_filename_falls_back_on_the_name_of_the_xml(tmp_path, write_image, filename):
    write_image(tmp_path / "a.png")
    write_xml(tmp_path / "a.xml", [("dog", (1, 1, 9, 9), False)], filename=filename)
    assert [record.path.name for record in read(tmp_path, "").data.records] == ["a.png"]


def test_a_stale_filename_is_not_believed(tmp_path, write_image):
    for stem in ("a", "b"):
        write_image(tmp_path / f"{stem}.png")
        write_xml(tmp_path / f"{stem}.xml", [("dog", (1, 1, 9, 9), False)], filename="a.png")
    assert [record.path.name for record in read(tmp_path, "").data.records] == ["a.png", "b.png"]


def test_listed_classes_keep_their_order_and_others_are_told(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("zebra\ndog\n")
    write_xml(tmp_path / "a.xml", [("dog", (1, 1, 9, 9), False), ("fox", (1, 1, 9, 9), False)])
    reading = read(tmp_path, "")
    assert reading.data.names == ("zebra", "dog")
    assert reading.data.records[0].labels.tolist() == [1]
    assert [(p.severity, p.kind, p.record) for p in reading.problems] == [("error", "unknown class", "object 1 (fox)")]


@pytest.mark.parametrize("element", ["", "<name/>", "<name> </name>"])
def test_an_object_without_a_name_is_an_error(tmp_path, write_image, element):
    write_image(tmp_path / "a.png")
    path = write_xml(tmp_path / "a.xml", [("dog", (1, 1, 9, 9), False), ("?", (1, 1, 9, 9), False)])
    path.write_text(path.read_text().replace("<name>?</name>", element))
    reading = read(tmp_path, "")
    assert reading.data.names == ("dog",)
    assert reading.data.records[0].labels.tolist() == [0]
    assert [(p.severity, p.kind, p.file, p.record) for p in reading.problems] == [
        ("error", "object without a name", path, "object 1"),
    ]


def test_faults_are_told(tmp_path, write_image):
    for name in ("a", "b", "c", "without"):
        write_image(tmp_path / f"{name}.png")
    write_xml(tmp_path / "a.xml", [("dog", (1, "x", 9, 9), False), ("dog", (20, 5, 10, 9), False)], size=("", -1))
    write_xml(tmp_path / "b.xml", [("dog", (1, 1, 9, 9), False)], size=(50, 80))
    cut = write_xml(tmp_path / "c.xml", [("dog", (1, 1, 9, 9), False)])
    cut.write_text(cut.read_text()[:-40])
    reading = read(tmp_path, "")
    assert [(record.path.name, len(record.labels)) for record in reading.data.records] == [("a.png", 0)]
    assert [(p.severity, p.kind, p.file.name) for p in reading.problems] == [
        ("error", "unreadable annotation", "c.xml"),
        ("warning", "image without annotation", tmp_path.name),
        ("error", "image size differs from its annotation", "b.xml"),
        ("error", "box that is no number", "a.xml"),
        ("error", "inverted box", "a.xml"),
    ]


@pytest.mark.parametrize(
    ("encoding", "declaration", "comment"),
    [
        ("gbk", "<?xml version='1.0' encoding='gbk'?>", ""),
        ("utf-16", '<?xml version="1.0" encoding="UTF-16"?>', ""),
        ("latin-1", '<?xml version="1.0" encoding="ISO-8859-1"?>', ""),
        ("utf-8-sig", "", f"<!-- {'about <annotations> ' * 40}-->\n"),
    ],
)
def test_encodings_and_long_comments(tmp_path, write_image, encoding, declaration, comment):
    name = "caf\u00e9" if encoding == "latin-1" else "\u732b"
    write_image(tmp_path / "a.png")
    path = write_xml(tmp_path / "a.xml", [(name, (1, 1, 9, 9), False)])
    path.write_bytes((declaration + comment + path.read_text()).encode(encoding))
    reading = read(tmp_path, "")
    assert reading.data.names == (name,)
    assert len(reading.data.records[0].labels) == 1
    assert reading.problems == ()


@pytest.mark.parametrize("encoding", ["martian", "gbk"])
def test_an_encoding_that_cannot_be_read_is_told(tmp_path, write_image, encoding):
    write_image(tmp_path / "a.png")
    path = write_xml(tmp_path / "a.xml", [("x", (1, 1, 9, 9), False)])
    path.write_bytes(f"<?xml version='1.0' encoding='{encoding}'?>".encode() + path.read_bytes() + b"\xff")
    (problem,) = read(tmp_path, "").problems
    assert (problem.kind, problem.file) == ("unreadable annotation", path)
    assert "its encoding cannot be read, save it in UTF-8: " in problem.message


def test_a_list_in_another_encoding_is_refused(tmp_path, write_image):
    write_xml(tmp_path / "Annotations" / "a.xml", [("dog", (1, 1, 9, 9), False)])
    path = tmp_path / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt is no text in UTF-8"):
        find_voc(Tree(tmp_path))


def test_other_xml_is_no_voc(tmp_path):
    (tmp_path / "annotations.xml").write_text("<?xml version='1.0'?><annotations><version>1.1</version></annotations>")
    assert find_voc(Tree(tmp_path)) is None


def test_an_image_under_another_name_than_its_xml_is_annotated(tmp_path, write_image):
    write_image(tmp_path / "JPEGImages" / "Bild 1.png")
    write_image(tmp_path / "JPEGImages" / "other.png")
    write_xml(tmp_path / "Annotations" / "bild%201.xml", [("dog", (1, 1, 9, 9), False)], filename="bild%201.png")
    reading = read(tmp_path, "")
    assert [record.path.name for record in reading.data.records] == ["Bild 1.png"]
    told = {p.kind: p for p in reading.problems}
    assert told["image without annotation"].record == "other.png"
    assert told["image without annotation"].message.startswith("1 images")
