"""How a detector of mmdetection is used, which its keys do not tell: strides, preprocessing, test settings, classes.

The file's own settings tell it, else the name it was published under, else whoever reads it; it is never guessed.
content, name -> `Usage`
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.class_names import Classes, tell_classes
from pyrafuse.importers.engine import File
from pyrafuse.importers.mmdetection import settings
from pyrafuse.importers.mmdetection.config import Config, find_config, look_up
from pyrafuse.importers.mmdetection.names import PublishedName, is_like, parse_name
from pyrafuse.importers.mmdetection.settings import Rgb, UntoldError, keep_ratio
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
        preprocessing: Preprocessing of the images.
        changes: Changes of our model, as `describe` takes them.
        style: Where the ResNet strides.
        origin: What told it, for the card.
    """

    preprocessing: Preprocessing
    changes: Mapping[str, Any] = field(default_factory=dict)
    style: str = "pytorch"
    origin: str = "used as its name says"


def choose_usage(
    file: File,
    *,
    what: str,
    untold: str,
    examples: str,
    by_name: Callable[[str], Usage | None],
    by_settings: Callable[[Config], Usage],
) -> Usage:
    """How the detector in ``file`` is used: by a name given by hand, else by its settings, else by its own name.

    Args:
        file: The file.
        what: The detector in words, for messages.
        untold: What no key tells of it, in words.
        examples: Names that help.
        by_name: The usage that a published name tells; None where it is none of this detector's.
        by_settings: The usage that settings tell.

    Raises:
        CheckpointError: If nothing tells, or the settings ask for what is not there here.
    """
    named = by_name(file.name)
    if file.published is not None:
        if named is None:
            raise CheckpointError(f"{file.published!r} is no name that {what} was published under; such as {examples}")
        return replace(named, origin=f"used as {file.published}")
    config = find_config(file.content)
    if config is not None:
        try:
            return replace(by_settings(config), origin="used as the settings in it say")
        except CheckpointError as error:
            if named is None or not isinstance(error, UntoldError):
                raise refuse(file, error, examples) from error
    if named is None:
        raise CheckpointError(
            f"{file.source} is {what}, but neither settings in it nor its name tell {untold}: name the model it was "
            f"published as, by --as NAME or load(..., source=NAME); such as {examples}"
        )
    return named


def refuse(file: File, error: CheckpointError, examples: str) -> CheckpointError:
    """The error for settings in ``file`` that ask for what is not there here; ``examples`` of names that help."""
    return CheckpointError(
        f"{file.source} cannot be used as its own settings say: {error}. To use it as a published model all the same, "
        f"name that by --as NAME or load(..., source=NAME); such as {examples}"
    )


def tell_usage(
    file: File, *, layout: str, examples: Sequence[str], trunk: Trunk, known: Mapping[str, Any] = MappingProxyType({})
) -> Usage:
    """How the detector on a ResNet in ``file`` is used.

    Args:
        file: The file.
        layout: The detector in words, for messages.
        examples: Names of published files of its family.
        trunk: The backbone, by the keys.
        known: Settings of its dense head that ours has.

    Raises:
        CheckpointError: On the same faults as `choose_usage`, or if the name is of another detector.
    """
    what, such = f"{layout} on {trunk}", " or ".join(examples)

    def by_name(name: str) -> Usage | None:
        parsed = parse_name(name)
        if parsed is None or not (parsed.is_whole or file.published):
            return None
        if is_like(parsed, examples[0]) and (parsed.depth, parsed.grouping) == (trunk.depth, trunk.grouping):
            return _usage_of(parsed)
        if file.published is None:
            return None
        raise CheckpointError(f"{file.source} is {what}, and {name!r} names {parsed}; such as {such}")

    return choose_usage(
        file,
        what=what,
        untold="where its ResNet strides and how images are made ready",
        examples=such,
        by_name=by_name,
        by_settings=lambda config: _read_usage(config, known),
    )


def read_classes(file: File, num_classes: int, *, knows_voc: bool = False) -> Classes:
    """The ``num_classes`` classes of ``file``, as it names them; else as `tell_classes` does."""
    places = (
        ("meta", "dataset_meta", "classes"),
        ("meta", "dataset_meta", "CLASSES"),
        ("meta", "CLASSES"),
        ("message_hub", "runtime_info", "dataset_meta", "classes"),
    )
    names: Sequence[str] = ()
    for place in places:
        found = look_up(file.content, *place)
        listed = [found] if isinstance(found, str) else found
        if not names and isinstance(listed, Sequence) and all(isinstance(name, str) for name in listed):
            names = listed
    return tell_classes(names, num_classes, source=file.source, knows_voc=knows_voc)


def _usage_of(name: PublishedName) -> Usage:
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
    late_head = {"distances": "scaled_relu", "centerness_on_boxes": "centeronreg" in words}
    return Usage(
        keep_ratio(limits, mean=mean, std=std, bgr=is_bgr, pad_multiple=multiple),
        {"postprocess": {"nms_iou": 0.6}, "head": late_head} if is_late_fcos else {},
        "caffe" if name.is_caffe else "pytorch",
    )


def _read_usage(config: Config, known: Mapping[str, Any]) -> Usage:
    model, test = config["model"], settings.read_test_settings(config)
    settings.check(look_up(model, "backbone"), settings.RESNET, of="backbone.")
    changes: dict[str, Any] = {"postprocess": settings.read_thresholds(test.get("rcnn", test))}
    if neck := settings.read_neck(config):
        changes["necks"] = {"fpn": neck}
    if look_up(model, "rpn_head") is None:
        changes["head"] = settings.read_head(config, known)
    else:
        settings.check(model, settings.REGIONS)
        changes["proposals"] = settings.read_thresholds(test.get("rpn") or {}, settings.PROPOSALS, of="test_cfg.rpn.")
    style = look_up(model, "backbone", "style") or "pytorch"
    return Usage(settings.read_preprocessing(config), changes, style)  # the size is left out last: the name may tell it
