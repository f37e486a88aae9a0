import numpy as np
import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.export.checking import compare


def detections(boxes, scores, labels):
    count = len(boxes)
    places = np.zeros((1, 4), np.int64)
    return {
        "boxes": np.pad(np.array(boxes, np.float32).reshape(count, 4), ((0, 4 - count), (0, 0)))[None],
        "scores": np.pad(np.array(scores, np.float32), (0, 4 - count))[None],
        "labels": np.pad(np.array(labels, np.int64), (0, 4 - count))[None],
        "levels": places,
        "rows": places,
        "count": np.array([count]),
    }


OURS = detections([[0, 0, 9, 9], [5, 5, 20, 20]], [0.9, 0.4], [1, 0])


def judge(found, expected=OURS, output="nms"):
    return compare(lambda _: found, lambda _: expected, [{}, {}], output)


def test_equal_but_for_order_and_rounding():
    other = detections([[5, 5, 20, 20.05], [0, 0, 9, 9]], [0.4005, 0.9], [0, 1])
    agreement = judge(other)
    assert (agreement.num_batches, agreement.num_compared, agreement.strangers) == (2, 4, ())
    assert agreement.box_px == pytest.approx(0.05, abs=1e-5)
    assert agreement.score == pytest.approx(5e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (detections([[0, 0, 9, 9]], [0.9], [1]), "detector alone has class 0 with 0.400"),
        (detections([[0, 0, 9, 9], [5, 5, 20, 20.2]], [0.9, 0.4], [1, 0]), "detector alone has class 0"),
        (detections([[0, 0, 9, 9], [5, 5, 20, 20]], [0.9, 0.402], [1, 0]), "detector alone has class 0"),
        (detections([[0, 0, 9, 9], [5, 5, 20, 20]], [0.9, 0.4], [1, 1]), "detector alone has class 0"),
        (
            detections([[0, 0, 9, 9], [5, 5, 20, 20], [30, 30, 40, 40]], [0.9, 0.4, 0.9], [1, 0, 0]),
            "file alone has class 0 with 0.900 at [30.0, 30.0, 40.0, 40.0]",
        ),
        (detections([], [], []), "detector alone has class 1"),
        (detections([[0, 0, np.nan, 9], [5, 5, 20, 20]], [0.9, 0.4], [1, 0]), "detector alone has class 1"),
    ],
)
def test_what_differs_is_named(found, told):
    assert told in " ".join(judge(found).strangers)


def test_low_scores_are_compared_where_nothing_scores_high():
    low = detections([[0, 0, 9, 9]], [0.01], [1])
    assert judge(low, low).num_compared == 2
    assert judge(detections([], [], []), low).strangers


def test_maps_are_compared_by_their_largest_value():
    ours = {"classes_0": np.array([[-8.0, 0.5]], np.float32)}
    assert judge({"classes_0": np.array([[-8.004, 0.5]], np.float32)}, ours, "levels").strangers == ()
    (told, _) = judge({"classes_0": np.array([[-8.0, 0.6]], np.float32)}, ours, "levels").strangers
    assert told.startswith("classes_0 differs by 0.01")
    assert judge({"classes_0": np.array([[np.nan, 0.5]], np.float32)}, ours, "levels").strangers


def test_other_outputs_are_refused():
    with pytest.raises(PyrafuseError, match=r"gives for count only boxes.*and the detector \(1,\)"):
        judge({name: values for name, values in OURS.items() if name != "count"})
    with pytest.raises(PyrafuseError, match=r"shape \(1, 3, 4\)"):
        judge({**OURS, "boxes": OURS["boxes"][:, :3]})
