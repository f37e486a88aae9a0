"""Feature-aligned pyramid network: an FPN whose coarse maps are aligned to the finer ones before they are added.

Huang et al., "FaPN", arXiv:2108.07058, section 3.
C3, C4 -> channels weighed -> 1x1 convolutions -> L3, L4; L4 + (L5 upsampled, aligned to L4) = M4; and so on down
"""

from dataclasses import replace

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import ExtraLevels, extra_levels, name_levels, top_down
from pyrafuse.necks.graph import Graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS


@NECKS.register("fapn")
def fapn(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    num_levels: int | None = None,
    start_level: int = 0,
    extra: ExtraLevels = "max_pool",
    relu_before_extra: bool = False,
    norm: str = "none",
) -> GraphNeck:
    """FaPN over any number of levels; arguments and errors are those of `fpn`."""
    names = name_levels(inputs, start_level=start_level, num_levels=num_levels)
    read = names[start_level : len(inputs)]
    selected = {f"L{n}": Conv(1, norm=norm, block="selection") for n in read[:-1]}
    down = top_down({n: f"P{n}" for n in read}, norm=norm, lateral_norm=True, up="aligned")
    more = extra_levels(names, len(inputs), extra=extra, relu_before=relu_before_extra, norm=norm)
    graph = Graph(
        merges=(*(replace(merge, conv=selected.get(merge.name, merge.conv)) for merge in down), *more),
        outputs=tuple(f"P{n}" for n in names[start_level:]),
        channels=out_channels,
        ignored=tuple(f"C{n}" for n in names[:start_level]),
    )
    return GraphNeck(inputs, graph)
