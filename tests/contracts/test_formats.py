"""Annotation formats and output formats: what holds for every registered one, and for one that a user adds."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyrafuse.base.errors import DataError
from pyrafuse.cli.main import main
from pyrafuse.cli.predict import predict
from pyrafuse.data.checks.checking import check
from pyrafuse.data.formats.layout import read_split, read_splits
from pyrafuse.data.formats.registry import FORMATS, all_formats
from pyrafuse.data.formats.shapes import SHAPES, draw_shapes
from pyrafuse.data.reading.folders import Tree
from pyrafuse.inference.writers.registry import WRITERS
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def add_part(tmp_path, monkeypatch) -> Callable[[str], str]:
    """Writes the contributors' example that registers a name into a file; what it registers is forgotten."""
    monkeypatch.setattr(FORMATS, "_entries", {name: FORMATS.entry(name) for name in FORMATS.names()})
    monkeypatch.setattr(WRITERS, "_entries", {name: WRITERS.entry(name) for name in WRITERS.names()})

    def write(name: str) -> str:
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        (block,) = (text for text in blocks if f'.register("{name}")' in text)
        file = tmp_path / f"{name}_from_the_page.py"
        file.write_text(block)
        return str(file)

    return write


@pytest.fixture
def csv_folder(tmp_path) -> Path:
    """Six training and three validation images with their boxes in CSV."""
    folder = tmp_path / "set"
    for split, count in (("train", 6), ("val", 3)):
        (folder / split).mkdir(parents=True)
        lines = []
        for index in range(count):
            pixels, boxes, labels = draw_shapes(index, size=64, split=split)
            cv2.imwrite(str(folder / split / f"{index}.png"), pixels[..., ::-1])
            for label, box in zip(labels.tolist(), boxes.tolist(), strict=True):
                lines.append(",".join([f"{index}.png", SHAPES[label], *map(str, box)]))
        (folder / f"boxes_{split}.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("name", FORMATS.names())
def test_formats_tell_what_they_are_and_leave_what_is_not_theirs(name, tmp_path):
    given = FORMATS.create(name)
    assert given.title
    assert given.looked_for
    assert all(given.set_aside)
    (tmp_path / "notes.md").write_text("# nothing to find")
    assert given.find_description(Tree(tmp_path)) is None
    assert given.find(Tree(tmp_path)) is None
    assert given.open(tmp_path / "notes.md") is None


def test_formats_look_in_their_order():
    assert [name for name, _ in all_formats()] == [
        "coco", "shards", "voc", "yolo", "cvat", "label_studio", "labelme", "imagefolder", "open_images", "csv",
    ]  # fmt: skip


@pytest.mark.parametrize("name", WRITERS.names())
def test_the_help_of_predict_names_every_output_format(name):
    assert re.search(rf"\b{name} \(", predict.__doc__ or "")


def test_a_format_from_outside_is_checked_trained_on_and_evaluated(add_part, csv_folder, tmp_path, capsys):
    with pytest.raises(DataError, match=r"no data set in .*set, which holds 11 files"):
        read_splits(csv_folder)
    assert main(["--import", add_part("box_csv"), "data", "check", str(csv_folder)]) == 0
    assert capsys.readouterr().out.startswith(
        "CSV boxes: 6 training and 3 validation images, 5 classes: circle, cross, "
    )
    splits = read_splits(csv_folder)
    _, boxes, labels = draw_shapes(2, size=64, split="train")
    assert (splits.layout, splits.train.layout, splits.val.split, splits.problems) == ("box_csv", "box_csv", "val", ())
    assert splits.train.records[2].path == csv_folder / "train" / "2.png"
    np.testing.assert_array_equal(splits.train.records[2].boxes, boxes)
    assert [splits.train.names[i] for i in splits.train.records[2].labels] == [SHAPES[i] for i in labels]

    run = tmp_path / "run"
    words = ["--epochs", "1", "--batch", "3", "--size", "64", "--data.workers", "0", "--device", "cpu"]
    assert main(["train", str(csv_folder), "--model", "yolov3_small", *words, "--output", str(run)]) == 0
    assert main(["evaluate", str(run), "--output", str(tmp_path / "judged"), "--device", "cpu"]) == 0
    assert "3 images of what it was trained on (val), 5 classes, 64 px" in capsys.readouterr().err


def test_faults_in_a_format_from_outside_are_told_as_in_any_other(add_part, csv_folder):
    exec(compile(Path(add_part("box_csv")).read_text(), "box_csv.py", "exec"), {"__name__": "box_csv"})
    path = csv_folder / "boxes_val.csv"
    path.write_text("0.png,circle,1,2,30,40\n0.png,circle,90,90,99,99\nnone.png,circle,1,2,30,40\n")
    reading = read_split(csv_folder, "val")
    told = {problem.kind: (problem.file, problem.record) for problem in reading.problems}
    assert told == {
        "box outside its image": (path, "line 2 of 0.png"),
        "missing image": (path, "image none.png"),
    }
    assert [len(record.labels) for record in reading.data.records] == [1]
    assert check(read_splits(csv_folder)).has_errors


def test_an_output_format_from_outside_is_written(add_part, csv_folder, tmp_path, capsys):
    detector = create_model("yolov3_small", num_classes=2)
    save(detector, tmp_path / "a.ckpt")
    words = ["predict", str(tmp_path / "a.ckpt"), str(csv_folder / "val"), "--output", str(tmp_path / "out"),
             "--score", "0", "--max-detections", "7", "--size", "64", "--device", "cpu"]  # fmt: skip
    assert main([*words, "--formats", "counts"]) == 2
    assert (
        "unknown output format 'counts'; choose from coco, crop, image, json, parquet, yolo" in capsys.readouterr().err
    )
    assert main(["--import", add_part("counts"), *words, "--formats", "counts,json"]) == 0
    lines = (tmp_path / "out" / "counts.txt").read_text().splitlines()
    assert lines == [f"{csv_folder / 'val' / f'{index}.png'} 7" for index in range(3)]
    assert (tmp_path / "out" / "predictions.json").is_file()
