"""mmdetection's names of the parameters of a recursive pyramid, and of the convolutions in it.

Learnt from published files' keys and shapes. our key -> theirs
"""

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers.mmdetection.necks import name_fpn
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns
from pyrafuse.models.recursive_fpn import RecursiveFPN


def naming_recursive_fpn(model: RecursiveFPN) -> Naming:
    """Of a whole `RecursiveFPN` on `fpn`: ``backbone.conv1.weight``, ``neck.rfp_modules.0.layer2.0.rfp_conv.bias``."""
    parts: dict[str, tuple[str, Naming]] = {
        "trunk": ("backbone", _name_trunk),
        "neck": ("neck", name_fpn(model.neck)),
        "aspp": ("neck.rfp_aspp", by_patterns([(r"^branches\.(\d+)\.conv\.", r"aspp.\1.")])),
        "fusion": ("neck.rfp_weight", str),
    }
    for number in range(len(model.rounds)):
        ours, theirs = f"rounds.{number}", f"neck.rfp_modules.{number}"
        parts[f"{ours}.trunk"] = (theirs, _name_trunk)
        parts[f"{ours}.feedback"] = (theirs, _name_feedback)
    return by_parts(parts)


def _name_feedback(key: str) -> str:
    stage, rest = key.split(".")
    return f"layer{int(stage) + 1}.0.rfp_conv.{rest}"


def _name_trunk(key: str) -> str:
    return name_resnet(key).replace(".offset_near.", ".offset_s.").replace(".offset_far.", ".offset_l.")
