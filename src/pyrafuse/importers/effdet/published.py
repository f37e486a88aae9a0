"""effdet's EfficientDets by name: what keys and shapes tell of each, and what only its name does.

Structure, as keys tell it -> names that fit -> the one that the file or the caller names -> trunk, anchors, images
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pyrafuse.base.errors import CheckpointError
from pyrafuse.models.families.efficientdet import SCALINGS

_SUFFIX = re.compile(r"(_\d+)?(-[0-9a-f]{8})?(\.pth(\.tar)?|\.safetensors)?$")
"""What follows the name in that of a published file: its AP, a digest."""


@dataclass(frozen=True)
class Structure:
    """What keys and shapes tell.

    Attributes:
        last: Channels of the trunk's coarsest map.
        channels: Channels of the BiFPN.
        repeats: Number of BiFPN cells.
        num_convs: Number of convolutions of the towers.
        num_levels: Number of levels of the pyramid.
        form: Form of the BiFPN.
        is_weighted: Whether merges have weights; else they are plain sums.
        is_tensorflow: Whether it pads as TensorFlow does, with biases before batch norms.
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
        padding: Padding of its images.
        shapes: Width and height of its anchors, in sides of a square of the scale.
        is_bilinear: Its maps go from level to level by bilinear interpolation; else by max-pools and nearest cells.
        activation: Activation of BiFPN and towers.
        head_activation: Activation of the towers, where it is another.
        file: What its file is called, where it is not the name.
    """

    backbone: str
    size: int
    layout: Structure = field(compare=False)
    scale: float = 4.0
    is_half: bool = False
    padding: Literal["mean", "black"] = "mean"
    shapes: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
    is_bilinear: bool = False
    activation: str = "silu"
    head_activation: str | None = None
    file: str = field(default="", compare=False)


LEAKY = "leaky_relu_0.01"
ROOTS = ((1.0, 1.0), (2**0.5, 0.5**0.5), (0.5**0.5, 2**0.5))
"""Shapes of the same ratios, all of the same area."""


def _scaled() -> dict[str, Published]:
    """D0 to D5."""
    detectors: dict[str, Published] = {}
    for number, (scaling, last) in enumerate(zip(SCALINGS, (320, 320, 352, 384, 448, 512), strict=True)):
        name, trunk = f"efficientdet_d{number}", f"efficientnet_b{number}"
        layout = Structure(last, scaling.channels, scaling.repeats, scaling.num_convs)
        detectors[name] = Published(trunk, scaling.size, layout)
        detectors[f"tf_{name}"] = Published(f"tf_{trunk}", scaling.size, replace(layout, is_tensorflow=True))
        detectors[f"tf_{name}_ap"] = replace(detectors[f"tf_{name}"], is_half=True, padding="black")
    return detectors


_sum = partial(Structure, is_weighted=False, is_tensorflow=True)
_lite = partial(_sum, has_squeeze=False)
_quad = partial(Structure, form="qufpn")
_plain = partial(Structure, has_squeeze=False, separable=False)
_lite_detector = partial(Published, is_half=True, activation="relu6")
_bilinear_detector = partial(Published, shapes=ROOTS, is_bilinear=True)
SCALED = _scaled()
PUBLISHED: Mapping[str, Published] = {
    **SCALED,
    "tf_efficientdet_d6": Published("tf_efficientnet_b6", 1280, _sum(576, 384, 8, 5)),
    "tf_efficientdet_d7": Published("tf_efficientnet_b6", 1536, _sum(576, 384, 8, 5), scale=5.0),
    "tf_efficientdet_d7x": Published("tf_efficientnet_b7", 1536, _sum(640, 384, 8, 5, num_levels=6)),
    "tf_efficientdet_lite0": _lite_detector("tf_efficientnet_lite0", 320, _lite(320, 64, 3, 3), scale=3.0),
    "tf_efficientdet_lite1": _lite_detector("tf_efficientnet_lite1", 384, _lite(320, 88, 4, 3), scale=3.0),
    "tf_efficientdet_lite2": _lite_detector("tf_efficientnet_lite2", 448, _lite(352, 112, 5, 3), scale=3.0),
    "tf_efficientdet_lite3": _lite_detector("tf_efficientnet_lite3", 512, _lite(384, 160, 6, 4)),
    "tf_efficientdet_lite3x": _lite_detector("tf_efficientnet_lite3", 640, _lite(384, 200, 6, 4), scale=3.0),
    "tf_efficientdet_lite4": _lite_detector("tf_efficientnet_lite4", 640, _lite(448, 224, 7, 4)),
    "efficientdet_q0": Published("efficientnet_b0", 512, _quad(320, 64, 3, 3)),
    "efficientdet_q1": Published(
        "efficientnet_b1", 640, _quad(320, 88, 3, 3), is_bilinear=True, file="efficientdet_q1b"
    ),
    "efficientdet_q2": Published("efficientnet_b2", 768, _quad(352, 112, 4, 3)),
    "efficientdetv2_dt": _bilinear_detector(
        "efficientnetv2_rw_t", 768, Structure(208, 128, 5, 3), file="efficientdetv2_rw_dt_agc"
    ),
    "efficientdetv2_ds": _bilinear_detector(
        "efficientnetv2_rw_s", 1024, Structure(272, 256, 7, 4), file="efficientnetv2_rw_ds_agc"
    ),
    "efficientdet_es": Published("efficientnet_es", 512, _plain(192, 72, 3, 3), shapes=ROOTS, activation="relu"),
    "efficientdet_em": Published("efficientnet_em", 640, _plain(192, 96, 4, 3), shapes=ROOTS, activation="relu"),
    "resdet50": Published("resnet50", 640, _plain(2048, 88, 4, 3), activation="relu"),
    "cspresdet50": _bilinear_detector(
        "cspresnet50", 768, _plain(1024, 88, 4, 3), activation=LEAKY, head_activation="silu", file="cspresdet50b"
    ),
    "cspresdext50pan": Published(
        "cspresnext50", 640, _plain(2048, 88, 3, 3, form="pan"), shapes=ROOTS, activation=LEAKY
    ),
    "cspdarkdet53m": _bilinear_detector(
        "cspdarknet53", 768, _plain(1024, 96, 4, 3, form="qufpn"), activation=LEAKY, head_activation="mish"
    ),
}
"""By effdet's name; of ``efficientdet_es`` and ``efficientdet_em`` it has no weights, but whoever trained one has."""


def find_published(layout: Structure, *, source: str | os.PathLike[str], published: str | None) -> str:
    """Name of the detector that a file of ``layout`` holds.

    D0 to D5 are recognised with other forms and fusions, too.

    Args:
        layout: Layout that the keys tell.
        source: Name of the file, for messages and to recognise published names.
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
    found = next((name for name, detector in PUBLISHED.items() if detector.file == found), found)
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
