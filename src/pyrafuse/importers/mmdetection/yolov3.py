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
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.heads.yolov3 import DARKNET_ANCHORS, Anchors
from pyrafuse.importers import origins
from pyrafuse.importers.class_names import tell_classes
from pyrafuse.importers.engine import Changes, File, Found, Importer, Keys, State
from pyrafuse.importers.mmdetection.config import Config, find_config, look_up
from pyrafuse.importers.mmdetection.necks import naming_yolov3_neck
from pyrafuse.importers.mmdetection.settings import Rgb, UntoldError, keep_ratio, read_postprocess, read_preprocessing
from pyrafuse.importers.mmdetection.usage import RGB_MEAN, RGB_STD, find_class_names, refuse
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns, has_keys

_LEVELS = 3


@dataclass(frozen=True)
class YoloTrunk:
    """A backbone that YOLOv3 was published on, and all that goes with it.

    Attributes:
        name: In words.
        mark: Regular expression of keys that no other trunk has.
        naming: Our key of a parameter of the backbone -> theirs.
        published: Regular expression of the published names; the group ``size`` is the limit of both sides in pixels.
        examples: Of these names.
        mean: Of red, green and blue, in 0..255.
        std: Likewise.
        changes: Of our model.
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

    def size_of(self, name: str) -> int | None:
        """The size that a published name tells, such as ``yolov3_d53_8xb8-ms-608-273e_coco``."""
        stem = re.sub(r"\.pth$", "", name.rstrip("/").rpartition("/")[2].lower()).replace("-", "_")
        found = re.fullmatch(self.published, stem)
        return None if found is None else int(found["size"])

    def use_as_published(self, size: int) -> tuple[dict[str, Any], Preprocessing]:
        """Changes of the model and preprocessing of the one of this size."""
        changes = {"head": {"anchors": self.anchors[size]}} if size in self.anchors else {}
        return changes, keep_ratio((size, size), mean=self.mean, std=self.std, bgr=False, pad_multiple=32)


_LIGHT = (96,) * _LEVELS
TRUNKS = (
    YoloTrunk(
        "Darknet-53",
        r"backbone\.conv_res_block\d\.",
        ORIGINS["conv1.conv.weight"].name,
        r"yolov3_d53(?:_\w+)?_(?P<size>320|416|608)_273e_coco\w*",
        "such as yolov3_d53_mstrain-608_273e_coco or yolov3_d53_320_273e_coco",
        mean=(0, 0, 0),
        std=(255, 255, 255),
    ),
    YoloTrunk(
        "MobileNetV2",
        r"backbone\.layer\d\.\d\.linear_conv\.",
        name_of_mmdetection,
        r"yolov3_mobilenetv2(?:_\w+)?_(?P<size>320|416)_300e_coco\w*",
        "such as yolov3_mobilenetv2_mstrain-416_300e_coco or yolov3_mobilenetv2_320_300e_coco",
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


def looks_like_yolov3(state: State) -> bool:
    """Whether the parameters are a YOLOv3's of mmdetection."""
    return any(has_keys(state, r"bbox_head\.convs_pred\.", trunk.mark) for trunk in TRUNKS)


def describe_yolov3(file: File) -> Found:
    """Which YOLOv3 ``file`` is, and how it is used."""
    trunk = next(trunk for trunk in TRUNKS if file.has(trunk.mark))
    told, preprocessing, used = _tell_use(file, trunk)
    slots = len(told.get("head", {}).get("anchors", DARKNET_ANCHORS)[0])
    key = "bbox_head.convs_pred.0.weight"
    num_classes = file.shape(key, layout=trunk.layout, least=6 * slots)[0] // slots - 5
    return Found(
        layout=trunk.layout,
        model="yolov3_plain",
        edits=[trunk.changes, told],
        keys=lambda _: Keys(_naming(trunk), unused=trunk.unused),
        classes=tell_classes(find_class_names(file.content), num_classes, source=file.source),
        preprocessing=preprocessing,
        origin=f"mmdetection checkpoint: YOLOv3 on {trunk.name}, {num_classes} classes; {used}",
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


def _tell_use(file: File, trunk: YoloTrunk) -> tuple[dict[str, Any], Preprocessing, str]:
    """Changes of the model, preprocessing, and what told them."""
    size = trunk.size_of(file.name)
    if file.published is not None:
        if size is None:
            raise CheckpointError(
                f"{file.published!r} is no name that YOLOv3 on {trunk.name} was published under; {trunk.examples}"
            )
        return *trunk.use_as_published(size), f"used as {file.published}"
    config = find_config(file.content)
    if config is not None:
        try:
            return _read_changes(config), read_preprocessing(config), "used as the settings in it say"
        except CheckpointError as error:
            if not isinstance(error, UntoldError) or size is None:
                raise refuse(file, error, trunk.examples) from error
    if size is None:
        raise CheckpointError(
            f"{file.source} is YOLOv3 on {trunk.name}, but neither settings in it nor its name tell its anchors and the"
            " size of its images: name the model it was published as, by --as NAME or load(..., source=NAME); "
            f"{trunk.examples}"
        )
    return *trunk.use_as_published(size), "used as its name says"


def _read_changes(config: Config) -> dict[str, Any]:
    """Changes of the model, from the settings; a setting that is not there here is named."""
    head = look_up(config, "model", "bbox_head") or {}
    changes = _read_trunk(look_up(config, "model", "backbone") or {})
    strides = look_up(head, "anchor_generator", "strides") or head.get("featmap_strides") or [32, 16, 8]
    if list(strides) != [32, 16, 8]:
        raise CheckpointError(f"the settings have bbox_head.featmap_strides = {strides!r}; known here is [32, 16, 8]")
    shapes = look_up(head, "anchor_generator", "base_sizes")
    if shapes is not None:
        changes["head"] = {"anchors": _read_anchors(shapes)}
    testing = read_postprocess(config)
    if "max_per_level" in testing:  # theirs counts all levels together here
        testing["max_pairs"] = testing.pop("max_per_level")
    if testing:
        changes["postprocess"] = testing
    test = look_up(config, "model", "test_cfg") or look_up(config, "test_cfg") or {}
    if "conf_thr" in test:
        changes["decode"] = {"least_objectness": float(test["conf_thr"])}
    return changes


def _read_trunk(trunk: Config) -> dict[str, Any]:
    """Changes of the model that the settings of its MobileNetV2 tell; a Darknet-53 is the same everywhere."""
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
    return {"backbone": {"activation": kinds[kind]}}


def _read_anchors(shapes: Any) -> list[list[list[float]]]:
    """Ours, finest level first, of theirs, coarsest first."""
    try:
        anchors = [[[float(side) for side in shape] for shape in level] for level in reversed(shapes)]
    except (TypeError, ValueError):
        anchors = []
    if len(anchors) != _LEVELS or any(len(shape) != 2 for level in anchors for shape in level):
        raise CheckpointError(f"the settings have anchor_generator.base_sizes = {shapes!r}; known are three levels")
    return anchors


YOLOV3 = Importer(origins.MMDETECTION_YOLOV3, looks_like_yolov3, describe_yolov3)
