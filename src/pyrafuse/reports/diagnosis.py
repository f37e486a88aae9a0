"""Why a detector fails, as parts of a page: errors by kind and size, F1 against confidence, levels, calibration."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyrafuse.evaluation.coco import SIZES
from pyrafuse.evaluation.diagnosis import CONFIDENCES, NUM_BINS, REMEDIES, Calibration, Diagnosis
from pyrafuse.evaluation.error_kinds import OUTCOMES
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.visualization.diagnosis import plot_calibration, plot_f1, plot_gains
from pyrafuse.visualization.report import Report

MAX_LISTED_CLASSES = 20
"""With more classes their errors are folded."""

MEANINGS = {
    "classification": "fits an object of another class (IoU 0.5 or more)",
    "localisation": "of the right class, in a box that fits badly (IoU 0.1 to 0.5)",
    "both": "of another class, in a box that fits badly",
    "duplicate": "of an object that a better detection has found",
    "background": "where no object is (IoU below 0.1)",
    "missed": "object that is not found, nor met by an error of class or place",
}
"""What each kind of error is."""


def add_errors(report: Report, diagnosis: Diagnosis, names: Sequence[str]) -> None:
    """Add what would bring most AP, the errors of each kind with their price, and by size and class."""
    report.add_section("Why it fails")
    report.add_text(diagnosis.advice())
    ranked = diagnosis.ranked_gains()
    if ranked:
        report.add_text(f"What helps against it: {REMEDIES[ranked[0][0]]}.")
    gains, gains_50 = diagnosis.gains, diagnosis.gains_50
    kept = diagnosis.by_class.sum(axis=0)
    report.add_table(
        ("error", "gain in AP", "gain in AP50", "errors", "all errors", "what it is"),
        [
            (kind, _signed(gain), _signed(gain_50), f"{of_kept:,}", f"{of_all:,}", MEANINGS[kind])
            for kind, gain, gain_50, of_kept, of_all in zip(
                OUTCOMES[1:],
                gains.by_kind,
                gains_50.by_kind,
                kept[1:].tolist(),
                diagnosis.outcomes[1:].tolist(),
                strict=True,
            )
        ],
        caption="Kinds as TIDE defines them (arXiv:2008.08115). Gain: how much higher AP or AP50 would be if all "
        "errors of the kind were mended and no others; AP is the mean over IoUs from 0.50 to 0.95, each with its own "
        f"errors. Errors are counted at IoU 0.5: with a score of {_threshold(diagnosis)}; "
        f"all errors: with any score. Without any false detection AP would be higher by "
        f"{_number(gains.false_positives)}, without any missed object by {_number(gains.false_negatives)}.",
    )
    if not math.isnan(gains.ap):
        report.add_charts(
            [
                (
                    plot_gains(OUTCOMES[1:], gains.by_kind),
                    "The longest bar is what to work on first. Gains do not add up: errors hide one another.",
                )
            ]
        )
    report.add_section("Errors by size and class")
    limits = [f"{name} ({_area(low, high)})" for name, (low, high) in SIZES.items()]
    _add_outcomes(
        report, "size", limits, diagnosis.by_size,
        f"Detections with a score of {diagnosis.confidence:.3f} or more, by the size of their object (of background: "
        "by their own), and missed objects.",
    )  # fmt: skip
    if len(names) > 1:
        caption = "By the class that was predicted; missed objects by their own."
        if len(names) > MAX_LISTED_CLASSES:
            with report.folded(f"Errors of all {len(names)} classes"):
                _add_outcomes(report, "class", names, diagnosis.by_class, caption)
        else:
            _add_outcomes(report, "class", names, diagnosis.by_class, caption)


def add_confidence(report: Report, diagnosis: Diagnosis, result: EvaluationResult) -> None:
    """Add F1 against the least score that is kept, and the best threshold of each class."""
    report.add_section("Confidence")
    best = [(each.confidence, each.f1) for each in (*(c.best for c in result.classes), result.best)]
    report.add_charts(
        [
            (
                plot_f1(CONFIDENCES, diagnosis.f1, diagnosis.f1_of_all, result.names, best),
                "F1 weighs missed objects against false detections. A dot is the best score threshold: the value to "
                "give to predict as --score. Where the dots lie far apart, one threshold for all classes costs some.",
            )
        ]
    )
    rows = [
        (name, *(_number(value) for value in (c.confidence, c.f1, c.precision, c.recall, f1)))
        for name, c, f1 in zip(
            (*result.names, "all"),
            (*(c.best for c in result.classes), result.best),
            diagnosis.f1_at_confidence.tolist(),
            strict=True,
        )
    ]
    header = ("class", "best threshold", "F1", "precision", "recall", "F1 at one threshold")
    caption = f"One threshold: {_threshold(diagnosis)}."
    if len(rows) > MAX_LISTED_CLASSES + 1:
        with report.folded(f"Thresholds of all {len(result.names)} classes"):
            report.add_table(header, rows, caption)
    else:
        report.add_table(header, rows, caption)


def add_levels(report: Report, diagnosis: Diagnosis, strides: Sequence[int] = ()) -> None:
    """Add what the detections of each pyramid level were; nothing where levels are not known."""
    num_levels = len(diagnosis.by_level)
    if not num_levels:
        return
    report.add_section("Levels")
    report.add_text(
        "Every detection comes from one level of the pyramid; fine levels are made for small objects. A level with "
        "many errors and few right detections learns little: see what it fuses with pyrafuse explain."
    )
    names = [f"level {k}" + (f", stride {strides[k]}" if k < len(strides) else "") for k in range(num_levels)]
    _add_outcomes(
        report, "level", names, diagnosis.by_level,
        f"Detections with a score of {diagnosis.confidence:.3f} or more, by the level they came from, finest first.",
        with_missed=False,
    )  # fmt: skip


def add_calibration(report: Report, diagnosis: Diagnosis) -> None:
    """Add whether scores can be believed: the reliability diagram and the expected calibration error."""
    calibration = diagnosis.calibration
    report.add_section("Calibration")
    if not calibration.counts.any():
        report.add_text("Nothing was found.")
        return
    reliability, histogram = plot_calibration(calibration.counts, calibration.scores, calibration.precisions)
    higher = calibration.error(1)
    text = f"Expected calibration error: {calibration.error():.3f}, over all detections"
    if not math.isnan(higher):
        text += f"; {higher:.3f} over those with a score of {1 / NUM_BINS:g} or more"
    report.add_text(
        f"{text}. It is the mean distance between the score of detections and the share of them that is right, in "
        f"{NUM_BINS} ranges of scores, weighted by their detections. {_tell_tendency(calibration)}"
    )
    report.add_charts(
        [
            (reliability, "Bars below the dashed line: scores promise too much. Above: they promise too little."),
            (histogram, "How many detections each bar rests on: the height of a bar with few of them is chance."),
        ]
    )


def _tell_tendency(calibration: Calibration) -> str:
    counts = calibration.counts
    distances = np.nan_to_num(calibration.scores - calibration.precisions)[1:] * counts[1:]
    if not counts[1:].any():
        return ""
    mean = float(distances.sum() / counts[1:].sum())
    if abs(mean) < 0.02:
        return "On the whole the scores neither promise too much nor too little."
    return f"On the whole the scores promise too {'much' if mean > 0 else 'little'}, by {abs(mean):.2f}."


def _add_outcomes(
    report: Report,
    title: str,
    names: Sequence[str],
    counts: NDArray[np.int64],
    caption: str,
    *,
    with_missed: bool = True,
) -> None:
    columns = OUTCOMES if with_missed else OUTCOMES[:-1]
    report.add_table(
        (title, *columns),
        [(name, *(f"{n:,}" for n in row[: len(columns)])) for name, row in zip(names, counts.tolist(), strict=True)],
        caption,
    )


def _threshold(diagnosis: Diagnosis) -> str:
    where = ", where the F1 of all classes together is best" if diagnosis.f1_at_confidence[-1] > 0 else ""
    return f"{diagnosis.confidence:.3f} or more{where}"


def _area(low: float, high: float) -> str:
    if not low:
        return f"below {math.isqrt(int(high))} px"
    return f"from {math.isqrt(int(low))} px" + (f" to {math.isqrt(int(high))} px" if high < 1e9 else "")


def _signed(gain: float) -> str:
    return "-" if math.isnan(gain) else f"{gain:+.3f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
