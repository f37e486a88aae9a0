"""Necks alone, side by side: the same pyramid, in turns, so that only the fusion differs.

names -> necks on one `PyramidSpec` -> latency, peak memory, GFLOPs, parameters of each
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch

from pyrafuse.base.errors import unknown_name
from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies, measure_peak_memory_mb
from pyrafuse.inference.plain_necks import PLAIN_FORMS


@dataclass(frozen=True)
class NeckFigures:
    """What one neck costs on one pyramid.

    Attributes:
        name: Name of the neck or chain.
        latency_ms: Median of a forward pass of the batch, the necks taking turns.
        peak_memory_mb: Peak memory of the batch, by `measure_peak_memory_mb`.
        gflops: GFLOPs of one image.
        parameters: Numbers that are learnt.
    """

    name: str
    latency_ms: float
    peak_memory_mb: float
    gflops: float
    parameters: int


def bench_necks(
    necks: Mapping[str, Neck],
    inputs: PyramidSpec,
    *,
    size: int = 416,
    batch_size: int = 1,
    rounds: int = 20,
    device: torch.device | str = "cpu",
) -> list[NeckFigures]:
    """Measure each neck alone on the same random pyramid, in evaluation mode; the fastest first.

    Args:
        necks: Built on ``inputs``, by name; they are moved to ``device``.
        inputs: Channels and strides of the pyramid.
        size: Side of the image that the pyramid would be of, in pixels.
        batch_size: Images at a time.
        rounds: Timed passes of each.
        device: Device to run on.

    Raises:
        ValueError: If there is no round.
    """
    generator = torch.Generator().manual_seed(0)
    sides = [-(-size // stride) for stride in inputs.strides]
    pyramid: Pyramid = tuple(
        torch.randn(batch_size, c, side, side, generator=generator)
        for c, side in zip(inputs.channels, sides, strict=True)
    )
    # counted before they move: the counter knows no deformable convolution of a GPU
    gflops = {name: count_gflops(neck, tuple(x[:1] for x in pyramid)) for name, neck in necks.items()}
    pyramid = tuple(x.to(device) for x in pyramid)
    work: dict[str, Callable[[], Pyramid]] = {
        name: partial(neck.to(device).eval(), pyramid) for name, neck in necks.items()
    }
    memory = {name: measure_peak_memory_mb(neck, pyramid) for name, neck in necks.items()}
    latencies = measure_latencies(work, rounds=rounds, device=device)
    return sorted(
        (
            NeckFigures(name, latencies[name], memory[name], gflops[name], count_parameters(neck))
            for name, neck in necks.items()
        ),
        key=lambda figures: figures.latency_ms,
    )


def bench_against_plain(
    names: Sequence[str],
    inputs: PyramidSpec,
    *,
    size: int = 416,
    batch_size: int = 1,
    rounds: int = 20,
    device: torch.device | str = "cpu",
) -> list[tuple[NeckFigures, NeckFigures]]:
    """Measure necks as graphs, each beside the same written by hand with the same parameters.

    Args:
        names: Keys of `PLAIN_FORMS`.
        inputs: Inputs, as for `bench_necks`.
        size: Side of the image in pixels.
        batch_size: Number of images at a time.
        rounds: Number of rounds.
        device: Device to measure on.

    Returns:
        Of each name, the figures of the graph and of its plain form.

    Raises:
        UnknownNameError: If there is no such plain form.
        ValueError: If there is no round, a stride is not twice the one before, or a neck does not take these inputs.
    """
    if any(coarse != 2 * fine for fine, coarse in pairwise(inputs.strides)):
        raise ValueError(f"plain forms are written for strides that double, got {inputs.strides}")
    forms: dict[str, Neck] = {}
    for name in names:
        if name not in PLAIN_FORMS:
            raise unknown_name("neck with a plain form", name, PLAIN_FORMS)
        create, create_plain = PLAIN_FORMS[name]
        graph = create(inputs)
        forms |= {name: graph, f"{name}, plain": create_plain(graph)}
    measured = bench_necks(forms, inputs, size=size, batch_size=batch_size, rounds=rounds, device=device)
    figures = {f.name: f for f in measured}
    return [(figures[name], figures[f"{name}, plain"]) for name in names]
