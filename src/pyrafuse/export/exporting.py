"""A detector to a file that runs elsewhere: captured, written, run, compared, and only then named.

detector -> `Interface` -> `DetectionGraph` -> `Capture` -> format -> hidden file -> checked -> renamed
"""

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError, check_between, check_count
from pyrafuse.base.exported import Input, Interface, Output, Precision, Threshold, write_metadata
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.locking import hold_beside
from pyrafuse.base.paths import check_writable
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import printable
from pyrafuse.base.records import DetectionData
from pyrafuse.evaluation.coco import EVALUATION_SCORE
from pyrafuse.evaluation.collecting import match_classes, require_objects
from pyrafuse.export.batches import generate_images, make_batches
from pyrafuse.export.checking import Agreement, compare
from pyrafuse.export.graph import DetectionGraph, capture, small_images
from pyrafuse.export.measuring import MAX_AP_LOSS, DataFeeds, Loss, measure, split_in_two
from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Feeds, Run, check_suffix, create_format, format_for
from pyrafuse.export.support import refusal
from pyrafuse.layers.rep_conv import merged
from pyrafuse.models.detector import Detector
from pyrafuse.postprocess.dense import DensePostprocess


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Attributes:
        path: The file or folder that was written.
        format: Name of its format.
        interface: What it takes and gives.
        agreement: How it compares with the detector: detection by detection, or by average precision where it computes
            in fewer bits.
    """

    path: Path
    format: str
    interface: Interface
    agreement: Agreement | Loss


def export(
    detector: Detector[Any],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  # the command line's word
    input: Input | None = None,  # noqa: A002
    output: Output | None = None,
    size: int | tuple[int, int] | None = None,
    static: bool = False,
    batch: int | None = None,
    precision: Precision = "fp32",
    score: float | None = None,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    images: Sequence[NDArray[np.uint8]] = (),
    data: DetectionData | None = None,
    calibration: DetectionData | None = None,
    max_ap_loss: float = MAX_AP_LOSS,
    options: Mapping[str, Any] = MappingProxyType({}),
    tell: Callable[[str], None] = lambda _: None,
    console: Console | None = None,
    verify: bool = True,
) -> Exported:
    """Write ``detector`` to ``path`` in one of `FORMATS`; the file gets its name when its own runtime agrees with it.

    Args:
        detector: Left as it is, on whatever device: a copy of it on the processor is captured and compared.
        path: The file, or folder.
        format: A name of `FORMATS`; by default what the suffix of ``path`` tells.
        input: Form of input (`Interface`); by default ``image``, or ``fitted`` where ``keep_ratio`` fits, if the format
            takes it.
        output: Form of output (`Interface`); by default ``nms``, if the format takes it.
        size: Side, or height and width, of the network's input in pixels; by default what it was trained at.
        static: Whether size and batch are fixed.
        batch: Images at a time where they are fixed; 1 by default.
        precision: Kind of numbers that the network computes in.
        score: Least score that ``nms`` keeps; by default the least that evaluation reads.
        nms_iou: Overlap above which two boxes of a class are one object; the detector's own when none.
        max_detections: Largest number of detections an image; the detector's own when none.
        images: RGB images (H, W, 3) that an fp32 file is checked on; by default generated ones.
        data: Annotated images that fp16 and int8 are judged on.
        calibration: Images that int8 takes its ranges from; by default half of ``data``, which does not judge then.
        max_ap_loss: AP that fp16 and int8 may lose on ``data``, of all objects and of small ones.
        options: Arguments of the format by name, ``ort`` of ``web`` say.
        tell: Is told what happens.
        console: Console to show the progress of comparisons on.
        verify: Whether an fp32 file is compared; one that is not is fit to be timed, and no more.

    Raises:
        PyrafuseError: If the format cannot take it, a library is missing, an option is out of its range, the file
            cannot be written, or its answers differ from the detector's. Nothing is left at ``path`` then.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise PyrafuseError(f"{path} names no file: name one in it, {path / 'detector.onnx'} say")
    detector = deepcopy(detector).cpu().eval()
    name = format_for(path) if format is None else format
    form = create_format(name, options)
    form.require(precision)
    preprocessing = form.preprocessing(detector.card, size)
    postprocess, interface = settle(
        detector,
        form,
        preprocessing,
        input=input,
        output=output,
        static=static,
        batch=batch,
        precision=precision,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
    )
    check_suffix(name, form, path)
    _check_data(detector, interface, data, max_ap_loss)
    check_writable(path, is_folder=not form.suffix)
    graph = DetectionGraph(merged(detector), interface, preprocessing, postprocess).eval()
    batches = make_batches(images or generate_images(), interface, preprocessing)
    metadata = write_metadata(replace(detector.card, preprocessing=preprocessing), interface)
    reference = _run_by_torch(graph)
    measured, eager, ranges = None, None, ()
    if data is not None and precision != "fp32":
        if precision == "int8":
            data, others = (data, calibration) if calibration is not None else split_in_two(data, tell)
            ranges = DataFeeds(others, interface, preprocessing)
        measured = DataFeeds(data, interface, preprocessing)
        tell("measuring the detector")
        eager = measure(reference, measured, detector.card, console=console)
        _refuse(path, Loss(eager, eager).complain(max_ap_loss))
    tell(f"capturing the graph of {detector.card.model or 'the detector'}")
    with _naming(name):
        captured = _capture(graph, batches[0], metadata, ranges)
    with _hidden(path) as hidden, _naming(name):
        tell(f"writing {name}")
        form.write(captured, hidden)
        tell("comparing with the detector")
        run = form.open(hidden)
        if not verify:
            agreement, complaint = Agreement(0, 0, 0.0, 0.0), ""
        elif measured is None or eager is None:
            agreement = compare(run, reference, batches, interface.output, console=console)
            if not agreement.num_compared:
                tell(f"nothing scores {interface.score:g} in these images: comparing a file that keeps every score")
                agreement = _compare_unlimited(graph, form, batches, metadata, path.name)
            complaint = _complain_of(agreement)
        else:
            agreement = Loss(eager, measure(run, measured, detector.card, console=console))
            complaint = agreement.complain(max_ap_loss)
        _refuse(path, complaint)
    if remark := form.remark(path):
        tell(remark)
    return Exported(form.made(path), name, interface, agreement)


def _refuse(path: Path, complaint: str) -> None:
    if complaint:
        raise PyrafuseError(f"{path} was not written, since {complaint}")


def _check_data(detector: Detector[Any], interface: Interface, data: DetectionData | None, max_ap_loss: float) -> None:
    """Refuse to compute in fewer bits where nothing would tell what that costs."""
    check_between("max_ap_loss", max_ap_loss, 0, 1)
    precision = interface.precision
    if precision == "fp32":
        return
    if interface.output == "levels":
        raise PyrafuseError(
            f"maps of levels have no average precision that {precision} could be judged by: export fp32, or another "
            "output"
        )
    if data is None:
        raise PyrafuseError(
            f"{precision} is judged by the average precision that it costs: add annotated images, --check DATA (a "
            "folder, data.yaml or COCO JSON file)"
        )
    require_objects(data)
    match_classes(detector.card, data)


def _compare_unlimited(
    graph: DetectionGraph, form: ExportFormat, batches: Sequence[Feeds], metadata: dict[str, str], name: str
) -> Agreement:
    """As `compare`, of a file that is the same but keeps every score; it is not kept."""
    interface, postprocess = replace(graph.interface, score=0.0), replace(graph.postprocess, score=0.0)
    unlimited = DetectionGraph(graph.detector, interface, graph.preprocessing, postprocess).eval()
    batches = [
        {key: np.zeros_like(values) if key == "score" else values for key, values in feeds.items()} for feeds in batches
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / name
        form.write(_capture(unlimited, batches[0], metadata, ()), place)
        return compare(form.open(place), _run_by_torch(unlimited), batches, interface.output)


def _complain_of(agreement: Agreement) -> str:
    if not agreement.num_compared:
        return "the detector finds nothing in these images, and nothing was compared: check it on images with objects"
    if not agreement.strangers:
        return ""
    others = len(agreement.strangers) - 1
    more = f"; and {others} more such" if others else ""
    return f"it answers otherwise than the detector: {agreement.strangers[0]}{more}"


def settle(
    detector: Detector[Any],
    form: ExportFormat,
    preprocessing: Preprocessing,
    *,
    input: Input | None,  # noqa: A002
    output: Output | None,
    static: bool,
    batch: int | None,
    precision: Precision,
    score: float | None,
    nms_iou: float | None,
    max_detections: int | None,
) -> tuple[DensePostprocess, Interface]:
    """How the detector selects in the graph, and what the file takes and gives; arguments as in `export`.

    Raises:
        PyrafuseError: If the format or the detector cannot do so.
    """
    for name, value in (("score", score), ("nms_iou", nms_iou)):
        check_between(name, value, 0, 1)
    for name, value in (("batch", batch), ("max_detections", max_detections)):
        if value is not None:
            check_count(name, value, 1)
    static = static or form.needs_static
    if batch is not None and not static:
        raise PyrafuseError(f"batch {batch} fixes the batch, and static is not given: add it, or leave batch out")
    usual = "fitted" if preprocessing.fit == "keep_ratio" else "image"
    chosen: Input = input or (usual if usual in form.inputs else form.inputs[0])
    output = output or ("nms" if "nms" in form.outputs else form.outputs[0])
    for name, value, known in (
        ("input", chosen, form.inputs),
        ("output", output, form.outputs),
        ("precision", precision, form.precisions),
    ):
        if value not in known:
            raise PyrafuseError(f"this format takes no {name} {value}; choose from {', '.join(known)}")
    if chosen == "image" and preprocessing.fit == "keep_ratio":
        remedy = "the input fitted, or tensor" if "fitted" in form.inputs else "another format"
        raise PyrafuseError(
            "the size of this detector's input follows the image (keep_ratio), and no graph resizes so: choose "
            f"{remedy}"
        )
    given = {"nms_iou": nms_iou, "max_detections": max_detections}
    postprocess: DensePostprocess = replace(
        detector.postprocess,
        score=EVALUATION_SCORE if score is None else score,
        **{name: value for name, value in given.items() if value is not None},
    )
    stride = max(detector.backbone.features.strides)
    if preprocessing.fit == "keep_ratio":  # inputs are padded no further
        stride = math.gcd(stride, preprocessing.pad_multiple)
    size = (preprocessing.size[0], preprocessing.size[1])
    if chosen != "image" and not static and any(side % stride for side in size):
        raise PyrafuseError(
            f"sizes that are free are multiples of {stride} px, and this detector's is {size[0]} x {size[1]}: add "
            f"--static, or --size {-(-max(size) // stride) * stride}"
        )
    if chosen != "image" and postprocess.pixel_offset:
        raise PyrafuseError("this detector's suppression counts pixels of the image itself: choose the input image")
    interface = Interface(
        input=chosen,
        output=output,
        size=size if static or chosen == "image" else None,
        batch=(batch or 1) if static else 0,
        stride=stride,
        precision=precision,
        score=postprocess.score,
        nms_iou=postprocess.nms_iou,
        max_detections=postprocess.max_detections,
        takes_sizes=chosen in ("fitted", "tensor") and _reads_sizes(detector, preprocessing, chosen, output),
        threshold=_threshold(detector, postprocess, output),
    )
    if reason := refusal(detector.card.spec, interface) or form.refusal(detector.card.spec, interface):
        raise PyrafuseError(reason)
    return postprocess, interface


def _reads_sizes(detector: Detector[Any], preprocessing: Preprocessing, form: Input, output: Output) -> bool:
    """Whether it matters where an image ends and padding begins."""
    is_two_stage = hasattr(detector, "stages")
    is_padded_with_zeros = form == "fitted" and preprocessing.fit == "keep_ratio"
    return is_two_stage or is_padded_with_zeros or (output in ("nms", "rows") and detector.postprocess.clip)


def _threshold(detector: Detector[Any], postprocess: DensePostprocess, output: Output) -> Threshold:
    """How the file applies a higher score, so that it finds what the detector finds."""
    if output not in ("nms", "rows"):
        return "after"
    with torch.no_grad():
        is_early = postprocess.reads_score_early(detector.decode(small_images(detector)))
    return ("input" if output == "nms" else "fixed") if is_early else "after"


def _capture(graph: DetectionGraph, example: Feeds, metadata: dict[str, str], calibration: Sequence[Feeds]) -> Capture:
    program = capture(graph, [torch.from_numpy(np.ascontiguousarray(values)) for values in example.values()])
    return Capture(
        graph=graph,
        program=program,
        example=example,
        inputs=graph.inputs,
        outputs=graph.outputs,
        interface=graph.interface,
        metadata=metadata,
        calibration=calibration,
    )


def _run_by_torch(graph: DetectionGraph) -> Run:
    names = graph.outputs

    def run(feeds: Feeds) -> dict[str, NDArray[Any]]:
        with torch.no_grad():
            found = graph(*(torch.from_numpy(np.ascontiguousarray(values)) for values in feeds.values()))
        return {name: values.numpy() for name, values in zip(names, found, strict=True)}

    return run


@contextmanager
def _naming(form: str):  # noqa: ANN202
    """Errors of exporters and runtimes, which have no common base, as one sentence that names the format."""
    try:
        yield
    except (PyrafuseError, MemoryError, OSError, ImportError):
        raise
    except Exception as error:
        others = ", ".join(name for name in FORMATS.names() if name != form)
        raise PyrafuseError(
            f"{form} cannot hold this detector: {type(error).__name__}: {printable(error, limit=300)}; try another "
            f"format ({others}), another --output, or --static"
        ) from error


@contextmanager
def _hidden(path: Path):  # noqa: ANN202
    """A place in a hidden folder beside ``path`` that takes its name when the block ends without an error."""
    with hold_beside(path) as folder:
        yield folder / path.name
        with hold_interrupts():
            _give_names(folder, path)


def _give_names(folder: Path, path: Path) -> None:
    """Move what is in ``folder`` to ``path`` and beside it.

    An earlier export goes as a whole first, so that a process killed meanwhile leaves no mixture of both.

    Raises:
        PyrafuseError: If a folder that would give way holds anything but an earlier export.
    """
    made = sorted(folder.iterdir(), key=lambda one: one.name == path.name)  # what belongs to it first, and it last
    places = [path.parent / one.name for one in made]
    for one, place in zip(made, places, strict=True):
        if place.is_dir():
            _check_earlier(place, one)
    earlier = folder / f"{path.name}.earlier"
    earlier.mkdir()
    for place in reversed(places):
        if place.is_dir() or (len(places) > 1 and place.exists()):  # one file gives way to another in one step
            os.replace(place, earlier / place.name)
    for one, place in zip(made, places, strict=True):
        os.replace(one, place)


def _check_earlier(place: Path, made: Path) -> None:
    """Refuse the folder ``place`` where it holds what ``made`` does not."""
    if others := sorted(entry.name for entry in place.iterdir() if not (made / entry.name).exists()):
        raise PyrafuseError(
            f"{place} holds {others[0]}, which is no part of this export: name another folder, or remove it first"
        )
