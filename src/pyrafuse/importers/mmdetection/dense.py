"""mmdetection's dense detectors -> ours: RetinaNet, with NAS-FPN, Libra and guided anchors; ATSS, DDOD and FCOS.

`families` says what their keys tell.
"""

import re

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers import origins
from pyrafuse.importers.engine import Changes, File, Found, Importer, Keys, State
from pyrafuse.importers.mmdetection import families
from pyrafuse.importers.mmdetection.families import LEVEL_NORMS, Family, describe_family, find_family
from pyrafuse.importers.mmdetection.necks import name_necks
from pyrafuse.importers.mmdetection.trunks import read_trunk
from pyrafuse.importers.renaming import by_parts, by_patterns
from pyrafuse.models.detector import Detector

MARKS = (r"backbone\.layer1\.", r"bbox_head\.(retina_(cls|reg)|atss_(cls|reg|centerness|iou)|conv_centerness)\.")
# how older files called the same
_RENEWED = by_patterns(
    [
        (r"^bbox_head\.fcos_(cls|reg|centerness)\.", r"bbox_head.conv_\1."),
        (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.conv_offset\.", r"\1.conv.conv_offset."),
        (r"^(bbox_head\.scales\.\d+)$", r"\1.scale"),
    ]
)


def describe_dense(file: File) -> Found:
    """Which dense detector ``file`` is, and how it is used."""
    family = find_family(file, families.DENSE)
    trunk = read_trunk(file, reads_deformable_heads=family.model == "ddod")
    slots, classifier = family.num_slots, f"bbox_head.{family.outputs['classes']}.weight"
    has_bias = family.model == "fcos" and "bbox_head.cls_convs.0.conv.bias" in file.state

    def edit(backbone: Changes) -> Changes:
        return {"backbone": backbone, **({"head": {"redundant_bias": True}} if has_bias else {})}

    return describe_family(
        file,
        family,
        trunk=trunk,
        num_classes=file.shape(classifier, layout=family.layout, least=slots)[0] // slots,
        keys=lambda detector: name_detector(detector, family),
        edit=edit,
    )


def name_detector(detector: Detector, family: Family) -> Keys:
    """Names of a whole detector of ``family``."""
    last = len(detector.neck.features) - 1
    is_repeated = LEVEL_NORMS in family.marks
    tower = [
        (r"^class_tower\.", "cls_convs."),
        (r"^box_tower\.", "reg_convs."),
        (r"^(\w+_convs)\.norms\.(\d+)\.(\d+)\.", r"\1.\3.\2.bn." if is_repeated else r"\1.\2.gn."),
        # theirs repeats the convolutions that all levels share; the last level's are in effect
        (r"^(\w+_convs)\.convs\.(\d+)\.", rf"\1.{last}.\2.conv." if is_repeated else r"\1.\2.conv."),
        (r"\.conv\.offset\.", ".conv.conv_offset."),
        (r"^scales\.(\d+)$", r"scales.\1.scale"),
    ]
    outputs = sorted(family.outputs.items(), key=lambda pair: -len(pair[0]))
    ends = [(rf"^{re.escape(ours)}\.(?=weight|bias)", f"{theirs}.") for ours, theirs in outputs]
    parts = {
        "backbone": ("backbone", name_resnet),
        "head": ("bbox_head", by_patterns([*ends, *tower])),
        **name_necks(detector.neck),
    }
    repeats = [(rf"^(bbox_head\.(?:cls|reg)_convs)\.[0-{last - 1}]\.(\d+)\.conv\.", rf"\1.{last}.\2.conv.")]
    return Keys(by_parts(parts), by_patterns(repeats if is_repeated else []))


def renew(state: State) -> State:
    """The parameters under the names that newer files have."""
    return {_RENEWED(key): value for key, value in state.items()}


DENSE = Importer(origins.MMDETECTION, MARKS, describe_dense, renew)
