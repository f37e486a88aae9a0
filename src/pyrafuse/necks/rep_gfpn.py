"""RepGFPN: a generalised pyramid that concatenates neighbours on both ways, with blocks that are merged to predict.

Xu et al., "DAMO-YOLO", arXiv:2211.15444, section 2.2.
down: C5 + C4 strided -> T5; C4 + C3 strided + T5 -> T4; C3 + T4 -> P3; up: T4 + P3 strided -> P4;
T5 + T4 strided + P4 strided -> P5; each sum is a concatenation and a block
"""

from collections.abc import Sequence
from itertools import pairwise

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.asff import channels_of_levels
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, number_levels
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS


@NECKS.register("rep_gfpn")
def rep_gfpn(
    inputs: PyramidSpec,
    *,
    out_channels: int | Sequence[int] | None = None,
    depth: int = 3,
    activation: str = "silu",
) -> GraphNeck:
    """RepGFPN over any number of levels: queen fusion without the edges that upsample once more.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of each level, one number for all or one a level; by default 512 at the coarsest, and at
            each finer one half as many.
        depth: Number of units of each block.
        activation: A key of `ACTIVATIONS`.

    Raises:
        ValueError: If ``out_channels`` are not one a level, or there is no unit.
        UnknownNameError: If there is no such activation.
    """
    names = number_levels(inputs.strides)
    if out_channels is None:
        out_channels = [max(1, 512 >> rank) for rank in reversed(range(len(names)))]
    channels = dict(zip(names, channels_of_levels(out_channels, inputs), strict=True))
    first, last = names[0], names[-1]
    down = {n: f"P{n}" if n == first else f"T{n}" for n in names}

    def merge(name: str, n: int, *sources: str) -> Merge:
        return Merge(
            name,
            n,
            sources,
            fusion="concat",
            down="conv",
            project=Conv(1, norm="batch_norm", activation=activation),
            conv=Conv(block="rep_elan", depth=depth, activation=activation),
            channels=channels[n],
        )

    finer, coarser = {n: below for below, n in pairwise(names)}, dict(pairwise(names))
    merges = [
        merge(
            down[n],
            n,
            f"C{n}",
            *((f"C{finer[n]}",) if n != first else ()),
            *((down[coarser[n]],) if n != last else ()),
        )
        for n in reversed(names)
    ]
    for below, n in pairwise(names):
        skipped = (down[below],) if below != first else ()  # the finest map of the way down is P itself
        merges.append(merge(f"P{n}", n, down[n], *skipped, f"P{below}"))
    return GraphNeck(inputs, Graph(merges=tuple(merges), outputs=tuple(f"P{n}" for n in names)))
