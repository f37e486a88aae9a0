"""torchvision's detectors -> ours: FCOS, RetinaNets and Faster R-CNNs on ResNet-50 and FPN, SSD300 and SSDLite320.

The frozen batch norms of the first RetinaNet and Faster R-CNN add 0 to the variance where they were trained from
torchvision's own COCO weights, and 1e-5 elsewhere: no key tells, so the name does.
state dict -> which detector -> ours -> every key renamed, none left over
"""

import re
from collections.abc import Mapping

from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers import origins
from pyrafuse.importers.class_names import name_by_coco_id
from pyrafuse.importers.engine import File, Found, Importer, Keys, State
from pyrafuse.importers.renaming import by_patterns, has_keys
from pyrafuse.importers.torchvision.families import (
    BOXES,
    CLASSES,
    FAMILIES,
    FASTER,
    FASTER_V2,
    FROZEN,
    NORM_EPS,
    RETINA,
    SSD,
    SSDLITE,
    naming_of,
)

# how older files called the same
_RENEWED = by_patterns(
    [
        (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(?=weight|bias)", r"\1.0."),
        (r"^rpn\.head\.conv\.(?=weight|bias)", "rpn.head.conv.0.0."),
    ]
)
_MODULE_LIST = rf"head\.({CLASSES}|{BOXES})\.module_list\."
"""Keys of SSD's heads, and of SSDlite's."""
_CLASSIFIER = re.compile(r"head\.classes\.(\d+\.(1\.)?)?(weight|bias)$")
"""What ends in classes, of our heads; SSDLite's of each level comes second, behind a depthwise convolution."""
_FLAT_TOWER = re.compile(rf"^(head\.(?:{CLASSES}|{BOXES})\.conv)\.(\d+)\.(?=weight|bias)")


def describe_torchvision(file: File) -> Found:
    """Which detector of torchvision ``file`` is; with ``_coco`` behind its name it is of their COCO weights.

    Their 91 outputs are COCO's own ids, of which eleven stand for nothing; the first of Faster R-CNN and SSD is the
    background.
    """
    title = _title_of(file.state)
    if title not in FAMILIES:
        raise CheckpointError(
            f"{file.source} is {title} of torchvision, which is not read here; what is: {', '.join(FAMILIES)}"
        )
    is_exact = _adds_nothing(file, title)
    family = FAMILIES[title]
    layout = f"torchvision's {title}"
    ndim, least = 2 if family.model == "faster_rcnn" else 4, family.slots * (1 + family.background)
    rows = file.shape(family.classifier, layout=layout, ndim=ndim, least=least)[0]
    num_classes = rows // family.slots - family.background

    def change(key: str, value: Tensor) -> Tensor:
        if is_exact and key.endswith(".running_var"):  # theirs divides by the root of the variance alone
            return value - NORM_EPS
        if key.endswith(".running_var") and not key.startswith("backbone."):
            return value + (family.norm_eps - NORM_EPS)
        if family.background and _CLASSIFIER.search(key):  # our background comes last
            return value.unflatten(0, (-1, num_classes + 1)).roll(-1, dims=1).flatten(0, 1)
        if family.background and key.startswith("stages.0.head.deltas."):  # and has no box
            return value[4:]
        return value

    return Found(
        layout=layout,
        model=family.model,
        edits=[{"backbone": {"name": family.backbone, **family.read_backbone(file.state)}, **family.changes}],
        keys=lambda detector: Keys(naming_of(family, detector), change=change),
        classes=name_by_coco_id(num_classes, first=family.background),
        preprocessing=family.preprocessing,
        origin=f"{layout}, {num_classes} classes",
    )


def _title_of(state: Mapping[str, Tensor]) -> str:
    """Torchvision's name of the detector, as its keys tell it, or what else it is."""
    if has_keys(state, _MODULE_LIST):
        return SSDLITE if has_keys(state, rf"{_MODULE_LIST}\d+\.\d") else SSD
    if has_keys(state, r"(rpn|roi_heads)\."):
        return _two_stage_title_of(state)
    if has_keys(state, rf"head\.{BOXES}\.bbox_ctrness\."):
        return "fcos_resnet50_fpn"
    has_norms = has_keys(state, rf"head\.({CLASSES}|{BOXES})\.conv\.\d+\.1\.")
    return "retinanet_resnet50_fpn_v2" if has_norms else RETINA


def _two_stage_title_of(state: Mapping[str, Tensor]) -> str:
    parts = {"mask": "maskrcnn", "keypoint": "keypointrcnn"}
    kind = next((name for part, name in parts.items() if has_keys(state, rf"roi_heads\.{part}_")), "fasterrcnn")
    if has_keys(state, r"backbone\.body\.\d+\.block\."):
        return f"{kind}_mobilenet_v3_large_fpn or {kind}_mobilenet_v3_large_320_fpn"
    if not has_keys(state, r"backbone\.body\.layer1\."):
        return f"{kind} on another backbone than ResNet-50"
    is_second = has_keys(state, r"roi_heads\.box_head\.[0-9]")
    return (FASTER_V2 if is_second else FASTER).replace("fasterrcnn", kind)


def _adds_nothing(file: File, title: str) -> bool:
    """Whether the batch norms of the detector ``title`` add nothing to the variance.

    Those that count batches are no frozen ones.
    """
    stem = re.sub(r"(-[0-9a-f]{8})?(\.pth|\.pt|\.safetensors)?$", "", file.name.lower())
    if file.published is not None and stem.removesuffix("_coco") != title:
        raise CheckpointError(
            f"{file.source} is torchvision's {title}, and {file.published!r} names another; leave out the name"
        )
    if title not in FROZEN or file.has(r".*\.num_batches_tracked$"):
        return False
    if stem.removesuffix("_coco") != title:
        raise CheckpointError(
            f"{file.source} is torchvision's {title} with frozen batch norms, and what these add to the variance is "
            f"told neither by its keys nor by its name: name it by --as NAME or load(..., source=NAME): {title}_coco "
            f"for torchvision's COCO weights and what was trained from them, {title} for what was not"
        )
    return stem.endswith("_coco")


def _renew(state: State) -> State:
    """Keys as they are since 2022, where each convolution of FPN, RPN and RetinaNet's towers is a block of its own."""
    is_flat = _title_of(state) == RETINA

    def name(key: str) -> str:
        # every other layer of a flat tower is an activation
        key = _FLAT_TOWER.sub(lambda found: f"{found[1]}.{int(found[2]) // 2}.0.", key) if is_flat else key
        return _RENEWED(key)

    return {name(key): value for key, value in state.items()}


MARKS = (r"backbone\.(body|features)\.", rf"(rpn\.head|roi_heads|head\.({CLASSES}|{BOXES}))\.")
TORCHVISION = Importer(origins.TORCHVISION, MARKS, describe_torchvision, _renew)
