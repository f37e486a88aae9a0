"""`pyrafuse explain`."""

from pathlib import Path


def explain(
    model: Path,
    /,
    *sources: str,
    output: Path = Path("explanation"),
    score: float = 0.25,
    limit: int | None = None,
    stride: int = 1,
    device: str = "auto",
) -> int:
    """Show which level each detection came from, and where the neck listened to which level.

    For every image a picture, its arrays (.npz) and its numbers (.json), and one report.html over all. The status is 1
    if some inputs could not be read.

    Args:
        model: A checkpoint. The size and preprocessing that it was trained with are in it.
        sources: Images, videos, folders, globs, camera numbers or http(s) URLs.
        output: Folder for the results.
        score: Least score of a detection that is told, 0..1.
        limit: Only so many images, the first ones.
        stride: Of a video or a camera only every so many-th frame is read.
        device: auto, cpu, cuda, cuda:1 or 1.
    """
    from pyrafuse.cli.devices import choose_device
    from pyrafuse.data.sources import open_source
    from pyrafuse.explain.report import explain_to
    from pyrafuse.models.checkpoint import load

    frames = open_source(sources[0] if len(sources) == 1 else sources, stride=stride)
    detector = load(model, device=choose_device(device))
    summary = explain_to(detector, frames, output, score=score, limit=limit, progress=True)
    images = "image" if summary.num_images == 1 else "images"
    print(f"{summary.num_images} {images} explained, {len(summary.failures)} could not be read")
    print(summary.report)
    return int(bool(summary.failures))
