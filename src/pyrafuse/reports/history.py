"""The course of a training, as parts of a page: a panel each, with how to read it."""

from collections.abc import Mapping, Sequence

from pyrafuse.visualization.report import Report
from pyrafuse.visualization.training_curves import (
    FUSION,
    GRADIENTS,
    LEVEL_LOSSES,
    LOSSES,
    POSITIVES,
    PRECISION,
    RATE,
    training_panels,
)

READING = {
    LOSSES: "Training lowers the sum (thick); dashed is the same on the validation images, without augmentation. A "
    "validation loss that rises while the other falls means overfitting.",
    LEVEL_LOSSES: "The sum of the losses split by pyramid level: levels with more objects have more of "
    "it. The terms of each level are in curves.png.",
    POSITIVES: "Anchors or points an image that are matched to an object: a level at 0 learns no boxes at all, so its "
    "anchors or sizes do not fit the data.",
    GRADIENTS: "How strongly each level is pulled at: when they grow a hundredfold, a loss of NaN is near.",
    FUSION: "Mean share of each source level in a fused level: all equal means that nothing was learnt to prefer. "
    "More than 12 weights have a row each, red above an equal share and blue below, and the last weight at its right.",
    PRECISION: "What counts: it should rise and flatten. While it still rises at the end, train longer; when it falls, "
    "the checkpoint of its maximum (best.ckpt) is the one to use.",
    RATE: "The step size of the optimiser: it rises at the start (burn-in) and falls to the end.",
}
"""A sentence or two for each panel of `plot_training`."""


def add_history(report: Report, history: Mapping[str, Sequence[float]]) -> None:
    """Add the curves of a training, folded.

    Args:
        report: Page that is extended.
        history: The columns of metrics.csv.
    """
    shown = {key: values for key, values in history.items() if not key.startswith("val/ar_")}
    shown = {key: values for key, values in shown.items() if not _is_term_of_a_level(key)}
    panels = training_panels(shown)
    report.add_section("Training")
    count = len(history.get("epoch", ()))
    with report.folded(f"Curves of {count} epoch{'' if count == 1 else 's'}: losses, AP, learning rate, levels"):
        report.add_charts(
            (figure, " ".join([READING[title], *(_rises(history) if title == LOSSES else ())]))
            for title, figure in panels.items()
        )


def _is_term_of_a_level(key: str) -> bool:
    """Whether ``key`` is level/stride_8/loss_iou, say: five more panels, which curves.png has."""
    return key.startswith("level/") and key.rsplit("/", 1)[-1].startswith("loss_")


def _rises(history: Mapping[str, Sequence[float]]) -> list[str]:
    """A sentence about the terms that rise while the sum falls, which looks like a fault and mostly is none."""
    total = history.get("train/loss", ())
    if len(total) < 2 or not total[-1] < total[0]:
        return []
    terms = {key.rsplit("/", 1)[-1]: values for key, values in history.items() if key.startswith("train/loss_")}
    risen = [
        f"{name} ({values[-1] / values[0] - 1:+.0%})" for name, values in terms.items() if 0 < values[0] < values[-1]
    ]
    positives = [values for key, values in history.items() if key.endswith("/positives")]
    before, after = (sum(values[i] for values in positives) for i in (0, -1))
    if not risen:
        return []
    reason = (
        f"more boxes learn than at the start ({after:.3g} positives an image, {before:.3g} then), and a term that sums "
        "over them grows with their number"
        if after > before
        else "terms trade off against each other, and only their sum is lowered"
    )
    return [f"Here {', '.join(risen)} rose while the sum fell. That alone is no fault: {reason}."]
