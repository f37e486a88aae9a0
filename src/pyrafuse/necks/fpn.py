"""Feature pyramid network: what coarse levels know flows down to the fine ones.

Lin et al., "Feature Pyramid Networks for Object Detection", arXiv:1612.03144, section 3; extra levels as in
"Focal Loss for Dense Object Detection", arXiv:1708.02002, and "FCOS", arXiv:1904.01355.
C5 -> L5 = M5 -> P5; (C4 -> L4) + M5 upsampled = M4 -> P4; and so on down; P6, P7 from C5, L5 or P5
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

from pyrafuse.base.errors import unknown_name
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, number_levels
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS

ExtraLevels = Literal["max_pool", "input", "lateral", "output"]

MOST_LEVELS = 16
"""Largest number of levels: the strides of 16 grow past the side of every image."""


@NECKS.register("fpn")
def fpn(
    inputs: PyramidSpec,
    *,
    out_channels: int = 256,
    num_levels: int | None = None,
    start_level: int = 0,
    extra: ExtraLevels = "max_pool",
    relu_before_extra: bool = False,
    norm: str = "none",
    lateral_norm: bool = True,
    up: str = "nearest",
) -> GraphNeck:
    """FPN over any number of levels.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of every level.
        num_levels: Number of levels that go out; by default as many as are read.
        start_level: Finest level that is read; finer ones are left aside.
        extra: What further levels are made of: ``max_pool`` takes every second cell of the last output (Faster R-CNN's
            P6); a 3x3 convolution of stride 2 reads the last ``input`` (RetinaNet's P6), ``lateral`` or ``output``
            (FCOS), and for each level past the first, the one before.
        relu_before_extra: A ReLU before each such convolution but the first.
        norm: Behind each convolution, a key of `NORMS`.
        lateral_norm: Whether the lateral ones have it too.
        up: A key of `UP`: the way from each level to the finer one.

    Raises:
        ValueError: If ``start_level`` or ``num_levels`` do not fit what comes in.
        UnknownNameError: If ``extra`` is none of these.
    """
    names = name_levels(inputs, start_level=start_level, num_levels=num_levels)
    graph = Graph(
        merges=(
            *top_down(
                {n: f"P{n}" for n in names[start_level : len(inputs)]}, norm=norm, lateral_norm=lateral_norm, up=up
            ),
            *extra_levels(names, len(inputs), extra=extra, relu_before=relu_before_extra, norm=norm),
        ),
        outputs=tuple(f"P{n}" for n in names[start_level:]),
        channels=out_channels,
        ignored=tuple(f"C{n}" for n in names[:start_level]),
    )
    return GraphNeck(inputs, graph)


NECKS.add("fpn_carafe", partial(fpn, up="carafe"), paper="1905.02188")


def name_levels(inputs: PyramidSpec, *, num_levels: int | None, start_level: int | None = None) -> tuple[int, ...]:
    """Numbers of all levels: those that come in, and as many past them as ``num_levels`` from ``start_level`` need.

    Args:
        inputs: Channels and strides of the input pyramid.
        num_levels: Number of levels that go out.
        start_level: Finest level that is read; None for a neck that reads all levels and has no such argument.

    Raises:
        ValueError: On the same faults as `fpn`, and if there are more than `MOST_LEVELS`.
    """
    numbers = number_levels(inputs.strides)
    remedy = "raise it" if start_level is None else "raise it, or raise start_level to read fewer"
    start_level = start_level or 0
    if not 0 <= start_level < len(numbers):
        raise ValueError(f"start_level must be one of the {len(numbers)} levels from 0 on, got {start_level}")
    num_read = len(numbers) - start_level
    num_levels = num_read if num_levels is None else num_levels
    if num_levels < num_read:
        raise ValueError(f"num_levels={num_levels} is less than the {num_read} levels that are read: {remedy}")
    if num_levels > MOST_LEVELS:
        raise ValueError(f"num_levels={num_levels} is more than the {MOST_LEVELS} of a pyramid: lower it")
    return (*numbers, *(numbers[-1] + i for i in range(1, num_levels - num_read + 1)))


def top_down(outputs: Mapping[int, str], *, norm: str, lateral_norm: bool, up: str = "nearest") -> tuple[Merge, ...]:
    """Lateral 1x1 convolutions L, their sums M with what comes from above, and 3x3 convolutions of these.

    Args:
        outputs: Name of the last one of each level, finest first.
        norm: Norm behind each convolution.
        lateral_norm: Whether the lateral convolutions have the norm too.
        up: Way from each level to the finer one, a key of `UP`.
    """
    names = tuple(outputs)
    last = names[-1]
    lateral = Conv(1, norm=norm if lateral_norm else "none")
    summed = {**{n: f"M{n}" for n in names[:-1]}, last: f"L{last}"}
    laterals = [Merge(f"L{n}", n, (f"C{n}",), conv=lateral) for n in names]
    sums = [Merge(f"M{n}", n, (f"L{n}", summed[above]), up=up) for n, above in reversed(tuple(pairwise(names)))]
    ends = [Merge(outputs[n], n, (summed[n],), conv=Conv(3, norm=norm)) for n in names]
    return (*laterals, *sums, *ends)


def extra_levels(
    names: tuple[int, ...], num_inputs: int, *, extra: ExtraLevels, relu_before: bool, norm: str
) -> tuple[Merge, ...]:
    """Levels past the ``num_inputs`` first ones of ``names``, as `fpn` says."""
    if extra not in get_args(ExtraLevels):
        raise unknown_name("way to extra levels", extra, get_args(ExtraLevels))
    last = names[num_inputs - 1]
    first = {"max_pool": f"P{last}", "input": f"C{last}", "lateral": f"L{last}", "output": f"P{last}"}[extra]
    merges: list[Merge] = []
    for n in names[num_inputs:]:
        source = first if n == last + 1 else f"P{n - 1}"
        if extra == "max_pool":
            merges.append(Merge(f"P{n}", n, (source,), down="subsample"))
        else:
            before = "relu" if relu_before and n > last + 1 else "none"
            merges.append(Merge(f"P{n}", n, (source,), down="conv", project=Conv(1, before=before, norm=norm)))
    return tuple(merges)
