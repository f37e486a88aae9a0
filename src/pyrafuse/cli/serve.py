"""`pyrafuse serve`."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pyrafuse.base.errors import PyrafuseError, check_between
from pyrafuse.base.paths import find_checkpoint
from pyrafuse.base.printable import counted, printable
from pyrafuse.cli.detectors import NO_SPEEDUPS, Speedups, load_any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pyrafuse.serving.limits import Limits
    from pyrafuse.serving.service import Service


def serve(
    *models: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    score: float = 0.25,
    max_megabytes: float = 20.0,
    max_megapixels: float = 50.0,
    max_seconds: float = 30.0,
    concurrency: int = 64,
    batch: int = 8,
    wait_ms: float = 5.0,
    device: str = "auto",
    optimize: bool = False,
    compile: bool = False,  # noqa: A002  # the option is --compile
    precision: Literal["fp32", "bf16"] = "fp32",
) -> int:
    """Answer requests over HTTP: images in, detections as JSON out. Ctrl-C ends it.

    POST /predict takes one image as a form, as JSON or as it is; GET /models, /health and /docs tell the rest. No URL
    is fetched, and nothing is reported to anybody.

    Args:
        models: Checkpoints, folders of runs, or exported .onnx or .xml files, which run without PyTorch. A request
            names one; by default the first answers.
        host: Address to listen on. Any other than 127.0.0.1 opens the server to the network, without a password.
        port: Port to listen on; 0 takes any that is free.
        score: Least score that is kept where a request names none, 0..1.
        max_megabytes: Largest request, in 10^6 bytes.
        max_megapixels: Largest image, in 10^6 pixels.
        max_seconds: Longest time from a request to its answer.
        concurrency: Maximum number of requests at a time; more are answered with 503 and Retry-After.
        batch: Most images that a model computes at a time: requests that wait are computed together.
        wait_ms: Longest time that an image waits for others to fill its batch, in milliseconds.
        device: auto, cpu, gpu, or the number of a GPU such as 1; exported files run on the processor.
        optimize: Fold batch norms into convolutions, and lay out weights for the processor: faster, with the same
            results but for rounding.
        compile: Optimise, and make code with torch.compile: minutes at the start.
        precision: fp32, or bf16, which is faster on processors and GPUs with instructions for it, and moves boxes and
            scores a little.
    """
    if not models:
        raise PyrafuseError("give one model or more: pyrafuse serve runs/mine/best.ckpt")
    from pyrafuse.serving.limits import Limits

    return serve_models(
        models,
        Limits(max_megabytes, max_megapixels, max_seconds, concurrency, batch, wait_ms),
        host=host,
        port=port,
        score=score,
        device=device,
        speedups=Speedups(optimize, compile, precision),
    )


def serve_models(
    models: Sequence[str],
    limits: "Limits",
    *,
    host: str,
    port: int,
    score: float,
    device: str,
    speedups: Speedups = NO_SPEEDUPS,
    finish: "Callable[[FastAPI, Service], object]" = lambda app, service: None,  # noqa: ARG005
) -> int:
    """Load ``models``, listen, and answer until Ctrl-C or SIGTERM; ``finish`` adds routes of its own.

    Raises:
        PyrafuseError: If a model cannot be read, or the address is not free.
    """
    check_between("score", score, 0, 1)
    files = [find_checkpoint(model) for model in models]
    from pyrafuse.serving.rest import create_app
    from pyrafuse.serving.running import LOOPBACK, listen, run, tell_address
    from pyrafuse.serving.service import Service, name_models

    with listen(host, port) as taken:
        names = name_models([str(file) for file in files])
        detectors = {name: load_any(file, device, speedups) for name, file in zip(names, files, strict=True)}
        told = {name: file.name for name, file in zip(names, files, strict=True)}
        service = Service(detectors, limits, score=score, files=told)
        service.warm_up()
        is_local = host in LOOPBACK
        routes = create_app(service, hosts=("127.0.0.1", "localhost", "[::1]") if is_local else ())
        finish(routes, service)
        named = ", ".join(map(printable, names)) or "no model"
        print(f"{named} at {tell_address(taken)}; /docs tells how to ask; Ctrl-C ends it", flush=True)
        if not is_local:
            print(f"everyone who reaches {host} may use it: there is no password", flush=True)
        run(routes, taken, grace_s=limits.seconds)
    print(f"ended; {counted(service.num_answered, 'image')} answered")
    return 0
