"""Path aggregation: after FPN's way down, a way back up.

Liu et al., "Path Aggregation Network for Instance Segmentation", arXiv:1803.01534, section 3.1.
C3, C4, C5 -> FPN -> P3, F4, F5; B4 = F4 + (P3 through a 3x3 convolution of stride 2); B5 = F5 + (the same of B4);
B4, B5 -> 3x3 convolutions -> P4, P5
"""

from itertools import pairwise

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import ExtraLevels, extra_levels, name_levels, top_down
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS


@NECKS.register("pafpn")
def pafpn(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    num_levels: int | None = None,
    start_level: int = 0,
    extra: ExtraLevels = "max_pool",
    relu_before_extra: bool = False,
    norm: str = "none",
    lateral_norm: bool = True,
) -> GraphNeck:
    """PANet's neck over any number of levels; arguments and errors are those of `fpn`.

    The paper convolves each sum before it goes on up; the published weights were trained with the sum itself going up
    and its convolution aside, and so it is here. Both without ReLU, other than the paper.
    """
    names = name_levels(inputs, start_level=start_level, num_levels=num_levels)
    first, *others = names[start_level : len(inputs)]
    conv = Conv(3, norm=norm)
    down = top_down({first: f"P{first}", **{n: f"F{n}" for n in others}}, norm=norm, lateral_norm=lateral_norm)
    summed = {first: f"P{first}", **{n: f"B{n}" for n in others}}
    sums = [
        Merge(summed[n], n, (f"F{n}", summed[below]), down="conv", project=Conv(1, norm=norm))
        for below, n in pairwise(summed)
    ]
    ends = [Merge(f"P{n}", n, (summed[n],), conv=conv) for n in others]
    more = extra_levels(names, len(inputs), extra=extra, relu_before=relu_before_extra, norm=norm)
    graph = Graph(
        merges=(*down, *sums, *ends, *more),
        outputs=tuple(f"P{n}" for n in names[start_level:]),
        channels=out_channels,
        ignored=tuple(f"C{n}" for n in names[:start_level]),
    )
    return GraphNeck(inputs, graph)
