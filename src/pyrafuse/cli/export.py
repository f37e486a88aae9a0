"""`pyrafuse export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pyrafuse.base.errors import DataError, PyrafuseError, check_between
from pyrafuse.base.paths import check_writable, find_checkpoint
from pyrafuse.base.terminal import Terminal
from pyrafuse.cli.shorthand import Shorthand, shorthand

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrafuse.export.exporting import Exported
    from pyrafuse.models.detector import Detector

MOST_IMAGES = 16
"""Images of a folder that a file is checked on."""


@shorthand(
    Shorthand(
        usage="MODEL -o FILE [--format NAME] [--input FORM] [--output FORM] [--static]   or   --list",
        options={"o": "file", "for": "consumer"},
        help={
            "-o FILE": "--file FILE",
            "--for NAME": "--consumer NAME",
        },
        positional="model",
    )
)
def export(
    *,
    model: Path | None = None,
    file: Path | None = None,
    format: str | None = None,  # noqa: A002  # the options' names
    consumer: Literal["frigate", "deepstream", "triton"] | None = None,
    input: Literal["image", "fitted", "scaled", "tensor"] | None = None,  # noqa: A002
    output: Literal["nms", "rows", "raw", "levels"] | None = None,
    size: int | None = None,
    static: bool = False,
    batch: int | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    score: float | None = None,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    check: str | None = None,
    max_ap_loss: float | None = None,
    ort: Path | None = None,
    list: bool = False,  # noqa: A002
) -> int:
    """Write a detector as one file that runs elsewhere: ONNX and other formats, with suppression in the graph.

    The file gets its name when its own runtime gives the detector's answers, and not before.

    Args:
        model: A checkpoint, or the folder of a run; also as a bare word.
        file: Path of the exported file, also as -o. Its suffix determines the format.
        format: Name of the format, where the file's end does not tell it; --list prints all.
        consumer: Program that a folder is written for, of the model and the settings that it reads; also as --for.
        input: image is RGB bytes of any size, which the graph resizes and normalises; fitted is RGB bytes of the
            network's size; scaled is the same as floats in 0..1, channels first; tensor is normalised floats. By
            default image, or fitted for a detector whose input's size follows the image.
        output: nms gives detections; rows all candidates as x1 y1 x2 y2 score class; raw centre, size and scores of
            classes; levels the head's maps. Only nms suppresses, and it is the default.
        size: Side of the network's input in pixels; by default the checkpoint's own.
        static: Whether batch and size are fixed.
        batch: Images at a time of a static file; 1 by default.
        precision: Kind of numbers that the network computes in. fp16 and int8 need --check DATA; fp16 halves the file
            and is slow on processors, int8 is made for them.
        score: Least score that nms keeps, 0..1; by default 0.001, so that average precision is kept.
        nms_iou: Overlap above which two boxes of a class are one object; by default the model's own.
        max_detections: Largest number of detections an image; by default the model's own.
        check: Images that an fp32 file is checked on: a folder, a glob, or a data set; by default generated ones. For
            fp16 and int8 a data set (folder, data.yaml or COCO JSON file), whose val split is taken; int8 takes its
            ranges from the train split, or from half of the val split where there is none.
        max_ap_loss: AP that fp16 and int8 may lose on the images of --check, of all objects and of small ones; by
            default 0.01.
        ort: Folder of onnxruntime-web's npm package, for the format web; by default npm fetches it.
        list: Whether to list the formats, and do nothing.
    """
    if list:
        return _list_formats()
    if model is None or file is None:
        raise PyrafuseError("export needs MODEL and -o FILE: pyrafuse export best.ckpt -o best.onnx (--list: formats)")
    exported = write_file(
        model,
        file,
        format=format,
        consumer=consumer,
        input=input,
        output=output,
        size=size,
        static=static,
        batch=batch,
        precision=precision,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
        check=check,
        max_ap_loss=max_ap_loss,
        ort=ort,
        tell=lambda what: print(f"{what} ..."),
        console=Terminal(),
    )
    print(f"{exported.agreement.tell()}\n{exported.path}: {exported.format}, {exported.interface.tell()}")
    return 0


def write_file(
    model: "Detector[Any] | Path",
    file: Path,
    *,
    format: str | None,  # noqa: A002
    consumer: Literal["frigate", "deepstream", "triton"] | None,
    input: Literal["image", "fitted", "scaled", "tensor"] | None,  # noqa: A002
    output: Literal["nms", "rows", "raw", "levels"] | None,
    size: int | None,
    static: bool,
    batch: int | None,
    precision: Literal["fp32", "fp16", "int8"],
    score: float | None,
    nms_iou: float | None,
    max_detections: int | None,
    check: str | None,
    max_ap_loss: float | None,
    ort: Path | None,
    tell: "Callable[[str], None]",
    console: Terminal,
) -> "Exported":
    """Write the file of `export`, with the same options, of a checkpoint or of a detector.

    Raises:
        PyrafuseError: If a value does not fit, or the file cannot be written or checked.
    """
    if consumer is not None and format is not None:
        raise PyrafuseError(f"--for {consumer} names a format already: leave --format {format} out")
    check_between("score", score, 0, 1)
    check_between("nms_iou", nms_iou, 0, 1)
    check_between("max_ap_loss", max_ap_loss, 0, 1)
    for name, value in (("size", size), ("batch", batch), ("max_detections", max_detections)):
        check_between(name, value, 1)
    if max_ap_loss is not None and precision == "fp32":
        raise PyrafuseError(
            "--max-ap-loss is for fp16 and int8, and the precision is fp32: add --precision, or leave it out"
        )
    if isinstance(model, Path):
        model = find_checkpoint(model)
    check_writable(file, is_folder=file.is_dir())
    from pyrafuse.export.exporting import export as export_detector
    from pyrafuse.export.measuring import MAX_AP_LOSS
    from pyrafuse.importers.loading import load

    return export_detector(
        load(model) if isinstance(model, Path) else model,
        file,
        format=consumer or format,
        input=input,
        output=output,
        size=size,
        static=static,
        batch=batch,
        precision=precision,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
        images=_read_images(check) if check and precision == "fp32" else (),
        data=_read_data(check, "val") if check and precision != "fp32" else None,
        calibration=_read_train(check) if check and precision == "int8" else None,
        max_ap_loss=MAX_AP_LOSS if max_ap_loss is None else max_ap_loss,
        options={} if ort is None else {"ort": ort},
        tell=tell,
        console=console,
    )


def _list_formats() -> int:
    from pyrafuse.export.registry import FORMATS
    from pyrafuse.export.support import tabulate_support

    rows = [(name, FORMATS.create(name)) for name in FORMATS.names()]
    width = max(len(name) for name, _ in rows)
    for name, form in rows:
        print(f"{name:<{width}}  {form.suffix or 'folder':<7}  {', '.join(form.precisions):<16}  {form.summary}")
    table, reasons = tabulate_support()
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    print()
    for cells in table:
        print(f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |")
    for reason in reasons:
        print(reason)
    return 0


def _read_data(source: str, split: str) -> Any:
    from pyrafuse.data.reading.rules import DEFAULT_RULES
    from pyrafuse.models.evaluating import read_whole

    return read_whole(source, split, DEFAULT_RULES)


def _read_train(source: str) -> Any:
    """The train split, None where the data have none or it is the val split."""
    try:
        train = _read_data(source, "train")
    except DataError:
        return None
    own = {record.path for record in _read_data(source, "val").records}
    return None if any(record.path in own for record in train.records) else train


def _read_images(source: str) -> list:
    from pyrafuse.base.images.sources import open_source
    from pyrafuse.data.loading.datasets import read_record

    if Path(source).suffix in (".yaml", ".yml", ".json") or source.partition(":")[0] == "shapes":
        return [read_record(record) for record in _read_data(source, "val").records[:MOST_IMAGES]]
    images = []
    for frame in open_source(source):
        if frame.image is None:
            raise PyrafuseError(f"--check: {frame.error}")
        images.append(frame.image)
        if len(images) == MOST_IMAGES:
            break
    if not images:
        raise PyrafuseError(f"--check: {source} holds no image")
    return images
