"""mmdetection's YOLOv3 on Darknet-53 and on MobileNetV2 -> ours.

What a key means was learnt from the published files' keys and shapes.
state dict -> anchors and use, told by the file's settings or its name -> ours -> every key renamed, none left over
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyrafuse.backbones.darknet import ORIGINS
from pyrafuse.backbones.mobilenet import name_of_mmdetection
from pyrafuse.base.errors import CheckpointError
from pyrafuse.heads.yolov3 import DARKNET_ANCHORS, Anchors
from pyrafuse.importers import origins
from pyrafuse.importers.engine import Changes, File, Found, Importer, Keys
from pyrafuse.importers.mmdetection.config import Config, look_up
from pyrafuse.importers.mmdetection.necks import naming_yolov3_neck
from pyrafuse.importers.mmdetection.settings import (
    SELECTION,
    Rgb,
    check,
    keep_ratio,
    read_preprocessing,
    read_test_settings,
    read_thresholds,
)
from pyrafuse.importers.mmdetection.usage import RGB_MEAN, RGB_STD, Usage, choose_usage, read_classes
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns

_LEVELS = 3


@dataclass(frozen=True)
class YoloTrunk:
    """A backbone that YOLOv3 was published on, and all that goes with it.

    Attributes:
        name: In words.
        mark: Regular expression of keys that no other trunk has.
        naming: Our key of a parameter of the backbone -> theirs.
        published: Regular expression of the published names; the group ``size`` is the limit of both sides in pixels.
        examples: Examples of published names.
        mean: Mean of red, green and blue, in 0..255.
        std: Standard deviation of red, green and blue, in 0..255.
        changes: Changes of our model.
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
    changes: Changes = field(default_factory=dict)
    anchors: Mapping[int, Anchors] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def layout(self) -> str:
        """In words, for messages."""
        return f"mmdetection's YOLOv3 on {self.name}"

    def use_as_published(self, name: str) -> Usage | None:
        """The usage that a published name tells by its size, such as ``yolov3_d53_8xb8-ms-608-273e_coco``."""
        stem = re.sub(r"\.pth$", "", name.rstrip("/").rpartition("/")[2].lower()).replace("-", "_")
        found = re.fullmatch(self.published, stem)
        if found is None:
            return None
        size = int(found["size"])
        changes = {"head": {"anchors": self.anchors[size]}} if size in self.anchors else {}
        limits = size, size
        return Usage(keep_ratio(limits, mean=self.mean, std=self.std, bgr=False, pad_multiple=32), changes)


_LIGHT = (96,) * _LEVELS
TRUNKS = (
    YoloTrunk(
        "Darknet-53",
        r"backbone\.conv_res_block\d\.",
        ORIGINS["conv1.conv.weight"].name,
        r"yolov3_d53(?:_\w+)?_(?P<size>320|416|608)_273e_coco\w*",
        "yolov3_d53_mstrain-608_273e_coco or yolov3_d53_320_273e_coco",
        mean=(0, 0, 0),
        std=(255, 255, 255),
    ),
    YoloTrunk(
        "MobileNetV2",
        r"backbone\.layer\d\.\d\.linear_conv\.",
        name_of_mmdetection,
        r"yolov3_mobilenetv2(?:_\w+)?_(?P<size>320|416)_300e_coco\w*",
        "yolov3_mobilenetv2_mstrain-416_300e_coco or yolov3_mobilenetv2_320_300e_coco",
        mean=RGB_MEAN,
        std=RGB_STD,
        changes={
            "backbone": {"name": "mobilenet_v2", "activation": "leaky_relu"},
            "neck": {"channels": _LIGHT, "wide_channels": _LIGHT},
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


def describe_yolov3(file: File) -> Found:
    """Which YOLOv3 ``file`` is, and how it is used."""
    trunk = next(trunk for trunk in TRUNKS if file.has(trunk.mark))
    usage = choose_usage(
        file,
        what=f"YOLOv3 on {trunk.name}",
        untold="its anchors and the size of its images",
        examples=trunk.examples,
        by_name=trunk.use_as_published,
        by_settings=_read_usage,
    )
    slots = len(usage.changes.get("head", {}).get("anchors", DARKNET_ANCHORS)[0])
    key = "bbox_head.convs_pred.0.weight"
    num_classes = file.shape(key, layout=trunk.layout, least=6 * slots)[0] // slots - 5
    return Found(
        layout=trunk.layout,
        model="yolov3_plain",
        edits=[trunk.changes, usage.changes],
        keys=lambda _: Keys(_naming(trunk), unused=trunk.unused),
        classes=read_classes(file, num_classes, knows_voc=True),
        preprocessing=usage.preprocessing,
        origin=f"mmdetection checkpoint: YOLOv3 on {trunk.name}, {num_classes} classes; {usage.origin}",
    )


def _naming(trunk: YoloTrunk) -> Naming:
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


def _read_usage(config: Config) -> Usage:
    """The usage that settings tell."""
    head = look_up(config, "model", "bbox_head") or {}
    check(head, {"anchor_generator.strides|featmap_strides": [32, 16, 8]}, of="bbox_head.")
    test = read_test_settings(config)
    changes: dict[str, Any] = {
        "backbone": _read_trunk(look_up(config, "model", "backbone") or {}),
        "postprocess": read_thresholds(test, {**SELECTION, "max_pairs": SELECTION["max_per_level"]}),
        "decode": read_thresholds(test, {"least_objectness": "conf_thr"}),
    }
    changes["postprocess"].pop("max_per_level", None)  # theirs counts all levels together here
    if (shapes := look_up(head, "anchor_generator", "base_sizes")) is not None:
        changes["head"] = {"anchors": _read_anchors(shapes)}
    return Usage(read_preprocessing(config), changes)


def _read_trunk(trunk: Config) -> dict[str, Any]:
    """Changes of the backbone that the settings of a MobileNetV2 tell; a Darknet-53 is the same everywhere."""
    if trunk.get("type") != "MobileNetV2":
        return {}
    check({"out_indices": (1, 2, 4, 7), **trunk}, {"out_indices": [2, 4, 6]}, of="backbone.")
    activation = trunk.get("act_cfg", {"type": "ReLU6"})
    kinds = {"ReLU6": "relu6", "ReLU": "relu", "LeakyReLU": "leaky_relu"}
    kind = (activation or {}).get("type")
    if kind not in kinds or (kind == "LeakyReLU" and activation.get("negative_slope") != 0.1):
        raise CheckpointError(
            f"the settings have backbone.act_cfg = {activation!r}; known here are ReLU6, ReLU, and LeakyReLU with a "
            "negative_slope of 0.1"
        )
    return {"activation": kinds[kind]}


def _read_anchors(shapes: Any) -> list[list[list[float]]]:
    """Ours, finest level first, of theirs, coarsest first."""
    try:
        anchors = [[[float(side) for side in shape] for shape in level] for level in reversed(shapes)]
    except (TypeError, ValueError):
        anchors = []
    if len(anchors) != _LEVELS or any(len(shape) != 2 for level in anchors for shape in level):
        raise CheckpointError(f"the settings have anchor_generator.base_sizes = {shapes!r}; known are three levels")
    return anchors


MARKS = (r"bbox_head\.convs_pred\.", "|".join(trunk.mark for trunk in TRUNKS))
YOLOV3 = Importer(origins.MMDETECTION_YOLOV3, MARKS, describe_yolov3)
