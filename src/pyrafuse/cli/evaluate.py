"""`pyrafuse evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyrafuse.base.errors import DataError, check_between
from pyrafuse.base.paths import check_data, check_figure, check_writable, find_checkpoint
from pyrafuse.base.printable import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrafuse.base.terminal import Terminal
    from pyrafuse.cli.detectors import Speedups
    from pyrafuse.data.reading.problems import Reading
    from pyrafuse.evaluation.coco import CocoEvaluator
    from pyrafuse.evaluation.result import EvaluationResult
    from pyrafuse.inference.predicting import Predictor


def evaluate(
    model: Path,
    data: str | None = None,
    /,
    *,
    split: str = "val",
    size: int | None = None,
    score: float = 0.001,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    batch: int = 8,
    workers: int | None = None,
    missing: Literal["error", "skip"] | None = None,
    exif: Literal["auto", "stored", "upright"] | None = None,
    boxes: str | None = None,
    output: Path = Path("evaluation"),
    confusion: Path | None = None,
    device: str = "auto",
    optimize: bool = False,
    compile: bool = False,  # noqa: A002  # the option is --compile
    precision: Literal["fp32", "bf16"] = "fp32",
) -> int:
    """Measure a detector: COCO's average precision, class by class and size by size.

    Written to --output: report.html, evaluation.json, coco_results.json and precision_recall.png.

    Args:
        model: A checkpoint, the folder of a run, or an exported .onnx or .xml, which runs without PyTorch. The size and
            preprocessing that it was trained with are in it.
        data: A folder, a data.yaml, a COCO JSON file, or shapes; by default what a checkpoint was trained on.
        split: train, val or test.
        size: Side of the network's input in pixels; by default the checkpoint's own.
        score: Least score of a detection that counts, 0..1.
        nms_iou: Overlap above which two boxes of a class are one object; by default the model's own.
        max_detections: So many detections an image are kept, and of each class counted; by default the model's own
            number, and COCO's 100 of a class. On the data that it was trained on, what it was trained with.
        batch: Images at a time.
        workers: Processes that load, by default as many as there are cores for it; for an exported file one thread
            reads ahead, unless this is 0.
        missing: error for images that are listed and not there, skip to leave them out and count them; by default
            error, or on the data that it was trained on what it was trained with.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored, upright, or auto,
            which is upright with a warning; the default is chosen as for missing.
        boxes: What the numbers of a box are, one of pixels, shares and percent, one of corners, sizes and centers, or
            one of each: shares,corners; by default what the layout has, or what it was trained with.
        output: Folder for the results; by default evaluation, in the working folder.
        confusion: File to draw the confusion matrix to: .png, .svg, .pdf, .jpg or .webp.
        device: auto, cpu, gpu, or the number of a GPU such as 1; an exported file runs on the processor.
        optimize: Fold batch norms into convolutions, and lay out weights for the processor: faster, with the same
            results but for rounding.
        compile: Optimise, and make code with torch.compile: minutes at the first batch.
        precision: fp32, or bf16, which is faster on processors and GPUs with instructions for it, and moves boxes and
            scores a little.
    """
    from pyrafuse.base.terminal import Terminal

    result = measure(
        model,
        data,
        split=split,
        size=size,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
        batch=batch,
        workers=workers,
        missing=missing,
        exif=exif,
        boxes=boxes,
        output=output,
        confusion=confusion,
        device=device,
        optimize=optimize,
        compile=compile,
        precision=precision,
        console=Terminal(),
    )
    print(result.table())
    print(f"\nreport      {output / 'report.html'}\nwritten to  {output}")
    return 0


def measure(
    model: Path,
    data: str | None,
    *,
    split: str,
    size: int | None,
    score: float,
    nms_iou: float | None,
    max_detections: int | None,
    batch: int,
    workers: int | None,
    missing: Literal["error", "skip"] | None,
    exif: Literal["auto", "stored", "upright"] | None,
    boxes: str | None,
    output: Path | None,
    confusion: Path | None,
    device: str,
    optimize: bool,
    compile: bool,  # noqa: A002  # the option is --compile
    precision: Literal["fp32", "bf16"],
    console: "Terminal",
) -> "EvaluationResult":
    """What `evaluate` tells and writes, with the same options; without ``output`` nothing is written but ``confusion``.

    Raises:
        PyrafuseError: If a value does not fit, or the model or the data cannot be read.
    """
    check_between("score", score, 0, 1)
    check_between("nms_iou", nms_iou, 0, 1)
    check_between("max_detections", max_detections, 1)
    check_between("size", size, 1)
    check_between("batch", batch, 1)
    check_between("workers", workers, 0)
    model = find_checkpoint(model)
    if data is not None:
        check_data(data)
    if output is not None:
        check_writable(output, is_folder=True)
    if confusion is not None:
        check_figure(confusion)
    from pyrafuse.base.writing import write_text
    from pyrafuse.cli.data_problems import tell_problems
    from pyrafuse.cli.detectors import Speedups
    from pyrafuse.data.checks.checking import tell_crowded
    from pyrafuse.data.formats.layout import read_split
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.evaluation.coco import to_coco_results
    from pyrafuse.reports.quality import draw_confusion, write_evaluation

    speedups = Speedups(optimize, compile, precision)
    detector, detect_all = _load(model, device, speedups, is_data_given=data is not None)
    if data is None:
        recipe = _read_recipe(model)
        max_detections = max_detections or recipe["run"].get("max_detections")
        reading = _read_own_data(model, recipe, split, missing=missing, exif=exif, boxes=boxes)
    else:
        rules = ReadingRules.from_values({}, missing=missing, exif=exif, boxes=boxes)
        reading = read_split(data, split, rules=rules)
    images = tell_problems(reading)
    side = size or detector.card.preprocessing.size[0]
    console.print(
        f"{counted(len(images), 'image')} of {data or 'what it was trained on'} ({images.split}), "
        f"{counted(len(images.names), 'class', 'classes')}, {side} px, on {getattr(detector, 'device', 'cpu')}",
        highlight=False,
    )
    if crowded := tell_crowded([images], max_detections):
        console.print(crowded, highlight=False, markup=False)
    evaluator = detect_all(
        detector,
        images,
        size=size,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
        batch_size=batch,
        workers=workers,
        console=console,
    )
    result = evaluator.compute()
    if output is not None:
        write_text(output / "coco_results.json", to_coco_results(evaluator))
        source = str(data or "what it was trained on")
        facts = {
            "checkpoint": model,
            "data": source,
            "split": images.split,
            "input": f"{side} px",
            "least score": score,
        }
        write_evaluation(result, output, title=f"Evaluation of {model}", on=images.split, facts=facts)
    if confusion is not None:
        draw_confusion(result, confusion)
    return result


def _load(
    model: Path, device: str, speedups: "Speedups", *, is_data_given: bool
) -> "tuple[Predictor, Callable[..., CocoEvaluator]]":
    """The detector, and what detects with it in a whole data set.

    Raises:
        DataError: If an exported file is given without data.
    """
    from pyrafuse.cli.detectors import load_any
    from pyrafuse.runtime.loading import is_exported

    if is_exported(model):
        if not is_data_given:
            raise _say_nothing_of_data(model)
        from pyrafuse.inference.evaluating import detect_all
    else:
        from pyrafuse.models.evaluating import detect_all
    return load_any(model, device, speedups), detect_all


def _say_nothing_of_data(model: Path) -> DataError:
    return DataError(f"{model} does not say what it was trained on; give the data: pyrafuse evaluate {model} DATA")


def _read_recipe(model: Path) -> dict[str, dict[str, Any]]:
    """The recipe that a checkpoint was trained with, as far as it concerns the data.

    Raises:
        DataError: If the checkpoint does not tell.
    """
    from pyrafuse.base.card import CARD_KEY
    from pyrafuse.core.storage import read_tensors

    content = read_tensors(model)
    try:
        recipe = content[CARD_KEY]["recipe"]
        data, run = {**recipe["data"]}, {**recipe["run"]}
        run["seed"] = int(run["seed"])
        if not {"path", "val_fraction", "train", "val"} <= data.keys():
            raise KeyError("data")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _say_nothing_of_data(model) from error
    return {"data": data, "run": run}


def _read_own_data(model: Path, recipe: dict[str, dict[str, Any]], split: str, **given: Any) -> "Reading":
    """The split of the data that a checkpoint was trained on, drawn and read as it was then but for what is ``given``.

    Raises:
        DataError: If they are gone.
    """
    from pyrafuse.data.formats.layout import read_split, read_splits
    from pyrafuse.data.reading.problems import Reading
    from pyrafuse.data.reading.rules import ReadingRules

    was, seed = recipe["data"], recipe["run"]["seed"]
    path, fraction, train, val = (was[key] for key in ("path", "val_fraction", "train", "val"))
    rules = ReadingRules.from_values(was, **given)
    try:
        if split not in {"train", "val"}:
            return read_split(path, split, rules=rules)
        splits = read_splits(path, val_fraction=fraction, seed=seed, train=train, val=val, rules=rules)
    except DataError as error:
        raise DataError(f"{error} (it was trained there; give other data: pyrafuse evaluate {model} DATA)") from error
    return Reading(splits.train if split == "train" else splits.val, splits.problems)
