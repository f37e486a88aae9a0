"""CSV with a box a line, and Open Images' CSV."""

import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.layout import read_all, read_split, read_splits

TFOD = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


@pytest.mark.parametrize(
    ("head", "lines"),
    [
        (TFOD, "a.png,100,80,cat,10,20,30.5,40\na.png,100,80,dog,1,2,3,4\nb.png,100,80,,,,,\n"),
        ("image;label;x_min;y_min;x_max;y_max\n", "a.png;cat;10;20;30.5;40\na.png;dog;1;2;3;4\nb.png;;;;;\n"),
        ("", "a.png,10,20,30.5,40,cat\na.png,1,2,3,4,dog\nb.png,,,,,\n"),  # keras-retinanet
        ("\ufeffimage_name,label_name,bbox_x,x,y,w,h,image_width,image_height\n",
         "a.png,cat,0,10,20,20.5,20,100,80\na.png,dog,0,1,2,2,2,100,80\nb.png,,,,,,,100,80\n"),
    ],
)  # fmt: skip
def test_columns_of_all_kinds(tmp_path, write_image, head, lines):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", 100, 80)
    (tmp_path / "labels.csv").write_text(head + lines)
    reading = read_split(tmp_path, "")
    assert reading.data.names == ("cat", "dog")
    assert [record.boxes.tolist() for record in reading.data.records] == [[[10, 20, 30.5, 40], [1, 2, 3, 4]], []]
    assert reading.problems == ()
    assert len(read_split(tmp_path / "labels.csv", "").data) == 2


def test_splits_by_the_names_of_files_and_folders(tmp_path, write_image):
    for split in ("train", "valid"):
        write_image(tmp_path / split / "a.png", 100, 80)
        (tmp_path / split / "_annotations.csv").write_text(f"{TFOD}a.png,100,80,cat,10,20,30,40\n")
    splits = read_splits(tmp_path)
    assert splits.finding == "CSV with a box a line: 1 training and 1 validation images, 1 class: cat"
    assert splits.val.records[0].path == tmp_path / "valid" / "a.png"


def test_faults_of_lines(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    (tmp_path / "a.csv").write_text(
        TFOD
        + "a.png,100,80,cat,10,20,30,40\na.png,100,80,cat,10,zwei,30,40\na.png,100,80,,10,20,30,40\n,1,1,cat,1,1,1,1\n"
        "a.png,100,80,cat,50,20,30,40\n"
    )
    assert [(p.kind, p.record) for p in read_split(tmp_path, "").problems] == [
        ("malformed line", "line 3"), ("malformed line", "line 4"), ("malformed line", "line 5"),
        ("inverted box", "line 6 of a.png"),
    ]  # fmt: skip


def test_a_field_without_end_is_refused(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    (tmp_path / "a.csv").write_text(f'{TFOD}a.png,100,80,"{"x" * 200_000}",1,2,3,4\n')
    with pytest.raises(DataError, match=r"a\.csv, line 2 is no row of a CSV file: field larger than field limit"):
        read_split(tmp_path, "")


def test_shares_are_told_as_such(tmp_path, write_image):
    write_image(tmp_path / "a.png", 100, 80)
    rows = "".join(f"a.png,100,80,cat,0.{i},0.1,0.{i}5,0.5\n" for i in range(1, 9))
    (tmp_path / "a.csv").write_text(TFOD + rows)
    with pytest.raises(DataError, match="these look like shares of the image"):
        read_split(tmp_path, "")


OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def test_open_images(tmp_path, write_image):
    write_image(tmp_path / "train" / "0a1b.jpg", 200, 100)
    write_image(tmp_path / "validation" / "00ff.jpg", 200, 100)
    (tmp_path / "oidv6-train-annotations-bbox.csv").write_text(
        OPEN_IMAGES + "0a1b,xclick,/m/01yrx,1,0.1,0.5,0.2,0.6,0,0,0,0,0\n0a1b,xclick,/m/0bt9lr,1,0,1,0,1,1,0,1,0,0\n"
    )
    (tmp_path / "validation-annotations-bbox.csv").write_text(
        OPEN_IMAGES + "00ff,xclick,/m/01yrx,1,0.25,0.5,0.25,0.5,0,0,0,0,0\n"
    )
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n/m/05r655,Girl\n")
    splits = read_splits(tmp_path)
    assert splits.finding == "Open Images CSV: 1 training and 1 validation images, 2 classes: Cat, Dog"
    (record,) = splits.train.records
    assert record.boxes.ravel().tolist() == pytest.approx([20, 20, 100, 60, 0, 0, 200, 100])
    assert (record.labels.tolist(), record.crowd.tolist()) == ([0, 1], [False, True])
    assert splits.val.records[0].boxes.tolist() == [[50, 25, 100, 50]]
    assert [p.kind for p in splits.problems] == ["class without validation images"]
    reading = read_split(tmp_path, "train")
    assert reading.unkept == {"marks of objects (occluded, truncated ...)": 1}
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    told = [p for p in read_split(tmp_path, "train").problems if p.kind == "classes without names"]
    assert told[0].message == "2 classes are called by their numbers, /m/01yrx, /m/0bt9lr"


def test_a_line_of_open_images_that_lacks_fields_is_an_error_of_its_own(tmp_path, write_image):
    write_image(tmp_path / "a.jpg")
    titles = "XMin,XMax,YMin,YMax,ImageID,LabelName,IsGroupOf\n"
    (tmp_path / "train-annotations-bbox.csv").write_text(
        f"{titles}0.1,0.5,0.1,0.5,a,/m/1,0\n0.1,0.5,0.1,0.5\n0.1,0.5,0.1,0.5,a,/m/1\n"
    )
    (reading,) = read_all(tmp_path)
    assert [len(record.labels) for record in reading.data.records] == [1]
    assert [p.record for p in reading.problems if p.severity == "error"] == ["line 3", "line 4"]
