"""report.html in a real browser: nothing is fetched, nothing runs, nothing is wider than a telephone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.reports.history import add_history
from pyrafuse.reports.quality import add_quality
from pyrafuse.visualization.report import Report

NAMES = ("<script>document.title = 'ran'</script>", "x" * 300, "a\nb", *(f"class {k}" for k in range(77)))


@pytest.fixture(scope="module", params=[1, 3, 80])
def page(request, tmp_path_factory) -> Path:
    """A training's page, of so many classes."""
    folder, count = tmp_path_factory.mktemp("page"), request.param
    Image.new("RGB", (300, 120), "white").save(folder / "a.png")
    boxes = np.asarray([[5, 5, 45, 45], [55, 5, 95, 45], [105, 5, 145, 45]], np.float32)
    record = ImageRecord(
        folder / "a.png", 0, 300, 120, boxes, np.arange(3) % count, np.zeros(3, bool), np.full(3, 1600, np.float32)
    )
    evaluator = CocoEvaluator(DetectionData((record,), NAMES[:count], tuple(range(count)), "coco", "val"))
    labels = torch.tensor([0, 2 % count])
    evaluator.update([0], [Detections(torch.from_numpy(boxes[:2]), torch.tensor([0.9, 0.8]), labels, labels)])
    result = evaluator.compute()
    report = Report(f"Training in runs/{'long_' * 40}")
    add_quality(report, replace(result, confusion=result.confusion + 1), on="validation")
    add_history(report, {"epoch": [1, 2], "train/loss": [2.0, 1.0], "val/loss": [2.0, 1.5], "val/ap": [0.1, 0.2]})
    report.save(folder / "report.html")
    return folder / "report.html"


def test_the_page_stands_alone_and_fits_a_telephone(browser, page):
    view = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme="dark")
    said, asked = [], []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert view.title() == f"Training in runs/{'long_' * 40}"  # no class name ran
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"

    folded = view.locator("details")
    of_all_classes = ["All 80 classes"] if "All 80 classes" in view.inner_text("body") else []
    assert folded.locator("summary").all_inner_texts() == [
        *of_all_classes,
        "AP of each class by overlap and size",
        "The twelve figures of COCO",
        "Curves of 2 epochs: losses, AP, learning rate, levels",
    ]
    curves = view.locator("details", has_text="Curves of 2 epochs")
    assert not curves.locator("img").first.is_visible()
    for i in range(folded.count()):
        folded.nth(i).locator("summary").click()
    assert curves.locator("img").count() == 2
    assert curves.locator("img").first.is_visible()
    assert view.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    for width in (400, 1200):
        view.set_viewport_size({"width": width, "height": 800})
        wide = view.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} px in a window of {width}"
    view.close()
