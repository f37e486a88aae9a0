"""mmdetection's two-stage detectors -> ours: Faster R-CNN with FPN or PAFPN, Libra R-CNN, Cascade R-CNN, RFP.

`families` says what their keys tell.
"""

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers import origins
from pyrafuse.importers.engine import Changes, File, Found, Importer, Keys
from pyrafuse.importers.mmdetection import families
from pyrafuse.importers.mmdetection.blocks import naming_recursive_fpn
from pyrafuse.importers.mmdetection.families import describe_family, find_family
from pyrafuse.importers.mmdetection.necks import name_necks
from pyrafuse.importers.mmdetection.trunks import read_trunk
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns
from pyrafuse.models.detector import Detector
from pyrafuse.models.families.faster_rcnn import STRIDES
from pyrafuse.models.recursive_fpn import RecursiveFPN
from pyrafuse.models.two_stage import TwoStageDetector

MARKS = (r"backbone\.layer1\.", r"rpn_head\.rpn_(cls|reg)\.", r"roi_head\.bbox_head\.(\d+\.)?fc_(cls|reg)\.")

_name_rpn = by_patterns(
    [(r"^tower\.convs\.0\.", "rpn_conv."), (r"^objectness\.", "rpn_cls."), (r"^deltas\.", "rpn_reg.")]
)
_name_region_head = by_patterns([(r"^layers\.", "shared_fcs."), (r"^classes\.", "fc_cls."), (r"^deltas\.", "fc_reg.")])


def describe_two_stage(file: File) -> Found:
    """Which two-stage detector ``file`` is, and how it is used."""
    family = find_family(file, families.TWO_STAGE)
    classifier = f"roi_head.bbox_head.{'0.' if file.has(families.STAGES) else ''}fc_cls.weight"

    def edit(backbone: Changes) -> Changes:
        if family.model != "cascade_rcnn_rfp":
            return {"backbone": backbone}
        recursion = {
            "backbone": {"strides": STRIDES, **backbone},
            "num_rounds": 1 + len(file.distinct(r"neck\.rfp_modules\.(\w+)\.")),
            "standardized": file.has(r".*\.weight_gamma$"),
            "switchable": file.has(r".*\.offset_s\."),
        }
        return {"backbone": recursion}

    return describe_family(
        file,
        family,
        trunk=read_trunk(file),
        num_classes=file.shape(classifier, layout=family.layout, ndim=2, least=2)[0] - 1,
        keys=name_two_stage,
        edit=edit,
    )


def name_two_stage(detector: Detector) -> Keys:
    """Names of a whole detector."""
    assert isinstance(detector, TwoStageDetector)
    parts: dict[str, tuple[str, Naming]] = {"head": ("rpn_head", _name_rpn)}
    unused: tuple[str, ...] = ()
    if isinstance(detector.backbone, RecursiveFPN):
        parts["backbone"] = ("", naming_recursive_fpn(detector.backbone))
        # classifiers of the backbones, which nothing reads
        unused = (r"(backbone|neck\.rfp_modules\.\d+)\.fc\.(weight|bias)$",)
    else:
        parts |= {"backbone": ("backbone", name_resnet), **name_necks(detector.neck)}
    for number in range(len(detector.stages)):
        theirs = "roi_head.bbox_head" if len(detector.stages) == 1 else f"roi_head.bbox_head.{number}"
        parts[f"stages.{number}.head"] = (theirs, _name_region_head)
    return Keys(by_parts(parts), unused=unused)


TWO_STAGE = Importer(origins.MMDETECTION_TWO_STAGE, MARKS, describe_two_stage)
