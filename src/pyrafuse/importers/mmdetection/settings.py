"""From mmdetection's settings to ours: preprocessing, test settings, and what our parts can be told.

settings -> our options, or a refusal that names the setting; what is not said has mmdetection's own default
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers.mmdetection.config import Config, find_transforms, look_up

Rgb = tuple[float, float, float]


class UntoldError(CheckpointError):
    """Settings that leave out what is needed."""


BACKBONES = ("ResNet", "ResNeXt", "DetectoRS_ResNet")
_NINE = {"octave_base_scale": 4, "scales_per_octave": 3, "ratios": [0.5, 1.0, 2.0], "target_stds": [1.0] * 4}
_ONE = {"octave_base_scale": 8, "scales_per_octave": 1, "ratios": [1.0], "target_stds": [0.1, 0.1, 0.2, 0.2]}
HEADS: Mapping[str, Mapping[str, Any]] = {
    "retinanet": _NINE,
    "libra_retinanet": _NINE,
    "atss": _ONE,
    "ddod": _ONE,
    "ga_retinanet": {"square_scales": [4], "target_stds": [1.0] * 4},
    "fcos": {"dcn_on_last_conv": False},
}
"""Family -> what our head does, by mmdetection's names; other settings are refused."""

PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "octave_base_scale": (("anchor_generator", "octave_base_scale"), ("octave_base_scale",)),
    "scales_per_octave": (("anchor_generator", "scales_per_octave"), ("scales_per_octave",)),
    "ratios": (("anchor_generator", "ratios"), ("anchor_ratios",)),
    "target_stds": (("bbox_coder", "target_stds"), ("target_stds",)),
    "square_scales": (("square_anchor_generator", "scales"), ("anchoring_cfg", "scales")),
}
"""Where a setting of the head stands, in newer files and in older ones."""

STAGE_STDS = ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
"""Deviations of the box deltas of each cascade stage."""

STRIDES = ("anchor_generator", "square_anchor_generator")


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


def read_style(config: Config) -> str:
    """Where the ResNet strides.

    Raises:
        CheckpointError: If the backbone is another one, or strides or dilates in another way.
    """
    trunk = look_up(config, "model", "backbone") or {}
    kind, style = trunk.get("type", "ResNet"), trunk.get("style", "pytorch")
    _require("backbone.type", kind, BACKBONES)
    _require("backbone.style", style, ("pytorch", "caffe"))
    _require("backbone.strides", list(trunk.get("strides", (1, 2, 2, 2))), ([1, 2, 2, 2],))
    _require("backbone.dilations", list(trunk.get("dilations", (1, 1, 1, 1))), ([1, 1, 1, 1],))
    return style


def read_preprocessing(config: Config) -> Preprocessing:
    """How images are made ready for testing.

    Raises:
        CheckpointError: If the settings do not say so, or say what is not there here.
    """
    steps = list(find_transforms(_test_pipeline(config)))
    mean, std, bgr = read_colors(config)
    own = _preprocessor(config)
    pads = [step.get("size_divisor") for step in steps if step["type"] == "Pad"]
    multiple = next((pad for pad in (*pads, own.get("pad_size_divisor")) if pad), 1)
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
    is_swapped = given.get("to_rgb", True) if normalize is not None else _is_swapped(own)
    mean, std = _three(given["mean"], "mean"), _three(given["std"], "std")
    if not is_swapped:  # the network's order is blue, green, red; ours names colours by red, green, blue
        mean, std = _turned(mean), _turned(std)
    return mean, std, not is_swapped


def read_postprocess(config: Config) -> dict[str, Any]:
    """Options of `DensePostprocess`: the thresholds of the test.

    Raises:
        CheckpointError: If suppression is of another kind.
    """
    test = _test_settings(config)
    test = test.get("rcnn", test)  # of a two-stage detector, the second stage's
    options: dict[str, Any] = {}
    for theirs, ours in (("score_thr", "score"), ("nms_pre", "max_per_level"), ("max_per_img", "max_detections")):
        if theirs in test:
            options[ours] = max(0, test[theirs])  # -1 is no limit there, 0 here
    suppression = test.get("nms") or {}
    _require("test_cfg.nms.type", suppression.get("type", "nms"), ("nms",))
    _require("test_cfg.min_bbox_size", max(0, test.get("min_bbox_size", 0)), (0,))
    threshold = suppression.get("iou_threshold", suppression.get("iou_thr"))
    return options if threshold is None else {**options, "nms_iou": threshold}


def read_proposals(config: Config) -> dict[str, Any]:
    """Options of `Propose`: the first stage of a two-stage detector's test."""
    test = _test_settings(config).get("rpn") or {}
    suppression = test.get("nms") or {}
    _require("test_cfg.rpn.nms.type", suppression.get("type", "nms"), ("nms",))
    found = {
        "max_per_level": test.get("nms_pre"),
        "max_regions": test.get("max_per_img", test.get("max_num")),
        "nms_iou": suppression.get("iou_threshold", test.get("nms_thr")),
    }
    return {name: value for name, value in found.items() if value is not None}


def check_regions(config: Config) -> None:
    """Refuse a two-stage detector whose anchors, regions or boxes are not as ours.

    Raises:
        CheckpointError: Naming the setting.
    """
    model = config["model"]
    first = look_up(model, "roi_head", "bbox_head")
    extractor = _listed(look_up(model, "roi_head", "bbox_roi_extractor"))
    checks: list[tuple[str, Any, Any]] = [
        ("rpn_head.anchor_generator.scales", look_up(model, "rpn_head", "anchor_generator", "scales"), [8]),
        ("rpn_head.anchor_generator.ratios", look_up(model, "rpn_head", "anchor_generator", "ratios"), [0.5, 1, 2]),
        (
            "rpn_head.anchor_generator.strides",
            look_up(model, "rpn_head", "anchor_generator", "strides"),
            [4, 8, 16, 32, 64],
        ),
        ("rpn_head.bbox_coder.target_stds", look_up(model, "rpn_head", "bbox_coder", "target_stds"), [1.0] * 4),
    ]
    for part, stds in zip(_listed(first), STAGE_STDS, strict=False):
        checks.append(("roi_head.bbox_head.bbox_coder.target_stds", look_up(part, "bbox_coder", "target_stds"), stds))
    for part in extractor:
        checks.append(("bbox_roi_extractor.featmap_strides", part.get("featmap_strides"), [4, 8, 16, 32]))
        checks.append(("bbox_roi_extractor.roi_layer.type", look_up(part, "roi_layer", "type"), "RoIAlign"))
        checks.append(("bbox_roi_extractor.roi_layer.sampling_ratio", look_up(part, "roi_layer", "sampling_ratio"), 0))
    for name, value, known in checks:
        if value is not None:
            _require(name, _plain(value), (known,))


def read_neck(config: Config) -> dict[str, Any]:
    """Options of `fpn`: what its further levels are made of."""
    neck = look_up(config, "model", "neck")
    fpn = next((part for part in _listed(neck) if part.get("type") == "FPN"), None)
    if fpn is None:
        return {}
    kind = fpn.get("add_extra_convs", False)
    if kind is True:
        kind = "on_input" if fpn.get("extra_convs_on_inputs", True) else "on_output"
    extras = {"on_input": "input", "on_lateral": "lateral", "on_output": "output", False: "max_pool"}
    _require("neck.add_extra_convs", kind, tuple(extras))
    return {"extra": extras[kind], "relu_before_extra": bool(fpn.get("relu_before_extra_convs", False))}


def read_head(config: Config, family: str) -> dict[str, Any]:
    """Options of the head of ``family``.

    Raises:
        CheckpointError: If its anchors, boxes or scores are not as ours.
    """
    head = look_up(config, "model", "bbox_head") or {}
    for name, wanted in HEADS.get(family, {}).items():
        found = [value for place in PLACES.get(name, ((name,),)) if (value := look_up(head, *place)) is not None]
        for value in found:
            _require(f"bbox_head.{name}", _plain(value), (wanted,))
    for name in STRIDES:
        strides = look_up(head, name, "strides")
        if strides is not None:
            _require(f"bbox_head.{name}.strides", _plain(strides), ([8, 16, 32, 64, 128],))
    _require("bbox_head.loss_cls.use_sigmoid", (head.get("loss_cls") or {}).get("use_sigmoid", True), (True,))
    if family == "fcos":
        distances = "scaled_relu" if head.get("norm_on_bbox", False) else "exp"
        return {"centerness_on_boxes": bool(head.get("centerness_on_reg", False)), "distances": distances}
    if family == "ga_retinanet" and "loc_filter_thr" in head:
        return {"least_location": head["loc_filter_thr"]}
    return {}


def _preprocessor(config: Config) -> Mapping[str, Any]:
    return look_up(config, "model", "data_preprocessor") or look_up(config, "data_preprocessor") or {}


def _test_settings(config: Config) -> Mapping[str, Any]:
    return look_up(config, "model", "test_cfg") or look_up(config, "test_cfg") or {}


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
    _require("Resize.keep_ratio", resize.get("keep_ratio", "img_scale" in scaled), (True,))
    short, long = sorted(scale)
    return short, long


def _is_swapped(preprocessor: Mapping[str, Any]) -> bool:
    return bool(preprocessor.get("bgr_to_rgb", False) or preprocessor.get("rgb_to_bgr", False))


def _three(values: Any, name: str) -> Rgb:
    if not (isinstance(values, Sequence) and len(values) == 3):
        raise CheckpointError(f"the settings have {name} = {values!r}; three numbers are known here")
    first, second, third = (float(value) for value in values)
    return first, second, third


def _turned(values: Rgb) -> Rgb:
    first, second, third = values
    return third, second, first


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [value] if isinstance(value, Mapping) else list(value or ())


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _require(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        choices = " or ".join(repr(choice) for choice in known)
        raise CheckpointError(f"the settings have {name} = {value!r}; known here is {choices}")
