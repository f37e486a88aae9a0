"""Where checkpoints come from that can be read here, in words; free of torch, so that the list is there at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """One origin of checkpoints.

    Attributes:
        name: For people.
        layouts: What can be read of it, a line each.
    """

    name: str
    layouts: tuple[str, ...]


ASFF = Origin(
    "official ASFF (arXiv:1911.09516)",
    (
        "YOLOv3 baseline on Darknet-53",
        "YOLOv3 with ASFF on Darknet-53",
        "YOLOv3 on MobileNetV2",
        "YOLOv3 with ASFF on MobileNetV2",
        "YOLOv3 with ASFF on Darknet-53, RFB (ASFF*)",
    ),
)
MMDETECTION = Origin(
    "mmdetection 2.x and 3.x (file name or settings in it tell how it is used, else --as NAME)",
    (
        "RetinaNet: retinanet_r50_fpn_1x_coco, retinanet_r101_caffe_fpn_1x_coco, retinanet_x101_64x4d_fpn_1x_coco, ...",
        "RetinaNet with NAS-FPN: retinanet_r50_nasfpn_crop640_50e_coco; without: retinanet_r50_fpn_crop640_50e_coco",
        "Libra RetinaNet: libra_retinanet_r50_fpn_1x_coco",
        "GA-RetinaNet: ga_retinanet_r50_caffe_fpn_1x_coco, ga_retinanet_x101_32x4d_fpn_1x_coco, ...",
        "ATSS: atss_r50_fpn_1x_coco, atss_r101_fpn_1x_coco",
        "DDOD: ddod_r50_fpn_1x_coco",
        "FCOS: fcos_r50_caffe_fpn_gn-head_1x_coco, fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco, "
        "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco, ...",
    ),
)
MMDETECTION_TWO_STAGE = Origin(
    "mmdetection 2.x and 3.x, two-stage (file name or settings as above)",
    (
        "Faster R-CNN: faster_rcnn_r50_fpn_1x_coco, faster_rcnn_r101_caffe_fpn_1x_coco, ...",
        "Faster R-CNN with PAFPN: faster_rcnn_r50_pafpn_1x_coco",
        "Libra R-CNN: libra_faster_rcnn_r50_fpn_1x_coco, libra_faster_rcnn_x101_64x4d_fpn_1x_coco, ...",
        "Cascade R-CNN: cascade_rcnn_r50_fpn_1x_coco, ...",
        "Cascade R-CNN with a recursive pyramid: cascade_rcnn_r50_rfp_1x_coco, detectors_cascade_rcnn_r50_1x_coco",
    ),
)
MMDETECTION_SSD = Origin("mmdetection's SSD", ("SSD300 and SSD512 on VGG-16, COCO and Pascal VOC, of any version",))
MMDETECTION_YOLOV3 = Origin(
    "mmdetection's YOLOv3 (its settings or its name tell the size of its images, else --as NAME)",
    (
        "yolov3_d53_mstrain-608_273e_coco, yolov3_d53_320_273e_coco, yolov3_d53_fp16_mstrain-608_273e_coco, ...",
        "yolov3_mobilenetv2_mstrain-416_300e_coco, yolov3_mobilenetv2_320_300e_coco",
    ),
)
M2DET = Origin(
    "official M2Det (arXiv:1811.04533; the file's name tells the size of the input, else --as m2det512)",
    ("320, 512, 704 and 800 px on VGG-16 and ResNets, with and without SFAM's attention",),
)
EFFDET = Origin(
    "effdet, EfficientDet in PyTorch (the name of tf_ files tells an _ap, and D6 from D7, else --as NAME)",
    (
        "efficientdet_d0 to d5",
        "tf_efficientdet_d0 to d5, trained with TensorFlow; tf_efficientdet_d0_ap to d5_ap",
        "these with PAN or QuFPN, and with plain sums",
        "tf_efficientdet_d6, d7 and d7x",
        "tf_efficientdet_lite0 to lite4 and lite3x",
        "efficientdet_q0 to q2; efficientdetv2_dt and ds; efficientdet_es and em",
        "resdet50, cspresdet50, cspresdext50pan, cspdarkdet53m",
    ),
)
TORCHVISION = Origin(
    "torchvision's detectors (with frozen batch norms the file name determines the batch-norm eps, else --as NAME)",
    (
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    ),
)

ORIGINS = (ASFF, MMDETECTION, MMDETECTION_TWO_STAGE, MMDETECTION_SSD, MMDETECTION_YOLOV3, M2DET, EFFDET, TORCHVISION)
"""In the order in which they are asked."""
