"""The page of a check: most severe first, pictures with boxes, all text escaped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.card import Card
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.data_check import _advise
from pyrafuse.cli.main import main
from pyrafuse.data.checks.report import Advice, Report
from pyrafuse.data.checks.sizes import ClassSizes
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.reading.problems import Evidence, Problem
from pyrafuse.models.building import resolve
from pyrafuse.models.describing import describe
from pyrafuse.reports.check_page import describe_check, draw_evidence
from pyrafuse.reports.marking import COLORS


@pytest.fixture
def image(tmp_path) -> Path:
    Image.new("RGB", (1000, 800), "white").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_boxes_are_cut_out_with_what_is_around_them(image):
    drawn = draw_evidence(Evidence(image, ((400, 400, 500, 450),), ((410, 400, 500, 450),)))
    assert drawn.shape == (309, 400, 3)  # 220 x 170 px: 60 px around, at 400 / 220
    colors = [tuple(int(COLORS[kind][i : i + 2], 16) for i in (1, 3, 5)) for kind in ("right", "false")]
    for color, left in zip(colors, (60, 70), strict=True):
        columns = np.nonzero((drawn == color).all(axis=2))[1]
        assert abs(columns.min() - left * 400 / 220) <= 2
    assert draw_evidence(Evidence(image)).shape == (320, 400, 3)


def test_the_page_tells_and_shows(image):
    problems = (
        Problem("error", "unreadable <image>", image.with_name("b.png"), "image 2", "damaged", "replace it"),
        Problem(
            "hint", "box", image, "image 1", "odd", "mend it", Evidence(image, ((9, 9, 90, 90),), captions=("cat",))
        ),
        Problem("hint", "copy", image, "image 1", "alike", "remove", Evidence(image, other=image)),
        Problem("hint", "gone", image, "", "gone", "look", Evidence(image.with_name("b.png"))),
    )
    sizes = (ClassSizes("cat", 1, 0, 1, 0, (5.0, 6.0, 7.0)), ClassSizes("all", 1, 0, 1, 0, (5.0, 6.0, 7.0)))
    advice = [Advice("size", "larger", (("data.size", 640),))]
    page = describe_check("Check", Report("COCO JSON", problems, 2, 0, sizes), advice).to_html()
    titles = ["Error: unreadable &lt;image&gt;", "Hint: box", "Hint: copy", "Hint: gone", "Advice", "Classes"]
    places = [page.index(f">{title}</a></h2>") for title in titles]
    assert places == sorted(places)
    assert page.count("<img ") == 3
    assert "larger (--data.size 640)" in page
    assert "b.png" in page[page.index("not shown") :]


def test_the_command_writes_the_page_and_advice(tmp_path, capsys):
    page, report = tmp_path / "new" / "check.html", tmp_path / "check.json"
    words = ["data", "check", "shapes:train=8,val=4,size=64"]
    assert main([*words, "--page", str(page), "--json", str(report)]) == 0
    assert "advice for `pyrafuse train DATA` (--advice applies it):\nsize " in capsys.readouterr().out
    assert "Advice</a></h2>" in page.read_text()
    assert [each["topic"] for each in json.loads(report.read_text())["advice"]] == [
        "size", "levels", "anchors", "recipe", "epochs", "classes",
    ]  # fmt: skip
    for more, message in (
        (["--page", "check.txt"], "--page check.txt is no page; give it the suffix .html"),
        (["--page", str(report / "x.html")], "is a file, and no folder"),
        (["--model", str(tmp_path / "none.ckpt")], "no such checkpoint"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err


def test_the_advice_is_for_a_detector_like_the_model():
    splits = read_splits("shapes:train=8,val=4,size=64")
    spec = resolve(replace(describe("fcos"), num_classes=5))
    model = Card(spec=spec, model="fcos", preprocessing=Preprocessing(size=(608, 608)))
    texts = {each.topic: each.text for each in _advise(splits, "shapes:train=8,val=4,size=64", model)}
    assert "608" in texts["size"]
    assert "8, 16, 32, 64, 128" in texts["levels"]
    assert "anchors" not in texts  # points have none
