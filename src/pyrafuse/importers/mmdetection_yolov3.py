"""mmdetection's YOLOv3 on Darknet-53 and on MobileNetV2 -> ours.

What a key means was learnt from the published files' keys and shapes.
state dict -> anchors and use, told by the file's settings or its name -> ours -> every key renamed, none left over
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyrafuse.backbones.darknet import ORIGINS
from pyrafuse.backbones.mobilenet import name_of_mmdetection
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.heads.yolov3 import Anchors
from pyrafuse.importers.class_names import tell_classes
from pyrafuse.importers.mmdetection import join_options
from pyrafuse.importers.mmdetection_blocks import naming_yolov3_neck
from pyrafuse.importers.mmdetection_config import Config, find_config, look_up
from pyrafuse.importers.mmdetection_settings import (
    Rgb,
    UntoldError,
    keep_ratio,
    read_postprocess,
    read_preprocessing,
)
from pyrafuse.importers.mmdetection_usage import RGB_MEAN, RGB_STD, find_class_names
from pyrafuse.importers.renaming import (
    Naming,
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.models.yolov3_plain import ANCHORS

_LEVELS = 3


@dataclass(frozen=True)
class Trunk:
    """A backbone that YOLOv3 was published on, and all that goes with it.

    Attributes:
        name: In words.
        mark: Regular expression of keys that no other trunk has.
        naming: Our key of a parameter of the backbone -> theirs.
        published: Regular expression of the published names; the group ``size`` is the limit of both sides in pixels.
        examples: Of these names.
        mean: Of red, green and blue, in 0..255.
        std: Likewise.
        options: Of our model.
        anchors: Where they are not the paper's: by size, a row a level, finest first.
        unused: Regular expressions of keys that nothing is computed from.
    """

    name: str
    mark: str
    naming: Naming
    published: str
    examples: str
    mean: Rgb
    std: Rgb
    options: Mapping[str, Any] = field(default_factory=dict)
    anchors: Mapping[int, Anchors] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def layout(self) -> str:
        """In words, for messages."""
        return f"mmdetection's YOLOv3 on {self.name}"

    def size_of(self, name: str) -> int | None:
        """The size that a published name tells, such as ``yolov3_d53_8xb8-ms-608-273e_coco``."""
        stem = re.sub(r"\.pth$", "", name.rstrip("/").rpartition("/")[2].lower()).replace("-", "_")
        found = re.fullmatch(self.published, stem)
        return None if found is None else int(found["size"])

    def use_as_published(self, size: int) -> tuple[dict[str, Any], Preprocessing]:
        """Options of the model and preprocessing of the one of this size."""
        options = {"head_options": {"anchors": self.anchors[size]}} if size in self.anchors else {}
        return options, keep_ratio((size, size), mean=self.mean, std=self.std, bgr=False, pad_multiple=32)


_LIGHT = (96,) * _LEVELS
TRUNKS = (
    Trunk(
        "Darknet-53",
        r"backbone\.conv_res_block\d\.",
        ORIGINS["conv1.conv.weight"].name,
        r"yolov3_d53(?:_\w+)?_(?P<size>320|416|608)_273e_coco\w*",
        "such as yolov3_d53_mstrain-608_273e_coco or yolov3_d53_320_273e_coco",
        mean=(0, 0, 0),
        std=(255, 255, 255),
    ),
    Trunk(
        "MobileNetV2",
        r"backbone\.layer\d\.\d\.linear_conv\.",
        name_of_mmdetection,
        r"yolov3_mobilenetv2(?:_\w+)?_(?P<size>320|416)_300e_coco\w*",
        "such as yolov3_mobilenetv2_mstrain-416_300e_coco or yolov3_mobilenetv2_320_300e_coco",
        mean=RGB_MEAN,
        std=RGB_STD,
        options={
            "backbone": "mobilenet_v2",
            "backbone_options": {"activation": "leaky_relu"},
            "neck_options": {"yolo_fpn": {"channels": _LIGHT, "wide_channels": _LIGHT}},
        },
        anchors={
            320: (
                ((10, 15), (24, 36), (72, 42)),
                ((35, 87), (102, 96), (60, 170)),
                ((220, 125), (128, 222), (264, 266)),
            )
        },
        unused=(r"backbone\.conv2\.",),
    ),
)
"""Told apart by keys."""


def looks_like_mmdetection_yolov3(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a YOLOv3 of mmdetection."""
    state = unwrap_state(content)
    return any(has_keys(state, r"bbox_head\.convs_pred\.", trunk.mark) for trunk in TRUNKS)


def import_mmdetection_yolov3(
    content: Any,
    *,
    source: str | os.PathLike[str],
    published: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Build the detector that ``content`` holds the parameters of, with its preprocessing, test settings and classes.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file; its name is asked where there are no settings in it.
        published: The name that the model was published under, where neither tells; it comes first.
        options: Further options of the model.

    Raises:
        CheckpointError: If it does not fit (keys are named), or nothing tells how it is used.
    """
    state = unwrap_state(content)
    trunk = next(trunk for trunk in TRUNKS if has_keys(state, trunk.mark))
    told, preprocessing, origin = _tell_use(content, trunk, source, published)
    anchors = told.get("head_options", {}).get("anchors", ANCHORS)
    slots = len(anchors[0])
    key = "bbox_head.convs_pred.0.weight"
    num_classes = read_shape(state, key, source=source, layout=trunk.layout, least=6 * slots)[0] // slots - 5
    with Uninitialized():
        detector = create_model(
            "yolov3_plain", num_classes=num_classes, **join_options(trunk.options, told, options or {})
        )
    load_renamed(detector, state, _naming(trunk), source=source, layout=trunk.layout, unused=trunk.unused)
    names, category_ids = tell_classes(find_class_names(content), num_classes, source=source)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=preprocessing,
        origin=f"mmdetection checkpoint: YOLOv3 on {trunk.name}, {num_classes} classes; {origin}",
    )
    return detector


def _naming(trunk: Trunk) -> Naming:
    """Their head has the neck's last convolutions too, and counts from the coarsest level."""
    parts = by_parts(
        {
            "backbone": ("backbone", trunk.naming),
            "neck": ("neck", naming_yolov3_neck(_LEVELS)),
            "neck.widenings": ("bbox_head.convs_bridge", by_patterns([(r"\.norm\.", ".bn.")])),
            "head.outputs": ("bbox_head.convs_pred", str),
        }
    )
    level = re.compile(r"(convs_\w+\.)(\d)\.")

    def name(key: str) -> str:
        return level.sub(lambda found: f"{found[1]}{_LEVELS - 1 - int(found[2])}.", parts(key), count=1)

    return name


def _tell_use(
    content: Any, trunk: Trunk, source: str | os.PathLike[str], published: str | None
) -> tuple[dict[str, Any], Preprocessing, str]:
    """Options of the model, preprocessing, and what told them."""
    if published is not None:
        size = trunk.size_of(published)
        if size is None:
            raise CheckpointError(
                f"{published!r} is no name that YOLOv3 on {trunk.name} was published under; {trunk.examples}"
            )
        return *trunk.use_as_published(size), f"used as {published}"
    size = trunk.size_of(Path(source).name)
    config = find_config(content)
    if config is not None:
        try:
            return _read_options(config), read_preprocessing(config), "used as the settings in it say"
        except CheckpointError as error:
            if not isinstance(error, UntoldError) or size is None:
                raise CheckpointError(
                    f"{source} cannot be used as its own settings say: {error}. To use it as a published model all the "
                    f"same, name that by --as NAME or load(..., source=NAME); {trunk.examples}"
                ) from error
    if size is None:
        raise CheckpointError(
            f"{source} is YOLOv3 on {trunk.name}, but neither settings in it nor its name tell its anchors and the "
            f"size of its images: name the model it was published as, by --as NAME or load(..., source=NAME); "
            f"{trunk.examples}"
        )
    return *trunk.use_as_published(size), "used as its name says"


def _read_options(config: Config) -> dict[str, Any]:
    """Options of the model, from the settings; a setting that is not there here is named."""
    head = look_up(config, "model", "bbox_head") or {}
    options = _read_trunk(look_up(config, "model", "backbone") or {})
    strides = look_up(head, "anchor_generator", "strides") or head.get("featmap_strides") or [32, 16, 8]
    if list(strides) != [32, 16, 8]:
        raise CheckpointError(f"the settings have bbox_head.featmap_strides = {strides!r}; known here is [32, 16, 8]")
    shapes = look_up(head, "anchor_generator", "base_sizes")
    if shapes is not None:
        options["head_options"] = {"anchors": _read_anchors(shapes)}
    testing = read_postprocess(config)
    if "max_per_level" in testing:  # theirs counts all levels together here
        testing["max_pairs"] = testing.pop("max_per_level")
    if testing:
        options["postprocess_options"] = testing
    test = look_up(config, "model", "test_cfg") or look_up(config, "test_cfg") or {}
    if "conf_thr" in test:
        options["least_objectness"] = float(test["conf_thr"])
    return options


def _read_trunk(trunk: Config) -> dict[str, Any]:
    """Options of the model that the settings of its MobileNetV2 tell; a Darknet-53 is the same everywhere."""
    if trunk.get("type") != "MobileNetV2":
        return {}
    taps = trunk.get("out_indices", (1, 2, 4, 7))
    if list(taps) != [2, 4, 6]:
        raise CheckpointError(f"the settings have backbone.out_indices = {taps!r}; known here is (2, 4, 6)")
    activation = trunk.get("act_cfg", {"type": "ReLU6"})
    kinds = {"ReLU6": "relu6", "ReLU": "relu", "LeakyReLU": "leaky_relu"}
    kind = (activation or {}).get("type")
    if kind not in kinds or (kind == "LeakyReLU" and activation.get("negative_slope") != 0.1):
        raise CheckpointError(
            f"the settings have backbone.act_cfg = {activation!r}; known here are ReLU6, ReLU, and LeakyReLU with a "
            "negative_slope of 0.1"
        )
    return {"backbone_options": {"activation": kinds[kind]}}


def _read_anchors(shapes: Any) -> list[list[list[float]]]:
    """Ours, finest level first, of theirs, coarsest first."""
    try:
        anchors = [[[float(side) for side in shape] for shape in level] for level in reversed(shapes)]
    except (TypeError, ValueError):
        anchors = []
    if len(anchors) != _LEVELS or any(len(shape) != 2 for level in anchors for shape in level):
        raise CheckpointError(f"the settings have anchor_generator.base_sizes = {shapes!r}; known are three levels")
    return anchors
