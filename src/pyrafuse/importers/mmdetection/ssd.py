"""mmdetection's SSD -> ours.

What a key means was learnt from the published files' keys and shapes.
state dict -> six levels (300 px) or seven (512 px) -> ours -> every key renamed, none left over
"""

import re
from dataclasses import replace
from typing import Any

from pyrafuse.backbones.vgg import name_vgg16
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers import origins
from pyrafuse.importers.class_names import COCO_NAMES, VOC_NAMES
from pyrafuse.importers.engine import File, Found, Importer, Keys, State
from pyrafuse.importers.mmdetection.config import Config, find_config, look_up
from pyrafuse.importers.mmdetection.necks import name_ssd_extra
from pyrafuse.importers.mmdetection.settings import (
    Rgb,
    UntoldError,
    keep_ratio,
    read_colors,
    read_test_settings,
    read_thresholds,
)
from pyrafuse.importers.mmdetection.usage import read_classes, refuse
from pyrafuse.importers.renaming import by_parts, by_patterns

SIZES = {6: 300, 7: 512}
"""Levels -> side of the input in pixels."""
SLOTS = 4
"""Anchors a cell of the finest level."""
COLORS: tuple[Rgb, Rgb, bool] = ((123.675, 116.28, 103.53), (1.0, 1.0, 1.0), False)
"""Mean and standard deviation of red, green and blue in 0..255, and whether blue comes first, as published."""
MARKS = (r"bbox_head\.(cls|reg)_convs\.\d+\.0\.(weight|bias)", r"backbone\.features\.\d+\.")
_LEVEL = re.compile(r"bbox_head\.(?:cls|reg)_convs\.(\d+)\.")
VOC_COVERAGE = {300: (0.2, 0.9), 512: (0.15, 0.9)}

name_ssd = by_parts(
    {
        "backbone": ("backbone.features", name_vgg16),
        "neck": ("neck", name_ssd_extra),
        "head": (
            "bbox_head",
            by_patterns([(r"^classes\.(\d+)\.", r"cls_convs.\1.0."), (r"^deltas\.(\d+)\.", r"reg_convs.\1.0.")]),
        ),
    }
)
"""Our key of an `ssd300` or `ssd512` -> theirs."""


# before 2.14 the backbone normalised and extended the maps, by a list of two convolutions a level
_RENEWED = by_patterns(
    [
        (r"^backbone\.l2_norm\.", "neck.l2_norm."),
        *((rf"^backbone\.extra\.{i}\.", f"neck.extra_layers.{i // 2}.{i % 2}.conv.") for i in range(10)),
        (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.(?=weight|bias)", r"\1.0."),
    ]
)


def renew(state: State) -> State:
    """The parameters under the names that newer files have."""
    return {_RENEWED(key): value for key, value in state.items()}


def describe_ssd(file: File) -> Found:
    """Which SSD ``file`` is.

    Whether the anchors are COCO's or Pascal VOC's is told by the settings in the file, by its name, or by 80 or 20
    classes. Colours and thresholds are those of the settings; what these leave out is as published.
    """
    levels = 1 + max((int(found[1]) for key in file.state if (found := _LEVEL.match(key))), default=-1)
    if levels not in SIZES:
        raise CheckpointError(
            f"{file.source} is an SSD of {levels} levels; known are those of 6 (300 px) and 7 (512 px)"
        )
    size = SIZES[levels]
    layout = f"mmdetection's SSD{size}"
    num_classes = file.shape("bbox_head.cls_convs.0.0.weight", layout=layout, least=2 * SLOTS)[0] // SLOTS - 1
    config = find_config(file.content) if file.published is None else None
    testing: dict[str, Any] = {}
    mean, std, bgr = COLORS
    try:
        if config is not None:
            testing = read_thresholds(read_test_settings(config))
            mean, std, bgr = read_colors(config)
    except UntoldError:
        pass  # as published
    except CheckpointError as error:
        raise refuse(file, error, f"ssd{size}_coco or ssd{size}_voc0712") from error
    coverage = _coverage(file, config, num_classes, size)
    colors = keep_ratio((size, size), mean=mean, std=std, bgr=bgr, pad_multiple=1)
    return Found(
        layout=layout,
        model=f"ssd{size}",
        edits=[{"postprocess": testing, "head": {} if coverage is None else {"coverage": coverage}}],
        keys=lambda _: Keys(name_ssd),
        classes=read_classes(file, num_classes, knows_voc=True),
        preprocessing=replace(colors, fit="stretch", pad_multiple=Preprocessing().pad_multiple),
        origin=f"{layout}, {num_classes} classes",
    )


def _coverage(file: File, config: Config | None, num_classes: int, size: int) -> tuple[float, float] | None:
    """`ssd_head`'s coverage; None is COCO's."""
    found = look_up(config, "model", "bbox_head", "anchor_generator", "basesize_ratio_range")
    if isinstance(found, list | tuple) and len(found) == 2:
        return float(found[0]), float(found[1])
    name = file.name
    is_known_number = file.published is None and num_classes in (len(COCO_NAMES), len(VOC_NAMES))
    if "voc" in name.lower() or (is_known_number and num_classes == len(VOC_NAMES)):
        return VOC_COVERAGE[size]
    if "coco" in name.lower() or is_known_number:
        return None
    raise CheckpointError(
        f"{file.source} has {num_classes} classes, and neither it nor the name {name!r} tells whether its anchors are "
        f"those for COCO or for Pascal VOC; name it: --as ssd{size}_coco or ssd{size}_voc0712 on the command line, "
        f"load(..., source='ssd{size}_coco') in Python"
    )


SSD = Importer(origins.MMDETECTION_SSD, MARKS, describe_ssd, renew)
