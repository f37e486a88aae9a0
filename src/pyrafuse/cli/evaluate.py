"""`pyrafuse evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyrafuse.base.errors import DataError, PyrafuseError, check_between
from pyrafuse.base.paths import check_data, check_figure, check_page, check_writable, find_checkpoint
from pyrafuse.base.printable import counted
from pyrafuse.cli.own_data import read_own_data, read_recipe, say_nothing_of_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyrafuse.base.terminal import Terminal
    from pyrafuse.evaluation.diagnosis import Diagnosis
    from pyrafuse.evaluation.result import EvaluationResult


DEFAULT_BATCH = 8


def evaluate(
    model: str,
    data: str | None = None,
    /,
    *,
    split: str = "val",
    results: Path | None = None,
    size: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    tile: int | None = None,
    overlap: float | None = None,
    augment: tuple[str, ...] = (),
    merge: Literal["nms", "wbf"] | None = None,
    batch: int = DEFAULT_BATCH,
    workers: int | None = None,
    missing: Literal["error", "skip"] | None = None,
    exif: Literal["auto", "stored", "upright"] | None = None,
    boxes: str | None = None,
    output: Path = Path("evaluation"),
    page: Path | None = None,
    confusion: Path | None = None,
    device: str = "auto",
    optimize: bool = False,
    compile: bool = False,  # noqa: A002  # the option is --compile
    precision: Literal["fp32", "bf16"] = "fp32",
) -> int:
    """Measure a detector: COCO's average precision, class by class and size by size, and why it fails.

    Written to --output: report.html, evaluation.json, precision_recall.png, and a model's detections as
    coco_results.json. With --results no model is needed: pyrafuse evaluate DATA --results detections.json.

    Args:
        model: A checkpoint, the folder of a run, or an exported .onnx or .xml, which runs without PyTorch. The size and
            preprocessing that it was trained with are in it. With --results, the data.
        data: A folder or a file of any format that is read, or shapes; by default what a checkpoint was trained on.
        split: train, val or test.
        results: COCO results, JSON, of any detector, or a folder of such files: image_id, category_id, bbox and score
            of each detection. They are
            judged in place of a model's.
        size: Side of the network's input in pixels; by default the checkpoint's own.
        score: Least score of a detection that counts, 0..1; by default 0.001, and all of --results.
        nms_iou: Overlap above which two boxes of a class are one object; by default the model's own.
        max_detections: Maximum number of detections per image, and of those counted per class; by default the model's
            own number, and COCO's 100 of a class. On the data that it was trained on, what it was trained with.
        tile: Side in pixels of the tiles that a larger image is cut into, so that small objects stay large enough; by
            default that of the training, where it was on tiles; 0 keeps images whole.
        overlap: Least share of a tile's side that it has in common with the next one, 0..0.9: wide enough for most
            objects; by default that of the training, or 0.2.
        augment: Other views of each image or tile: flip, scales (0.75 and 1.25 times the size), a scale such as 1.5,
            and whole, the image itself beside its tiles.
        merge: nms, the default, keeps the best of the boxes that several views find, wbf takes their weighted mean.
        batch: Images, or tiles, at a time.
        workers: Processes that load, by default as many as there are cores for it; for an exported file one thread
            reads ahead, unless this is 0.
        missing: error for images that are listed and not there, skip to leave them out and count them; by default
            error, or on the data that it was trained on what it was trained with.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored, upright, or auto,
            which is upright with a warning; the default is chosen as for missing.
        boxes: What the numbers of a box are, one of pixels, shares and percent, one of corners, sizes and centers, or
            one of each: shares,corners; by default what the layout has, or what it was trained with.
        output: Folder for the results; by default evaluation, in the working folder.
        page: File of the page, .html; by default report.html in --output.
        confusion: File to draw the confusion matrix to: .png, .svg, .pdf, .jpg or .webp.
        device: auto, cpu, gpu, or the number of a GPU such as 1; an exported file runs on the processor.
        optimize: Fold batch norms into convolutions, and lay out weights for the processor: faster, with the same
            results but for rounding.
        compile: Optimise, and make code with torch.compile: minutes at the first batch.
        precision: fp32, or bf16, which is faster on processors and GPUs with instructions for it, and moves boxes and
            scores a little.
    """
    from pyrafuse.base.terminal import Terminal

    measured = measure(
        model,
        data,
        split=split,
        results=results,
        size=size,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
        tile=tile,
        overlap=overlap,
        augment=augment,
        merge=merge,
        batch=batch,
        workers=workers,
        missing=missing,
        exif=exif,
        boxes=boxes,
        output=output,
        page=page,
        confusion=confusion,
        device=device,
        optimize=optimize,
        compile=compile,
        precision=precision,
        console=Terminal(),
    )
    print(f"{measured.result.table()}\n\n{measured.diagnosis.advice()}")
    print(f"\nreport      {page or output / 'report.html'}\nwritten to  {output}")
    return 0


@dataclass(frozen=True)
class Measured:
    """The figures of an evaluation, and why the detector fails."""

    result: "EvaluationResult"
    diagnosis: "Diagnosis"


def measure(
    model: str,
    data: str | None,
    *,
    split: str,
    results: Path | None,
    size: int | None,
    score: float | None,
    nms_iou: float | None,
    max_detections: int | None,
    tile: int | None,
    overlap: float | None,
    augment: tuple[str, ...],
    merge: Literal["nms", "wbf"] | None,
    batch: int,
    workers: int | None,
    missing: Literal["error", "skip"] | None,
    exif: Literal["auto", "stored", "upright"] | None,
    boxes: str | None,
    output: Path | None,
    page: Path | None,
    confusion: Path | None,
    device: str,
    optimize: bool,
    compile: bool,  # noqa: A002  # the option is --compile
    precision: Literal["fp32", "bf16"],
    console: "Terminal",
) -> Measured:
    """What `evaluate` tells and writes, with the same options; without ``output``, only ``page`` and ``confusion``.

    Raises:
        PyrafuseError: If a value does not fit, or the model, the results or the data cannot be read.
    """
    check_between("score", score, 0, 1)
    check_between("nms_iou", nms_iou, 0, 1)
    check_between("max_detections", max_detections, 1)
    check_between("size", size, 1)
    check_between("batch", batch, 1)
    check_between("workers", workers, 0)
    if results is not None:
        unused = {
            "size": size is not None,
            "nms-iou": nms_iou is not None,
            "tile": tile is not None,
            "overlap": overlap is not None,
            "augment": bool(augment),
            "merge": merge is not None,
            "batch": batch != DEFAULT_BATCH,
            "workers": workers is not None,
            "device": device != "auto",
            "optimize": optimize,
            "compile": compile,
            "precision": precision != "fp32",
        }
        _check_results(model, data, results, [name for name, is_given in unused.items() if is_given])
        file, data = results, model
    else:
        file = find_checkpoint(model)
    if data is not None:
        check_data(data)
    if output is not None:
        check_writable(output, is_folder=True)
    if page is not None:
        check_page(page, "--page")
    if confusion is not None:
        check_figure(confusion)
    from pyrafuse.base.progress import create_bar
    from pyrafuse.base.writing import write_text
    from pyrafuse.cli.data_problems import tell_problems
    from pyrafuse.cli.detectors import Speedups, choose_views, describe_views, load_detecting, strides_of
    from pyrafuse.data.checks.checking import tell_crowded
    from pyrafuse.data.formats.layout import read_split
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.evaluation.coco import EVALUATION_SCORE, to_coco_results
    from pyrafuse.evaluation.diagnosis import diagnose
    from pyrafuse.reports.quality import describe_evaluation, draw_confusion, write_evaluation
    from pyrafuse.runtime.loading import is_exported

    detector, detect_all = None, None
    if results is None:
        if data is None and is_exported(file):
            raise say_nothing_of_data(file)
        views = choose_views(file, console, tile=tile, overlap=overlap, augment=augment, merge=merge)
        detector, detect_all = load_detecting(file, device, Speedups(optimize, compile, precision), views)
    if data is None:
        recipe = read_recipe(file)
        max_detections = max_detections or recipe["run"].get("max_detections")
        reading = read_own_data(file, recipe, split, missing=missing, exif=exif, boxes=boxes)
    else:
        rules = ReadingRules.from_values({}, missing=missing, exif=exif, boxes=boxes)
        reading = read_split(data, split, rules=rules)
    images = tell_problems(reading)
    facts: dict[str, Any] = {"data": str(data or "what it was trained on"), "split": images.split}
    what = f"{counted(len(images), 'image')} of {facts['data']} ({images.split}), "
    what += counted(len(images.names), "class", "classes")
    if detector is None or detect_all is None:
        from pyrafuse.inference.results_file import read_results

        assert results is not None
        console.print(f"{what}, judged by {results}", highlight=False, markup=False)
        with create_bar(console) as bar:
            bar.add_task(f"read {results.name}", total=None)
            given = read_results(results, images, score=score or 0.0, max_detections=max_detections)
        for note in given.notes:
            console.print(note, highlight=False, markup=False)
        evaluator = given.evaluator
        facts |= {"results": results, "least score": score or 0.0}
    else:
        side = size or detector.card.preprocessing.size[0]
        console.print(f"{what}, {side} px, on {getattr(detector, 'device', 'cpu')}", highlight=False)
        if crowded := tell_crowded([images], max_detections):
            console.print(crowded, highlight=False, markup=False)
        least = EVALUATION_SCORE if score is None else score
        evaluator = detect_all(
            detector,
            images,
            size=size,
            score=least,
            nms_iou=nms_iou,
            max_detections=max_detections,
            batch_size=batch,
            workers=workers,
            console=console,
        )
        facts = {"checkpoint": file, **facts, "input": f"{side} px", **describe_views(detector), "least score": least}
    with create_bar(console) as bar:
        bar.add_task("judge", total=None)
        measured = Measured(evaluator.compute(), diagnose(evaluator))
    if output is not None:
        if results is None:
            write_text(output / "coco_results.json", to_coco_results(evaluator))
        write_evaluation(measured.result, measured.diagnosis, output)
        page = page or output / "report.html"
    if page is not None:
        describe_evaluation(
            measured.result,
            measured.diagnosis,
            title=f"Evaluation of {file}",
            on=images.split,
            facts=facts,
            strides=strides_of(detector),
        ).save(page)
    if confusion is not None:
        draw_confusion(measured.result, confusion)
    return measured


def _check_results(data: str, more: str | None, results: Path, unused: "Sequence[str]") -> None:
    """Refuse what does not go with detections from a file."""
    if more is not None:
        raise PyrafuseError(
            f"--results {results} holds the detections already: leave the model {data} out: pyrafuse evaluate {more} "
            f"--results {results}"
        )
    if unused:
        raise PyrafuseError(f"--{unused[0]} is for a model, and --results {results} holds the detections: leave it out")
    if not results.exists():
        raise DataError(f"no such file of results: {results}; pyrafuse predict writes one with --formats coco")
