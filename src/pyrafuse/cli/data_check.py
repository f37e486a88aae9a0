"""`pyrafuse data check`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.paths import check_data, check_page, check_writable, find_checkpoint

if TYPE_CHECKING:
    from pyrafuse.base.card import Card
    from pyrafuse.base.predictor import Predictor
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.data.checks.report import Advice, Report
    from pyrafuse.data.formats.layout import Splits
    from pyrafuse.evaluation.coco import CocoEvaluator


def check(
    path: str,
    /,
    *,
    model: Path | None = None,
    strict: bool = False,
    json: Path | None = None,
    page: Path | None = None,
    device: str = "auto",
    val_fraction: float = 0.2,
    seed: int = 0,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
) -> int:
    """Read a data set whole, say what is wrong with it, what is worth a look, and what to train with.

    The status is 2 if there is an error, or, with --strict, a warning.

    Args:
        path: A folder, a data.yaml, a COCO JSON file, or shapes (generated images).
        model: A detector that has learnt these classes: a checkpoint, the folder of a run, or an exported file. The
            report lists the annotations that it contradicts where it is sure: missing boxes, other classes, boxes that
            fit badly. The advice is for a detector like it; by default for that of the default recipe.
        strict: Whether a warning counts as an error.
        json: File to write the report to, for programs.
        page: File to write the report to as a page with pictures: .html.
        device: Device of the model: auto, cpu, gpu, or the number of a GPU.
        val_fraction: Share of the images that is drawn for validation where no split is meant for it.
        seed: Seed of that draw.
        missing: error for images that are listed and not there; skip leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored as the pixels lie
            in the file, or upright; auto is upright with a warning.
        boxes: What the numbers of a box are: auto is what the layout has. Else one of pixels, shares and percent, one
            of corners (x1 y1 x2 y2), sizes (x y width height) and centers (centre, width, height), or both:
            shares,corners.
    """
    check_data(path)
    if json is not None:
        check_writable(json)
    if page is not None:
        check_page(page, "--page")
    if model is not None:
        model = find_checkpoint(model)
    import json as json_format

    from pyrafuse.base.progress import create_bar
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.base.writing import write_text
    from pyrafuse.cli.detectors import load_detecting
    from pyrafuse.data.checks import checking
    from pyrafuse.data.checks.report import format_advice
    from pyrafuse.data.formats.layout import read_splits
    from pyrafuse.data.reading.rules import ReadingRules

    rules, console = ReadingRules(missing=missing, exif=exif, boxes=boxes), Terminal()
    splits = read_splits(path, val_fraction=val_fraction, seed=seed, rules=rules)
    with create_bar(console) as bar:
        task = bar.add_task("decoding images", total=None)
        report = checking.check(splits, progress=lambda done, total: bar.update(task, completed=done, total=total))
    failure, detector = None, None
    if model is not None:
        try:
            detector, detect_all = load_detecting(model, device)
            report = _with_contradictions(report, splits, detector, detect_all, console)
        except PyrafuseError as error:
            failure = error  # what was found without it is told first
    advice = _advise(splits, path, None if detector is None else detector.card)
    print("\n".join([report.text(), *format_advice(advice)]))
    if advice and detector is not None:
        print(f"size, levels and anchors are advised for a detector like {model}")
    if json is not None:
        values = {**report.to_json(), "advice": [each.to_dict() for each in advice]}
        write_text(json, json_format.dumps(values, indent=1))
    if page is not None:
        from pyrafuse.reports.check_page import describe_check

        describe_check(f"Check of {path}", report, advice).save(page)
        print(f"\npage  {page}")
    if failure is not None:
        raise failure
    return 2 if report.has_errors or (strict and report.warnings) else 0


def _with_contradictions(
    report: "Report",
    splits: "Splits",
    detector: "Predictor",
    detect_all: "Callable[..., CocoEvaluator]",
    console: "Terminal",
) -> "Report":
    """``report`` with the annotations that ``detector`` contradicts, before the other hints.

    Raises:
        PyrafuseError: If it cannot judge these data.
    """
    from pyrafuse.inference.doubting import find_contradictions

    unread = frozenset(problem.file for problem in report.errors if problem.kind == "unreadable image")
    found = find_contradictions(detector, detect_all, (splits.train, splits.val), without=unread, console=console)
    faults = (*report.errors, *report.warnings)
    return replace(report, problems=(*faults, *found, *report.hints, *report.notes))


def _advise(splits: "Splits", path: str, card: "Card | None") -> "Sequence[Advice]":
    """What to train a detector like that of ``card`` with; nothing where what trains is not installed."""
    if find_spec("torch") is None:
        return ()
    from pyrafuse.recipes.small import small
    from pyrafuse.training.advising import advise
    from pyrafuse.training.starting import settle

    recipe = replace(small(), data=replace(small().data, path=path))
    if card is not None and card.spec is not None:
        size, fit = min(card.preprocessing.size), card.preprocessing.fit
        model = replace(recipe.model, name=card.model or card.spec.head.name, spec=card.spec.to_plain())
        recipe = replace(recipe, model=model, data=replace(recipe.data, size=size, fit=fit))
    recipe, _ = settle(recipe)
    return advise(recipe, splits.train)
