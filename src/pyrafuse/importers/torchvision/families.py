"""What torchvision's detectors are here: model, options, preprocessing, and the names of their parameters.

What a key means was learnt from the published files' keys and shapes.
torchvision's name -> `Original`; its detector -> our key -> theirs
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns
from pyrafuse.importers.torchvision.blocks import (
    name_fpn,
    name_ssd_extra,
    name_ssd_vgg16,
    name_ssdlite_extra,
    name_ssdlite_mobilenet,
)
from pyrafuse.models.detector import Detector
from pyrafuse.necks.graph_neck import GraphNeck

TOWER = by_patterns([(r"^convs\.(\d+)\.", r"conv.\1.0."), (r"^norms\.(\d+)\.0\.", r"conv.\1.1.")])
"""Of a `Tower` with group norms, whose convolutions and norms are numbered in pairs."""


def _name_flat_tower(key: str) -> str:
    """Of one whose convolutions, norms and activations are numbered through."""
    kind, number, rest = key.split(".", 2)
    return f"conv.{3 * int(number)}.{rest}" if kind == "convs" else f"conv.{3 * int(number) + 1}.{rest.split('.')[-1]}"


NORM_EPS = 1e-5
"""What our batch norms add to the variance, but for those of backbones that were published with another."""
KEEP_RATIO = Preprocessing(size=(800, 1333), fit="keep_ratio", interpolation="opencv", round_down=True)
"""Of all but SSD and SSDLite."""


@dataclass(frozen=True)
class Original:
    """One of the detectors.

    Attributes:
        model: Name in the registry.
        changes: Changes of the model, as far as the keys say nothing of them.
        slots: Anchors a cell, of the finest level; 1 where each region has one class.
        parts: Renaming of the model's parts, but for a ResNet and its FPN, as `by_parts` has them.
        classifier: The key whose rows tell the number of classes.
        background: Rows of each anchor or region that stand for no class, and come first.
        backbone: Name in the registry.
        preprocessing: Preprocessing of its images.
        norm_eps: What batch norms behind the backbone add to the variance.
        read_backbone: (its parameters) -> options of the backbone that these tell.
    """

    model: str
    changes: Mapping[str, Any]
    slots: int
    parts: Mapping[str, tuple[str, Naming]]
    classifier: str = "head.classification_head.cls_logits.weight"
    background: int = 0
    backbone: str = "resnet50"
    preprocessing: Preprocessing = KEEP_RATIO
    norm_eps: float = NORM_EPS
    read_backbone: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] = lambda _: {}


CLASSES, BOXES = "classification_head", "regression_head"
_RETINA = {
    "head.class_tower": (f"head.{CLASSES}", TOWER),
    "head.box_tower": (f"head.{BOXES}", TOWER),
    "head.classes": (f"head.{CLASSES}.cls_logits", str),
    "head.deltas": (f"head.{BOXES}.bbox_reg", str),
}
_PREDICTOR = [(r"^classes\.", "box_predictor.cls_score."), (r"^deltas\.", "box_predictor.bbox_pred.")]
_TWO_LAYERS = by_patterns([(r"^layers\.0\.", "box_head.fc6."), (r"^layers\.1\.", "box_head.fc7."), *_PREDICTOR])
_FOUR_CONVS = by_patterns(
    [
        (r"^convs\.(\d)\.conv\.", r"box_head.\1.0."),
        (r"^convs\.(\d)\.norm\.", r"box_head.\1.1."),
        (r"^layers\.0\.", "box_head.5."),  # behind the layer that flattens
        *_PREDICTOR,
    ]
)
_PROPOSALS = {
    "head.tower": ("rpn.head", TOWER),
    "head.objectness": ("rpn.head.cls_logits", str),
    "head.deltas": ("rpn.head.bbox_pred", str),
}
_REGION_CLASSIFIER = "roi_heads.box_predictor.cls_score.weight"
_REGION_TESTS = {"score": 0.05, "nms_iou": 0.5, "max_detections": 100}
_SEPARABLE = by_patterns([(r"^(\d)\.0\.conv\.", r"\1.0.0."), (r"^(\d)\.0\.norm\.", r"\1.0.1.")])


def _read_tail(state: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """MobileNetV3 ends in 960 channels, or in half of them."""
    last = state.get("backbone.features.1.3.0.weight")
    return {"reduced_tail": last is None or last.ndim == 0 or last.shape[0] < 960}


RETINA, FASTER, FASTER_V2 = "retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"
SSD, SSDLITE = "ssd300_vgg16", "ssdlite320_mobilenet_v3_large"
FROZEN = (RETINA, FASTER)
"""Those whose keys leave out what their batch norms add to the variance."""
FAMILIES: Mapping[str, Original] = {
    RETINA: Original(
        "retinanet",
        {
            "neck": {"extra": "output", "relu_before_extra": True},
            "head": {"whole_pixels": True},
            "postprocess": {"score": 0.05, "nms_iou": 0.5, "max_detections": 300},
        },
        9,
        _RETINA,
    ),
    "retinanet_resnet50_fpn_v2": Original(
        "retinanet",
        {
            "neck": {"extra": "input", "relu_before_extra": True},
            "head": {"norm": "group_norm", "whole_pixels": True},
            "criterion": {"box_loss": "giou"},
            "postprocess": {"score": 0.05, "nms_iou": 0.5, "max_detections": 300},
        },
        9,
        _RETINA,
    ),
    "fcos_resnet50_fpn": Original(
        "fcos",
        {
            "neck": {"extra": "output", "relu_before_extra": True},
            "head": {
                "centerness_on_boxes": True,
                "distances": "relu",
                "whole_steps": True,
                "redundant_bias": True,
            },
            "criterion": {"box_loss": "giou", "assigner": {"radius": 1.5}},
            "postprocess": {"score": 0.2, "nms_iou": 0.6, "max_detections": 100, "joint_quality": True},
        },
        1,
        {
            "head.class_tower": (f"head.{CLASSES}", _name_flat_tower),
            "head.box_tower": (f"head.{BOXES}", _name_flat_tower),
            "head.classes": (f"head.{CLASSES}.cls_logits", str),
            "head.deltas": (f"head.{BOXES}.bbox_reg", str),
            "head.quality": (f"head.{BOXES}.bbox_ctrness", str),
        },
    ),
    FASTER: Original(
        "faster_rcnn",
        {
            "head": {"whole_pixels": True},
            "stages": {"head": {"samples": 2, "aligned": False}},
            "postprocess": _REGION_TESTS,
        },
        1,
        {**_PROPOSALS, "stages.0.head": ("roi_heads", _TWO_LAYERS)},
        _REGION_CLASSIFIER,
        background=1,
    ),
    FASTER_V2: Original(
        "faster_rcnn",
        {
            "neck": {"norm": "batch_norm"},
            "head": {"num_convs": 2, "whole_pixels": True},
            "stages": {"head": {"num_convs": 4, "norm": "batch_norm", "num_layers": 1, "samples": 2, "aligned": False}},
            "postprocess": _REGION_TESTS,
        },
        1,
        {**_PROPOSALS, "stages.0.head": ("roi_heads", _FOUR_CONVS)},
        _REGION_CLASSIFIER,
        background=1,
    ),
    SSD: Original(
        "ssd300",
        {
            "head": {
                "sizes": (21, 45, 99, 153, 207, 261, 315),
                "steps": (8, 16, 32, 64, 100, 300),
                "clip": True,
            },
            "criterion": {"least_per_image": 0},
            "postprocess": {"score": 0.01, "max_per_level": 0, "max_pairs_per_class": 400},
        },
        4,
        {
            "backbone": ("backbone", name_ssd_vgg16),
            "neck": ("backbone", name_ssd_extra),
            "head.classes": (f"head.{CLASSES}.module_list", str),
            "head.deltas": (f"head.{BOXES}.module_list", str),
        },
        f"head.{CLASSES}.module_list.0.weight",
        background=1,
        backbone="vgg16",
        preprocessing=Preprocessing(
            size=(300, 300),
            interpolation="opencv",
            mean=(0.48235, 0.45882, 0.40784),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
    ),
    SSDLITE: Original(
        "ssdlite320",
        {},
        6,
        {
            "backbone": ("backbone", name_ssdlite_mobilenet),
            "neck": ("backbone", name_ssdlite_extra),
            "head.classes": (f"head.{CLASSES}.module_list", _SEPARABLE),
            "head.deltas": (f"head.{BOXES}.module_list", _SEPARABLE),
        },
        f"head.{CLASSES}.module_list.0.1.weight",
        background=1,
        backbone="mobilenet_v3_large",
        preprocessing=Preprocessing(size=(320, 320), interpolation="opencv", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        norm_eps=1e-3,
        read_backbone=_read_tail,
    ),
}


def naming_of(family: Original, detector: Detector) -> Naming:
    """Key of ``detector``, made as ``family`` says -> torchvision's."""
    on_fpn = {}
    if isinstance(detector.neck, GraphNeck):
        on_fpn = {"backbone": ("backbone.body", name_resnet), "neck": ("backbone.fpn", name_fpn(detector.neck))}
    return by_parts({**on_fpn, **family.parts})
