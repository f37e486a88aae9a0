"""mmdetection's SSD -> ours.

What a key means was learnt from the published files' keys and shapes.
state dict -> six levels (300 px) or seven (512 px) -> ours -> every key renamed, none left over
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyrafuse.backbones.vgg import name_vgg16
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.class_names import COCO_NAMES, VOC_NAMES, tell_classes
from pyrafuse.importers.mmdetection_blocks import name_ssd_extra
from pyrafuse.importers.mmdetection_config import Config, find_config, look_up
from pyrafuse.importers.mmdetection_settings import (
    Rgb,
    UntoldError,
    keep_ratio,
    read_colors,
    read_postprocess,
)
from pyrafuse.importers.mmdetection_usage import find_class_names
from pyrafuse.importers.renaming import (
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized

SIZES = {6: 300, 7: 512}
"""Levels -> side of the input in pixels."""
SLOTS = 4
"""Anchors a cell of the finest level."""
COLORS: tuple[Rgb, Rgb, bool] = ((123.675, 116.28, 103.53), (1.0, 1.0, 1.0), False)
"""Mean and standard deviation of red, green and blue in 0..255, and whether blue comes first, as published."""
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


def looks_like_mmdetection_ssd(content: Any) -> bool:
    """Whether ``content``, as read from a file, is an SSD of mmdetection."""
    marks = (r"bbox_head\.(cls|reg)_convs\.\d+\.0\.(weight|bias)", r"backbone\.features\.\d+\.")
    return has_keys(_renew(unwrap_state(content)), *marks)


def import_mmdetection_ssd(
    content: Any,
    *,
    source: str | os.PathLike[str],
    published: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Build the detector that ``content`` holds the parameters of.

    Older files, whose backbone normalised and extended its maps, are read as well. Whether the anchors are COCO's or
    Pascal VOC's is told by the settings in the file, by its name, or by 80 or 20 classes. Colours and thresholds are
    those of the settings; what these leave out is as published.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages, and for its name: ``ssd300_voc0712_20220320_194658-17edda1b.pth``.
        published: The name it was published under, where the file has another; it comes before the settings.
        options: Further options of the model.

    Raises:
        CheckpointError: If it is no SSD of 300 or 512 px, its anchors are not told, its settings ask for what is not
            there here, or it does not fit; keys are named.
    """
    state = _renew(unwrap_state(content))
    levels = 1 + max((int(found[1]) for key in state if (found := _LEVEL.match(key))), default=-1)
    if levels not in SIZES:
        raise CheckpointError(f"{source} is an SSD of {levels} levels; known are those of 6 (300 px) and 7 (512 px)")
    size = SIZES[levels]
    layout = f"mmdetection's SSD{size}"
    key = "bbox_head.cls_convs.0.0.weight"
    num_classes = read_shape(state, key, source=source, layout=layout, least=2 * SLOTS)[0] // SLOTS - 1
    config = find_config(content) if published is None else None
    testing: dict[str, Any] = {}
    mean, std, bgr = COLORS
    try:
        if config is not None:
            testing = read_postprocess(config)
            mean, std, bgr = read_colors(config)
    except UntoldError:
        pass  # as published
    except CheckpointError as error:
        raise CheckpointError(
            f"{source} cannot be used as its own settings say: {error}. To use it as a published model all the same, "
            f"name that by --as NAME or load(..., source=NAME); such as ssd{size}_coco or ssd{size}_voc0712"
        ) from error
    options = dict(options or {})
    if testing:
        options["postprocess_options"] = {**testing, **options.get("postprocess_options", {})}
    coverage = _coverage(config, num_classes, size, source, published)
    if coverage is not None:
        options["head_options"] = {"coverage": coverage, **options.get("head_options", {})}
    with Uninitialized():
        detector = create_model(f"ssd{size}", num_classes=num_classes, **options)
    load_renamed(detector, state, name_ssd, source=source, layout=layout)
    names, category_ids = tell_classes(find_class_names(content), num_classes, source=source)
    colors = keep_ratio((size, size), mean=mean, std=std, bgr=bgr, pad_multiple=1)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=replace(colors, fit="stretch", pad_multiple=Preprocessing().pad_multiple),
        origin=f"{layout}, {num_classes} classes",
    )
    return detector


def _coverage(
    config: Config | None, num_classes: int, size: int, source: str | os.PathLike[str], published: str | None
) -> tuple[float, float] | None:
    """`ssd_head`'s coverage; None is COCO's."""
    found = look_up(config, "model", "bbox_head", "anchor_generator", "basesize_ratio_range")
    if isinstance(found, list | tuple) and len(found) == 2:
        return float(found[0]), float(found[1])
    name = os.path.basename(source) if published is None else published
    is_known_number = published is None and num_classes in (len(COCO_NAMES), len(VOC_NAMES))
    if "voc" in name.lower() or (is_known_number and num_classes == len(VOC_NAMES)):
        return VOC_COVERAGE[size]
    if "coco" in name.lower() or is_known_number:
        return None
    raise CheckpointError(
        f"{source} has {num_classes} classes, and neither it nor the name {name!r} tells whether its anchors are those "
        f"for COCO or for Pascal VOC; name it: --as ssd{size}_coco or ssd{size}_voc0712 on the command line, "
        f"load(..., source='ssd{size}_coco') in Python"
    )


def _renew(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys as they are since 2.14, where the maps are normalised and extended by a neck."""

    def of_extra(found: re.Match[str]) -> str:
        level, place = divmod(int(found[1]), 2)
        return f"neck.extra_layers.{level}.{place}.conv."

    renewed = {}
    for key, value in state.items():
        key = re.sub(r"^backbone\.l2_norm\.", "neck.l2_norm.", key)
        key = re.sub(r"^backbone\.extra\.(\d+)\.", of_extra, key)
        renewed[re.sub(r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.(?=weight|bias)", r"\1.0.", key)] = value
    return renewed
