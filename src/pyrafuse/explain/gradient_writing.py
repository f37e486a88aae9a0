"""Conflicts of gradients over labelled images: a trained detector, a data set -> pictures, numbers, one page."""

import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pyrafuse.base.conflicts import NETWORK, Conflicts, GradientExplanation
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.first_of import FirstOf
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.progress import create_bar
from pyrafuse.base.records import DetectionData
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_text
from pyrafuse.core.targets import Batch
from pyrafuse.data.images.of_records import LoadingError
from pyrafuse.data.loading.datasets import EvalSet
from pyrafuse.data.loading.loaders import collate_eval
from pyrafuse.explain.gradients import SourceGradients, compute_source_gradients
from pyrafuse.explain.writing import PAGE, Summary, hold_explanations
from pyrafuse.models.detector import Detector
from pyrafuse.reports.conflicts import describe_gradients
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.gradients import plot_gradients

DEFAULT_LIMIT = 32
MAX_PICTURES = 8
"""So many images, the first ones, have their maps drawn; the numbers are of all."""


def explain_gradients_to(
    detector: Detector,
    data: DetectionData,
    output: str | os.PathLike[str],
    *,
    limit: int | None = None,
    progress: bool = False,
) -> tuple[Summary, GradientExplanation]:
    """Measure the gradients that the fusion's source levels receive for the images of ``data``, one at a time.

    Written to ``output``: gradients.json, report.html, and a picture NAME_gradients.png of each of the first images;
    the files of an earlier call give way. An image that cannot be read is passed over and told in the page.

    Args:
        detector: A trained one, on the device to compute on; it is set to evaluation mode.
        data: Labelled images; their classes are matched by name.
        output: A folder; made when it is not there.
        limit: Only so many images, the first ones; 32 by default.
        progress: Whether to show a bar on standard error.

    Raises:
        DataError: If the data have a class that the detector does not know, or no image can be read.
        PyrafuseError: If the limit is out of its range, the criterion tells nothing by level, or a file cannot be
            written or would replace one that no earlier call wrote; if another process writes there.
    """
    limit = DEFAULT_LIMIT if limit is None else limit
    if limit < 1:
        raise PyrafuseError(f"limit must be 1 or more, got {limit}")
    label_of = _match_labels(detector, data)
    output = Path(output)
    images = EvalSet(data, preprocessing=detector.card.preprocessing)
    rows = range(min(limit, len(images)))
    detector.eval()
    sums: dict[str, tuple[Conflicts, ...]] = {}
    pictures: list[Path] = []
    failures = FirstOf[str]()
    last: SourceGradients | None = None
    with hold_explanations(output, endings=(PAGE, "gradients.json", "_gradients.png")) as own:
        with create_bar(Terminal() if progress else None, transient=False) as bar:
            try:
                for row in bar.track(rows, description="gradients"):
                    try:
                        item = images[row]
                    except LoadingError as error:
                        failures.add(str(error))
                        continue
                    batch = collate_eval([item]).batch
                    batch = replace(batch, targets=replace(batch.targets, labels=label_of[batch.targets.labels]))
                    last = _measure(detector, batch)
                    found = last.conflicts()
                    sums = {
                        rule: tuple(a + b for a, b in zip(sums.get(rule, (Conflicts(),) * len(c)), c, strict=True))
                        for rule, c in found.items()
                    }
                    if len(pictures) < MAX_PICTURES:
                        path = output / f"{row + 1:03}-{data.records[row].path.stem}_gradients.png"
                        pictures.append(_draw(last, batch, own.claim(path)))
            except KeyboardInterrupt:
                kept = f"{output} holds the first {len(pictures)} pictures" if pictures else "nothing is written"
                raise KeyboardInterrupt(f"{kept}; gradients.json and report.html need all {len(rows)} images") from None
        if last is None:
            raise DataError(f"none of {len(rows)} images can be read: {(failures.kept or ['there is none'])[0]}")
        explanation = GradientExplanation(last.source_strides, last.output_strides, len(rows) - failures.count, sums)
        write_text(own.claim(output / "gradients.json"), json.dumps(explanation.to_dict(), indent=1))
        page = own.claim(output / PAGE)
        describe_gradients(explanation, pictures, failures).save(page)
    return Summary(page, explanation.num_images, tuple(failures.kept), failures.count), explanation


def _match_labels(detector: Detector, data: DetectionData) -> Tensor:
    """The detector's label of each class of the data."""
    names = detector.names
    if not names and detector.card.num_classes == len(data.names):
        return torch.arange(len(data.names))
    if unknown := [name for name in data.names if name not in names]:
        raise DataError(
            f"the detector does not know {', '.join(unknown)}; it knows {', '.join(names) or 'classes without names'}. "
            "Give data of the classes that it was trained on"
        )
    return torch.tensor([names.index(name) for name in data.names], dtype=torch.int64)


def _measure(detector: Detector, batch: Batch) -> SourceGradients:
    batch = batch.to(detector.device)
    images = normalize(detector.card.preprocessing, batch.images, batch.sizes)
    return compute_source_gradients(detector, images, batch.targets)


def _draw(gradients: SourceGradients, batch: Batch, path: Path) -> Path:
    figure = plot_gradients(
        batch.images[0].permute(1, 2, 0).cpu().numpy(),
        batch.targets.boxes[0, batch.targets.valid[0]].numpy(),
        [norms[:, 0].cpu().numpy() for norms in gradients.norms(NETWORK)],
        [conflict[0].cpu().numpy() for conflict in gradients.conflict_maps(NETWORK)],
        gradients.source_strides,
        gradients.output_strides,
    )
    save_figure(figure, path)
    return path
