"""How a detector of mmdetection is used, which its keys do not tell: strides, preprocessing, test settings, classes.

The file's own settings tell it, else the name it was published under, else whoever reads it; it is never guessed.
content, name -> `Usage`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.engine import File
from pyrafuse.importers.mmdetection.config import Config, find_config, look_up
from pyrafuse.importers.mmdetection.names import (
    PUBLISHED_FAMILIES,
    PublishedFamily,
    PublishedName,
    parse_name,
)
from pyrafuse.importers.mmdetection.settings import (
    Rgb,
    UntoldError,
    check_regions,
    keep_ratio,
    read_head,
    read_neck,
    read_postprocess,
    read_preprocessing,
    read_proposals,
    read_style,
)
from pyrafuse.importers.mmdetection.trunks import Trunk

RGB_MEAN: Rgb = (123.675, 116.28, 103.53)
RGB_STD: Rgb = (58.395, 57.12, 57.375)
DETECTRON_MEAN: Rgb = (122.7717, 115.9465, 102.9801)
ONE: Rgb = (1.0, 1.0, 1.0)
"""Of 255: of red, green and blue. The caffe styles have std 1; the FCOS ones Detectron's mean."""


@dataclass(frozen=True)
class Usage:
    """What the keys do not tell.

    Attributes:
        style: Where the ResNet's bottlenecks stride: ``pytorch`` or ``caffe``.
        preprocessing: Of the images.
        postprocess: Options of `DensePostprocess`, where the file has its own.
        neck: Options of the FPN, likewise.
        head: Options of the head, likewise.
        proposals: Options of `Propose`, likewise.
        names: Of the classes; empty where the file does not tell.
        origin: What told all this, in words.
    """

    style: str
    preprocessing: Preprocessing
    postprocess: Mapping[str, Any] = field(default_factory=dict)
    neck: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    proposals: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    origin: str = ""


def tell_usage(file: File, *, family: str, trunk: Trunk, layout: str) -> Usage:
    """How the detector in ``file`` is used.

    Args:
        file: Its settings are asked first, then its name; a name that is given by hand comes before both.
        family: One of `PUBLISHED_FAMILIES`, by the keys.
        trunk: The backbone, by the keys.
        layout: The detector in words, for messages.

    Raises:
        CheckpointError: If nothing tells, or the name is of another detector, or the settings ask for what is not
            there here.
    """
    what = f"{layout} on {trunk}"
    known = PUBLISHED_FAMILIES[family]
    names = find_class_names(file.content)
    parsed = parse_name(file.name)
    is_of_family = parsed is not None and known.names(parsed, trunk.depth, trunk.grouping)
    if file.published is not None:
        if parsed is None:
            raise CheckpointError(f"{file.published!r} is no name that {what} was published under; {_examples(known)}")
        if not is_of_family:
            raise CheckpointError(f"{file.source} is {what}, and {file.published!r} names {parsed}; {_examples(known)}")
        return _usage_by_name(parsed, names, f"used as {file.published}")
    config = find_config(file.content)
    if parsed is not None and not (parsed.is_whole and is_of_family):
        parsed = None
    if config is not None:
        try:
            return _usage_by_config(config, known.prefix, names)
        except UntoldError as error:
            if parsed is None:
                raise refuse(file, error, _examples(known)) from error
        except CheckpointError as error:
            raise refuse(file, error, _examples(known)) from error
    if parsed is not None:
        return _usage_by_name(parsed, names, "used as its name says")
    raise CheckpointError(
        f"{file.source} is {what}, but neither settings in it nor its name tell where its ResNet strides and how "
        "images are made ready: name the model it was published as, by --as NAME or load(..., source=NAME); "
        f"{_examples(known)}"
    )


def _examples(family: PublishedFamily) -> str:
    return f"such as {' or '.join(family.examples)}"


def find_class_names(content: Any) -> tuple[str, ...]:
    """The names of the classes in ``content``, as read from a file; empty where there are none."""
    places = (
        ("meta", "dataset_meta", "classes"),
        ("meta", "dataset_meta", "CLASSES"),
        ("meta", "CLASSES"),
        ("message_hub", "runtime_info", "dataset_meta", "classes"),
    )
    for place in places:
        found = look_up(content, *place)
        if isinstance(found, str):
            return (found,)
        if isinstance(found, Sequence) and found and all(isinstance(name, str) for name in found):
            return tuple(found)
    return ()


def _usage_by_name(name: PublishedName, names: tuple[str, ...], origin: str) -> Usage:
    words = set(name.words)
    is_late_fcos = name.family == "fcos" and "normbbox" in words
    # one was trained on a caffe backbone without its preprocessing
    is_odd = (name.family, name.depth) == ("faster_rcnn", 101) and "3x" in words
    mean, std = RGB_MEAN, RGB_STD
    is_bgr = name.grouping == "32x8d"
    if name.is_caffe and not is_odd:
        mean, std, is_bgr = (DETECTRON_MEAN if name.family == "fcos" and not is_late_fcos else RGB_MEAN), ONE, True
    is_cropped = "crop640" in words
    limits = (640, 640) if is_cropped else (600, 1000) if "voc0712" in words else (800, 1333)
    multiple = 32 if not is_cropped else 128 if "nasfpn" in words else 64
    return Usage(
        "caffe" if name.is_caffe else "pytorch",
        keep_ratio(limits, mean=mean, std=std, bgr=is_bgr, pad_multiple=multiple),
        postprocess={"nms_iou": 0.6} if is_late_fcos else {},
        head={"distances": "scaled_relu", "centerness_on_boxes": "centeronreg" in words} if is_late_fcos else {},
        names=names,
        origin=origin,
    )


def _usage_by_config(config: Config, family: str, names: tuple[str, ...]) -> Usage:
    is_two_stage = look_up(config, "model", "rpn_head") is not None
    if is_two_stage:
        check_regions(config)
    return Usage(
        style=read_style(config),
        postprocess=read_postprocess(config),
        neck=read_neck(config),
        head={} if is_two_stage else read_head(config, family),
        proposals=read_proposals(config) if is_two_stage else {},
        preprocessing=read_preprocessing(config),  # last: what it leaves out, the name may tell
        names=names,
        origin="used as the settings in it say",
    )


def refuse(file: File, error: CheckpointError, examples: str) -> CheckpointError:
    """The error for settings in ``file`` that ask for what is not there here; ``examples`` of names that help."""
    return CheckpointError(
        f"{file.source} cannot be used as its own settings say: {error}. To use it as a published model all the same, "
        f"name that by --as NAME or load(..., source=NAME); {examples}"
    )
