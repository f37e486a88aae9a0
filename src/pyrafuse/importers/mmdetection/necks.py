"""Names of mmdetection's necks: our key -> theirs, for each neck that its detectors have.

What a key means was learnt from the published files' keys and shapes. To be used with `renaming.by_parts`.
"""

from collections.abc import Iterator

from torch import nn

from pyrafuse.importers.renaming import Naming, by_modules, by_patterns
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NeckChain


def name_necks(neck: nn.Module) -> dict[str, tuple[str, Naming]]:
    """Names of a whole detector's necks, as `by_parts` takes them: `bfp` may stand behind another."""
    if isinstance(neck, NeckChain):
        namings = enumerate(name_bfp if i else name_fpn(first) for i, first in enumerate(neck.necks))
        return {f"neck.necks.{i}": (f"neck.{i}", naming) for i, naming in namings}
    is_nas = isinstance(neck, GraphNeck) and {merge.name for merge in neck.graph.merges} >= NAS_FPN_CELLS.keys()
    return {"neck": ("neck", name_nas_fpn(neck) if is_nas else name_fpn(neck))}


def name_fpn(neck: nn.Module) -> Naming:
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


def name_nas_fpn(neck: nn.Module) -> Naming:
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


_NON_LOCAL = [("value", "g.conv"), ("query", "theta.conv"), ("key", "phi.conv"), ("out", "conv_out.conv")]

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
