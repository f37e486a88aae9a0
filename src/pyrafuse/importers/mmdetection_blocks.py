"""mmdetection's names of the parameters of blocks and of the small necks.

Learnt from published files' keys and shapes. our key -> theirs, each naming for one of our modules
"""

import re

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers.mmdetection_necks import name_fpn
from pyrafuse.importers.renaming import Naming, by_modules, by_patterns
from pyrafuse.models.recursive_fpn import RecursiveFPN

name_sac = by_patterns([(r"^offset_near\.", "offset_s."), (r"^offset_far\.", "offset_l.")])
"""Of a `SwitchableAtrousConv`."""

_NON_LOCAL = [("value", "g.conv"), ("query", "theta.conv"), ("key", "phi.conv"), ("out", "conv_out.conv")]

name_non_local = by_modules(_NON_LOCAL)
"""Of a `NonLocal`."""

name_bfp = by_modules([("refine.conv", "refine.conv"), *((f"refine.{ours}", f"refine.{t}") for ours, t in _NON_LOCAL)])
"""Of a `BFP` whose levels have equal channels."""

name_ssd_extra = by_patterns(
    [
        (r"^extra_levels\.(\d+)\.reduce\.", r"extra_layers.\1.0."),
        (r"^extra_levels\.(\d+)\.down\.", r"extra_layers.\1.1."),
        (r"\.norm\.", ".bn."),
    ]
)
"""Of `SSDExtraLevels`."""

name_ssd_extra_depthwise = by_patterns(
    [
        (r"^extra_levels\.(\d+)\.reduce\.", r"extra_layers.\1.0."),
        (r"^extra_levels\.(\d+)\.down\.", r"extra_layers.\1.1.depthwise_conv."),
        (r"^extra_levels\.(\d+)\.expand\.", r"extra_layers.\1.1.pointwise_conv."),
        (r"\.norm\.", ".bn."),
    ]
)
"""Of separable `SSDExtraLevels`."""


def naming_yolov3_neck(num_levels: int = 3) -> Naming:
    """Of a `YOLOFPN` without SPP and without widening; theirs counts from the coarsest level."""
    pairs: list[tuple[str, str]] = []
    for level in range(num_levels):
        theirs = num_levels - level
        # DropBlock, which has no parameters, stands inside the second pair of the coarsest stack, else of the first
        places = (0, 1, 2, 3, 5) if level == num_levels - 1 else (0, 1, 3, 4, 5)
        pairs += [(f"stacks.{level}.{place}", f"detect{theirs}.conv{i + 1}") for i, place in enumerate(places)]
        if level < num_levels - 1:
            pairs.append((f"reductions.{level}", f"conv{theirs - 1}"))
    return by_modules(pairs, then=by_patterns([(r"^norm\.", "bn.")]))


def naming_recursive_fpn(model: RecursiveFPN) -> Naming:
    """Of a whole `RecursiveFPN` on `fpn`: ``backbone.conv1.weight``, ``neck.rfp_modules.0.layer2.0.rfp_conv.bias``."""
    neck = name_fpn(model.neck)

    def name(key: str) -> str:
        part, _, rest = key.partition(".")
        if part == "trunk":
            return f"backbone.{_name_trunk(rest)}"
        if part == "neck":
            return f"neck.{neck(rest)}"
        if part == "aspp":
            return "neck.rfp_aspp." + re.sub(r"^branches\.(\d+)\.conv\.", r"aspp.\1.", rest)
        if part == "fusion":
            return f"neck.rfp_weight.{rest}"
        number, _, rest = rest.partition(".")
        if found := re.fullmatch(r"feedback\.(\d+)\.(\w+)", rest):
            return f"neck.rfp_modules.{number}.layer{int(found[1]) + 1}.0.rfp_conv.{found[2]}"
        return f"neck.rfp_modules.{number}.{_name_trunk(rest.removeprefix('trunk.'))}"

    return name


def _name_trunk(key: str) -> str:
    return name_resnet(key).replace(".offset_near.", ".offset_s.").replace(".offset_far.", ".offset_l.")


def naming_dilated_encoder(num_blocks: int = 4) -> Naming:
    """Of a `DilatedEncoder` of one level."""
    names = ("lateral_conv", "lateral_norm", "fpn_conv", "fpn_norm")
    pairs = [(f"levels.0.{i}", theirs) for i, theirs in enumerate(names)]
    for block in range(num_blocks):
        ours, theirs = f"levels.0.{block + len(names)}", f"dilated_encoder_blocks.{block}"
        pairs += [(f"{ours}.{part}", f"{theirs}.conv{i}") for i, part in enumerate(("reduce", "look", "expand"), 1)]
    return by_modules(pairs, then=by_patterns([(r"^norm\.", "bn.")]))
