"""`pyrafuse diff A B DATA`: of models and files of results, and what is refused before any work."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import pyrafuse
from pyrafuse.cli.main import main
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save

CHECKPOINTS = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set, its objects as results in ``all.json``, and without the first of each image in ``rest.json``."""
    monkeypatch.chdir(tmp_path)
    write_shapes(tmp_path / "data", num_train=2, num_val=2, size=64)
    data = read_split("data", "val").data
    rows = [
        {
            "image_id": record.image_id,
            "category_id": data.category_ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": 0.9,
            "rank": rank,
        }
        for record in data.records
        for rank, (box, label) in enumerate(zip(record.boxes.tolist(), record.labels.tolist(), strict=True))
    ]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    (tmp_path / "rest.json").write_text(json.dumps([row for row in rows if row["rank"]]))
    return tmp_path


def test_two_files_of_results(folder, capsys):
    assert main(["diff", "all.json", "rest.json", "data", "--page", "pages/diff.html"]) == 0
    out, err = capsys.readouterr()
    assert "2 images of data (val)" in err
    assert out.splitlines()[:2] == ["A  all.json", "B  rest.json"]
    assert re.search(r"A alone 2, B alone 0, and neither 0; A is ahead by 0\.\d+ AP \(1\.000 and", out)
    assert out.splitlines()[-1] == "written to  pages/diff.html"
    page = (folder / "pages/diff.html").read_text()
    assert page.count("<figcaption>") == 3  # two pairs, and a table's
    assert "only A 1, only B 0" in page
    assert 'alt="A: ' in page
    assert not re.search(r"(src|href)=.?(?!\"data:|\"#|data:|#)", page)  # offline


def test_a_model_and_its_own_results_differ_in_nothing(folder, capsys):
    with zipfile.ZipFile(CHECKPOINTS) as files:
        files.extract("trained.ckpt", folder)
    options = ["--workers", "0", "--device", "cpu", "--batch", "2", "--tile", "40", "--overlap", "0.5"]
    assert main(["evaluate", "trained.ckpt", "data", *options]) == 0
    page = (folder / "evaluation/report.html").read_text()
    assert re.search(r"level 0, stride \d+</td>", page)
    capsys.readouterr()
    assert main(["diff", "trained.ckpt", "evaluation/coco_results.json", "data", *options]) == 0
    out = capsys.readouterr().out
    assert "A alone 0, B alone 0" in out
    assert "neither is ahead in AP" in out
    assert "In no image one finds an object that the other does not." in (folder / "diff.html").read_text()

    detector = load("trained.ckpt")
    names = (*detector.card.names[:-1], "hexagon")
    detector.card = replace(detector.card, names=names)
    save(detector, folder / "other.ckpt")
    assert main(["diff", "trained.ckpt", "other.ckpt", "data", *options]) == 2
    assert (
        "A and B have different classes: cross is known to trained.ckpt alone; hexagon is known to other.ckpt alone."
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("all.json lost.json data", "no such file of results: lost.json"),
        ("lost.ckpt all.json data", "no such checkpoint: lost.ckpt"),
        ("all.json rest.json dat", "no such data set: dat; did you mean"),
        ("all.json rest.json data --page diff.txt", "--page diff.txt is no page"),
        ("all.json rest.json data --limit -1", "limit must be a whole number, 0 or more, got -1"),
        ("all.json rest.json data --score 2", "score must be in 0..1, got 2"),
        ("all.json data/instances_val.json data", "holds an object with"),
        ("all.json rest.json data --split test", "data has no split 'test'"),
        ("all.json rest.json data --tile 64", "--tile is for a model, and A and B are results"),
        ("all.json rest.json data --merge wbf", "--merge is for a model"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(folder, capsys, words, message):
    before = sorted(folder.rglob("*"))
    assert main(["diff", *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_python_compares_by_the_same_names_and_writes_no_page(folder, capsys):
    before = sorted(folder.rglob("*"))
    difference = pyrafuse.diff("all.json", "rest.json", folder / "data", score=0.5, progress=False)
    assert (difference.counts[1:].tolist(), len(difference.images)) == ([2, 0, 0], 2)
    assert capsys.readouterr() == ("", "")
    assert sorted(folder.rglob("*")) == before
    pyrafuse.diff("all.json", "rest.json", "data", page="diff.html", progress=False)
    assert (folder / "diff.html").is_file()
    with pytest.raises(pyrafuse.PyrafuseError, match="unknown option --conf; did you mean --score"):
        pyrafuse.diff("all.json", "rest.json", "data", conf=0.5)
