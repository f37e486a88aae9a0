"""Cards of before there was one description: a model's name, the options that were given, and what the name stood for.

name, options by the kind of part, defaults -> edits of the named model -> `DetectorSpec`
"""

from collections.abc import Mapping
from typing import Any

from pyrafuse.base.parts import Part, part
from pyrafuse.base.registry import FILLING
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.describing import describe
from pyrafuse.necks.graph_text import is_graph, list_necks

Options = Mapping[str, Any]

LOSSES = ("box_loss", "proposal_box_loss")


def read_earlier(model: str, options: Options, defaults: Options | None) -> DetectorSpec:
    """What an earlier card describes.

    Args:
        model: Registered name.
        options: The arguments that were asked for.
        defaults: All others that the name stood for; None where that was not written down.

    Raises:
        UnknownNameError: If there is no such model or part.
        PyrafuseError: If a part has not such an option.
        TypeError: If options are no mapping where one is needed.
    """
    given = {**(defaults or {}), **options}
    own: Options = given.pop("defaults", None) or {}
    if given.get("same_padding") and not model.startswith("tf_"):
        model = f"tf_{model}"
    changes: dict[str, Any] = {"num_classes": given.get("num_classes", 80)}
    if (backbone := given.get("backbone")) or given.get("backbone_options"):
        of_backbone = {**own.get(backbone or "", {}), **(given.get("backbone_options") or {})}
        changes["backbone"] = _recursive(of_backbone) if _is_recursive(model, backbone) else _described(of_backbone)
        if backbone:
            changes["backbone"]["name"] = backbone
    chain = list_necks(given["neck"]) if given.get("neck") else [neck.name for neck in describe(model).necks]
    if given.get("neck"):
        changes["neck"] = tuple(chain)
    of_necks = given.get("neck_options") or {}
    changes["necks"] = {name: {**own.get(name, {}), **of_necks.get(name, {})} for name in chain if not is_graph(name)}
    for field in ("head", "postprocess"):
        changes[field] = {**own.get(field, {}), **(given.get(f"{field}_options") or {})}
    if "size" in given:
        changes["head"] = {"size": given["size"], **changes["head"]}
    changes |= _criterion(model, given, {**own.get("criterion", {}), **(given.get("criterion_options") or {})})
    if "rcnn" in model:
        changes |= _two_stage(given, own)
    return describe(model, **changes)


def _described(options: Options) -> dict[str, Any]:
    """The options of a backbone that say what it is."""
    return {key: value for key, value in options.items() if key not in {*FILLING, "frozen"}}


def _is_recursive(model: str, backbone: str | None) -> bool:
    return backbone == "recursive_fpn" or (not backbone and model == "cascade_rcnn_rfp")


def _recursive(options: Options) -> dict[str, Any]:
    rest = _described(options)
    trunk = rest.pop("backbone_options", {"strides": (4, 8, 16, 32)})
    names = list_necks(rest.pop("neck", "fpn"))
    of_necks = rest.pop("neck_options", {"fpn": {"num_levels": 5}})
    necks = tuple(part("graph", graph=name) if is_graph(name) else Part(name, of_necks.get(name, {})) for name in names)
    return {
        **rest,
        "backbone": Part(rest.pop("backbone", "resnet50"), _described(trunk)),
        "neck": necks[0] if len(necks) == 1 else part("chain", necks=necks),
    }


def _criterion(model: str, given: Options, options: Options) -> dict[str, Any]:
    if "rcnn" in model:
        return {"criterion": _two_stage_criterion(options)}
    if model == "yolov3_plain":
        decode = {"least_objectness": given["least_objectness"]} if "least_objectness" in given else {}
        return {"criterion": {**options, "assigner": given.get("assigner_options") or {}}, "decode": decode}
    if model.startswith("yolov3"):
        assigner = {**(given.get("assigner_options") or {})}
        if "assigner" in given:
            assigner["name"] = given["assigner"]
        return {"criterion": {**options, "assigner": assigner}}
    if model == "ga_retinanet":
        guides = {k: v for k, v in options.items() if k.startswith(("shape_", "location_", "inverted_"))}
        if "shape_assigner" in guides:
            guides["shape_assigner"] = {
                "assigner": part("max_iou", **{"least_best_iou": 0.4, **guides["shape_assigner"]})
            }
        for key, name in (("shape_sampler", "random"), ("location_assigner", "locations")):
            if key in guides:
                guides[key] = Part(name, guides[key])
        return {"criterion": {**guides, "dense": _dense({k: v for k, v in options.items() if k not in guides})}}
    if model in ("atss", "ddod", "ddod_fcos"):
        return {"criterion": _atss(options)}
    if model == "m2det" and "positive_iou" in options:
        options = {**options, "assigner": {"assigner": _both(options["positive_iou"])}}
        return {"criterion": _dense({key: value for key, value in options.items() if key != "positive_iou"})}
    return {"criterion": _dense(options, assigner="points" if model == "fcos" else "max_iou")}


def _both(iou: float) -> dict[str, float]:
    return {"positive_iou": iou, "negative_iou": iou}


def _dense(options: Options, *, assigner: str = "max_iou") -> dict[str, Any]:
    """Options of the one-stage criteria as edits of a ``dense`` one; those of a part were all that it had."""
    rest = dict(options)
    changes: dict[str, Any] = {}
    if "assigner" in rest and not isinstance(rest["assigner"].get("assigner"), Mapping):
        changes["assigner"] = Part(assigner, rest.pop("assigner"))
    if "positive_iou" in rest:
        changes["assigner"] = _both(rest.pop("positive_iou"))
    if "box_assigner" in rest:
        given = rest.pop("box_assigner")
        changes["box_assigner"] = None if given is None else Part("max_iou", given)
    if of_classes := {key: rest.pop(key) for key in ("alpha", "gamma") if key in rest}:
        changes["class_loss"] = of_classes
    if "negatives_per_positive" in rest:
        changes["mine"] = {"negatives_per_positive": rest.pop("negatives_per_positive")}
    if "level_weights" in rest:
        changes["level_weights"] = _level_weights(rest.pop("level_weights"))
    return {**_losses(rest), **changes}


def _losses(options: Options) -> dict[str, Any]:
    """``options`` with each loss and its own options as one part."""
    rest = dict(options)
    for key in LOSSES:
        inner = rest.pop(f"{key}_options", None)
        if key in rest:
            rest[key] = Part(rest[key], {"beta": 0.1} if inner is None and rest[key] == "smooth_l1" else inner or {})
        elif inner:
            rest[key] = inner
    return rest


def _level_weights(given: Options | None) -> Part | None:
    if given is None:
        return None
    return Part("scheduled" if "schedule" in given else "counted", given)


def _atss(options: Options) -> dict[str, Any]:
    rest = dict(options)
    top_k, of_classes, of_boxes = (rest.pop(key, None) for key in ("top_k", "class_alpha", "box_alpha"))
    found = {} if top_k is None else {"top_k": top_k}
    changes = _dense(rest)
    if {"class_alpha", "box_alpha", "top_k"} & set(options):
        changes["assigner"] = part("atss", alpha=of_classes, **found)
        changes["box_assigner"] = None if of_boxes == of_classes else part("atss", alpha=of_boxes, **found)
    return changes


def _two_stage_criterion(options: Options) -> dict[str, Any]:
    named = {
        "proposal_assigner": "assigner",
        "proposal_sampler": "sampler",
        "proposal_box_loss": "box_loss",
        "proposal_box_weight": "box_weight",
    }
    whole = _losses({"box_loss_options": {}, "proposal_box_loss_options": {}, **options})
    of_proposals = {ours: whole.pop(theirs) for theirs, ours in named.items() if theirs in whole}
    if "assigner" in of_proposals:
        usual = {"positive_iou": 0.7, "negative_iou": 0.3, "least_best_iou": 0.3}
        of_proposals["assigner"] = Part("max_iou", {**usual, **of_proposals["assigner"]})
    if "sampler" in of_proposals:
        of_proposals["sampler"] = Part("random", of_proposals["sampler"])
    return {"proposals": of_proposals, "regions": whole}


def _two_stage(given: Options, own: Options) -> dict[str, Any]:
    def options(key: str, name: str) -> dict[str, Any]:
        return {**own.get(key, {}), **(given.get(name) or {})}

    sampling = options("sampling", "sampling_options")
    stage: dict[str, Any] = {"head": options("region", "region_options")}
    if "add_objects" in sampling:
        stage["add_objects"] = sampling.pop("add_objects")
    bins = {key: sampling.pop(key) for key in ("num_bins", "floor", "floor_fraction") if key in sampling}
    sampler: dict[str, Any] = {}
    if "instance_balanced" in sampling:
        sampler["positives"] = "instance_balanced" if sampling.pop("instance_balanced") else "random"
    if "iou_balanced" in sampling:
        sampler["negatives"] = Part("iou_balanced", bins) if sampling.pop("iou_balanced") else "random"
    return {
        "proposals": options("proposals", "proposal_options"),
        "learning_proposals": options("learning_proposals", "learning_proposal_options"),
        "stages": {**stage, "sampler": {**sampler, **sampling}},
    }


def flatten_chain(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` whose neck was a row within a row, for a projection behind it, in keys of one row."""
    inner = "neck.necks.0.necks."
    if not any(key.startswith(inner) for key in state):
        return dict(state)
    count = 1 + max(int(key.removeprefix(inner).split(".")[0]) for key in state if key.startswith(inner))
    renamed = {}
    for key, value in state.items():
        if key.startswith(inner):
            key = "neck.necks." + key.removeprefix(inner)
        elif key.startswith("neck.necks."):
            number, _, rest = key.removeprefix("neck.necks.").partition(".")
            key = f"neck.necks.{int(number) - 1 + count}.{rest}"
        renamed[key] = value
    return renamed
