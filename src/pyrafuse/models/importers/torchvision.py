"""Names of torchvision's FPN: our key -> theirs.

To be used with `renaming.by_parts`.
"""

from collections.abc import Iterator

from pyrafuse.core.pyramid import Neck
from pyrafuse.models.importers.renaming import Naming, by_modules
from pyrafuse.necks.graph_neck import GraphNeck


def name_fpn(neck: Neck, *, is_nested: bool = True) -> Naming:
    """Names of `fpn`: ``inner_blocks.0.0.weight``, ``layer_blocks.2.1.running_mean``, ``extra_blocks.p6.bias``.

    Args:
        neck: Ours.
        is_nested: Convolution and norm are numbered within a block; files from before 2022, whose FPN has no norm,
            have ``inner_blocks.0.weight``.
    """
    assert isinstance(neck, GraphNeck)
    return by_modules(_modules(neck, is_nested))


def _modules(neck: GraphNeck, is_nested: bool) -> Iterator[tuple[str, str]]:
    names = [step.merge.name for step in neck.plan.steps]
    read = sorted(int(name[1:]) for name in names if name[0] == "L")
    for name in names:
        kind, level = name[0], int(name[1:])
        if kind == "P" and level > read[-1]:
            yield f"merges.{name}.edges.0.halve.0.conv", f"extra_blocks.p{level}"
        elif kind in "LP":
            block = f"{'inner' if kind == 'L' else 'layer'}_blocks.{level - read[0]}"
            yield f"merges.{name}.conv.conv", f"{block}.0" if is_nested else block
            yield f"merges.{name}.conv.norm", f"{block}.1"
