"""`pyrafuse explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyrafuse.base.errors import check_between
from pyrafuse.base.paths import check_data, check_source, check_writable, find_checkpoint

if TYPE_CHECKING:
    from pyrafuse.data.reading.rules import ReadingRules


def explain(
    model: Path,
    /,
    *sources: str,
    gradients: bool = False,
    split: str = "val",
    output: Path = Path("explanation"),
    score: float = 0.25,
    limit: int | None = None,
    stride: int = 1,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
    device: str = "auto",
) -> int:
    """Show which level each detection came from, and what the neck fused for it.

    For every image a picture, its arrays (.npz) and its numbers (.json), and one report.html over all. The status is 1
    if some inputs could not be read.

    With --gradients, of labelled images: what each source level learns from each output level, and where these lessons
    conflict; pictures, gradients.json and report.html.

    Args:
        model: A checkpoint, or the folder of a run. The size and preprocessing that it was trained with are in it.
        sources: Images, videos, folders, globs, camera numbers or http(s) URLs.
        gradients: Tell gradients instead; the source is then one data set: a folder, a data.yaml, a COCO JSON file, or
            shapes.
        split: Split of that data set: train, val or test.
        output: Folder for the results; those of an earlier call give way, other files stay.
        score: Least score of a detection that is reported, 0..1.
        limit: Only so many images, the first ones; with --gradients 32 by default.
        stride: Step between the frames that are read of a video or a camera.
        missing: Treatment of listed images that do not exist, with --gradients: error, or skip, which counts them.
        exif: With --gradients: frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored,
            upright, or auto, which is upright with a warning.
        boxes: Meaning of the numbers of a box, with --gradients, such as shares or corners; auto is that of the format.
        device: auto, cpu, gpu, or the number of a GPU such as 1.
    """
    check_between("score", score, 0, 1)
    check_between("limit", limit, 1)
    model = find_checkpoint(model)
    for source in sources:
        (check_data if gradients else check_source)(source)
    check_writable(output, is_folder=True)
    from pyrafuse.base.images.sources import open_source
    from pyrafuse.core.devices import choose_device
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.explain.writing import explain_to
    from pyrafuse.importers.loading import load

    if gradients:
        rules = ReadingRules(missing=missing, exif=exif, boxes=boxes)
        return _explain_gradients(model, sources, split=split, output=output, limit=limit, rules=rules, device=device)
    frames = open_source(sources[0] if len(sources) == 1 else sources, stride=stride, leave_out=output)
    detector = load(model, device=choose_device(device))
    summary = explain_to(detector, frames, output, score=score, limit=limit, progress=True)
    images = "image" if summary.num_images == 1 else "images"
    print(f"{summary.num_images} {images} explained, {summary.num_failed} could not be read")
    print(summary.report)
    return int(bool(summary.num_failed))


def _explain_gradients(
    model: Path,
    sources: tuple[str, ...],
    *,
    split: str,
    output: Path,
    limit: int | None,
    rules: "ReadingRules",
    device: str,
) -> int:
    from pyrafuse.base.errors import PyrafuseError
    from pyrafuse.cli.data_problems import tell_problems
    from pyrafuse.core.devices import choose_device
    from pyrafuse.data.formats.layout import read_split
    from pyrafuse.explain.gradient_writing import explain_gradients_to
    from pyrafuse.importers.loading import load

    if len(sources) != 1:
        raise PyrafuseError(f"--gradients takes one data set with labels, got {len(sources)}: {', '.join(sources)}")
    detector = load(model, device=choose_device(device))
    data = tell_problems(read_split(sources[0], split, rules=rules))
    summary, report = explain_gradients_to(detector, data, output, limit=limit, progress=True)
    values = report.to_dict()
    for rule, of_sources in values["rules"].items():
        every = of_sources["all"]
        cosine = "no mixed positions" if every["mean_cosine"] is None else f"mean cosine {every['mean_cosine']:.3f}"
        print(f"{rule:<8} {every['conflicting']} of {every['mixed']} mixed positions in conflict, {cosine}")
    if (values["weights_remove"] or {}).get("all", {}).get("of_uniform") is not None:
        removed = values["weights_remove"]["all"]["of_uniform"]
        print(f"the weights remove {removed:.1%} of the opposing gradient that uniform weights let through")
    print(summary.report)
    return int(bool(summary.num_failed))
