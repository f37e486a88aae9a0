"""BiFPN: down and up again with learned weights, repeated.

Tan, Pang and Le, "EfficientDet", arXiv:1911.09070, section 3. The two other forms, PAN and the quad-path QuFPN, are of
the published code base for EfficientDet in PyTorch.
C3..C5 -> P6 = max-pool of (1x1 convolution of C5), P7 = max-pool of P6 -> cells; each merge: weighted sum -> SiLU ->
separable 3x3 convolution -> batch norm
"""

from dataclasses import replace
from itertools import pairwise
from typing import Literal, get_args

from pyrafuse.base.errors import unknown_name
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import name_levels
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS

Form = Literal["bifpn", "pan", "qufpn"]
Fusion = Literal["fast_normalized", "softmax", "sum"]


@NECKS.register("bifpn")
def bifpn(
    inputs: PyramidSpec,
    *,
    out_channels: int = 64,
    num_levels: int | None = None,
    repeats: int = 3,
    form: Form = "bifpn",
    fusion: Fusion = "fast_normalized",
    same_padding: bool = False,
    redundant_bias: bool = False,
    up: str = "nearest",
    down: str = "max_pool",
    separable: bool = True,
    activation: str = "silu",
    eps: float = 1e-3,
    momentum: float = 0.01,
) -> GraphNeck:
    """BiFPN over any number of levels; by default as in EfficientDet-D0.

    An input whose channels are not ``out_channels`` has a 1x1 convolution with batch norm of its own for every merge
    that reads it.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of every level.
        num_levels: Number of levels that go out, by default five or as many as come in; further ones are made of the
            coarsest one.
        repeats: How often the cell runs.
        form: ``bifpn``; ``pan`` without the additional edges from inputs to the way up; ``qufpn``, four ways.
        fusion: ``fast_normalized``, ``softmax`` over one weight an edge, or ``sum``.
        same_padding: Whether max pooling pads as TensorFlow does, for weights that were trained there.
        redundant_bias: Whether 1x1 convolutions before batch norm have a bias, for TensorFlow's weights.
        up: A key of `UP`: the way from coarser levels.
        down: A key of `DOWN`: the way from finer levels.
        separable: Make the convolution of each merge a separable one; else a plain 3x3.
        activation: Activation before the convolution, a key of `ACTIVATIONS`.
        eps: Epsilon of batch norm.
        momentum: Momentum of batch norm.

    Raises:
        ValueError: If fewer levels go out than come in, or only one.
        UnknownNameError: If there is no such form or fusion.
    """
    for kind, value, choices in (("form", form, get_args(Form)), ("fusion", fusion, get_args(Fusion))):
        if value not in choices:
            raise unknown_name(f"{kind} of BiFPN", value, choices)
    names = name_levels(inputs, num_levels=max(5, len(inputs)) if num_levels is None else num_levels)
    if len(names) < 2:
        raise ValueError("BiFPN needs two levels at least: raise num_levels")
    bias = True if redundant_bias else None
    project = Conv(1, norm="batch_norm", bias=bias, eps=eps, momentum=momentum)
    down = "max_pool_same" if same_padding and down == "max_pool" else down
    stem = [Merge(f"C{n}", n, (f"C{n - 1}",), down=down, project=project) for n in names[len(inputs) :]]
    node = Merge(
        "",
        0,
        (),
        fusion=fusion,
        up=up,
        down=down,
        project=project,
        width=out_channels,
        conv=replace(project, kernel_size=3, separable=separable, before=activation),
    )
    merges, outputs = {"bifpn": _two_ways, "pan": _pan, "qufpn": _four_ways}[form](names, node)
    return GraphNeck(
        inputs,
        Graph(stem=tuple(stem), merges=tuple(merges), outputs=outputs, channels=out_channels, stack=repeats),
    )


Cell = tuple[list[Merge], tuple[str, ...]]
"""The merges of a cell, and the names of its outputs."""


def _two_ways(names: tuple[int, ...], node: Merge) -> Cell:
    """Down, then up with the inputs once more. The finest map is its own end, the coarsest its own beginning."""
    first, last = names[0], names[-1]
    down = {last: f"C{last}", **{n: f"T{n}" for n in names[1:-1]}, first: f"P{first}"}
    merges = [
        replace(node, name=down[n], level=n, inputs=(f"C{n}", down[above]))
        for n, above in reversed(tuple(pairwise(names)))
    ]
    for below, n in pairwise(names):
        inner = () if n == last else (down[n],)
        merges.append(replace(node, name=f"P{n}", level=n, inputs=(f"C{n}", *inner, f"P{below}")))
    return merges, tuple(f"P{n}" for n in names)


def _pan(names: tuple[int, ...], node: Merge) -> Cell:
    """Down, then up; every level has a merge on both ways, the first of each way with one input."""
    merges = [replace(node, name=f"T{names[-1]}", level=names[-1], inputs=(f"C{names[-1]}",))]
    for n, above in reversed(tuple(pairwise(names))):
        merges.append(replace(node, name=f"T{n}", level=n, inputs=(f"C{n}", f"T{above}")))
    merges.append(replace(node, name=f"P{names[0]}", level=names[0], inputs=(f"T{names[0]}",)))
    for below, n in pairwise(names):
        merges.append(replace(node, name=f"P{n}", level=n, inputs=(f"T{n}", f"P{below}")))
    return merges, tuple(f"P{n}" for n in names)


def _four_ways(names: tuple[int, ...], node: Merge) -> Cell:
    """BiFPN's two ways; up first and then down, from the inputs again; and the sums of both ends."""
    first, last = names[0], names[-1]
    merges, ends = _two_ways(names, node)
    merges = [
        replace(
            merge,
            name=merge.name.replace("P", "A"),
            inputs=tuple(name.replace("P", "A") for name in merge.inputs),
        )
        for merge in merges
    ]
    up = {first: f"C{first}", **{n: f"U{n}" for n in names[1:-1]}, last: f"B{last}"}
    for below, n in pairwise(names):
        merges.append(replace(node, name=up[n], level=n, inputs=(f"C{n}", up[below])))
    for n, above in reversed(tuple(pairwise(names))):
        inner = () if n == first else (up[n],)
        merges.append(replace(node, name=f"B{n}", level=n, inputs=(f"C{n}", *inner, f"B{above}")))
    # these are weighted even where all others are plain sums
    weighted = "fast_normalized" if node.fusion == "sum" else node.fusion
    merges += [replace(node, name=f"P{n}", level=n, inputs=(f"A{n}", f"B{n}"), fusion=weighted) for n in names]
    return merges, ends
