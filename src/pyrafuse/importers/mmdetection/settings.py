"""From mmdetection's settings to ours: preprocessing, test settings, and what our parts can be told.

settings -> our options, or a refusal that names the setting; what is not said has mmdetection's own default.
A path such as ``anchor_generator.ratios|anchor_ratios`` says where newer files have a setting, and where older ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.mmdetection.config import Config, find_transforms, look_up

Rgb = tuple[float, float, float]


class UntoldError(CheckpointError):
    """Settings that leave out what is needed."""


RESNET = {
    "type": ("ResNet", "ResNeXt", "DetectoRS_ResNet"),
    "style": ("pytorch", "caffe"),
    "strides": [1, 2, 2, 2],
    "dilations": [1, 1, 1, 1],
}
"""Settings of ``backbone`` that ours has; a tuple holds choices."""

_DENSE = {
    "anchor_generator.strides": [8, 16, 32, 64, 128],
    "square_anchor_generator.strides": [8, 16, 32, 64, 128],
    "loss_cls.use_sigmoid": True,
}
ONE_ANCHOR = {
    **_DENSE,
    "anchor_generator.octave_base_scale|octave_base_scale": 8,
    "anchor_generator.scales_per_octave|scales_per_octave": 1,
    "anchor_generator.ratios|anchor_ratios": [1.0],
    "bbox_coder.target_stds|target_stds": [0.1, 0.1, 0.2, 0.2],
}
NINE_ANCHORS = {
    **_DENSE,
    "anchor_generator.octave_base_scale|octave_base_scale": 4,
    "anchor_generator.scales_per_octave|scales_per_octave": 3,
    "anchor_generator.ratios|anchor_ratios": [0.5, 1.0, 2.0],
    "bbox_coder.target_stds|target_stds": [1.0] * 4,
}
GUIDED_ANCHORS = {
    **_DENSE,
    "square_anchor_generator.scales|anchoring_cfg.scales": [4],
    "bbox_coder.target_stds|target_stds": [1.0] * 4,
}
POINTS = {**_DENSE, "dcn_on_last_conv": False}
"""Path below ``bbox_head`` -> the value that is known there, by what a dense head has in each cell."""

REGIONS = {
    "rpn_head.anchor_generator.scales": [8],
    "rpn_head.anchor_generator.ratios": [0.5, 1.0, 2.0],
    "rpn_head.anchor_generator.strides": [4, 8, 16, 32, 64],
    "rpn_head.bbox_coder.target_stds": [1.0] * 4,
    "roi_head.bbox_head.0.bbox_coder.target_stds": [0.1, 0.1, 0.2, 0.2],
    "roi_head.bbox_head.1.bbox_coder.target_stds": [0.05, 0.05, 0.1, 0.1],
    "roi_head.bbox_head.2.bbox_coder.target_stds": [0.033, 0.033, 0.067, 0.067],
    "roi_head.bbox_roi_extractor.featmap_strides": [4, 8, 16, 32],
    "roi_head.bbox_roi_extractor.roi_layer.type": "RoIAlign",
    "roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": 0,
}
"""Path below the model of a two-stage detector -> the value that is known there; numbers count cascade stages."""

SELECTION: Mapping[str, str] = {
    "score": "score_thr",
    "max_per_level": "nms_pre",
    "max_detections": "max_per_img",
    "nms_iou": "nms.iou_threshold|nms.iou_thr",
}
"""Our threshold of a dense detector's selection -> path of theirs in ``test_cfg``."""
PROPOSALS = {
    "max_per_level": "nms_pre",
    "max_regions": "max_per_img|max_num",
    "nms_iou": "nms.iou_threshold|nms_thr",
}
"""Our threshold of region proposals -> path of theirs in ``test_cfg.rpn``."""
_EXTRAS = {"on_input": "input", "on_lateral": "lateral", "on_output": "output", False: "max_pool"}


def check(settings: Any, known: Mapping[str, Any], *, of: str = "") -> None:
    """Refuse settings that ask for what is not there here; those that are left out pass.

    Args:
        settings: Some part of a file's.
        known: Path -> the value of ours, or a tuple of them.
        of: Name of the part with a dot behind it, for messages.

    Raises:
        CheckpointError: Naming the setting.
    """
    for path, values in known.items():
        for place, value in _find(settings, path):
            choices = values if isinstance(values, tuple) else (values,)
            if _plain(value) not in choices:
                shown = " or ".join(map(repr, choices))
                raise CheckpointError(f"the settings have {of}{place} = {value!r}; known here is {shown}")


def keep_ratio(limits: tuple[int, int], *, mean: Rgb, std: Rgb, bgr: bool, pad_multiple: int) -> Preprocessing:
    """Mmdetection's preprocessing, with ``mean`` and ``std`` of red, green and blue in 0..255."""
    red, green, blue = (m / 255 for m in mean)
    of_red, of_green, of_blue = (s / 255 for s in std)
    return Preprocessing(
        size=limits,
        fit="keep_ratio",
        interpolation="opencv",
        mean=(red, green, blue),
        std=(of_red, of_green, of_blue),
        pad_multiple=pad_multiple,
        bgr=bgr,
    )


def read_preprocessing(config: Config) -> Preprocessing:
    """How images are made ready for testing.

    Raises:
        CheckpointError: If the settings do not say so, or say what is not there here.
    """
    steps = list(find_transforms(_test_pipeline(config)))
    mean, std, bgr = read_colors(config)
    pads = [step.get("size_divisor") for step in steps if step["type"] == "Pad"]
    multiple = next((pad for pad in (*pads, _preprocessor(config).get("pad_size_divisor")) if pad), 1)
    return keep_ratio(_limits(steps), mean=mean, std=std, bgr=bgr, pad_multiple=int(multiple))


def read_colors(config: Config) -> tuple[Rgb, Rgb, bool]:
    """Mean and standard deviation of red, green and blue in 0..255, and whether blue comes first.

    Raises:
        CheckpointError: If the settings do not say so, or say what is not there here.
    """
    own = _preprocessor(config)
    steps = find_transforms(_test_pipeline(config))
    normalize = next((step for step in steps if step["type"] == "Normalize"), None)
    if normalize is None and "mean" not in own:
        normalize = look_up(config, "img_norm_cfg")
    given = own if normalize is None else normalize
    if not isinstance(given, Mapping) or "mean" not in given or "std" not in given:
        raise UntoldError("the settings do not tell mean and std of the images")
    if normalize is None:
        is_rgb = bool(own.get("bgr_to_rgb", False) or own.get("rgb_to_bgr", False))
    else:
        is_rgb = bool(given.get("to_rgb", True))
    # the network's order may be blue, green, red; ours names colours by red, green, blue
    return _read_color(given, "mean", is_rgb), _read_color(given, "std", is_rgb), not is_rgb


def _read_color(given: Mapping[str, Any], name: str, is_rgb: bool) -> Rgb:
    values = given[name]
    if not (isinstance(values, Sequence) and len(values) == 3):
        raise CheckpointError(f"the settings have {name} = {values!r}; three numbers are known here")
    first, second, third = (float(value) for value in values)
    return (first, second, third) if is_rgb else (third, second, first)


def read_thresholds(test: Config, names: Mapping[str, str] = SELECTION, *, of: str = "test_cfg.") -> dict[str, float]:
    """Thresholds of the test.

    Args:
        test: The settings of it, or of one stage.
        names: Our option -> path of theirs.
        of: Detector that the settings are of, as in `check`.

    Raises:
        CheckpointError: If suppression is of another kind, or a threshold is no number.
    """
    check(test, {"nms.type": "nms", "min_bbox_size": (0, -1)}, of=of)
    options: dict[str, float] = {}
    for ours, path in names.items():
        for place, value in _find(test, path):
            if not isinstance(value, int | float):
                raise CheckpointError(f"the settings have {of}{place} = {value!r}; a number is known here")
            options.setdefault(ours, max(0, value))  # -1 is no limit there, 0 here
    return options


def read_test_settings(config: Config) -> Mapping[str, Any]:
    """What stands under ``test_cfg``."""
    return look_up(config, "model", "test_cfg") or look_up(config, "test_cfg") or {}


def read_neck(config: Config) -> dict[str, Any]:
    """Options of `fpn`: what its further levels are made of."""
    necks = _listed(look_up(config, "model", "neck"))
    fpn = next((neck for neck in necks if neck.get("type") == "FPN"), None)
    if fpn is None:
        return {}
    kind = fpn.get("add_extra_convs", False)
    if kind is True:
        kind = "on_input" if fpn.get("extra_convs_on_inputs", True) else "on_output"
    check({"add_extra_convs": kind}, {"add_extra_convs": tuple(_EXTRAS)}, of="neck.")
    return {"extra": _EXTRAS[kind], "relu_before_extra": bool(fpn.get("relu_before_extra_convs", False))}


def read_head(config: Config, known: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a dense head, of which ``known`` is what `check` takes.

    Raises:
        CheckpointError: If its anchors, boxes or scores are not as ours.
    """
    head = look_up(config, "model", "bbox_head") or {}
    check(head, known, of="bbox_head.")
    if known is POINTS:
        distances = "scaled_relu" if head.get("norm_on_bbox", False) else "exp"
        return {"centerness_on_boxes": bool(head.get("centerness_on_reg", False)), "distances": distances}
    if known is GUIDED_ANCHORS and "loc_filter_thr" in head:
        return {"least_location": head["loc_filter_thr"]}
    return {}


def _preprocessor(config: Config) -> Mapping[str, Any]:
    return look_up(config, "model", "data_preprocessor") or look_up(config, "data_preprocessor") or {}


def _test_pipeline(config: Config) -> Any:
    places = (
        ("test_dataloader", "dataset", "pipeline"),
        ("data", "test", "pipeline"),
        ("test_pipeline",),
        ("val_dataloader", "dataset", "pipeline"),
        ("data", "val", "pipeline"),
    )
    return next((found for place in places if (found := look_up(config, *place)) is not None), None)


def _limits(steps: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Limits of the shorter and the longer side."""
    resize = next((step for step in steps if step["type"] == "Resize"), {})
    scaled = next((step for step in steps if "img_scale" in step or "scale" in step), None)
    if scaled is None:
        raise UntoldError("the settings have no test pipeline that tells the size of images")
    scale = scaled.get("img_scale", scaled.get("scale"))
    if isinstance(scale, list) and len(scale) == 1 and isinstance(scale[0], Sequence):
        scale = scale[0]
    if not (isinstance(scale, Sequence) and len(scale) == 2 and all(isinstance(side, int) for side in scale)):
        raise CheckpointError(f"the settings test at the sizes {scale!r}; one width and height is known here")
    # mmdetection 2.x keeps the ratio unless told otherwise, 3.x the other way round
    check({"keep_ratio": "img_scale" in scaled, **resize}, {"keep_ratio": True}, of="Resize.")
    short, long = sorted(scale)
    return short, long


def _find(settings: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each place of ``path`` that there is, with its value; of lists all entries, or the one of a number in the path.

    A single mapping counts as a list of one.
    """
    for place in path.split("|"):
        found = [settings]
        for name in place.split("."):
            entries = [entry for value in found for entry in _listed(value)]
            if name.isdigit():
                found = entries[int(name) : int(name) + 1]
            else:
                found = [entry[name] for entry in entries if entry.get(name) is not None]
        yield from ((place, value) for value in found)


def _listed(value: Any) -> list[Mapping[str, Any]]:
    values = value if isinstance(value, list | tuple) else [value]
    return [entry for entry in values if isinstance(entry, Mapping)]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
