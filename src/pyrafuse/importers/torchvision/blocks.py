"""torchvision's names of the parameters of single blocks.

FPN, arXiv:1612.03144; trunk and extra levels of SSD, arXiv:1512.02325, and of SSDLite,
arXiv:1801.04381 and arXiv:1905.02244.
our block's key -> torchvision's
"""

from collections.abc import Iterator

from pyrafuse.backbones.mobilenet_v3 import naming_mobilenet_v3
from pyrafuse.backbones.vgg import FC_POSITION, POSITIONS, name_vgg16
from pyrafuse.core.pyramid import Neck
from pyrafuse.importers.renaming import Naming, by_modules, by_patterns
from pyrafuse.necks.graph_neck import GraphNeck

name_ssd_extra = by_patterns(
    [
        (r"^l2_norm\.weight$", "scale_weight"),
        # the first block behind the finest map ends VGG-16
        *((rf"^extra_levels\.{level}\.", f"extra.{level + 1}.") for level in range(4)),
        (r"\.reduce\.conv\.", ".0."),
        (r"\.down\.conv\.", ".2."),
    ]
)
"""Of SSD300's `SSDExtraLevels`."""

name_ssdlite_extra = by_patterns(
    [
        (r"^extra_levels\.", "extra."),
        *((rf"\.{part}\.", f".{place}.") for place, part in enumerate(("reduce", "down", "expand"))),
        (r"\.conv\.", ".0."),
        (r"\.norm\.", ".1."),
    ]
)
"""Of SSDLite320's `SSDExtraLevels`."""


def name_ssdlite_mobilenet(key: str) -> str:
    """Of a ``mobilenet_v3_large`` cut behind the expansion of its thirteenth layer, and there numbered anew."""
    published = naming_mobilenet_v3(expanded=True)(key)
    number, rest = published.removeprefix("features.").split(".", 1)
    if int(number) < 13:
        return f"features.0.{number}.{rest}"
    if int(number) > 13:
        return f"features.1.{int(number) - 13}.{rest}"
    cut = rest.removeprefix("block.")
    return f"features.0.13.{cut[2:]}" if cut.startswith("0.") else f"features.1.0.{cut}"


def name_ssd_vgg16(key: str) -> str:
    """Of a `vgg16` with reduced layers: numbered through up to conv4_3, anew behind it, and anew from the last pool."""
    position, kind = name_vgg16(key).split(".")
    number, fourth_pool, last_pool = int(position), POSITIONS[3], FC_POSITION - 1
    if number < fourth_pool:
        return f"features.{position}.{kind}"
    if number < last_pool:
        return f"extra.0.{number - fourth_pool}.{kind}"
    return f"extra.0.{last_pool - fourth_pool}.{number - last_pool}.{kind}"


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
