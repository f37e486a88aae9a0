"""mmdetection's names of the parameters of a recursive pyramid, and of the convolutions in it.

Learnt from published files' keys and shapes. our key -> theirs
"""

import re

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers.mmdetection.necks import name_fpn
from pyrafuse.importers.renaming import Naming
from pyrafuse.models.recursive_fpn import RecursiveFPN


def naming_recursive_fpn(model: RecursiveFPN) -> Naming:
    """Of a whole `RecursiveFPN` on `fpn`: ``backbone.conv1.weight``, ``neck.rfp_modules.0.layer2.0.rfp_conv.bias``."""
    neck = name_fpn(model.neck)

    def name(key: str) -> str:
        part, _, rest = key.partition(".")
        if part == "trunk":
            return f"backbone.{_name_trunk(rest)}"
        if part == "neck":
            return f"neck.{neck(rest)}"
        if part == "aspp":
            return "neck.rfp_aspp." + re.sub(r"^branches\.(\d+)\.conv\.", r"aspp.\1.", rest)
        if part == "fusion":
            return f"neck.rfp_weight.{rest}"
        number, _, rest = rest.partition(".")
        if found := re.fullmatch(r"feedback\.(\d+)\.(\w+)", rest):
            return f"neck.rfp_modules.{number}.layer{int(found[1]) + 1}.0.rfp_conv.{found[2]}"
        return f"neck.rfp_modules.{number}.{_name_trunk(rest.removeprefix('trunk.'))}"

    return name


def _name_trunk(key: str) -> str:
    return name_resnet(key).replace(".offset_near.", ".offset_s.").replace(".offset_far.", ".offset_l.")
