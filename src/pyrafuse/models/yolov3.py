"""YOLOv3's strong baseline, and ASFF on it: start reading here.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516.
images -> Darknet-53 -> YOLO pyramid with SPP -> (ASFF) -> guided-anchoring head -> detections
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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


def yolov3(
    num_classes: int,
    *,
    backbone: str = "darknet53",
    neck: str | Sequence[str] = "yolo_fpn",
    backbone_options: Options | None = None,
    neck_options: Mapping[str, Options] | None = None,
    neck_defaults: Mapping[str, Options] | None = None,
    head_options: Options | None = None,
    head_defaults: Options | None = None,
    criterion_options: Options | None = None,
    assigner_options: Options | None = None,
    postprocess_options: Options | None = None,
) -> Detector[GuidedPredictions]:
    """YOLOv3 with SPP and guided anchoring.

    Args:
        num_classes: K.
        backbone: A registered backbone, or ``timm/NAME``.
        neck: A registered neck, or several in a row.
        backbone_options: Keyword arguments of the backbone; ``weights`` among them.
        neck_options: Keyword arguments of each neck, by its name.
        neck_defaults: What ``neck_options`` build upon, for those necks that are there.
        head_options: Keyword arguments of `YOLOv3Head`.
        head_defaults: What ``head_options`` build upon.
        criterion_options: Keyword arguments of `YOLOv3Criterion`.
        postprocess_options: Keyword arguments of `DensePostprocess`.
    """
    trunk = create_backbone(backbone, **(backbone_options or {}))
    given, defaults = neck_options or {}, neck_defaults or {}
    chain = [neck] if isinstance(neck, str) else list(neck)
    fusion = create_neck(
        chain,
        trunk.features,
        {**given, **{name: {**defaults[name], **given.get(name, {})} for name in chain if name in defaults}},
    )
    head = YOLOv3Head(fusion.features, num_classes=num_classes, **{**(head_defaults or {}), **(head_options or {})})
    return Detector(
        trunk,
        fusion,
        head,
        decode=decode_yolov3,
        criterion=YOLOv3Criterion(
            assigner=NeighbourAssigner(**assigner_options)
            if assigner_options is not None
            else GuidedAnchorAssigner(guided=head.guides is not None),
            **(criterion_options or {}),
        ),
        postprocess=DensePostprocess(**(postprocess_options or {})),
    )


MODELS.add("yolov3", yolov3)
MODELS.add(
    "yolov3_asff",
    partial(
        yolov3,
        neck=("yolo_fpn", "asff"),
        neck_defaults={
            "yolo_fpn": {"widen": (True, False, False)},
            "asff": {"out_channels": (256, 512, 1024)},
        },
    ),
)
MODELS.add(
    "yolov3_small",
    partial(
        yolov3,
        backbone="mobilenet_v2",
        neck_defaults={"yolo_fpn": {"channels": (48, 64, 96)}},
        head_defaults={"adaption": False},
    ),
)
MODELS.add(
    "yolov3_asff_small",
    partial(
        yolov3,
        backbone="mobilenet_v2",
        neck=("yolo_fpn", "asff"),
        neck_defaults={
            "yolo_fpn": {"channels": (48, 64, 96), "widen": (False, False, False)},
            "asff": {"out_channels": (96, 128, 192)},
        },
        head_defaults={"adaption": False},
    ),
)
