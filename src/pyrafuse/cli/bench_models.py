"""`pyrafuse bench MODEL...`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyrafuse.base.errors import PyrafuseError, check_between
from pyrafuse.base.paths import check_figure, check_source, check_writable, find_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pyrafuse.inference.racing import Contestant, Race, RaceFigures
    from pyrafuse.models.detector import Detector

Backend = Literal["eager", "optimized", "compile", "onnx", "openvino"]

EXPORTED: dict[str, str] = {"onnx": "detector.onnx", "openvino": "detector.xml"}
"""File that a model is exported to for each backend that reads one."""


def bench(
    *models: str,
    backends: tuple[Backend, ...] = ("eager", "optimized"),
    batch: int = 1,
    size: int | None = None,
    images: str | None = None,
    score: float = 0.25,
    rounds: int = 20,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    json: Path | None = None,
    picture: Path | None = None,
) -> int:
    """Time detectors from pixels to detections, in turns: as they are, optimised, compiled and exported.

    Each figure stands beside what this machine can do at most, measured in the same run. A contestant is as fast as the
    fastest one within the noise where the paired rounds cannot tell them apart with a confidence of 95 %.

    Args:
        models: Checkpoints, folders of runs, exported files, or names of models, which get random weights. Exported
            files alone need no PyTorch, and are timed without the machine's peak.
        backends: Forms of each model in torch: eager, optimized, compile (minutes for each), onnx, openvino. The last
            two are exported to a temporary folder. An exported file is one form by itself.
        batch: Images at a time.
        size: Side of the network's input in pixels; by default what each was trained at.
        images: Images, folder or glob to detect in; by default smooth random ones of 640 x 480.
        score: Least score of a detection, 0..1.
        rounds: Timed rounds; all contestants take part in each one, in a random order.
        device: auto, cpu, gpu, or the number of a GPU such as 1.
        precision: fp32 or bf16: what eager, optimized and compile compute in, and what the peak is measured in.
        json: File to write the figures to, for programs.
        picture: File to draw the latencies to: .png, .svg, .pdf, .jpg or .webp.
    """
    import json as json_format
    from dataclasses import asdict

    for name, value in (("batch", batch), ("size", size), ("rounds", rounds)):
        check_between(name, value, 1)
    check_between("score", score, 0, 1)
    if json is not None:
        check_writable(json)
    if picture is not None:
        check_figure(picture)
    if images is not None:
        check_source(images)
    from pyrafuse.base.writing import write_text
    from pyrafuse.inference.racing import race
    from pyrafuse.runtime.loading import is_exported

    names = tuple(dict.fromkeys(models))
    pictures = _read_pictures(images, batch)
    settings = {"size": size, "score": score, "rounds": rounds}
    if all(map(is_exported, names)):
        where = _describe_plain(device, precision)
        result = race([_enter_exported(name) for name in names], pictures, **settings)
    else:
        where, result = _race_in_torch(names, backends, pictures, device=device, precision=precision, **settings)
    print(f"{batch} x {size or 'own size'} px, {precision}, {rounds} rounds, on {where}", *_tell(result), sep="\n")
    if json is not None:
        told = {"batch": batch, **settings, "precision": precision, "device": where, **asdict(result)}
        write_text(json, json_format.dumps(told, indent=1) + "\n")
    if picture is not None:
        from pyrafuse.visualization.figures import save_figure
        from pyrafuse.visualization.latencies import plot_latencies

        labels = [f"{f.name}, {f.backend}" for f in result.figures]
        latencies = [f.latency_ms for f in result.figures]
        save_figure(plot_latencies(labels, latencies, [f.p95_ms for f in result.figures]), picture)
    return 0


def _read_pictures(source: str | None, batch: int) -> "list[NDArray[np.uint8]]":
    """A batch of images: the first ones of ``source``, again from its start if there are too few."""
    from itertools import cycle, islice

    from pyrafuse.base.found import require_readable
    from pyrafuse.base.images.sources import open_source
    from pyrafuse.inference.racing import make_pictures

    if source is None:
        return make_pictures(batch)
    frames = require_readable(islice(open_source(source), batch))
    return list(islice(cycle([frame.image for frame in frames if frame.image is not None]), batch))


def _describe_plain(device: str, precision: str) -> str:
    """The device that exported files run on, in words.

    Raises:
        PyrafuseError: If they are asked to run elsewhere, or to compute otherwise.
    """
    import platform

    if device not in {"auto", "cpu"}:
        raise PyrafuseError(f"exported files run on the processor: leave --device {device} out")
    if precision != "fp32":
        raise PyrafuseError(f"exported files compute as they were exported: leave --precision {precision} out")
    return f"{platform.machine()} cpu"


def _enter_exported(model: str, *, threads: int | None = None) -> "Contestant":
    from pyrafuse.inference.racing import Contestant
    from pyrafuse.runtime.loading import load

    path = find_checkpoint(model)
    return Contestant(model, path.suffix.removeprefix("."), load(path, threads=threads))


def _race_in_torch(
    models: tuple[str, ...],
    backends: tuple[Backend, ...],
    pictures: "list[NDArray[np.uint8]]",
    *,
    device: str,
    precision: Any,
    size: int | None,
    **settings: Any,
) -> "tuple[str, Race]":
    """The device in words, and the race of ``models``, of which one or more are in torch."""
    from tempfile import TemporaryDirectory

    import torch

    from pyrafuse.core.devices import choose_device, describe_device
    from pyrafuse.inference.dissecting import TorchLaboratory
    from pyrafuse.inference.racing import Contestant, race

    where = choose_device(device)
    laboratory = TorchLaboratory(where, torch.bfloat16 if precision == "bf16" else torch.float32)
    with TemporaryDirectory() as folder:
        contestants: dict[tuple[str, str], Contestant] = {}
        for rank, model in enumerate(models):
            place = Path(folder) / str(rank)
            place.mkdir()
            for each in _enter(model, backends, place, where, size=size, precision=precision):
                contestants[each.name, each.backend] = each
        result = race(list(contestants.values()), pictures, size=size, laboratory=laboratory, **settings)
    return describe_device(where), result


def _enter(
    model: str, backends: tuple[Backend, ...], folder: Path, where: Any, *, size: int | None, precision: Any
) -> "Iterator[Contestant]":
    """The forms of ``model`` that take part."""
    import torch

    from pyrafuse.inference.measuring import count_gflops, count_parameters
    from pyrafuse.inference.racing import Contestant
    from pyrafuse.runtime.loading import is_exported, load

    threads = torch.get_num_threads()
    if is_exported(model):
        yield _enter_exported(model, threads=threads)
        return
    detector = _load(model)
    height, width = detector.card.preprocessing_at(size).size
    facts = {
        "gflops": count_gflops(detector, torch.zeros(1, 3, height, width)),
        "parameters": count_parameters(detector),
    }
    detector.to(where)
    for backend in backends:
        if backend in EXPORTED:
            from pyrafuse.export.exporting import export

            if where.type != "cpu":
                raise PyrafuseError(f"{backend} runs on the processor: give --device cpu, or leave {backend} out")
            if precision != "fp32":
                raise PyrafuseError(f"{backend} computes in fp32 here: leave --precision {precision} or {backend} out")
            print(f"exporting {model} for {backend} ...", flush=True)
            path = folder / EXPORTED[backend]
            # random weights find many equal scores, of which a file may keep others
            export(detector, path, input="fitted", verify=Path(model).exists())
            yield Contestant(model, backend, load(path, threads=threads), **facts)
        elif backend == "eager":
            detector.computes_in = torch.bfloat16 if precision == "bf16" else None
            yield Contestant(model, backend, detector, **facts)
        else:
            faster = detector.optimized(precision=precision, compiled=backend == "compile")
            yield Contestant(model, backend, faster, **facts)


def _load(model: str) -> "Detector":
    """A checkpoint, or the model of this name with random weights."""
    from pyrafuse.importers.loading import load
    from pyrafuse.models.factory import create_model, list_models

    if model in list_models() and not Path(model).exists():
        return create_model(model).eval()
    return load(find_checkpoint(model))


def _tell(result: "Race") -> Iterator[str]:
    for name, value in result.peak_gflops.items():
        yield f"this machine's {name}: {value:.0f} GFLOP/s"
    width = max(len("model"), *(len(f.name) for f in result.figures))
    yield (
        f"{'model':<{width}}  backend    median, ms   p95, ms  images/s  peak, MB   params  GFLOPs  of peak  "
        "longer than the fastest"
    )
    fastest = result.figures[0].latency_ms
    for f in result.figures:
        yield (
            f"{f.name:<{width}}  {f.backend:<9}  {f.latency_ms:10.2f}  {f.p95_ms:8.2f}  {f.images_per_second:8.2f}  "
            f"{_or_dash(f.peak_memory_mb, '.1f'):>8}  {_millions(f.parameters):>7}  {_or_dash(f.gflops, '.2f'):>6}  "
            f"{_or_dash(f.peak_share, '.0%'):>7}  {_longer(f, fastest, is_first=f is result.figures[0])}"
        )
    if parts := [f for f in result.figures if f.parts_ms]:
        names = list(dict.fromkeys(name for f in parts for name in f.parts_ms))
        yield "by part, ms"
        yield f"{'model':<{width}}  backend  {''.join(f'{name:>13}' for name in names)}"
        for f in parts:
            values = "".join(f"{_or_dash(f.parts_ms.get(name), '.2f'):>13}" for name in names)
            yield f"{f.name:<{width}}  {f.backend:<9}{values}"


def _longer(figures: "RaceFigures", fastest: float, *, is_first: bool) -> str:
    if is_first:
        return ""
    least, median, most = figures.slower_ms
    ratio = f"{figures.latency_ms / fastest:.2f} times, {median:+.2f} ms ({least:+.2f} to {most:+.2f})"
    return f"{ratio}, within the noise" if figures.is_within_noise else ratio


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _millions(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f} M"
