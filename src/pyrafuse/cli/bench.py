"""`pyrafuse bench necks`."""

from pathlib import Path


def bench_necks(
    *,
    necks: list[str] = [],  # noqa: B006  # jsonargparse knows lists, and nothing changes it
    size: int = 416,
    channels: tuple[int, ...] = (256, 512, 1024),
    strides: tuple[int, ...] = (8, 16, 32),
    batch_size: int = 1,
    rounds: int = 20,
    device: str = "auto",
    json: Path | None = None,
) -> int:
    """Time each neck alone on the same pyramid, and tell its peak memory, GFLOPs and parameters; the fastest first.

    Args:
        necks: Which ones, with a plus between those of a chain: fpn,fpn+asff; by default every one.
        size: Side of the image in pixels.
        channels: Of the pyramid, finest level first.
        strides: Likewise.
        batch_size: Images at a time.
        rounds: Timed passes of each; they take turns, and the median counts.
        device: auto, cpu, cuda, cuda:1 or 1.
        json: File to write the figures to, for programs.
    """
    import json as json_format
    import sys
    from dataclasses import asdict

    from pyrafuse.cli.devices import choose_device
    from pyrafuse.core.errors import PyrafuseError
    from pyrafuse.core.pyramid import PyramidSpec
    from pyrafuse.core.storage import write_text
    from pyrafuse.inference import benching
    from pyrafuse.necks.registry import NECKS, create_neck

    if min(size, batch_size, rounds) < 1:
        raise PyrafuseError(f"size, batch_size and rounds are 1 or more, got {size}, {batch_size} and {rounds}")
    where = choose_device(device)
    try:
        inputs = PyramidSpec(tuple(channels), tuple(strides))
    except ValueError as error:
        raise PyrafuseError(str(error)) from error
    built = {}
    for name in necks or NECKS.names():
        try:
            built[name] = create_neck(name.split("+"), inputs)
        except ValueError as error:
            if necks:
                raise PyrafuseError(f"cannot build {name}: {error}") from error
            print(f"left out {name}: {error}", file=sys.stderr)
    figures = benching.bench_necks(built, inputs, size=size, batch_size=batch_size, rounds=rounds, device=where)
    width = max(len("neck"), *map(len, built))
    print(f"{batch_size} x {size} px, channels {inputs.channels} at strides {inputs.strides}, on {where}")
    print(f"{'neck':<{width}}  latency, ms  peak memory, MB    GFLOPs  parameters")
    for f in figures:
        millions = f"{f.parameters / 1e6:.2f} M"
        print(f"{f.name:<{width}}  {f.latency_ms:11.2f}  {f.peak_memory_mb:15.1f}  {f.gflops:8.2f}  {millions:>10}")
    if json is not None:
        settings = {"size": size, "batch_size": batch_size, "rounds": rounds, "device": str(where), **asdict(inputs)}
        write_text(json, json_format.dumps({**settings, "necks": [asdict(f) for f in figures]}, indent=1) + "\n")
    return 0
