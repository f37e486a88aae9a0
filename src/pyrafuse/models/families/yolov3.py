"""YOLOv3's strong baseline, and ASFF on it: start reading here.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516; without its
additions Redmon and Farhadi, "YOLOv3: An Incremental Improvement", arXiv:1804.02767.
images -> Darknet-53 -> YOLO pyramid with SPP -> (ASFF) -> guided-anchoring head -> detections
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.registry import MODELS


def _fusions(out_channels: Sequence[int]) -> dict[str, Mapping[str, Any]]:
    """ASFF and what it is compared with (table 3), alike in all but the fusion: any can stand in the neck's place."""
    return {name: {"out_channels": out_channels} for name in ("asff", "sum_fusion", "concat_fusion")}


ASFF = {"yolo_fpn": {"widen": (True, False, False)}, **_fusions((256, 512, 1024))}


@MODELS.register("yolov3", paper="1911.09516", predictions="cells")
def yolov3() -> DetectorSpec:
    """YOLOv3 with SPP and guided anchoring."""
    return DetectorSpec(
        backbone=part("darknet53"),
        necks=(part("yolo_fpn"),),
        head=part("yolov3"),
        coder=None,
        criterion=part("yolov3", assigner=part("guided_anchor")),
        decode=part("yolov3"),
        postprocess=part("suppression"),
    )


@MODELS.register("yolov3_asff", paper="1911.09516", presets=ASFF)
def yolov3_asff() -> DetectorSpec:
    """The strong baseline with adaptively spatial feature fusion."""
    return yolov3().with_parts(neck=("yolo_fpn", "asff"), necks={name: ASFF[name] for name in ("yolo_fpn", "asff")})


@MODELS.register("yolov3_plain", paper="1804.02767", predictions="plain_cells", presets={"yolo_fpn": {"spp": False}})
def yolov3_plain() -> DetectorSpec:
    """YOLOv3 without any of the strong baseline's additions."""
    return yolov3().with_parts(
        neck={"spp": False},
        head="yolov3_plain",
        criterion="grid",
        decode="likely",
        postprocess={"score": 0.05, "nms_iou": 0.45, "max_pairs": 1000, "max_detections": 100, "multi_label": True},
    )


# The small forms, for work without a GPU: the light backbone of the paper's code base, no deformable convolution, and
# what learns in a few epochs where the paper's form takes a few hundred: a plain FPN in place of the stacks of normed
# convolutions, several rows an object in place of one, classes apart from boxes.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "fpn": {"out_channels": 96},
    "yolo_fpn": {"channels": (32, 64, 128), "widen": (False, False, False)},
    "pafpn": {"out_channels": 96},
    "nas_fpn": {"out_channels": 64},
    "dilated_encoder": {"out_channels": 96},
}


@MODELS.register("yolov3_small", paper="1911.09516", presets=SMALL)
def yolov3_small() -> DetectorSpec:
    """A small YOLOv3 on MobileNetV2 and FPN."""
    return yolov3().with_parts(
        backbone="mobilenet_v2",
        neck=part("fpn", **SMALL["fpn"]),
        head={"adaption": False, "branches": 96, "reach": 1.0},
        criterion={
            "assigner": "neighbours",
            "iou_objectness": True,
            "box_weight": 2.0,
            "class_weight": 2.0,
            "objectness_weight": 2.0,
        },
        postprocess={"nms_iou": 0.55, "vote_iou": 0.6},
    )


@MODELS.register("yolov3_asff_small", paper="1911.09516", presets={**SMALL, **_fusions((128, 128, 128))})
def yolov3_asff_small() -> DetectorSpec:
    """The small YOLOv3 with adaptively spatial feature fusion: what is trained where no model is named."""
    return yolov3_small().with_parts(neck=("fpn", part("asff", out_channels=(128, 128, 128))))
