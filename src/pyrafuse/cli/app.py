"""`pyrafuse app`."""

from pathlib import Path


def app(
    model: str | None = None,
    other: str | None = None,
    /,
    *,
    data: str | None = None,
    runs: Path = Path("runs"),
    host: str = "127.0.0.1",
    port: int = 7860,
    score: float = 0.25,
    max_megabytes: float = 20.0,
    max_megapixels: float = 50.0,
    max_seconds: float = 30.0,
    concurrency: int = 64,
    device: str = "auto",
) -> int:
    """Show detectors, data and trainings on a page in your browser. Ctrl-C ends it.

    Drop images, move the threshold, see which pyramid level found each object, and click one to see what was fused for
    it. The requests of `pyrafuse serve` are answered beside it. Nothing is fetched from the network or reported.

    Args:
        model: A checkpoint, the folder of a run, or an exported .onnx or .xml file; none for data and trainings alone.
        other: Another one, to compare side by side.
        data: A data set to look through with its faults: a folder, a data.yaml or a COCO JSON file.
        runs: Folder of trainings to show, running and past.
        host: Address to listen on. Any other than 127.0.0.1 opens the page to the network, without a password.
        port: Port to listen on; 0 takes any that is free.
        score: First value of the score threshold's slider, 0..1.
        max_megabytes: Largest image file, in 10^6 bytes.
        max_megapixels: Largest image, in 10^6 pixels.
        max_seconds: Longest time from a request to its answer.
        concurrency: Maximum number of requests at a time; more are answered with an error.
        device: auto, cpu, gpu, or the number of a GPU such as 1; exported files run on the processor.
    """
    from pyrafuse.base.errors import check_between
    from pyrafuse.base.extras import require
    from pyrafuse.base.paths import check_data
    from pyrafuse.cli.serve import serve_models
    from pyrafuse.serving.limits import Limits

    require("gradio")
    check_between("score", score, 0, 1)
    if data is not None:
        check_data(data)
    from pyrafuse.serving.page.layout import mount_page

    limits = Limits(max_megabytes, max_megapixels, max_seconds, concurrency)
    return serve_models(
        [name for name in (model, other) if name is not None],
        limits,
        host=host,
        port=port,
        score=score,
        device=device,
        finish=lambda routes, service: mount_page(routes, service, data=data, runs=runs, score=score),
    )
