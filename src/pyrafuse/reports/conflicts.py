"""Conflicts of gradients as a page: counts, cosines and norms of each rule, and the pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrafuse.base.conflicts import DEFINITION, RULES, GradientExplanation
from pyrafuse.base.first_of import FirstOf
from pyrafuse.reports.explanations import add_failures
from pyrafuse.visualization.report import Report

_COLUMNS = {
    "mixed": ("mixed", "d"),
    "in conflict": ("conflicting", "d"),
    "of all": ("conflicting_share", ".2%"),
    "of mixed": ("conflicting_share_of_mixed", ".1%"),
    "mean cosine": ("mean_cosine", ".3f"),
    "positive": ("positive_norm", ".3g"),
    "opposing": ("background_norm", ".3g"),
    "ratio": ("background_ratio", ".3f"),
}
"""Name in `Conflicts.to_dict` and form of each column, by its title."""

_REMOVED = {
    "of uniform weights' norm": ("of_uniform", ".1%"),
    "of the sum's norm": ("of_sum", ".1%"),
    "of the sum's ratio": ("of_ratio", ".1%"),
}
"""Words for the keys of `GradientExplanation.weights_remove`."""


def describe_gradients(explanation: GradientExplanation, pictures: Sequence[Path], failures: FirstOf[str]) -> Report:
    """The page over all images.

    Args:
        explanation: What was counted.
        pictures: Those of the first images.
        failures: Why other images could not be read.
    """
    values = explanation.to_dict()
    sources = [f"stride{s}" for s in explanation.source_strides]

    def add_table(columns: dict[str, tuple[str, str]], of_sources: dict[str, Any], caption: str) -> None:
        rows = []
        for source in [*sources, "all"]:
            cells = [(of_sources[source][key], form) for key, form in columns.values()]
            shown = ["-" if value is None else format(value, form) for value, form in cells]
            rows.append((source.replace("stride", "stride "), *shown))
        page.add_table(("source level", *columns), rows, caption=caption)

    page = Report("What each level teaches, and where levels disagree")
    page.add_section("Summary")
    page.add_key_values(
        {
            "images": explanation.num_images,
            "not readable": failures.count,
            "source levels": ", ".join(f"stride {s}" for s in explanation.source_strides),
            "output levels": ", ".join(f"stride {s}" for s in explanation.output_strides),
        }
    )
    page.add_text(DEFINITION)
    for rule in explanation.conflicts:
        meaning = f"{rule.capitalize()}: {RULES[rule]}. Positive, opposing: norms, and the ratio of the two."
        add_table(_COLUMNS, values["rules"][rule], meaning)
    if values["weights_remove"]:
        meaning = "How much of the opposing gradient the neck's weights remove, where the sum has its conflicts."
        add_table(_REMOVED, values["weights_remove"], meaning)
    else:
        page.add_text(
            "The neck of this detector has no weights of positions: only the network's own gradients are computed."
        )
    add_failures(page, failures)
    page.add_section("Images")
    page.add_text(
        f"The first {len(pictures)} images: a row a source level, the norm of the gradient that it receives from each "
        "output level, and at the right the positions in conflict. White: the objects."
    )
    for picture in pictures:
        page.add_image(picture, caption=picture.stem.removesuffix("_gradients"))
    return page
