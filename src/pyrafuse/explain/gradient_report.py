"""Conflicts of gradients over labelled images: a trained detector, a data set -> pictures, numbers, one page."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.records import DetectionData
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_text
from pyrafuse.core.targets import Batch
from pyrafuse.data.loading.datasets import EvalSet, LoadingError
from pyrafuse.data.loading.loaders import collate_eval
from pyrafuse.explain.conflicts import Conflicts
from pyrafuse.explain.gradients import NETWORK, RULES, SUM, WEIGHTS, SourceGradients, compute_source_gradients
from pyrafuse.explain.report import Summary
from pyrafuse.models.detector import Detector
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.gradients import plot_gradients
from pyrafuse.visualization.report import Report

DEFAULT_LIMIT = 32
MAX_PICTURES = 8
"""So many images, the first ones, have their maps drawn; the numbers are of all."""

DEFINITION = (
    "A position of a source level is mixed if the cells of some output level that overlap it answer for an object and "
    "those of another output level do not. It is in conflict if, besides, the gradients that it receives from two such "
    "levels have a negative cosine. Norms are means over the positions that are in conflict under the sum: of what the "
    "levels that answer for an object teach, and of what the levels that oppose them teach."
)


@dataclass(frozen=True)
class GradientReport:
    """What was measured over some images.

    Attributes:
        source_strides: Pixels a cell of each source level, finest first.
        output_strides: Of each output level.
        num_images: Images that were measured.
        conflicts: Of each rule and each source level.
    """

    source_strides: tuple[int, ...]
    output_strides: tuple[int, ...]
    num_images: int
    conflicts: Mapping[str, tuple[Conflicts, ...]]

    def weights_remove(self, levels: Sequence[int]) -> dict[str, float | None] | None:
        """How much of the opposing gradient's norm the neck's weights remove at some source levels, 0..1.

        Of what uniform weights 1/N would let through, of what a sum lets through, and of the sum's ratio to the
        gradient that it opposes, which no common factor of the weights changes. Below 0 if they let more through; none
        for a neck without weights, and null values without any conflict.
        """
        if WEIGHTS not in self.conflicts:
            return None
        weighted, unweighted = (
            sum((self.conflicts[rule][level] for level in levels), Conflicts()) for rule in (WEIGHTS, SUM)
        )
        if not unweighted.background_norm or not weighted.positive_norm:
            return {"of_uniform": None, "of_sum": None, "of_ratio": None}
        share = weighted.background_norm / unweighted.background_norm
        return {
            "of_uniform": 1 - share * len(self.output_strides),
            "of_sum": 1 - share,
            "of_ratio": 1 - weighted.background_ratio / unweighted.background_ratio,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``concat`` is what ``sum`` is, by equation 4."""
        rules: dict[str, Any] = {
            rule: {"meaning": RULES[rule], **self._by_stride(of_sources)} for rule, of_sources in self.conflicts.items()
        }
        if SUM in rules:
            rules["concat"] = rules[SUM]
        removed = None
        if WEIGHTS in self.conflicts:
            every = range(len(self.source_strides))
            removed = {f"stride{s}": self.weights_remove([level]) for level, s in enumerate(self.source_strides)}
            removed["all"] = self.weights_remove(every)
        return {
            "definition": DEFINITION,
            "images": self.num_images,
            "source_strides": list(self.source_strides),
            "output_strides": list(self.output_strides),
            "rules": rules,
            "weights_remove": removed,
        }

    def _by_stride(self, of_sources: Sequence[Conflicts]) -> dict[str, Any]:
        values = {f"stride{s}": c.to_dict() for s, c in zip(self.source_strides, of_sources, strict=True)}
        return {**values, "all": sum(of_sources, Conflicts()).to_dict()}


def explain_gradients_to(
    detector: Detector,
    data: DetectionData,
    output: str | os.PathLike[str],
    *,
    limit: int | None = None,
    progress: bool = False,
) -> tuple[Summary, GradientReport]:
    """Measure the gradients that the fusion's source levels receive for the images of ``data``, one at a time.

    Written to ``output``: gradients.json, report.html, and a picture NAME_gradients.png of each of the first images. An
    image that cannot be read is passed over and told in the page.

    Args:
        detector: A trained one, on the device to compute on; it is set to evaluation mode.
        data: Labelled images; their classes are matched by name.
        output: A folder; made when it is not there.
        limit: Only so many images, the first ones; 32 by default.
        progress: Whether to show a bar on standard error.

    Raises:
        DataError: If the data have a class that the detector does not know, or no image can be read.
        PyrafuseError: If the limit is out of its range, the criterion tells nothing by level, or a file cannot be
            written.
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
    failures: list[str] = []
    last: SourceGradients | None = None
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Terminal(quiet=not progress), disable=not progress) as bar:
        try:
            for row in bar.track(rows, description="gradients"):
                try:
                    item = images[row]
                except LoadingError as error:
                    failures.append(str(error))
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
                    pictures.append(
                        _draw(last, batch, output / f"{row + 1:03}-{data.records[row].path.stem}_gradients.png")
                    )
        except KeyboardInterrupt:
            kept = f"{output} holds the first {len(pictures)} pictures" if pictures else "nothing is written"
            raise KeyboardInterrupt(f"{kept}; gradients.json and report.html need all {len(rows)} images") from None
    if last is None:
        raise DataError(f"none of {len(rows)} images can be read: {failures[0] if failures else 'there is none'}")
    report = GradientReport(last.source_strides, last.output_strides, len(rows) - len(failures), sums)
    write_text(output / "gradients.json", json.dumps(report.to_dict(), indent=1))
    page = output / "report.html"
    _describe(report, pictures, failures).save(page)
    return Summary(page, report.num_images, tuple(failures)), report


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
        batch.images[0],
        batch.targets.boxes[0, batch.targets.valid[0]].numpy(),
        [norms[:, 0].cpu().numpy() for norms in gradients.norms(NETWORK)],
        [conflict[0].cpu().numpy() for conflict in gradients.conflict_maps(NETWORK)],
        gradients.source_strides,
        gradients.output_strides,
    )
    save_figure(figure, path)
    return path


def _describe(report: GradientReport, pictures: Sequence[Path], failures: Sequence[str]) -> Report:
    page = Report("What each level teaches, and where levels disagree")
    page.add_section("Summary")
    page.add_key_values(
        {
            "images": report.num_images,
            "not readable": len(failures),
            "source levels": ", ".join(f"stride {s}" for s in report.source_strides),
            "output levels": ", ".join(f"stride {s}" for s in report.output_strides),
        }
    )
    page.add_text(DEFINITION)
    for rule, of_sources in report.conflicts.items():
        named = [*zip([f"stride {s}" for s in report.source_strides], of_sources, strict=True)]
        named.append(("all", sum(of_sources, Conflicts())))
        page.add_table(
            (
                "source level",
                "mixed",
                "in conflict",
                "of all",
                "of mixed",
                "mean cosine",
                "positive",
                "opposing",
                "ratio",
            ),
            [(name, *_cells(conflicts)) for name, conflicts in named],
            caption=f"{rule.capitalize()}: {RULES[rule]}. Positive, opposing: norms, and the ratio of the two.",
        )
    if WEIGHTS in report.conflicts:
        levels = [*([level] for level in range(len(report.source_strides))), list(range(len(report.source_strides)))]
        removed = [report.weights_remove(chosen) or {} for chosen in levels]
        page.add_table(
            ("source level", "of uniform weights' norm", "of the sum's norm", "of the sum's ratio"),
            [
                (name, *("-" if share is None else f"{share:.1%}" for share in shares.values()))
                for name, shares in zip([*(f"stride {s}" for s in report.source_strides), "all"], removed, strict=True)
            ],
            caption="How much of the opposing gradient the neck's weights remove, where the sum has its conflicts.",
        )
    else:
        page.add_text(
            "The neck of this detector has no weights of positions: only the network's own gradients are told."
        )
    if failures:
        page.add_section("Not readable")
        page.add_table(("reason",), [(failure,) for failure in failures])
    page.add_section("Images")
    page.add_text(
        f"The first {len(pictures)} images: a row a source level, the norm of the gradient that it receives from each "
        "output level, and at the right the positions in conflict. White: the objects."
    )
    for picture in pictures:
        page.add_image(picture, caption=picture.stem.removesuffix("_gradients"))
    return page


def _cells(conflicts: Conflicts) -> list[str]:
    values = conflicts.to_dict()

    def show(key: str, form: str) -> str:
        return "-" if values[key] is None else format(values[key], form)

    return [
        show("mixed", "d"),
        show("conflicting", "d"),
        show("conflicting_share", ".2%"),
        show("conflicting_share_of_mixed", ".1%"),
        show("mean_cosine", ".3f"),
        show("positive_norm", ".3g"),
        show("background_norm", ".3g"),
        show("background_ratio", ".3f"),
    ]
