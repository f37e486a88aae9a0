"""Everything once, on generated images: train -> evaluate -> predict -> explain -> one HTML page."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.explanations import FusionExplanation
from pyrafuse.base.images.reading import read_image
from pyrafuse.core.devices import describe_device
from pyrafuse.data.checks.sizes import compute_sizes
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.explain.fusion import explain_image
from pyrafuse.explain.writing import save_explanation
from pyrafuse.importers.loading import load
from pyrafuse.inference.measuring import count_parameters
from pyrafuse.inference.predicting import predict_to
from pyrafuse.models.detector import Detector
from pyrafuse.models.evaluating import evaluate
from pyrafuse.reports.explanations import add_explanation
from pyrafuse.reports.history import add_history
from pyrafuse.reports.quality import add_quality
from pyrafuse.training.reporting import read_history
from pyrafuse.training.run import train
from pyrafuse.training.settings import Recipe
from pyrafuse.visualization.drawing import draw_ground_truth_beside, draw_objects
from pyrafuse.visualization.report import Report

NUM_SAMPLES = 6
NUM_PREDICTED = 8
NUM_EXPLAINED = 3


@dataclass(frozen=True)
class DemoResult:
    """What the demo left behind.

    Attributes:
        page: The report.
        checkpoint: The best one of the training.
        evaluation: Evaluation of that checkpoint.
        seconds: Wall time of each step.
    """

    page: Path
    checkpoint: Path
    evaluation: EvaluationResult
    seconds: dict[str, float]


class _Clock:
    """Remembers how long each step took, and says when one begins."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._console.rule(name, align="left", style="dim")
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def run_demo(recipe: Recipe, *, console: Console) -> DemoResult:
    """Train by ``recipe``, look at what came out from all sides, and write report.html into ``recipe.run.output``.

    Raises:
        PyrafuseError: If the recipe names no output, or as `train`.
    """
    if recipe.run.output is None:
        raise PyrafuseError("the demo needs a folder: give the recipe's run.output")
    folder, clock = Path(recipe.run.output), _Clock(console)
    with clock.step("train"):
        trained = train(recipe, console=console)
    data = recipe.data
    splits = read_splits(data.path, val_fraction=data.val_fraction, seed=recipe.run.seed, rules=data.reading)
    detector = load(trained.best)
    with clock.step("evaluate"):
        evaluation = evaluate(detector, splits.val, workers=0, batch_size=recipe.run.batch_size, console=console)
        console.print(evaluation.table(), highlight=False)
    score = evaluation.confusion_confidence
    richest = sorted(splits.val.records, key=lambda record: -len(record.labels))[:NUM_PREDICTED]
    with clock.step("predict"):
        predict_to(detector, [record.path for record in richest], folder / "predictions", score=score, progress=True)
        found = list(detector.predict([record.path for record in richest], score=score, keep_images=True))
        beside = [
            (draw_ground_truth_beside(f, record), f"{record.path.name}: {len(f)} found of {len(record.labels)}")
            for f, record in zip(found, richest, strict=True)
        ]
    with clock.step("explain"):
        explanations = [explain_image(detector, record.path, score=score) for record in richest[:NUM_EXPLAINED]]
        explained = {save_explanation(one, folder / "explanation")[0]: one for one in explanations}

    report = Report("pyrafuse demo: a detector with fused feature pyramids, from nothing")
    add_quality(report, evaluation, on="validation")
    report.add_section("What it finds")
    report.add_gallery(
        beside,
        f"Found (left, score {score:.2f} or more) beside what is there (right), in images it never trained on.",
        tile_px=500,
    )
    _describe_fusion(report, explained)
    add_history(report, read_history(trained.folder))
    _describe_data(report, splits)
    _summarize(report, recipe, detector, splits, clock.seconds)
    _describe_commands(report, trained.best)
    report.save(folder / "report.html")
    return DemoResult(folder / "report.html", trained.best, evaluation, clock.seconds)


def _summarize(
    report: Report,
    recipe: Recipe,
    detector: Detector,
    splits: Splits,
    seconds: dict[str, float],
) -> None:
    report.add_section("The run")
    report.add_key_values(
        {
            "model": f"{recipe.model.name}, {count_parameters(detector) / 1e6:.1f} M parameters, no pretrained weights",
            "data": splits.finding,
            "training": f"{recipe.run.epochs} epochs at {recipe.data.size} px, batch {recipe.run.batch_size}",
            "time": ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()),
            "machine": describe_device(detector.device),
        }
    )


def _describe_data(report: Report, splits: Splits) -> None:
    report.add_section("Data")
    report.add_table(
        ("class", "objects", "small", "medium", "large", "side in pixels: 5 %", "half", "95 %"),
        [
            (row.name, row.num_objects, row.small, row.medium, row.large, *(f"{side:.0f}" for side in row.sides_px))
            for row in compute_sizes((splits.train, splits.val))
        ],
        caption="Training and validation together. Small: below 32 x 32 pixels; large: from 96 x 96 pixels on.",
    )
    pictures = []
    for record in splits.train.records[:NUM_SAMPLES]:
        image = torch.from_numpy(read_image(record.path)).permute(2, 0, 1)
        pictures.append((draw_objects(image, record, splits.train.names), record.path.name))
    report.add_gallery(pictures, "The first training images with their objects.")


def _describe_fusion(report: Report, explained: Mapping[Path, FusionExplanation]) -> None:
    report.add_section("Which levels contributed to each detection")
    report.add_text(
        "ASFF gives every position of every output level a weight for each source level; the three sum to 1. Above are "
        "the detections, coloured by the level that each came from; below, one row an output level, the weights over "
        "the image."
    )
    for picture, explanation in explained.items():
        add_explanation(report, picture, explanation)


def _describe_commands(report: Report, checkpoint: Path) -> None:
    report.add_section("On your own images")
    report.add_text("A folder of COCO JSON, Pascal VOC or YOLO text will do; the layout is told by looking.")
    report.add_code(
        "pyrafuse data check my_data/\n"
        "pyrafuse train my_data/ --output runs/mine\n"
        "pyrafuse evaluate runs/mine/best.ckpt --output evaluation\n"
        "pyrafuse predict runs/mine/best.ckpt images/\n"
        "pyrafuse explain runs/mine/best.ckpt images/"
    )
    report.add_text("The detector of this page:")
    report.add_code(f"pyrafuse evaluate {checkpoint}\npyrafuse train --recipe shapes_demo")


def with_output(recipe: Recipe, folder: Path | None, *, device: str | None = None) -> Recipe:
    """The recipe with a folder of its own, runs/demo-1 and so on unless one is given."""
    number = 1
    while folder is None:
        candidate = Path("runs") / f"demo-{number}"
        folder, number = (None, number + 1) if candidate.exists() else (candidate, number)
    run = replace(recipe.run, output=str(folder), accelerator=device or recipe.run.accelerator)
    return replace(recipe, run=run)
