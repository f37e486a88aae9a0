"""YOLOv3 as it was published, and as mmdetection has it: no guided anchors, no SPP, one row of convolutions a level.

Redmon and Farhadi, "YOLOv3: An Incremental Improvement", arXiv:1804.02767.
images -> Darknet-53 -> YOLO pyramid -> three anchors a cell -> detections
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from pyrafuse.assigners.grid import GridAssigner
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.criteria.grid import GridCriterion
from pyrafuse.heads.yolov3 import YOLOv3Head, anchors_for
from pyrafuse.models.detector import Detector
from pyrafuse.models.registry import MODELS
from pyrafuse.necks.registry import create_neck
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.yolov3 import decode_likely

Options = Mapping[str, Any]
NO_OPTIONS: Options = MappingProxyType({})

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""The paper's, width and height in pixels, a row a level (section 2.3)."""


def yolov3_plain(
    num_classes: int,
    *,
    backbone: str = "darknet53",
    neck: str | Sequence[str] = "yolo_fpn",
    least_objectness: float = 0.005,
    backbone_options: Options = NO_OPTIONS,
    neck_options: Mapping[str, Options] = NO_OPTIONS,
    head_options: Options = NO_OPTIONS,
    assigner_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = NO_OPTIONS,
) -> Detector[GuidedPredictions]:
    """YOLOv3 without any of the strong baseline's additions.

    Args:
        num_classes: K.
        backbone: A registered backbone, or ``timm/NAME``.
        neck: A registered neck, or several in a row.
        least_objectness: Boxes that are less likely to hold anything are left out.
        backbone_options: Keyword arguments of the backbone; ``weights`` among them.
        neck_options: Keyword arguments of each neck, by its name.
        head_options: Keyword arguments of `YOLOv3Head`.
        assigner_options: Keyword arguments of `GridAssigner`.
        criterion_options: Keyword arguments of `GridCriterion`.
        postprocess_options: Keyword arguments of `DensePostprocess`.
        defaults: What the model's name gives in place of our own defaults: ``head`` and ``postprocess`` options, and
            those of each neck by its name, for the necks that are there.
    """
    chain = [neck] if isinstance(neck, str) else list(neck)
    known = {name: defaults[name] for name in chain if name in defaults}
    merged = {name: {**known.get(name, {}), **neck_options.get(name, {})} for name in {**known, **neck_options}}
    trunk = create_backbone(backbone, **backbone_options)
    fusion = create_neck(chain, trunk.features, merged)
    of_head = {"anchors": anchors_for(fusion.features.strides, ANCHORS), **defaults.get("head", {}), **head_options}
    return Detector(
        trunk,
        fusion,
        YOLOv3Head(fusion.features, num_classes=num_classes, **of_head),
        decode=partial(decode_likely, least_objectness=least_objectness),
        criterion=GridCriterion(assigner=GridAssigner(**assigner_options), **criterion_options),
        postprocess=DensePostprocess(**{**defaults.get("postprocess", {}), **postprocess_options}),
    )


DEFAULTS: Mapping[str, Options] = {
    "yolo_fpn": {"spp": False},
    "head": {"guided": False, "adaption": False},
    "postprocess": {"score": 0.05, "nms_iou": 0.45, "max_pairs": 1000, "max_detections": 100, "multi_label": True},
}
MODELS.add("yolov3_plain", partial(yolov3_plain, defaults=DEFAULTS), paper="1804.02767")
