"""Tables and JSON of a result."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pyrafuse.evaluation.result import FIGURES, ClassResult, EvaluationResult, OperatingPoint, SizeResult

NAN = float("nan")


@pytest.fixture
def result():
    best = OperatingPoint(confidence=0.25, precision=0.8, recall=0.5, f1=8 / 13)
    undefined = OperatingPoint(NAN, NAN, NAN, NAN)
    return EvaluationResult(
        **{name: NAN if name == "ap_small" else (i + 1) / 16 for i, name in enumerate(FIGURES)},
        num_images=9,
        num_objects=12,
        num_detections=30,
        best=best,
        classes=(
            ClassResult("cat", 0.5, 0.75, 0.625, 12, 6, best),
            ClassResult("海 | sea", NAN, NAN, NAN, 0, 0, undefined),
        ),
        sizes=(SizeResult("small", NAN, NAN, 0), SizeResult("large", 0.5, 0.625, 12)),
        precision=np.full((10, 101, 2), 0.5),
        confusion=np.asarray([[6, 0, 6], [0, 0, 0], [1, 2, 0]]),
        confusion_confidence=0.25,
    )


def test_table_is_aligned_and_undefined_is_a_dash(result):
    lines = result.table().splitlines()
    assert lines[:4] == [
        "class     objects  images     AP   AP50  AR100  confidence  precision  recall     F1",
        "cat            12       6  0.500  0.750  0.625       0.250      0.800   0.500  0.615",
        # the wide letter takes two columns
        "海 | sea        0       0      -      -      -           -          -       -      -",
        "all            12       9  0.062  0.125  0.562       0.250      0.800   0.500  0.615",
    ]
    assert lines[6:9] == [
        "size   objects     AP  AR100",
        "small        0      -      -",
        "large       12  0.500  0.625",
    ]
    assert lines[-2].startswith("AP 0.062  AP50 0.125  AP75 0.188  APsmall -  APmedium 0.312")
    assert lines[-1].startswith("AR1 0.438  AR10 0.500  AR100 0.562")


def test_plain_values_and_back(result):
    plain = json.loads(result.to_json(with_curves=True))
    again = EvaluationResult.from_dict(plain)
    assert again.to_json(with_curves=True) == result.to_json(with_curves=True)
    assert again.table() == result.table()
    assert again.precision.dtype == np.float64
    assert again.confusion.tolist() == [[6, 0, 6], [0, 0, 0], [1, 2, 0]]
    assert plain["ap_small"] is None
    assert np.isnan(again.ap_small)


def test_precision_and_recall_never_name_an_average(result):
    header = result.class_header()
    assert "P" not in header
    assert "R" not in header
    row = dict(zip(header, result.class_rows()[0], strict=True))
    assert (row["AP"], row["precision"], row["AR100"], row["recall"]) == ("0.500", "0.800", "0.625", "0.500")


def test_markdown_has_one_cell_a_column_and_escapes_pipes(result):
    classes, sizes = result.markdown().split("\n\n")
    lines = classes.splitlines()
    assert lines[1] == "| --- |" + " ---: |" * 9
    assert lines[3].startswith("| 海 \\| sea | 0 | 0 | - |")
    assert len(lines) == 5
    assert sizes.splitlines()[3] == "| large | 12 | 0.500 | 0.625 |"


def test_json_is_strict_and_undefined_is_null(result):
    plain = json.loads(result.to_json())
    assert plain["ap"] == 1 / 16
    assert plain["ap_small"] is None
    assert plain["classes"][1] == {
        "name": "海 | sea", "ap": None, "ap50": None, "ar_100": None, "num_objects": 0, "num_images": 0,
        "best": {"confidence": None, "precision": None, "recall": None, "f1": None},
        "ap75": None, "ap_small": None, "ap_medium": None, "ap_large": None,
    }  # fmt: skip
    assert plain["best"]["confidence"] == 0.25
    assert plain["confusion"] == [[6, 0, 6], [0, 0, 0], [1, 2, 0]]
    assert "precision" not in plain
    assert np.asarray(result.to_dict(with_curves=True)["precision"]).shape == (10, 101, 2)
    assert "海" in result.to_json()


def test_a_result_does_not_change(result):
    with pytest.raises(AttributeError):
        result.ap = 1.0
    assert replace(result, ap=0.0).figures()["ap"] == 0.0
    assert list(result.figures()) == list(FIGURES)
    assert result.names == ("cat", "海 | sea")


def test_figures_of_few_objects_are_marked(result):
    assert result.class_notes() == ["", "no objects: nothing to measure", ""]
    assert result.size_notes() == ["no objects: nothing to measure", ""]
    assert result.warnings() == []
    cat, sea = result.classes
    few = replace(
        result,
        classes=(replace(cat, num_objects=9), replace(sea, num_objects=1)),
        sizes=(replace(result.sizes[0], num_objects=3), result.sizes[1]),
        num_objects=10,
    )
    assert few.class_notes() == ["9 objects: this figure means little", "1 object: this figure means little", ""]
    assert few.size_notes() == ["3 objects: this figure means little", ""]
    assert few.warnings() == [
        "fewer than 10 objects, so their figures mean little: cat (9), 海 | sea (1)",
        "fewer than 10 objects, so their figures mean little: small (3)",
    ]
    assert few.warnings()[0] in few.table().splitlines()


def test_a_class_is_told_what_it_is_taken_for(result):
    mistaken = replace(result, confusion=np.asarray([[8, 2, 2], [0, 0, 0], [1, 2, 0]]))
    assert mistaken.class_notes()[0] == "taken for 海 | sea: 2 of 12"
    rarely = replace(result, confusion=np.asarray([[8, 1, 3], [0, 0, 0], [1, 2, 0]]))
    assert rarely.class_notes()[0] == ""
    alone = replace(result, classes=result.classes[:1], confusion=np.asarray([[8, 4], [2, 0]]))
    assert alone.class_notes() == ["", ""]
