"""The parts of a page about an evaluation: what they say, for one class and for eighty, and that nothing is markup."""

import base64
import json
import re
from dataclasses import replace
from html import unescape
from io import BytesIO

import numpy as np
from PIL import Image, ImageColor

from pyrafuse.base.records import DetectionData
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.diagnosis import diagnose
from pyrafuse.reports.marking import COLORS
from pyrafuse.reports.quality import add_quality, describe_evaluation, write_evaluation
from pyrafuse.visualization.report import Report


def page_of(result):
    report = Report("A page")
    add_quality(report, result, on="val")
    return report.to_html()


def texts(page, tag):
    found = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page, re.S)
    return [unescape(re.sub("<[^>]+>", " ", text)).strip() for text in found]


def rows_below(page, title):
    table = page.partition(f">{title}</a></h2>")[2].partition("</table>")[0]
    return [texts(row, "t[hd]") for row in re.findall("<tr>.*?</tr>", table, re.S)]


def test_average_precision_comes_first_and_in_one_line(evaluation):
    result = evaluation()
    page = page_of(result)
    lead = page.partition('<dl class="lead">')[2].partition("</dl>")[0]
    assert texts(lead, "dt") == ["AP", "AP50", "AP75", "small", "medium", "large"]
    ap, ap50, ap75 = (f"{value:.3f}" for value in (result.ap, result.ap50, result.ap75))
    assert texts(lead, "dd")[::2] == [ap, ap50, ap75, "-", ap, "-"]
    assert page.index('<dl class="lead">') < page.index("<h2")
    assert "Judged on 2 val images with 6 objects" in page


def test_where_nothing_was_learnt_the_page_says_so(evaluation):
    result = evaluation()
    assert "nothing was learnt yet" not in page_of(result)
    assert "An AP below 0.01 means that nothing was learnt yet" in page_of(replace(result, ap=0.009))


def test_classes_and_sizes_are_marked_where_they_rest_on_few_objects(evaluation):
    page = page_of(evaluation())
    header, cat, *_, everything = rows_below(page, "Per class")
    assert header[:3] == ["class", "note", "objects"]
    assert cat[:3] == ["cat", "2 objects: this figure means little", "2"]
    assert everything[:3] == ["all", "6 objects: this figure means little", "6"]
    assert rows_below(page, "Per size")[2][:3] == ["medium", "6 objects: this figure means little", "6"]


def test_confusion_has_counts_and_shares(evaluation):
    header, *rows = rows_below(page_of(evaluation()), "Confusion")
    assert header == ["true \\ predicted", "cat", "dog", "cow", "background"]
    assert [re.sub(r"\s+", " ", " | ".join(row)) for row in rows] == [
        "cat | 2 100% | 0 | 0 | 0",
        "dog | 1 50% | 1 50% | 0 | 0",
        "cow | 0 | 0 | 1 50% | 1 50%",
        "background | 0 | 0 | 0 | 0",
    ]


def test_one_class_has_a_matrix_too(evaluation):
    _, *rows = rows_below(page_of(evaluation(["cell"])), "Confusion")
    assert [row[0] for row in rows] == ["cell", "background"]
    assert re.sub(r"\s+", " ", rows[0][1]) == "5 83%"
    assert re.sub(r"\s+", " ", rows[0][2]) == "1 17%"


def test_of_eighty_classes_the_frequent_confusions_are_listed(evaluation):
    result = evaluation([f"class {k}" for k in range(80)])
    confusion = result.confusion.copy()
    confusion[4, 7], confusion[4, 4], confusion[80, 5] = 30, 70, 12
    page = page_of(replace(result, confusion=confusion))
    weakest = rows_below(page, "Per class")[1:]
    assert [row[0] for row in weakest[:3]] == ["class 1", "class 2", "class 0"]  # no other has objects
    assert len(weakest) == 11
    assert weakest[-1][0] == "all"
    assert "<details><summary>All 80 classes</summary>" in page
    header, first, second, *rest = rows_below(page, "Confusion")
    assert header == ["true", "taken for", "count", "share of the row"]
    assert first == ["class 4", "class 7", "30", "30%"]
    assert second == ["background", "class 5", "12", "100%"]
    assert ["class 2", "background", "1", "50%"] in rest


def test_the_worst_images_show_what_was_wrong_and_right(evaluation):
    page = page_of(evaluation())
    part = page.partition(">Worst images</a></h2>")[2]
    assert texts(part, "figcaption") == ["faulty.png: 1 right, 1 missed, 0 false, 1 wrong class"]
    left, right = (
        Image.open(BytesIO(base64.b64decode(content)))
        for content in re.findall(r"data:image/jpeg;base64,([^\"]+)", part)
    )
    for picture, kind, (x, y) in (
        (left, "right", (25, 5)),
        (left, "wrong class", (75, 45)),
        (right, "right", (25, 5)),
        (right, "missed", (45, 65)),
    ):
        assert picture.size == (100, 80)
        near = np.asarray(picture, int)[y - 1 : y + 2, x - 1 : x + 2]
        assert np.abs(near - ImageColor.getrgb(COLORS[kind])).max(axis=2).min() < 60, kind


def test_an_image_that_is_gone_is_named(evaluation, tmp_path):
    result = evaluation()
    (tmp_path / "faulty.png").unlink()
    page = page_of(result)
    (row,) = rows_below(page, "Worst images")[1:]
    assert "faulty.png" in row[0]


def test_nothing_found_and_nothing_there_are_pages_too(evaluation):
    data = DetectionData((), ("cat",), (1,), "coco", "val")
    page = page_of(CocoEvaluator(data).compute())
    assert "The 0 val images hold no objects, so there is no average precision." in page
    assert "No image holds a mistake at this confidence." in page


def test_names_of_classes_and_files_are_never_markup(evaluation):
    evil = ["<script>alert(1)</script>", "a\nb\x1b[31m", '" onerror="alert(1)', "&amp;{style}", "$x^2$_" * 40]
    page = page_of(evaluation(evil))
    assert "<script" not in page
    assert not re.search(r"<[^>]*\sonerror=", page)
    assert rows_below(page, "Per class")[1][0] == evil[0]
    assert [row[0] for row in rows_below(page, "Per class")[2:6]] == ["a\nb\ufffd[31m", *evil[2:]]


def test_an_evaluation_is_written_whole(evaluator, tmp_path):
    result, diagnosis = evaluator().compute(), diagnose(evaluator())
    write_evaluation(result, diagnosis, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json", "precision_recall.png"]
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["ap"] == result.ap
    assert written["diagnosis"]["counts"] == [4, 1, 0, 0, 0, 0, 1]
    page = describe_evaluation(result, diagnosis, title="Evaluation of x", on="test", facts={"checkpoint": "<x>"})
    assert "<dd>&lt;x&gt;</dd>" in page.to_html()
