"""What the operators of a graph read of their merge: whatever is not read does not change what the graph computes.

Operators that a user has registered are taken to read everything and to have parameters of their own.
"""

from collections.abc import Sequence
from typing import Literal

from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.merging import CONVOLVING

FREE_FUSIONS = frozenset({"sum", "concat", "global_attention"})
"""Fusions without parameters."""

SYMMETRIC_FUSIONS = frozenset({"sum", "fast_normalized", "softmax", "spatial_softmax"})
"""Fusions of which the order of the inputs does not matter."""

PLACELESS_FUSIONS = FREE_FUSIONS | {"fast_normalized", "softmax", "inject"}
"""Fusions that read neither ``weight_channels`` nor the activation of ``project``."""

SYMMETRIC_BLOCKS = frozenset({"conv", "selection"})
"""Blocks for which the order of what comes in concatenated does not matter: they learn it."""

FREE_UPS = frozenset({"nearest", "bilinear"})
"""Ways to a finer level without parameters."""

FREE_DOWNS = frozenset(
    {"max_pool", "max_pool_same", "max_pool_floor", "max_pool_to_size", "bilinear", "subsample", "avg_pool"}
)
"""Ways to a coarser level without parameters, which do not read ``project``."""


def read_of_project(
    level: int, fusion: str, down: str, *, levels: Sequence[int], before: Sequence[int], widths: Sequence[int]
) -> Literal["nothing", "activation", "form"]:
    """What a merge at ``level`` reads of its ``project``.

    Args:
        level: Number of the merge's level.
        fusion: A key of `FUSIONS`.
        down: A key of `DOWN`.
        levels: Level of each source.
        before: Channels of each source.
        widths: Channels of each source when it is fused.
    """
    goes_down = any(source < level for source in levels)
    is_projected = any(
        given != wanted and not (source < level and down in CONVOLVING)
        for source, given, wanted in zip(levels, before, widths, strict=True)
    )
    if is_projected or (goes_down and down not in FREE_DOWNS and down != "max_pool_conv"):
        return "form"
    is_pooled = goes_down and down == "max_pool_conv"
    return "activation" if is_pooled or fusion not in PLACELESS_FUSIONS else "nothing"


def describe_conv(form: Conv) -> str:
    """A convolution or another block in words that two share exactly if they compute the same."""
    bias = form.norm == "none" if form.bias is None else form.bias
    norm = {"none": "", "batch_norm": f"{form.eps} {form.momentum}"}.get(form.norm, f"{form.eps}")
    kind = f"{form.block} {form.depth} {form.kernel_size} {'separable' if form.separable else ''}"
    return f"{kind} {form.before} {form.norm} {norm} {form.activation} {bias}"
