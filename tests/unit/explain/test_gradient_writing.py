"""Gradients over a data set: sums over images, pictures, a page that stands alone, what cannot be used."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pyrafuse.base.conflicts import Conflicts, GradientExplanation
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.explain import gradient_writing
from pyrafuse.explain.gradient_writing import explain_gradients_to
from pyrafuse.explain.writing import RECORD_FILE

BOXES = np.asarray([[4, 4, 40, 44], [30, 20, 116, 58]], np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory, photo):
    """Three images of which the second is none; labels in another order than the detector's."""
    folder = tmp_path_factory.mktemp("labelled")
    records = []
    for rank in range(3):
        path = folder / f"reef{rank}.png"
        Image.fromarray(np.roll(photo, rank, axis=1)).save(path)
        records.append(
            ImageRecord(path, rank, 120, 60, BOXES, np.asarray([0, 1]), np.zeros(2, bool), np.full(2, 100, np.float32))
        )
    records[1].path.write_bytes(b"no image")
    return DetectionData(tuple(records), ("ray", "fish"), (1, 2), "coco", "val")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("gradients")


@pytest.fixture(scope="module")
def explained(asff, data, output):
    return explain_gradients_to(asff, data, output)


def test_files_and_page(explained, output, data):
    summary, report = explained
    assert sorted(p.name for p in output.iterdir()) == [
        RECORD_FILE, "001-reef0_gradients.png", "003-reef2_gradients.png", "gradients.json", "report.html",
    ]  # fmt: skip
    assert (summary.num_images, summary.report, report.num_images) == (2, output / "report.html", 2)
    (failure,) = summary.failures
    assert str(data.records[1].path) in failure
    text = summary.report.read_text()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == []
    assert "://" not in text
    assert text.count("<img ") == 2
    for title in ("Network: ", "Weights: equation 6", "Sum: equation 4", "reef0", "reef2"):
        assert title in text


def test_numbers_are_sums_over_the_images(explained, output):
    _, report = explained
    values = json.loads((output / "gradients.json").read_text())
    assert values == report.to_dict()
    assert values["source_strides"] == values["output_strides"] == [8, 16, 32]
    assert values["rules"].keys() == {"network", "weights", "sum", "concat"}
    assert values["rules"]["concat"] == values["rules"]["sum"]
    for rule in values["rules"].values():
        assert [rule[f"stride{s}"]["positions"] for s in (8, 16, 32)] == [2 * 144, 2 * 36, 2 * 9]
        assert rule["all"]["mixed"] == sum(rule[f"stride{s}"]["mixed"] for s in (8, 16, 32)) > 0


def test_labels_are_matched_by_name(asff, data, tmp_path, monkeypatch):
    seen = []
    compute = gradient_writing.compute_source_gradients

    def keep(detector, images, targets):
        seen.append(targets.labels.tolist())
        return compute(detector, images, targets)

    monkeypatch.setattr(gradient_writing, "compute_source_gradients", keep)
    explain_gradients_to(asff, data, tmp_path, limit=1)
    assert seen == [[[2, 0]]]
    with pytest.raises(DataError, match="does not know crab; it knows fish, shark, ray"):
        explain_gradients_to(asff, replace(data, names=("crab", "fish")), tmp_path)


def test_what_the_weights_remove_by_hand():
    """Opposing 3 of 12 under the weights, 2 of 4 positive: a third of uniform's 4 is gone to 3/4, the ratio halved."""
    sums = {
        "weights": (Conflicts(judged=2, positive_norm=2, background_norm=3),),
        "sum": (Conflicts(judged=2, positive_norm=4, background_norm=12),),
    }
    report = GradientExplanation((8,), (8, 16, 32), 1, sums)
    assert report.weights_remove([0]) == pytest.approx({"of_uniform": 0.25, "of_sum": 0.75, "of_ratio": 0.5})
    assert report.to_dict()["weights_remove"]["all"]["of_sum"] == pytest.approx(0.75)
    nothing = replace(report, conflicts={"weights": (Conflicts(),), "sum": (Conflicts(),)})
    assert nothing.weights_remove([0]) == {"of_uniform": None, "of_sum": None, "of_ratio": None}


def test_a_neck_without_weights(plain, data, tmp_path):
    _, report = explain_gradients_to(plain, data, tmp_path, limit=1)
    assert report.conflicts.keys() == {"network"}
    assert report.to_dict()["weights_remove"] is None
    assert "has no weights of positions" in (tmp_path / "report.html").read_text()


def test_files_of_others_are_never_replaced(asff, data, tmp_path):
    path = tmp_path / "003-mine_gradients.png"
    path.write_text("mine")
    with pytest.raises(PyrafuseError, match=r"003-mine_gradients\.png is there already, and no earlier explanation"):
        explain_gradients_to(asff, data, tmp_path, limit=1)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_be_used(asff, data, tmp_path):
    with pytest.raises(PyrafuseError, match="limit must be 1 or more, got 0"):
        explain_gradients_to(asff, data, tmp_path, limit=0)
    with pytest.raises(DataError, match="none of 1 images can be read"):
        explain_gradients_to(asff, replace(data, records=data.records[1:2]), tmp_path)
