"""mmdetection's YOLOv3 on Darknet-53 -> ours.

What a key means was learnt from the published files' keys and shapes.
state dict -> anchors and use, told by the file's settings or its name -> ours -> every key renamed, none left over
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyrafuse.backbones.darknet import ORIGINS
from pyrafuse.core.errors import CheckpointError
from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model
from pyrafuse.models.importers.class_names import tell_classes
from pyrafuse.models.importers.mmdetection_blocks import naming_yolov3_neck
from pyrafuse.models.importers.mmdetection_config import Config, find_config, look_up
from pyrafuse.models.importers.mmdetection_settings import (
    UntoldError,
    keep_ratio,
    read_postprocess,
    read_preprocessing,
)
from pyrafuse.models.importers.mmdetection_usage import find_class_names
from pyrafuse.models.importers.renaming import (
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.models.yolov3_plain import ANCHORS

_LEVELS = 3
_PUBLISHED = re.compile(r"yolov3_d53(?:_\w+)?_(?P<size>320|416|608)_273e_coco\w*")
_EXAMPLES = "such as yolov3_d53_mstrain-608_273e_coco or yolov3_d53_320_273e_coco"

_PARTS = by_parts(
    {
        "backbone": ("backbone", ORIGINS["conv1.conv.weight"].name),
        "neck": ("neck", naming_yolov3_neck(_LEVELS)),
        "neck.widenings": ("bbox_head.convs_bridge", by_patterns([(r"\.norm\.", ".bn.")])),
        "head.outputs": ("bbox_head.convs_pred", str),
    }
)


def _name_yolov3(key: str) -> str:
    """Their head has the neck's last convolutions too, and counts from the coarsest level."""
    return re.sub(
        r"(convs_\w+\.)(\d)\.", lambda found: f"{found[1]}{_LEVELS - 1 - int(found[2])}.", _PARTS(key), count=1
    )


def looks_like_mmdetection_yolov3(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a YOLOv3 of mmdetection."""
    return has_keys(unwrap_state(content), r"bbox_head\.convs_pred\.", r"backbone\.conv_res_block\d\.")


def import_mmdetection_yolov3(
    content: Any,
    *,
    source: str | os.PathLike[str],
    published: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Build the detector that ``content`` holds the parameters of, with its preprocessing, test settings and classes.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file; its name is asked where there are no settings in it.
        published: The name that the model was published under, where neither tells; it comes first.
        options: Further options of the model.

    Raises:
        CheckpointError: If it does not fit (keys are named), or nothing tells how it is used.
    """
    state = unwrap_state(content)
    told, preprocessing, origin = _tell_use(content, source, published)
    anchors = told.get("head_options", {}).get("anchors", ANCHORS)
    layout, slots = "mmdetection's YOLOv3 on Darknet-53", len(anchors[0])
    key = "bbox_head.convs_pred.0.weight"
    num_classes = read_shape(state, key, source=source, layout=layout, least=6 * slots)[0] // slots - 5
    options = {**told, **(options or {})}
    with Uninitialized():
        detector = create_model("yolov3_plain", num_classes=num_classes, **options)
    load_renamed(detector, state, _name_yolov3, source=source, layout=layout)
    names, category_ids = tell_classes(find_class_names(content), num_classes, source=source)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=preprocessing,
        origin=f"mmdetection checkpoint: YOLOv3 on Darknet-53, {num_classes} classes; {origin}",
    )
    return detector


def _tell_use(
    content: Any, source: str | os.PathLike[str], published: str | None
) -> tuple[dict[str, Any], Preprocessing, str]:
    """Options of the model, preprocessing, and what told them."""
    if published is not None:
        size = _size_of(published)
        if size is None:
            raise CheckpointError(
                f"{published!r} is no name that YOLOv3 on Darknet-53 was published under; {_EXAMPLES}"
            )
        return {}, _fit(size), f"used as {published}"
    size = _size_of(Path(source).name)
    config = find_config(content)
    if config is not None:
        try:
            return _read_options(config), read_preprocessing(config), "used as the settings in it say"
        except CheckpointError as error:
            if not isinstance(error, UntoldError) or size is None:
                raise CheckpointError(
                    f"{source} cannot be used as its own settings say: {error}. To use it as a published model all the "
                    f"same, name that by --as NAME or load(..., source=NAME); {_EXAMPLES}"
                ) from error
    if size is None:
        raise CheckpointError(
            f"{source} is YOLOv3 on Darknet-53, but neither settings in it nor its name tell its anchors and the size "
            f"of its images: name the model it was published as, by --as NAME or load(..., source=NAME); {_EXAMPLES}"
        )
    return {}, _fit(size), "used as its name says"


def _size_of(name: str) -> int | None:
    """Limit of both sides in pixels that a published name tells, such as ``yolov3_d53_8xb8-ms-608-273e_coco``."""
    stem = re.sub(r"\.pth$", "", name.rstrip("/").rpartition("/")[2].lower()).replace("-", "_")
    found = _PUBLISHED.fullmatch(stem)
    return None if found is None else int(found["size"])


def _fit(size: int) -> Preprocessing:
    return keep_ratio((size, size), mean=(0, 0, 0), std=(255, 255, 255), bgr=False, pad_multiple=32)


def _read_options(config: Config) -> dict[str, Any]:
    """Options of the model, from the settings; a setting that is not there here is named."""
    head = look_up(config, "model", "bbox_head") or {}
    options: dict[str, Any] = {}
    strides = look_up(head, "anchor_generator", "strides") or head.get("featmap_strides") or [32, 16, 8]
    if list(strides) != [32, 16, 8]:
        raise CheckpointError(f"the settings have bbox_head.featmap_strides = {strides!r}; known here is [32, 16, 8]")
    shapes = look_up(head, "anchor_generator", "base_sizes")
    if shapes is not None:
        options["head_options"] = {"anchors": _read_anchors(shapes)}
    testing = read_postprocess(config)
    if "max_per_level" in testing:  # theirs counts all levels together here
        testing["max_pairs"] = testing.pop("max_per_level")
    if testing:
        options["postprocess_options"] = testing
    test = look_up(config, "model", "test_cfg") or look_up(config, "test_cfg") or {}
    if "conf_thr" in test:
        options["least_objectness"] = float(test["conf_thr"])
    return options


def _read_anchors(shapes: Any) -> list[list[list[float]]]:
    """Ours, finest level first, of theirs, coarsest first."""
    try:
        anchors = [[[float(side) for side in shape] for shape in level] for level in reversed(shapes)]
    except (TypeError, ValueError):
        anchors = []
    if len(anchors) != _LEVELS or any(len(shape) != 2 for level in anchors for shape in level):
        raise CheckpointError(f"the settings have anchor_generator.base_sizes = {shapes!r}; known are three levels")
    return anchors
