"""Gather and distribute: all levels are gathered at one, refined there, and injected into each; twice.

Wang et al., "Gold-YOLO", arXiv:2309.11331, section 3.
all levels -> at stride 16, concatenated -> convolutions -> into the fine levels; all of these -> at the coarsest,
concatenated -> attention -> into the coarse levels
"""

from itertools import pairwise

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, number_levels
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS


@NECKS.register("gather_distribute")
def gather_distribute(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    depth: int = 3,
    num_attentions: int = 2,
    activation: str = "relu",
) -> GraphNeck:
    """Gold-YOLO's neck over any number of levels.

    All that is gathered goes to each level, where the paper splits it by channels; blocks have no branch that passes
    their input; and attention is that of a plain encoder layer.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of every level.
        depth: Number of units that refine what is gathered from the fine levels.
        num_attentions: Number of encoder layers that refine what is gathered at the coarsest level.
        activation: A key of `ACTIVATIONS`.

    Raises:
        ValueError: If there is no unit, or no encoder layer.
        UnknownNameError: If there is no such activation.
    """
    names = number_levels(inputs.strides)
    first, last = names[0], names[-1]
    middle = names[inputs.strides.index(16)] if 16 in inputs.strides else names[len(names) // 2]
    lateral = Conv(1, norm="batch_norm", activation=activation)
    unit = Conv(block="rep", activation=activation)
    merges = [Merge(f"L{n}", n, (f"C{n}",), conv=lateral) for n in names]
    if first == last:  # one level has nothing to gather
        merges.append(Merge(f"P{first}", first, (f"L{first}",), conv=unit))
        return GraphNeck(inputs, Graph(tuple(merges), (f"P{first}",), channels=out_channels))

    def gather(name: str, n: int, sources: tuple[str, ...], conv: Conv) -> Merge:
        return Merge(name, n, sources, fusion="concat", up="bilinear", down="avg_pool", conv=conv)

    def inject(name: str, n: int, local: str, gathered: str) -> Merge:
        return Merge(name, n, (local, gathered), fusion="inject", up="bilinear", down="avg_pool", conv=unit)

    refined = Conv(block="rep", depth=depth, activation=activation)
    merges.append(gather("low", middle, tuple(f"L{n}" for n in names), refined))
    down = {**{n: f"T{n}" for n in names}, first: f"P{first}", last: f"L{last}"}
    finer = {n: (f"L{below}",) for below, n in pairwise(names)}
    for n, above in reversed(tuple(pairwise(names))):
        merges.append(gather(f"N{n}", n, (f"L{n}", *finer.get(n, ()), down[above]), lateral))
        merges.append(inject(down[n], n, f"N{n}", "low"))
    merges.append(gather("high", last, tuple(down.values()), lateral))
    merges.append(Merge("refined", last, ("high",), conv=Conv(block="attention", depth=num_attentions)))
    for below, n in pairwise(names):
        merges.append(gather(f"H{n}", n, (down[n], f"P{below}"), lateral))
        merges.append(inject(f"P{n}", n, f"H{n}", "refined"))
    graph = Graph(merges=tuple(merges), outputs=tuple(f"P{n}" for n in names), channels=out_channels)
    return GraphNeck(inputs, graph)
