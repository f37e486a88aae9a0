"""Asymptotic feature pyramid: two fine levels are fused first, then one more at a time.

Yang et al., "AFPN: Asymptotic Feature Pyramid Network for Object Detection", arXiv:2306.15988, section III.
C2..C5 -> 1x1 convolutions -> S2..S5; S2, S3 -> each level fuses both -> residual units; these and S4 -> each of three
levels fuses all three -> residual units; and so on; at the end a 1x1 convolution a level
"""

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import extra_levels, name_levels
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS


@NECKS.register("afpn")
def afpn(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    num_levels: int | None = None,
    reduction: int = 8,
    weight_channels: int = 8,
    depth: int = 4,
    activation: str = "relu",
) -> GraphNeck:
    """AFPN over any number of levels: at every position a softmax weighs the levels, as in ASFF.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of every level.
        num_levels: Number of levels that go out; those past the inputs take every second cell of the last one.
        reduction: Divides the channels of each level for the fusions.
        weight_channels: Channels that each level is squeezed to for its weights.
        depth: Number of residual units behind each fusion.
        activation: A key of `ACTIVATIONS`.

    Raises:
        ValueError: If fewer levels go out than come in, or ``reduction`` or ``depth`` is below 1.
        UnknownNameError: If there is no such activation.
    """
    if reduction < 1:
        raise ValueError(f"reduction must be 1 or more, got {reduction}")
    names = name_levels(inputs, num_levels=num_levels)
    read = names[: len(inputs)]
    widths = {n: max(1, channels // reduction) for n, channels in zip(read, inputs.channels, strict=True)}
    point = Conv(1, norm="batch_norm", activation=activation)
    units = Conv(3, norm="batch_norm", activation=activation, block="residual", depth=depth)
    merges = [Merge(f"S{n}", n, (f"C{n}",), conv=point, channels=widths[n]) for n in read]
    last = {read[0]: f"S{read[0]}"}
    for stage in range(2, len(read) + 1):
        sources = (*last.values(), f"S{read[stage - 1]}")
        merges += [
            Merge(
                f"A{n}_{stage}",
                n,
                sources,
                fusion="spatial_softmax",
                up="bilinear",
                down="patch_conv",
                project=point,
                conv=units,
                channels=widths[n],
                weight_channels=weight_channels,
            )
            for n in read[:stage]
        ]
        last = {n: f"A{n}_{stage}" for n in read[:stage]}
    merges += [Merge(f"P{n}", n, (last[n],), conv=Conv(1)) for n in read]
    more = extra_levels(names, len(inputs), extra="max_pool", relu_before=False, norm="none")
    graph = Graph(merges=(*merges, *more), outputs=tuple(f"P{n}" for n in names), channels=out_channels)
    return GraphNeck(inputs, graph)
