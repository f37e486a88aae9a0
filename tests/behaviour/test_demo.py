"""The demo, on far fewer images: one page that opens anywhere, with everything in it."""

import re
from dataclasses import replace

import pytest
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.demo.running import run_demo, with_output
from pyrafuse.recipes.small import shapes_demo
from pyrafuse.training.settings import Recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Recipe:
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path / "cache"))
    recipe = shapes_demo()
    return replace(
        recipe,
        data=replace(recipe.data, path="shapes:train=8,val=3,size=64", size=64, workers=0),
        run=replace(recipe.run, epochs=2, batch_size=8),
    )


def test_one_page_holds_everything(recipe, tmp_path):
    result = run_demo(with_output(recipe, tmp_path / "demo", device="cpu"), console=Console(quiet=True))
    assert result.page == tmp_path / "demo/report.html"
    assert result.checkpoint.is_file()
    assert list(result.seconds) == ["train", "evaluate", "predict", "explain"]
    page = result.page.read_text()
    titles = re.findall(r'<h2 id="[^"]+"><a href="[^"]+">([^<]+)</a></h2>', page)
    assert titles == [
        "Per class", "Per size", "Precision and recall", "Confusion", "Worst images", "What it finds",
        "Which levels contributed to each detection", "Training", "Data", "The run", "On your own images",
    ]  # fmt: skip
    assert re.findall(r'(?:src|href)="(?!data:image/|#)', page) == []  # nothing is fetched
    panels = 7  # terms of single levels are in curves.png alone
    pairs = 2 * len(result.evaluation.worst)
    assert page.count("<img ") == 2 + pairs + 3 + 3 + panels + 6  # precision, worst, gallery, fusion, curves, samples
    assert f"pyrafuse evaluate {result.checkpoint}" in page
    assert f"<dt>AP50</dt><dd>{result.evaluation.ap50:.3f}</dd>" in page


def test_every_demo_has_a_folder_of_its_own(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_output(recipe, None).run.output == "runs/demo-1"
    (tmp_path / "runs/demo-1").mkdir(parents=True)
    assert with_output(recipe, None).run.output == "runs/demo-2"
    with pytest.raises(PyrafuseError, match=r"give the recipe's run\.output"):
        run_demo(recipe, console=Console(quiet=True))
