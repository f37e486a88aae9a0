"""mmdetection's detectors on ResNets: what their keys tell, what they are here, and what they were published as.

What a key means was learnt from the published files' keys and shapes.
state dict -> which family, on which ResNet -> how it is used -> ours, every key renamed, none left over
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyrafuse.importers.engine import Changes, File, Found, Keys
from pyrafuse.importers.mmdetection import settings
from pyrafuse.importers.mmdetection.trunks import Trunk
from pyrafuse.importers.mmdetection.usage import read_classes, tell_usage
from pyrafuse.models.detector import Detector


@dataclass(frozen=True)
class Family:
    """One of the detectors.

    Attributes:
        title: The detector in words.
        model: Name in the registry.
        examples: Names of published files; all of the family begin as the first does, and have the same `KIND_WORDS`.
        marks: Patterns of keys that only its checkpoints have all of, where they are asked for in this order; of
            several keys each, so that a file that lacks one is still told apart.
        outputs: Ours -> theirs, for the convolutions that end the branches of a dense head.
        num_slots: Anchors a cell; 1 where each region has one class.
        changes: Changes of our model, where it is not what the checkpoints were trained with.
        known: Settings of its dense head that ours has, as `settings.check` takes them.
    """

    title: str
    model: str
    examples: tuple[str, ...]
    marks: tuple[str, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)
    num_slots: int = 1
    changes: Changes = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """The detector in words, for messages."""
        return f"mmdetection's {self.title}"


_RETINA = r"bbox_head\.retina_(cls|reg)\."
LEVEL_NORMS = r"bbox_head\.(cls|reg)_convs\.\d+\.\d+\.bn\."
_retina = partial(
    Family, outputs={"classes": "retina_cls", "deltas": "retina_reg"}, num_slots=9, known=settings.NINE_ANCHORS
)
_atss = partial(Family, known=settings.ONE_ANCHOR)

DENSE = (
    Family(
        "GA-RetinaNet",
        "ga_retinanet",
        ("ga_retinanet_r50_caffe_fpn_1x_coco", "ga_retinanet_x101_32x4d_fpn_1x_coco"),
        (_RETINA, r"bbox_head\.(conv_loc|conv_shape|feature_adaption_\w+)\."),
        {
            "classes": "retina_cls",
            "deltas": "retina_reg",
            "location": "conv_loc",
            "shape": "conv_shape",
            "class_adaption": "feature_adaption_cls.conv_adaption",
            "class_adaption.offset": "feature_adaption_cls.conv_offset",
            "box_adaption": "feature_adaption_reg.conv_adaption",
            "box_adaption.offset": "feature_adaption_reg.conv_offset",
        },
        changes={"criterion": {"inverted_locations": True}},
        known=settings.GUIDED_ANCHORS,
    ),
    _atss(
        "DDOD",
        "ddod",
        ("ddod_r50_fpn_1x_coco",),
        (r"bbox_head\.atss_iou\.",),
        {"classes": "atss_cls", "deltas": "atss_reg", "quality": "atss_iou"},
    ),
    _atss(
        "ATSS",
        "atss",
        ("atss_r50_fpn_1x_coco", "atss_r101_fpn_1x_coco"),
        (r"bbox_head\.atss_(cls|reg|centerness)\.",),
        {"classes": "atss_cls", "deltas": "atss_reg", "quality": "atss_centerness"},
    ),
    Family(
        "FCOS",
        "fcos",
        ("fcos_r50_caffe_fpn_gn-head_1x_coco", "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco"),
        (r"bbox_head\.conv_centerness\.",),
        {"classes": "conv_cls", "deltas": "conv_reg", "quality": "conv_centerness"},
        known=settings.POINTS,
    ),
    _retina(  # NAS-FPN's head on a plain FPN, the base that its paper compares with
        "RetinaNet with norms of each level",
        "retinanet",
        ("retinanet_r50_fpn_crop640_50e_coco",),
        (_RETINA, LEVEL_NORMS, r"neck\.fpn_convs\."),
        changes={
            "head": {"norm": "level_norm"},
            "neck": {"norm": "batch_norm", "lateral_norm": False, "relu_before_extra": True},
            "criterion": {"assigner": {"negative_iou": 0.5}},
        },
    ),
    _retina(
        "RetinaNet with NAS-FPN",
        "retinanet_nas_fpn",
        ("retinanet_r50_nasfpn_crop640_50e_coco",),
        (_RETINA, LEVEL_NORMS),
    ),
    _retina("Libra RetinaNet", "libra_retinanet", ("libra_retinanet_r50_fpn_1x_coco",), (_RETINA, r"neck\.1\.")),
    _retina("RetinaNet", "retinanet", ("retinanet_r50_fpn_1x_coco", "retinanet_r50_caffe_fpn_1x_coco"), (_RETINA,)),
)

STAGES = r"roi_head\.bbox_head\.\d+\."
_recursive = partial(Family, "Cascade R-CNN with recursive FPN", "cascade_rcnn_rfp")
TWO_STAGE = (
    _recursive(("detectors_cascade_rcnn_r50_1x_coco",), (STAGES, r"neck\.rfp_", r".*\.offset_s\.")),
    _recursive(("cascade_rcnn_r50_rfp_1x_coco",), (STAGES, r"neck\.rfp_")),
    Family(
        "Cascade R-CNN",
        "cascade_rcnn",
        ("cascade_rcnn_r50_fpn_1x_coco", "cascade_rcnn_r50_caffe_fpn_1x_coco"),
        (STAGES,),
    ),
    Family(
        "Libra R-CNN",
        "libra_rcnn",
        ("libra_faster_rcnn_r50_fpn_1x_coco", "libra_faster_rcnn_r101_fpn_1x_coco"),
        (r"neck\.1\.",),
    ),
    Family(
        "Faster R-CNN with PAFPN",
        "faster_rcnn",
        ("faster_rcnn_r50_pafpn_1x_coco",),
        (r"neck\.(downsample|pafpn)_convs\.",),
        changes={"neck": "pafpn"},
    ),
    Family("Faster R-CNN", "faster_rcnn", ("faster_rcnn_r50_fpn_1x_coco", "faster_rcnn_r50_caffe_fpn_1x_coco"), ()),
)


def find_family(file: File, families: tuple[Family, ...]) -> Family:
    """The one of ``families`` that the keys are of; one of them is, where an importer's marks are there."""
    return next(family for family in families if file.has(*family.marks))


def describe_family(
    file: File,
    family: Family,
    *,
    trunk: Trunk,
    num_classes: int,
    keys: Callable[[Detector], Keys],
    edit: Callable[[Changes], Changes],
) -> Found:
    """What ``file``, one of ``family``, holds.

    Args:
        file: The file.
        family: The family that its keys are of.
        trunk: The backbone, by the keys.
        num_classes: Number of classes, by the shape of a parameter.
        keys: Keys of the file, as in `Found`.
        edit: (the backbone) -> changes of our model that the keys tell.
    """
    usage = tell_usage(file, layout=family.layout, examples=family.examples, trunk=trunk, known=family.known)
    title = f"{family.title} on ResNet-{trunk.depth}, {num_classes} classes"
    return Found(
        layout=family.layout,
        model=family.model,
        edits=[{**family.changes, **edit(trunk.edit(usage.style))}, usage.changes],
        keys=keys,
        classes=read_classes(file, num_classes),
        preprocessing=usage.preprocessing,
        origin=f"mmdetection checkpoint: {title}; {usage.origin}",
    )
