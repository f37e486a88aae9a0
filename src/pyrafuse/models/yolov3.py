"""YOLOv3's strong baseline, and ASFF on it: start reading here.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516.
images -> Darknet-53 -> YOLO pyramid with SPP -> (ASFF) -> guided-anchoring head -> detections
"""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from pyrafuse.assigners.guided_anchor import GuidedAnchorAssigner
from pyrafuse.assigners.neighbours import NeighbourAssigner
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.criteria.yolov3 import YOLOv3Criterion
from pyrafuse.heads.yolov3 import YOLOv3Head
from pyrafuse.models.detector import Detector
from pyrafuse.models.registry import MODELS
from pyrafuse.necks.registry import create_neck
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.yolov3 import decode_yolov3

Options = Mapping[str, Any]
NO_OPTIONS: Options = MappingProxyType({})


def yolov3(
    num_classes: int,
    *,
    backbone: str = "darknet53",
    neck: str | Sequence[str] = "yolo_fpn",
    assigner: Literal["guided_anchor", "neighbours"] = "guided_anchor",
    backbone_options: Options = NO_OPTIONS,
    neck_options: Mapping[str, Options] = NO_OPTIONS,
    head_options: Options = NO_OPTIONS,
    assigner_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = NO_OPTIONS,
) -> Detector[GuidedPredictions]:
    """YOLOv3 with SPP and guided anchoring.

    Args:
        num_classes: K.
        backbone: A registered backbone, or ``timm/NAME``.
        neck: A registered neck, or several in a row.
        assigner: ``guided_anchor``, the paper's, has one row answer for an object; ``neighbours`` several.
        backbone_options: Keyword arguments of the backbone; ``weights`` among them.
        neck_options: Keyword arguments of each neck, by its name.
        head_options: Keyword arguments of `YOLOv3Head`.
        assigner_options: Keyword arguments of the assigner.
        criterion_options: Keyword arguments of `YOLOv3Criterion`.
        postprocess_options: Keyword arguments of `DensePostprocess`.
        defaults: What a variant gives in place of our own defaults: ``head``, ``criterion`` and ``postprocess``
            options, and those of each neck by its name, for the necks that are there.
    """
    chain = [neck] if isinstance(neck, str) else list(neck)
    known = {name: defaults[name] for name in chain if name in defaults}
    merged = {name: {**known.get(name, {}), **neck_options.get(name, {})} for name in {**known, **neck_options}}

    trunk = create_backbone(backbone, **backbone_options)
    fusion = create_neck(chain, trunk.features, merged)
    head = YOLOv3Head(fusion.features, num_classes=num_classes, **{**defaults.get("head", {}), **head_options})
    if assigner == "neighbours":
        assign = NeighbourAssigner(**assigner_options)
    else:
        assign = GuidedAnchorAssigner(guided=head.guides is not None, **assigner_options)
    return Detector(
        trunk,
        fusion,
        head,
        decode=decode_yolov3,
        criterion=YOLOv3Criterion(assigner=assign, **{**defaults.get("criterion", {}), **criterion_options}),
        postprocess=DensePostprocess(**{**defaults.get("postprocess", {}), **postprocess_options}),
    )


def _fusions(out_channels: Sequence[int]) -> Mapping[str, Options]:
    """ASFF and what it is compared with (table 3), alike in all but the fusion: any can stand in the neck's place."""
    return {name: {"out_channels": out_channels} for name in ("asff", "sum_fusion", "concat_fusion")}


MODELS.add("yolov3", yolov3)
MODELS.add(
    "yolov3_asff",
    partial(
        yolov3,
        neck=("yolo_fpn", "asff"),
        defaults={"yolo_fpn": {"widen": (True, False, False)}, **_fusions((256, 512, 1024))},
    ),
)

# The small forms, for work without a GPU: the light backbone of the paper's code base, no deformable convolution, and
# what learns in a few epochs where the paper's form takes a few hundred: a plain FPN in place of the stacks of normed
# convolutions, several rows an object in place of one, classes apart from boxes.
SMALL: Mapping[str, Options] = {
    "fpn": {"out_channels": 96},
    "yolo_fpn": {"channels": (32, 64, 128), "widen": (False, False, False)},
    "pafpn": {"out_channels": 96},
    "nas_fpn": {"out_channels": 64},
    "dilated_encoder": {"out_channels": 96},
    "head": {"adaption": False, "branches": 96, "reach": 1.0},
    "criterion": {"iou_objectness": True, "box_weight": 2.0, "class_weight": 2.0, "objectness_weight": 2.0},
    "postprocess": {"nms_iou": 0.55, "vote_iou": 0.6},
}
MODELS.add(
    "yolov3_small",
    partial(yolov3, backbone="mobilenet_v2", neck="fpn", assigner="neighbours", defaults=SMALL),
)
MODELS.add(
    "yolov3_asff_small",
    partial(
        yolov3,
        backbone="mobilenet_v2",
        neck=("fpn", "asff"),
        assigner="neighbours",
        defaults={**SMALL, **_fusions((128, 128, 128))},
    ),
)
