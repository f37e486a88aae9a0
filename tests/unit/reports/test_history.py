"""The curves of a training on a page, and what is said of losses that rise."""

from pyrafuse.reports.history import READING, add_history
from pyrafuse.visualization.report import Report
from pyrafuse.visualization.training_curves import PANELS


def page_of(history):
    report = Report("A page")
    add_history(report, history)
    return report.to_html()


def test_every_panel_has_words():
    assert set(READING) == set(PANELS)


def test_curves_are_folded_and_the_terms_of_levels_are_left_to_the_picture():
    history = {
        "epoch": [1, 2], "train/loss": [3.0, 2.0], "val/loss": [4.0, 3.0], "val/ap": [0.1, 0.2],
        "val/ar_100": [0.3, 0.4],
        "level/stride_8/loss": [1.0, 1.0], "level/stride_8/loss_iou": [1.0, 1.0],
    }  # fmt: skip
    page = page_of(history)
    part = page.partition("<details><summary>Curves of 2 epochs: losses, AP, learning rate, levels</summary>")[2]
    assert part.partition("</details>")[0].count("<img ") == 3


def test_a_term_that_rises_beside_a_falling_sum_is_explained():
    history = {
        "epoch": [1, 2, 3], "train/loss": [900.0, 700.0, 690.0], "train/loss_l1": [200.0, 230.0, 250.0],
        "train/loss_iou": [700.0, 470.0, 440.0], "level/stride_8/positives": [50.0, 60.0, 70.0],
        "level/stride_16/positives": [10.0, 10.0, 20.0],
    }  # fmt: skip
    page = page_of(history)
    assert (
        "Here loss_l1 (+25%) rose while the sum fell. That alone is no fault: more boxes learn than at the start"
        in page
    )
    assert "(90 positives an image, 60 then)" in page
    fewer = {**history, "level/stride_8/positives": [50.0, 40.0, 30.0], "level/stride_16/positives": [9.0, 9.0, 9.0]}
    assert "That alone is no fault: terms trade off against each other" in page_of(fewer)
    assert "no fault" not in page_of({**history, "train/loss": [600.0, 650.0, 690.0]})
    assert "no fault" not in page_of({**history, "train/loss_l1": [250.0, 230.0, 200.0]})
    assert "no fault" not in page_of({key: values[:1] for key, values in history.items()})
