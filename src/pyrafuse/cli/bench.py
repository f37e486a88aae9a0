"""`pyrafuse bench necks`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyrafuse.inference.benching import NeckFigures


def bench_necks(
    *,
    necks: tuple[str, ...] = (),
    against_plain: bool = False,
    size: int = 416,
    channels: tuple[int, ...] = (256, 512, 1024),
    strides: tuple[int, ...] = (8, 16, 32),
    batch: int = 1,
    rounds: int = 20,
    device: str = "auto",
    json: Path | None = None,
) -> int:
    """Time each neck alone on the same pyramid, and tell its peak memory, GFLOPs and parameters; the fastest first.

    Args:
        necks: Which ones, with a plus between those of a chain: fpn,fpn+asff; by default every one.
        against_plain: Measure the necks that are graphs beside the same written by hand, with the same parameters:
            what it costs to be a graph. ASFF stands here as a graph, its module as the plain form.
        size: Side of the image in pixels.
        channels: Channels of each level of the pyramid, finest first.
        strides: Stride of each level of the pyramid in pixels, finest first.
        batch: Images at a time.
        rounds: Timed passes of each; they take turns, and the median counts.
        device: auto, cpu, gpu, or the number of a GPU such as 1.
        json: File to write the figures to, for programs.
    """
    import json as json_format
    import sys
    from dataclasses import asdict

    from pyrafuse.base.errors import PyrafuseError
    from pyrafuse.base.paths import check_writable
    from pyrafuse.base.writing import write_text
    from pyrafuse.core.devices import choose_device
    from pyrafuse.core.pyramid import PyramidSpec
    from pyrafuse.inference import benching
    from pyrafuse.inference.plain_necks import PLAIN_FORMS
    from pyrafuse.necks.registry import NECKS, create_neck

    if min(size, batch, rounds) < 1:
        raise PyrafuseError(f"size, batch and rounds are 1 or more, got {size}, {batch} and {rounds}")
    try:
        inputs = PyramidSpec(tuple(channels), tuple(strides))
    except ValueError as error:
        raise PyrafuseError(f"--channels, --strides: {error}") from error
    if size < max(strides):
        raise PyrafuseError(f"--size {size} is less than a cell of stride {max(strides)}; give {max(strides)} or more")
    if json is not None:
        check_writable(json)
    where = choose_device(device)
    settings = {"size": size, "batch_size": batch, "rounds": rounds}
    title = f"{batch} x {size} px, channels {inputs.channels} at strides {inputs.strides}, on {where}"
    if against_plain:
        try:
            pairs = benching.bench_against_plain(necks or tuple(PLAIN_FORMS), inputs, **settings, device=where)
        except ValueError as error:
            raise PyrafuseError(f"cannot compare with plain forms: {error}") from error
        lines, figures = _tell_pairs(pairs), [f for pair in pairs for f in pair]
    else:
        built = {}
        for name in necks or NECKS.names():
            try:
                built[name] = create_neck(name.split("+"), inputs)
            except ValueError as error:
                if necks:
                    raise PyrafuseError(f"cannot build {name}: {error}") from error
                print(f"left out {name}: {error}", file=sys.stderr)
        figures = benching.bench_necks(built, inputs, **settings, device=where)
        lines = _tell_figures(figures)
    print(title, *lines, sep="\n")
    if json is not None:
        told = {**settings, "device": str(where), **asdict(inputs), "necks": [asdict(f) for f in figures]}
        write_text(json, json_format.dumps(told, indent=1) + "\n")
    return 0


def _tell_figures(figures: list["NeckFigures"]) -> Iterator[str]:
    width = max(len("neck"), *(len(f.name) for f in figures))
    yield f"{'neck':<{width}}  latency, ms  peak memory, MB    GFLOPs  parameters"
    for f in figures:
        millions = f"{f.parameters / 1e6:.2f} M"
        yield f"{f.name:<{width}}  {f.latency_ms:11.2f}  {f.peak_memory_mb:15.1f}  {f.gflops:8.2f}  {millions:>10}"


def _tell_pairs(pairs: list[tuple["NeckFigures", "NeckFigures"]]) -> Iterator[str]:
    width = max(len("neck"), *(len(graph.name) for graph, _ in pairs))
    yield f"{'neck':<{width}}  graph, ms  plain, ms  ratio  graph, MB  plain, MB  ratio"
    for graph, plain in pairs:
        time = f"{graph.latency_ms:9.2f}  {plain.latency_ms:9.2f}  {graph.latency_ms / plain.latency_ms:5.2f}"
        memory = f"{graph.peak_memory_mb:9.2f}  {plain.peak_memory_mb:9.2f}"
        yield f"{graph.name:<{width}}  {time}  {memory}  {graph.peak_memory_mb / plain.peak_memory_mb:5.2f}"
