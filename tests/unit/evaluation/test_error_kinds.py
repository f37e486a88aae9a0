"""Errors by kind against loops written after the paper, and against a pencil."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from coco_cases import data_of, found, oracle, random_case, record
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.diagnosis import diagnose
from pyrafuse.evaluation.error_kinds import OUTCOMES


def diagnosis_of(data, detections, **options):
    evaluator = CocoEvaluator(data, **options)
    evaluator.update(range(len(detections)), detections)
    return diagnose(evaluator)


def iou_of(a, b, *, of_crowd=False):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    own, other = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (own if of_crowd else own + other - width * height)


def naive_ap(points, num_objects):
    """AP at 101 recalls of (score, is right)."""
    right, curve = 0, []
    for rank, (_, is_right) in enumerate(sorted(points, key=lambda point: -point[0]), 1):
        right += is_right
        curve.append((right / num_objects, right / rank))
    return np.mean([max((p for r, p in curve if r >= recall), default=0) for recall in np.linspace(0, 1, 101)])


def naive_mean_ap(points, counts):
    """Of (score, is right, class); without any object left a class has an AP of 0 if it has detections, else none."""
    of_classes = {k: [p[:2] for p in points if p[2] == k] for k in counts}
    return np.mean([naive_ap(of_classes[k], n) if n else 0 for k, n in counts.items() if n or of_classes[k]])


def naive_tide(data, detections, iou=0.5):
    """AP at one IoU, counts by kind and gains by kind."""
    judged, missed, finder, best = [], [], {}, {}
    counts = Counter()
    for image, (truth, of_image) in enumerate(zip(data.records, detections, strict=True)):
        objects = [
            (image, g, truth.boxes[g].tolist(), int(truth.labels[g]))
            for g in range(len(truth.labels)) if not truth.crowd[g]
        ]  # fmt: skip
        crowds = [(b.tolist(), k) for b, k, c in zip(truth.boxes, truth.labels, truth.crowd, strict=True) if c]
        counts.update(label for *_, label in objects)
        rows = sorted(
            zip(of_image.scores.tolist(), of_image.boxes.tolist(), of_image.labels.tolist(), strict=True),
            key=lambda row: -row[0],
        )
        wrong = []
        for score, box, label in rows:
            free = [o for o in objects if o[3] == label and o[:2] not in finder and iou_of(box, o[2]) >= iou]
            if free:
                chosen = max(free, key=lambda o: iou_of(box, o[2]))
                finder[chosen[:2]] = score
                judged.append((score, label, "right", chosen))
            elif not any(k == label and iou_of(box, crowd, of_crowd=True) >= iou for crowd, k in crowds):
                wrong.append((score, box, label))
        for score, box, label in wrong:
            of_own = max((o for o in objects if o[3] == label), key=lambda o: iou_of(box, o[2]), default=None)
            of_other = max((o for o in objects if o[3] != label), key=lambda o: iou_of(box, o[2]), default=None)
            own, other = (iou_of(box, o[2]) if o else 0.0 for o in (of_own, of_other))
            if 0.1 <= own < iou:
                kind, target = "localisation", of_own
            elif other >= iou:
                kind, target = "classification", of_other
            elif own >= iou:
                kind, target = "duplicate", of_own
            elif other >= 0.1:
                kind, target = "both", of_other
            else:
                kind, target = "background", None
            judged.append((score, label, kind, target))
        met = {j[3][:2] for j in judged if j[2] in ("right", "localisation", "classification")}
        missed += [o for o in objects if o[:2] not in met]
    for place, (score, _, kind, target) in enumerate(judged):
        if kind in ("localisation", "classification") and target[:2] not in finder:
            former = best.get(target[:2])
            if former is None or judged[former][0] < score:
                best[target[:2]] = place
    points = [(score, kind == "right", label) for score, label, kind, _ in judged]
    ap, gains = naive_mean_ap(points, counts), {}
    for mended in OUTCOMES[1:-1]:
        fixed = []
        for place, (score, label, kind, target) in enumerate(judged):
            if kind != mended:
                fixed.append((score, kind == "right", label))
            elif target is not None and best.get(target[:2]) == place:
                fixed.append((score, True, target[3]))
        gains[mended] = naive_mean_ap(fixed, counts) - ap
    missed_of = Counter(o[3] for o in missed)
    gains["missed"] = naive_mean_ap(points, {k: n - missed_of[k] for k, n in counts.items()}) - ap
    kinds = Counter(kind for *_, kind, _ in judged)
    right = Counter(label for _, label, kind, _ in judged if kind == "right")
    return {
        "ap": ap,
        "counts": [*(kinds[kind] for kind in OUTCOMES[:-1]), len(missed)],
        "gains": [gains[kind] for kind in OUTCOMES[1:]],
        "false positives": naive_mean_ap([point for point in points if point[1]], counts) - ap,
        "false negatives": naive_mean_ap(points, {k: right[k] for k in counts}) - ap,
    }


def confused_case(seed):
    """Every kind of error, crowds at odd seeds; no two scores are equal."""
    data, detections = random_case(seed, num_images=15, num_classes=4, found_per_image=40)
    rng, mixed = np.random.default_rng(seed), []
    if not seed % 2:
        records = (replace(r, crowd=np.zeros(len(r.labels), bool)) for r in data.records)
        data = replace(data, records=tuple(records))
    scores = rng.permutation(sum(map(len, detections))) / 1000
    for each in detections:
        own, scores = scores[: len(each)], scores[len(each) :]
        labels = np.where(rng.uniform(size=len(each)) < 0.4, rng.integers(0, 3, len(each)), each.labels.numpy())
        mixed.append(replace(each, labels=torch.from_numpy(labels), scores=torch.from_numpy(own)))
    return data, mixed


@pytest.mark.parametrize("seed", range(6))
def test_kinds_and_gains_equal_those_of_loops_written_after_the_paper(seed):
    data, detections = confused_case(seed)
    expected, result = naive_tide(data, detections), diagnosis_of(data, detections)
    assert min(expected["counts"]) > 0
    assert result.outcomes.tolist() == expected["counts"]
    check_gains(result.gains_50, [expected])


def check_gains(gains, expected):
    """They are the mean of those of the loops."""
    for name in ("ap", "false positives", "false negatives"):
        mean = np.mean([each[name] for each in expected])
        assert getattr(gains, name.replace(" ", "_")) == pytest.approx(mean, abs=1e-9)
    np.testing.assert_allclose(gains.by_kind, np.mean([each["gains"] for each in expected], axis=0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_gains_in_ap_are_the_mean_over_ious_each_with_its_own_errors(seed):
    data, detections = confused_case(seed)
    result = diagnosis_of(data, detections)
    check_gains(result.gains, [naive_tide(data, detections, iou) for iou in np.linspace(0.5, 0.95, 10)])
    evaluator = CocoEvaluator(data)
    evaluator.update(range(len(detections)), detections)
    assert result.gains.ap == pytest.approx(evaluator.compute().ap, abs=1e-9)


def test_boxes_that_fit_badly_cost_ap_and_no_ap50():
    # IoU 0.7: right up to there, and a localisation error at the five IoUs above
    data = data_of([record([[0, 0, 100, 100]], [0])], ["cat"])
    result = diagnosis_of(data, [found([[0, 0, 100, 72]], [0.9], [0])])
    assert (result.gains_50.ap, result.gains.ap) == pytest.approx((1, 0.5))
    assert (result.gains_50.by_kind[1], result.gains.by_kind[1]) == pytest.approx((0, 0.5))
    assert result.advice() == "Mending localisation errors would bring most: AP from 0.500 to 1.000 (+0.500)."


@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_pycocotools_with_equal_scores_and_more_than_a_hundred_detections_of_a_class(seed):
    data, detections = random_case(seed, num_images=4, num_classes=2, found_per_image=500)
    assert diagnosis_of(data, detections).gains_50.ap == pytest.approx(oracle(data, detections).stats[1], abs=1e-9)
    few = diagnosis_of(data, detections, max_detections=5).gains_50.ap
    evaluator = CocoEvaluator(data, max_detections=5)
    evaluator.update(range(4), detections)
    assert few == pytest.approx(evaluator.compute().ap50, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_that_are_the_ground_truth_have_no_error(seed):
    data, _ = random_case(seed)
    copies = [found(r.boxes[~r.crowd], np.ones(sum(~r.crowd)), r.labels[~r.crowd]) for r in data.records]
    result = diagnosis_of(data, copies)
    assert result.gains_50.ap == 1
    assert result.outcomes[0] == sum(int((~r.crowd).sum()) for r in data.records)
    assert result.outcomes[1:].tolist() == [0] * 6
    assert result.gains.by_kind == (0,) * 6
    assert result.advice() == "No error costs AP."


def test_each_kind_by_hand():
    objects = [[0, 0, 40, 40], [100, 0, 140, 40], [0, 100, 40, 140]]
    data = data_of([record(objects, [0, 1, 0])], ["cat", "dog"])
    kinds = {
        "right": ([0, 0, 40, 40], 0.9, 0),
        "duplicate": ([0, 0, 40, 38], 0.8, 0),
        "classification": ([100, 0, 140, 40], 0.7, 0),
        "localisation": ([120, 0, 160, 40], 0.6, 1),
        "both": ([20, 0, 60, 40], 0.5, 1),
        "background": ([160, 160, 190, 190], 0.4, 1),
    }
    for kind, row in kinds.items():
        outcomes = diagnosis_of(data, [found(*([part] for part in row))]).outcomes
        alone = "localisation" if kind == "duplicate" else kind
        expected = {alone: 1, "missed": 2 if alone in ("right", "classification", "localisation") else 3}
        if kind != "duplicate":  # alone it is right
            assert dict(zip(OUTCOMES, outcomes.tolist(), strict=True)) == {**dict.fromkeys(OUTCOMES, 0), **expected}
    whole = diagnosis_of(data, [found(*map(list, zip(*kinds.values(), strict=True)))])
    assert dict(zip(OUTCOMES, whole.outcomes.tolist(), strict=True)) == dict.fromkeys(OUTCOMES, 1)


def test_what_is_gained_by_hand():
    # one object found late, behind one on background: AP 0.5; without that it is 1
    data = data_of([record([[0, 0, 40, 40]], [0])], ["cat"])
    result = diagnosis_of(data, [found([[100, 100, 140, 140], [0, 0, 40, 40]], [0.9, 0.8], [0, 0])])
    assert result.gains_50.ap == pytest.approx(0.5)
    assert dict(zip(OUTCOMES[1:], result.gains.by_kind, strict=True)) == {
        **dict.fromkeys(OUTCOMES[1:], 0), "background": pytest.approx(0.5),
    }  # fmt: skip
    assert result.advice() == "Mending background errors would bring most: AP from 0.500 to 1.000 (+0.500)."


def test_a_class_of_which_nothing_is_found_stays_at_nothing_without_its_missed_objects():
    far = [150, 150, 190, 190]
    data = data_of([record([[0, 0, 40, 40], [100, 0, 140, 40]], [0, 1])], ["cat", "dog"])
    result = diagnosis_of(data, [found([[0, 0, 40, 40], far], [0.9, 0.8], [0, 1])])
    assert (result.gains_50.ap, result.gains.by_kind[-1], result.gains.false_negatives) == pytest.approx((0.5, 0, 0))
    assert result.advice() == "Mending one kind of errors alone brings nothing: AP stays at 0.500."
    without = diagnosis_of(data, [found([[0, 0, 40, 40]], [0.9], [0])])  # no detection: the class is no longer measured
    assert (without.gains.by_kind[-1], without.gains.false_negatives) == pytest.approx((0.5, 0.5))


def test_a_detection_of_a_crowd_is_no_error_and_the_crowd_is_not_missed():
    data = data_of([record([[0, 0, 40, 40], [100, 100, 190, 190]], [0, 0], crowd=[False, True])], ["cat"])
    result = diagnosis_of(data, [found([[0, 0, 40, 40], [110, 110, 130, 130]], [0.9, 0.8], [0, 0])])
    assert result.outcomes.tolist() == [1, 0, 0, 0, 0, 0, 0]
    of_crowd_alone = diagnosis_of(data_of([record([[0, 0, 9, 9]], [0], crowd=[True])], ["cat"]), [found([], [], [])])
    assert of_crowd_alone.outcomes.tolist() == [0] * 7
    assert np.isnan(of_crowd_alone.gains_50.ap)


def test_nothing_found_is_all_missed_and_nothing_there_all_background():
    data = data_of([record([[0, 0, 40, 40]], [0]), record([], [], image_id=1)], ["cat"])
    nothing = diagnosis_of(data, [found([], [], []), found([], [], [])])
    assert nothing.outcomes.tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert nothing.gains_50.ap == 0
    assert nothing.advice() == "Nothing is found: AP is 0."
    empty = data_of([record([], [])], ["cat"])
    assert diagnosis_of(empty, [found([[0, 0, 9, 9]], [0.5], [0])]).outcomes.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_no_images_have_no_figures():
    result = diagnose(CocoEvaluator(data_of([], ["cat"])))
    assert np.isnan(result.gains_50.ap)
    assert result.by_level.shape == (0, 7)
