"""RT-DETR's hybrid encoder: attention among the cells of the coarsest map, then convolutions across scales.

Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection", arXiv:2304.08069, section 4.2 (AIFI and CCFM).
C3, C4, C5 -> 1x1 convolutions -> S3, S4, S5; S5 -> attention -> L5; S4 + L5 -> block -> L4; S3 + L4 -> block -> P3;
L4 + P3 strided -> block -> P4; L5 + P4 strided -> block -> P5; each sum is a concatenation
"""

from itertools import pairwise

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, number_levels
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS


@NECKS.register("ccfm")
def ccfm(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    num_attentions: int = 1,
    depth: int = 3,
    activation: str = "silu",
) -> GraphNeck:
    """The hybrid encoder over any number of levels.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of every level.
        num_attentions: Number of encoder layers over the coarsest level; 0 for none.
        depth: Number of units of each block.
        activation: A key of `ACTIVATIONS`.

    Raises:
        ValueError: If ``num_attentions`` is negative, or there is no unit.
        UnknownNameError: If there is no such activation.
    """
    if num_attentions < 0:
        raise ValueError(f"num_attentions must be 0 or more, got {num_attentions}")
    names = number_levels(inputs.strides)
    first, last = names[0], names[-1]
    lateral = Conv(1, norm="batch_norm", activation=activation)
    block = Conv(block="rep_csp", depth=depth, activation=activation)
    merges = [Merge(f"S{n}", n, (f"C{n}",), conv=Conv(1, norm="batch_norm")) for n in names]
    found = f"S{last}"
    if num_attentions:
        merges.append(Merge(f"A{last}", last, (found,), conv=Conv(block="attention", depth=num_attentions)))
        found = f"A{last}"
    for n, above in reversed(tuple(pairwise(names))):
        merges.append(Merge(f"L{above}", above, (found,), conv=lateral))
        found = f"P{n}" if n == first else f"T{n}"
        merges.append(Merge(found, n, (f"S{n}", f"L{above}"), fusion="concat", conv=block))
    if first == last:
        merges.append(Merge(f"P{last}", last, (found,), conv=lateral))
    for below, n in pairwise(names):
        sources = (f"L{n}", f"P{below}")
        merges.append(Merge(f"P{n}", n, sources, fusion="concat", down="conv", project=lateral, conv=block))
    graph = Graph(merges=tuple(merges), outputs=tuple(f"P{n}" for n in names), channels=out_channels)
    return GraphNeck(inputs, graph)
