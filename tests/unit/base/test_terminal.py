"""Names from files in everything that a terminal shows: they stay names."""

from pathlib import Path

import numpy as np
import pytest

from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.base.terminal import Terminal
from pyrafuse.cli.main import main
from pyrafuse.data.checks.sizes import compute_sizes, format_sizes
from pyrafuse.data.reading.problems import Problem
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.visualization.report import Report

HOSTILE = (
    "[/b]", "car [old]", "[red]x[/red]", ":smile:", "<script>alert(1)</script>", "two\nlines\ttab",
    "\x1b[2J\x1b]0;t\x07", "a\u202eb", "bad\udcff", "=cmd()", "a|b", "x" * 500,
)  # fmt: skip
ORDERS = {"\x1b", "\x07", "\t", "\u202e", "\udcff", "\r"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_shows_names_as_they_are(name, capsys):
    Terminal().print(f"class {name} of 3 images")
    err = capsys.readouterr().err
    assert not ORDERS & set(err)
    if name.isprintable():
        assert err == f"class {name} of 3 images\n"


def data_of(names: tuple[str, ...]) -> DetectionData:
    count = len(names)
    boxes = np.tile(np.array([[1, 1, 30, 30]], np.float32), (count, 1))
    areas, crowd = np.full(count, 841, np.float32), np.zeros(count, bool)
    record = ImageRecord(Path("a.png"), 1, 64, 64, boxes, np.arange(count), crowd, areas)
    return DetectionData((record,), names, tuple(range(count)), "coco", "val")


def test_tables_have_a_line_a_class():
    data = data_of(HOSTILE)
    sizes = format_sizes(compute_sizes([data]))
    assert len(sizes.splitlines()) == len(HOSTILE) + 2  # the header, and all together
    result = CocoEvaluator(data).compute()
    for text in (sizes, result.table(), result.markdown()):
        assert not ORDERS & set(text)
    for text in (sizes, result.table()):
        for shown in ("[/b]", "car [old]", r"two\nlines\ttab", r"\x1b[2J"):
            assert shown in text
        assert "x" * 61 not in text
    assert r"a\|b" in result.markdown()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_problem_is_one_line(name):
    text = str(Problem("error", "kind", Path(f"in/{name}.json"), f"annotation {name}", f"class {name}", "mend it"))
    assert text.isprintable()


def test_an_error_of_the_command_line_gives_no_orders(capsys):
    assert main(["predict", "no\x1b[2J.ckpt", "a.jpg"]) == 2
    err = capsys.readouterr().err
    assert r"no\x1b[2J.ckpt" in err
    assert "\x1b" not in err


def test_a_page_shows_names_as_text():
    report = Report("title")
    report.add_table(("class",), [(name,) for name in HOSTILE if name != "bad\udcff"])
    page = report.to_html()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
