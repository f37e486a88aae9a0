"""Names of mmdetection's necks: our key -> theirs, for FPN, PAFPN and NAS-FPN.

What a key means was learnt from the published files' keys and shapes. To be used with `renaming.by_parts`.
"""

from collections.abc import Iterator

from torch import nn

from pyrafuse.core.pyramid import Neck
from pyrafuse.importers.renaming import Naming, by_modules, by_patterns
from pyrafuse.necks.graph_neck import GraphNeck


def name_fpn(neck: Neck) -> Naming:
    """Names of `fpn` and `pafpn`: ``lateral_convs.0.conv.weight``, ``fpn_convs.3.bn.bias``, ..."""
    assert isinstance(neck, GraphNeck)
    return by_modules(_fpn_modules(neck), then=_norm_of(neck))


def _fpn_modules(neck: GraphNeck) -> Iterator[tuple[str, str]]:
    names = [step.merge.name for step in neck.plan.steps]
    read = sorted(int(name[1:]) for name in names if name[0] == "L")
    first, last = read[0], read[-1]
    is_aggregating = f"F{last}" in names
    for name in names:
        kind, level = name[0], int(name[1:])
        if kind == "L":
            yield f"merges.{name}.conv", f"lateral_convs.{level - first}"
        elif kind == "B":
            yield f"merges.{name}.edges.1.halve.0", f"downsample_convs.{level - first - 1}"
        elif kind == "P" and level > last:
            yield f"merges.{name}.edges.0.halve.0", f"fpn_convs.{level - first}"
        elif kind == "P" and is_aggregating and level > first:
            yield f"merges.{name}.conv", f"pafpn_convs.{level - first - 1}"
        elif kind in "PF":
            yield f"merges.{name}.conv", f"fpn_convs.{level - first}"


NAS_FPN_CELLS = {
    "gp_64": "gp_64_4",
    "sum_44": "sum_44_4",
    "out_3": "sum_43_3",
    "out_4": "sum_34_4",
    "out_5": "sum_55_5",
    "out_7": "sum_77_7",
    "out_6": "gp_75_6",
}


def name_nas_fpn(neck: Neck) -> Naming:
    """Names of `nas_fpn`: ``lateral_convs.0``, ``extra_downsamples.1.0``, ``fpn_stages.6.gp_75_6.out_conv``."""
    assert isinstance(neck, GraphNeck)
    return by_modules(_nas_fpn_modules(neck), then=_norm_of(neck))


def _nas_fpn_modules(neck: GraphNeck) -> Iterator[tuple[str, str]]:
    stem = [merge for merge in neck.graph.stem if merge.conv is not None]
    laterals = [merge.name for merge in stem if merge.name[0] == "P"]
    extras = [merge.name for merge in stem if merge.name[0] == "E"]
    for i, name in enumerate(laterals):
        yield f"merges.{name}.conv", f"lateral_convs.{i}"
    for i, name in enumerate(extras):
        yield f"merges.{name}.conv", f"extra_downsamples.{i}.0"
    for time in range(neck.graph.stack):
        for ours, theirs in NAS_FPN_CELLS.items():
            name = ours if neck.graph.stack == 1 else f"{ours}_{time + 1}"
            yield f"merges.{name}.conv", f"fpn_stages.{time}.{theirs}.out_conv"


def _norm_of(neck: GraphNeck) -> Naming:
    """Within a convolution: mmdetection calls a norm by its kind."""
    is_group = any(isinstance(part, nn.GroupNorm) for part in neck.modules())
    return by_patterns([(r"^norm\.", "gn." if is_group else "bn.")])
