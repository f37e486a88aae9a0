"""Figures against pycocotools on random data, and against a pencil on tiny data."""

import math

import numpy as np
import pytest
import torch

from coco_cases import data_of, found, oracle, random_case, record
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.core.detections import no_detections
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.result import FIGURES


def evaluate(data, detections):
    evaluator = CocoEvaluator(data)
    evaluator.update(range(len(detections)), detections)
    return evaluator.compute()


@pytest.mark.parametrize("seed", range(6))
def test_twelve_figures_and_curves_equal_pycocotools(seed):
    data, detections = random_case(seed)
    judge = oracle(data, detections)
    result = evaluate(data, detections)
    expected = np.where(judge.stats < 0, np.nan, judge.stats)
    np.testing.assert_allclose([getattr(result, f) for f in FIGURES], expected, rtol=0, atol=1e-9)
    curves = judge.eval["precision"][:, :, :, 0, 2]
    np.testing.assert_allclose(result.precision, np.where(curves < 0, np.nan, curves), rtol=0, atol=1e-9)
    for k, c in enumerate(result.classes[:-1]):
        assert c.ap == pytest.approx(curves[:, :, k].mean(), abs=1e-9)
        assert c.ap50 == pytest.approx(curves[0, :, k].mean(), abs=1e-9)
        assert c.ap75 == pytest.approx(curves[5, :, k].mean(), abs=1e-9)
        of_sizes = judge.eval["precision"][:, :, k, 1:, 2].mean(axis=(0, 1))
        expected = np.where(of_sizes < 0, np.nan, of_sizes)
        np.testing.assert_allclose([c.ap_small, c.ap_medium, c.ap_large], expected, rtol=0, atol=1e-9)
        assert c.ar_100 == pytest.approx(judge.eval["recall"][:, k, 0, 2].mean(), abs=1e-9)
    assert result.classes[-1].num_objects == 0
    assert math.isnan(result.classes[-1].ap)


def test_more_than_a_hundred_detections_of_one_class_equal_pycocotools():
    data, detections = random_case(50, num_images=3, num_classes=2, found_per_image=900)
    assert max(int((d.labels == 0).sum()) for d in detections) > 100
    expected = oracle(data, detections).stats
    result = evaluate(data, detections)
    np.testing.assert_allclose(
        [getattr(result, f) for f in FIGURES], np.where(expected < 0, np.nan, expected), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("seed", range(6))
def test_best_confidence_and_confusions_follow_pycocotools_matches(seed):
    data, detections = random_case(seed, found_per_image=30)
    judge = oracle(data, detections)
    result = evaluate(data, detections)
    right, wrong = {k: [] for k in range(4)}, {k: [] for k in range(4)}
    for e in judge.evalImgs:
        if e is None or e["aRng"] != judge.params.areaRng[0]:
            continue
        for match, ignored, score in zip(e["dtMatches"][0], e["dtIgnore"][0], e["dtScores"], strict=True):
            if not ignored:
                (right if match else wrong)[e["category_id"] - 1].append(score)
    for k, c in enumerate(result.classes):
        f1 = [0.0]
        for limit in {*right[k], *wrong[k]}:
            tp, fp = sum(s >= limit for s in right[k]), sum(s >= limit for s in wrong[k])
            f1.append(2 * tp / (tp + fp + c.num_objects))
        if not c.num_objects or not right[k]:
            assert math.isnan(c.best.f1)
            continue
        assert c.best.f1 == pytest.approx(max(f1))
        tp, fp = (sum(s >= c.best.confidence for s in scores[k]) for scores in (right, wrong))
        assert (c.best.precision, c.best.recall) == pytest.approx((tp / (tp + fp), tp / c.num_objects))
        assert result.confusion[k, k] == sum(s >= result.confusion_confidence for s in right[k])
        assert result.confusion[k].sum() == c.num_objects
        assert result.confusion[:, k].sum() == sum(s >= result.confusion_confidence for s in right[k] + wrong[k])


def test_average_precision_by_hand():
    # two objects; three detections, best first: hit, miss, hit. Precision is 1 up to recall 1/2 and 2/3 up to 1:
    # of the 101 recall points 0.00 to 0.50 see 1, the other 50 see 2/3.
    data = data_of([record([[0, 0, 40, 40], [100, 100, 140, 140]], [0, 0])], ["cat"])
    boxes = [[0, 0, 40, 40], [50, 50, 90, 90], [100, 100, 140, 140]]
    result = evaluate(data, [found(boxes, [0.9, 0.8, 0.7], [0, 0, 0])])
    by_hand = (51 * 1 + 50 * 2 / 3) / 101
    assert result.ap == pytest.approx(by_hand)
    assert result.ap50 == pytest.approx(by_hand)
    assert result.ap_medium == pytest.approx(by_hand)
    assert math.isnan(result.ap_small)
    assert math.isnan(result.ap_large)
    assert (result.ar_1, result.ar_10, result.ar_100) == pytest.approx((0.5, 1, 1))
    np.testing.assert_allclose(result.precision[0, :, 0], [1.0] * 51 + [2 / 3] * 50)
    best = result.classes[0].best
    assert (best.confidence, best.precision, best.recall, best.f1) == pytest.approx((0.7, 2 / 3, 1, 0.8))
    assert [s.num_objects for s in result.sizes] == [0, 2, 0]


def test_confusion_matrix_by_hand():
    data = data_of(
        [
            record([[0, 0, 50, 50], [100, 0, 150, 50], [0, 100, 50, 150]], [0, 1, 1]),
            record([[0, 0, 100, 100], [120, 120, 160, 160]], [0, 0], crowd=[True, False], image_id=1),
        ],
        ["cat", "dog"],
    )
    detections = [
        # cat found; the same place called a dog more loudly; a dog called a cat; the other dog missed
        found([[0, 0, 50, 50], [0, 0, 50, 50], [100, 0, 150, 50]], [0.8, 0.9, 0.8], [0, 1, 0]),
        # in the crowd: neither right nor wrong; on nothing: a cat out of background; the second cat among faint noise
        found(
            [[10, 10, 40, 40], [170, 0, 190, 20], [120, 120, 160, 160], *[[170, 170, 190, 190]] * 10],
            [0.9, 0.8, 0.1, *[0.1] * 10],
            [0, 0, 0, *[1] * 10],
        ),
    ]
    result = evaluate(data, detections)
    # F1 is 2 * 1 / (4 detections + 4 objects) from 0.8 on, 2 * 2 / (15 + 4) with the noise
    assert (result.best.confidence, result.best.f1) == pytest.approx((0.8, 1 / 4))
    assert result.confusion_confidence == result.best.confidence
    expected = [
        # cat, dog, background
        [1, 0, 1],  # cats: one found, one too faint
        [1, 0, 1],  # dogs: one taken for a cat, one missed
        [1, 1, 0],  # background taken for a cat; the loud dog lies on a cat that was found
    ]
    assert result.confusion.tolist() == expected


def test_a_detector_that_finds_nothing():
    data = data_of([record([[0, 0, 40, 40]], [0]), record([], [], image_id=1)], ["cat"])
    result = evaluate(data, [no_detections(), no_detections()])
    assert (result.ap, result.ar_100, result.num_detections) == (0, 0, 0)
    assert math.isnan(result.classes[0].best.confidence)
    assert result.confusion_confidence == 0.25
    assert result.confusion.tolist() == [[0, 1], [0, 0]]
    assert CocoEvaluator(data).compute().ap == 0


def test_a_data_set_without_objects_has_no_figures():
    data = data_of([record([], [])], ["cat"])
    result = evaluate(data, [found([[0, 0, 9, 9]], [0.9], [0])])
    assert all(math.isnan(v) for v in result.figures().values())
    assert result.confusion.tolist() == [[0, 0], [1, 0]]
    empty = CocoEvaluator(data_of([], ["cat"])).compute()
    assert math.isnan(empty.ap)


def test_ranks_are_merged_and_padding_counts_once():
    data, detections = random_case(3)
    whole = CocoEvaluator(data)
    whole.update(range(12), detections)
    ranks = [CocoEvaluator(data), CocoEvaluator(data)]
    for rank, evaluator in enumerate(ranks):
        images = [*range(rank, 12, 2), rank]  # the sampler's padding repeats an image
        evaluator.update(torch.tensor(images), [detections[i] for i in images])
    ranks[1].update([0], [detections[0]])  # known to both
    for _ in range(2):
        ranks[0].merge(ranks[1].rows())
    np.testing.assert_array_equal(ranks[0].rows(), whole.rows())
    assert ranks[0].rows().shape == (sum(map(len, detections)), 8)
    assert ranks[0].compute().figures() == pytest.approx(whole.compute().figures(), nan_ok=True)


def test_rows_hold_image_box_score_and_label():
    data = data_of([record([], []), record([], [], image_id=7)], ["cat", "dog"])
    evaluator = CocoEvaluator(data)
    assert evaluator.rows().shape == (0, 8)
    evaluator.update([], [])
    evaluator.merge(evaluator.rows())
    evaluator.update([1], [found([[1, 2, 3, 4]], [0.5], [1])])
    assert evaluator.rows().tolist() == [[1, 1, 2, 3, 4, 0.5, 1, 0]]


def test_detections_that_cannot_be_judged_are_named():
    data = data_of([record([], [], image_id=7)], ["cat"])
    evaluator = CocoEvaluator(data)
    with pytest.raises(DataError, match="image row 1, but the val split has 1 images"):
        evaluator.update([1], [no_detections()])
    with pytest.raises(DataError, match=r"7\.jpg: a detection of class 1, but the data set has 1 classes"):
        evaluator.update([0], [found([[0, 0, 1, 1]], [0.5], [1])])
    with pytest.raises(DataError, match=r"7\.jpg: .*score nan: the model has diverged"):
        evaluator.update([0], [found([[0, 0, 1, 1]], [float("nan")], [0])])
    with pytest.raises(DataError, match="image row 3"):
        evaluator.merge(np.asarray([[3, 0, 0, 1, 1, 0.5, 0, 0]]))
    assert evaluator.rows().shape == (0, 8)


def test_nothing_is_printed(capfd):
    data, detections = random_case(1)
    evaluate(data, detections)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def crowded_case(count):
    """An image of ``count`` objects in a grid, all found exactly."""
    rows, columns = np.divmod(np.arange(count), 20)
    corners = np.stack([columns, rows], axis=1) * 10.0
    boxes = np.concatenate([corners, corners + 8], axis=1)
    data = data_of([record(boxes, [0] * count)], ["cat"])
    return data, [found(boxes, np.linspace(0.9, 0.5, count), [0] * count)]


def test_more_than_a_hundred_detections_count_where_it_is_asked_for():
    data, detections = crowded_case(300)

    def judge(**limits):
        evaluator = CocoEvaluator(data, **limits)
        evaluator.update([0], detections)
        return evaluator.compute()

    as_coco, all_of_them = judge(), judge(max_detections=300)
    assert as_coco.ap == pytest.approx(34 / 101, abs=1e-6)  # recall ends at a third: 0.00 to 0.33
    assert (as_coco.ar_100, as_coco.max_detections) == (pytest.approx(1 / 3), 100)
    assert (all_of_them.ap, all_of_them.ar_100, all_of_them.ar_small) == pytest.approx((1, 1, 1))
    assert (all_of_them.ar_1, all_of_them.ar_10) == pytest.approx((1 / 300, 10 / 300))
    assert "AR300" in all_of_them.table()
    assert "AR100" not in all_of_them.table()
    assert "AR100" in as_coco.table()
    again = type(all_of_them).from_dict(all_of_them.to_dict(with_curves=True))
    assert again.max_detections == 300
    few = judge(max_detections=5)
    assert (few.ar_1, few.ar_10, few.ar_100) == pytest.approx((1 / 300, 5 / 300, 5 / 300))


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_that_is_no_count(limit):
    with pytest.raises(PyrafuseError, match="max_detections must be a whole number, 1 or more"):
        CocoEvaluator(crowded_case(1)[0], max_detections=limit)


def test_results_of_before_have_coco_s_limit():
    data, detections = crowded_case(3)
    plain = evaluate(data, detections).to_dict(with_curves=True)
    del plain["max_detections"]
    assert type(evaluate(data, detections)).from_dict(plain).max_detections == 100
