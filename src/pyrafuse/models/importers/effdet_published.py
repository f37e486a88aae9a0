"""effdet's EfficientDets by name: what keys and shapes tell of each, and what only its name does.

Layout, as keys tell it -> names that fit -> the one that the file or the caller names -> trunk, anchors, images
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyrafuse.core.errors import CheckpointError
from pyrafuse.models.efficientdet import SCALINGS

_SUFFIX = re.compile(r"(_\d+)?(-[0-9a-f]{8})?(\.pth(\.tar)?|\.safetensors)?$")
"""What follows the name in that of a published file: its AP, a digest."""


@dataclass(frozen=True)
class Layout:
    """What keys and shapes tell.

    Attributes:
        last: Channels of the trunk's coarsest map.
        channels: Of the BiFPN.
        repeats: Of its cell.
        num_convs: Of the towers.
        num_levels: Of the pyramid.
        form: Of the BiFPN.
        is_weighted: Its merges have weights; else they are plain sums.
        is_tensorflow: There are biases in front of batch norms; it pads as TensorFlow does.
        has_squeeze: The trunk squeezes and excites.
        separable: Convolutions of BiFPN and towers are separable.
    """

    last: int
    channels: int
    repeats: int
    num_convs: int
    num_levels: int = 5
    form: str = "bifpn"
    is_weighted: bool = True
    is_tensorflow: bool = False
    has_squeeze: bool = True
    separable: bool = True


@dataclass(frozen=True)
class Published:
    """One detector as it was published; two are equal if they are used in the same way.

    Attributes:
        backbone: timm's name of the trunk.
        size: Side of its images, in pixels.
        layout: What keys tell of it.
        scale: Side of the smallest anchor, in strides.
        is_half: Mean and standard deviation of its images are 0.5; else ImageNet's.
        activation: Of BiFPN and towers.
    """

    backbone: str
    size: int
    layout: Layout = field(compare=False)
    scale: float = 4.0
    is_half: bool = False
    activation: str = "silu"


def _scaled() -> dict[str, Published]:
    """D0 to D5."""
    detectors: dict[str, Published] = {}
    for number, (scaling, last) in enumerate(zip(SCALINGS, (320, 320, 352, 384, 448, 512), strict=True)):
        name, trunk = f"efficientdet_d{number}", f"efficientnet_b{number}"
        layout = Layout(last, scaling.channels, scaling.repeats, scaling.num_convs)
        detectors[name] = Published(trunk, scaling.size, layout)
        detectors[f"tf_{name}"] = Published(f"tf_{trunk}", scaling.size, replace(layout, is_tensorflow=True))
        detectors[f"tf_{name}_ap"] = replace(detectors[f"tf_{name}"], is_half=True)
    return detectors


def _sum(last: int, channels: int, repeats: int, num_convs: int, *, num_levels: int = 5) -> Layout:
    return Layout(last, channels, repeats, num_convs, num_levels, is_weighted=False, is_tensorflow=True)


SCALED = _scaled()
PUBLISHED: Mapping[str, Published] = {
    **SCALED,
    "tf_efficientdet_d6": Published("tf_efficientnet_b6", 1280, _sum(576, 384, 8, 5)),
    "tf_efficientdet_d7": Published("tf_efficientnet_b6", 1536, _sum(576, 384, 8, 5), scale=5.0),
    "tf_efficientdet_d7x": Published("tf_efficientnet_b7", 1536, _sum(640, 384, 8, 5, num_levels=6)),
}
"""By effdet's name."""


def find_published(layout: Layout, *, source: str | os.PathLike[str], published: str | None) -> str:
    """Name of the detector that a file of ``layout`` holds.

    D0 to D5 are recognised with other forms and fusions, too.

    Args:
        layout: As the keys tell it.
        source: Of the file, for messages, and for its name.
        published: The name it was published under, where the file has another.

    Raises:
        CheckpointError: If no detector has this layout; if the name is of another; or if several that are used
            differently have it, and nothing names one.
    """
    plain = replace(layout, form="bifpn", is_weighted=True)
    fitting = [name for name, detector in PUBLISHED.items() if detector.layout == layout]
    fitting = fitting or [name for name, detector in SCALED.items() if detector.layout == plain]
    if not fitting:
        raise CheckpointError(
            f"{source} has a BiFPN of {layout.channels} channels, {layout.repeats} cells and {layout.num_levels} levels"
            f" and towers of {layout.num_convs} on maps of up to {layout.last} channels: none of effdet's EfficientDets"
            " that are read here (see pyrafuse import --list)"
        )
    told = Path(source).name if published is None else published
    found = _SUFFIX.sub("", told.lower())
    if found in fitting:
        return found
    known = " or ".join(fitting)
    remedy = f"name it by --as NAME or load(..., source=NAME): {known}"
    if found in PUBLISHED:
        raise CheckpointError(f"{source} is effdet's {known} by its keys, and {told!r} names another; {remedy}")
    if published is not None:
        raise CheckpointError(f"{published!r} is no name that effdet's {known} was published under; {remedy}")
    if len({PUBLISHED[name] for name in fitting}) > 1:
        raise CheckpointError(
            f"{source} is effdet's {known}, whose keys are the same, and whose images or anchors are not; {remedy}"
        )
    return fitting[0]
