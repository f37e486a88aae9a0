"""`pyrafuse evaluate DATA --results FILE`: what is written and said, and what is refused before any work."""

import json
import re

import pytest

import pyrafuse
from pyrafuse.cli.main import main
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.formats.shapes import write_shapes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set in ``data``, and all of its objects as perfect results in ``found.json``."""
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "data", num_train=2, num_val=3, size=64)
    write_results(tmp_path / "found.json")
    return tmp_path


def write_results(file, split="val", count=None):
    data = read_split("data", split).data
    rows = [
        {
            "image_id": record.image_id,
            "category_id": data.category_ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": 0.9,
        }
        for record in data.records
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    ]
    file.write_text(json.dumps(rows[:count]))
    return rows


def test_results_are_judged_without_a_model_and_the_page_goes_where_it_is_asked_for(folder, capsys):
    assert main(["evaluate", "data", "--results", "found.json", "--page", "pages/why.html"]) == 0
    out, err = capsys.readouterr()
    assert "3 images of data (val), 5 classes, judged by found.json" in err
    assert "AP 1.000  AP50 1.000" in out
    assert "No error costs AP." in out
    assert out.splitlines()[-2:] == ["report      pages/why.html", "written to  evaluation"]
    assert sorted(path.name for path in (folder / "evaluation").iterdir()) == [
        "evaluation.json", "precision_recall.png",
    ]  # fmt: skip
    written = json.loads((folder / "evaluation/evaluation.json").read_text())
    assert written["diagnosis"]["counts"][1:] == [0] * 6
    assert written["ap"] == 1
    page = (folder / "pages/why.html").read_text()
    assert "<h1>Evaluation of found.json</h1>" in page
    titles = re.findall(r"<h2 [^>]*><a [^>]*>(.*?)</a>", page)
    assert titles == [
        "Why it fails", "Errors by size and class", "Per class", "Per size", "Precision and recall", "Confidence",
        "Confusion", "Calibration", "Worst images", "The evaluation",
    ]  # fmt: skip
    assert not re.search(r"(src|href)=.?(?!\"data:|\"#|data:|#)", page)  # offline


def test_any_split_is_judged(folder, capsys):
    rows = write_results(folder / "train.json", split="train")
    assert main(["evaluate", "data", "--results", "train.json", "--split", "train", "--output", "out"]) == 0
    assert "2 images of data (train)" in capsys.readouterr().err
    assert json.loads((folder / "out/evaluation.json").read_text())["num_objects"] == len(rows)
    assert main(["evaluate", "data", "--results", "train.json", "--split", "test"]) == 2
    assert "data has no split 'test'; it has train, val" in capsys.readouterr().err


def test_python_judges_results_by_the_same_name(folder):
    result = pyrafuse.evaluate("data", results="found.json", progress=False)
    assert (result.ap, result.num_images) == (1, 3)
    assert not (folder / "evaluation").exists()


def test_what_is_passed_over_is_said(folder, capsys):
    rows = write_results(folder / "found.json")
    (folder / "found.json").write_text(json.dumps([{**rows[0], "image_id": 99}, *rows]))
    assert main(["evaluate", "data", "--results", "found.json"]) == 0
    assert "1 detection of images that the val split does not have, passed over" in " ".join(
        capsys.readouterr().err.split()
    )


def test_nothing_found_is_a_page_too(folder, capsys):
    write_results(folder / "found.json", count=0)
    assert main(["evaluate", "data", "--results", "found.json"]) == 0
    out, err = capsys.readouterr()
    assert "holds no detection: nothing is found, and AP is 0" in " ".join(err.split())
    assert "Nothing is found: AP is 0." in out
    assert "Nothing was found." in (folder / "evaluation/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "model.ckpt data --results found.json",
            "leave the model model.ckpt out: pyrafuse evaluate data --results",
        ),
        ("data --results found.json --size 64", "--size is for a model"),
        ("data --results found.json --batch 2", "--batch is for a model"),
        ("data --results found.json --overlap 0.2", "--overlap is for a model"),
        ("data --results found.json --merge nms", "--merge is for a model"),
        ("data --results found.json --optimize", "--optimize is for a model"),
        ("data --results lost.json", "no such file of results: lost.json"),
        ("dat --results found.json", "no such data set: dat; did you mean"),
        ("data --results found.json --page why.txt", "--page why.txt is no page; give it the suffix .html"),
        ("data --results found.json --page found.json/why.html", "found.json is a file, and no folder"),
        ("data --results found.json --page data", "--page data is no page"),
        ("data --results data/instances_val.json", "holds an object with"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(folder, capsys, words, message):
    before = sorted(folder.rglob("*"))
    assert main(["evaluate", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before
