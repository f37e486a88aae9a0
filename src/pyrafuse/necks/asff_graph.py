"""ASFF written as a graph: every level reads all levels.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.2.
"""

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, number_levels


def asff_graph(
    inputs: PyramidSpec, *, fusion: str = "spatial_softmax", weight_channels: int = 16, activation: str = "leaky_relu"
) -> Graph:
    """The graph of `ASFF` over ``inputs``, with as many channels out as in; with ``sum``, that of the plain sum.

    The class `ASFF` is what the models use: its parameters are called as its checkpoints call them.
    """
    numbers = number_levels(inputs.strides)
    merges = tuple(
        Merge(
            f"P{number}",
            number,
            tuple(f"C{n}" for n in numbers),
            fusion=fusion,
            down="max_pool_conv",
            project=Conv(1, norm="batch_norm", activation=activation),
            conv=Conv(3, norm="batch_norm", activation=activation),
            channels=channels,
            width=channels,
            weight_channels=weight_channels,
        )
        for number, channels in zip(numbers, inputs.channels, strict=True)
    )
    return Graph(merges=merges, outputs=tuple(merge.name for merge in merges))
