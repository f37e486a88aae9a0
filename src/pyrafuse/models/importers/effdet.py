"""effdet's EfficientDets (PyTorch) -> ours: ``efficientdet_d0`` and its like, and those trained with TensorFlow.

What a key means was learnt from the published files' keys and shapes.
state dict -> which EfficientNet, BiFPN's form and width, towers -> ours -> every key renamed, none left over

The models trained with adversarial examples (``_ap``) have the keys of those trained with TensorFlow, and images of
another mean and standard deviation: which of the two it is, the name tells.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pyrafuse.core.errors import CheckpointError
from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Neck
from pyrafuse.models.detector import Detector
from pyrafuse.models.efficientdet import SCALINGS, Scaling
from pyrafuse.models.factory import create_model
from pyrafuse.models.importers.class_names import name_by_coco_id
from pyrafuse.models.importers.renaming import (
    Naming,
    by_modules,
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.necks.graph_neck import GraphNeck

TRUNKS = {(320, 1): 0, (320, 2): 1, (352, 2): 2, (384, 2): 3, (448, 2): 4, (512, 3): 5, (576, 3): 6, (640, 4): 7}
"""(channels, blocks) of the last stage -> number of the EfficientNet."""
FORMS = {8: "bifpn", 10: "pan", 21: "qufpn"}
"""Merges of a cell -> form."""
SLOTS = 9
_CLASSIFIER = "class_net.predict.conv_pw.weight"
_PUBLISHED = re.compile(
    r"(?P<tf>tf_)?efficientdet_(?P<kind>[dq])(?P<number>\d)(?P<ap>_ap)?(_\d+)?(-[0-9a-f]{8})?(\.pth(\.tar)?|\.safetensors)?"
)
_HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation of the models trained with adversarial examples."""


def name_bifpn(neck: Neck) -> Naming:
    """Names of `bifpn`: ``resample.3.conv.conv.weight``, ``cell.0.fnode.4.combine.resample.1.conv.bn.bias``, ..."""
    assert isinstance(neck, GraphNeck)
    return by_modules(_modules(neck))


def _modules(neck: GraphNeck) -> Iterator[tuple[str, str]]:
    graph = neck.graph
    num_inputs = len(neck.plan.levels)
    # theirs numbers the maps: what comes in, the levels made of it, and then the merges of one cell
    maps = [f"C{level}" for level in neck.plan.levels] + [merge.name for merge in graph.stem]
    maps += [merge.name for merge in graph.merges]
    for i, merge in enumerate(graph.stem, start=num_inputs):
        yield from _projection(f"merges.{merge.name}.edges.0", f"resample.{i}")
    for time in range(graph.stack):
        for i, merge in enumerate(graph.merges):
            ours = f"merges.{merge.name}" if graph.stack == 1 else f"merges.{merge.name}_{time + 1}"
            theirs = f"cell.{time}.fnode.{i}"
            yield f"{ours}.fusion", f"{theirs}.combine"
            for e, name in enumerate(merge.inputs):
                yield from _projection(f"{ours}.edges.{e}", f"{theirs}.combine.resample.{maps.index(name)}")
            yield f"{ours}.conv.depthwise", f"{theirs}.after_combine.conv.conv_dw"
            yield f"{ours}.conv.conv", f"{theirs}.after_combine.conv.conv_pw"
            yield f"{ours}.conv.norm", f"{theirs}.after_combine.conv.bn"


def _projection(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.project.conv", f"{theirs}.conv.conv"
    yield f"{ours}.project.norm", f"{theirs}.conv.bn"


def looks_like_effdet(content: Any) -> bool:
    """Whether ``content``, as read from a file, is an EfficientDet of effdet."""
    return has_keys(_unwrap(content), r"class_net\.", r"box_net\.", r"backbone\.(conv_stem|bn1|blocks)\.")


def import_effdet(
    content: Any,
    *,
    source: str | os.PathLike[str],
    published: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Build the detector that ``content`` holds the parameters of, with its own preprocessing and test settings.

    Biases in front of batch norms tell the models trained with TensorFlow, which pad as it does. What no key tells is
    taken as in D0 to D5: weights of the merges are normalised fast, the smallest anchor is 4 strides wide.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages, and for its name: ``tf_efficientdet_d0_ap-d0cdbd0a.pth``.
        published: The name it was published under, where the file has another.
        options: Further options of the model; ``{"neck_options": {"bifpn": {"fusion": "softmax"}}}`` say.

    Raises:
        CheckpointError: If it is on another trunk, of a scaling that is not known, or does not fit (keys are named); if
            its name is of another detector, or nothing tells how images are made ready.
    """
    state = _unwrap(content)
    scaling, bifpn, number = _read_parts(state, source)
    if scaling not in SCALINGS:
        raise CheckpointError(
            f"{source} has a BiFPN of {scaling.channels} channels and {scaling.repeats} cells and towers of "
            f"{scaling.num_convs} on EfficientNet-B{number}: none of EfficientDet-D0 to D{len(SCALINGS) - 1}"
        )
    is_tensorflow = _has_tensorflow_form(state)
    name = f"{'tf_' if is_tensorflow else ''}efficientdet_d{SCALINGS.index(scaling)}"
    is_adversarial = _is_adversarial(name, bifpn["form"], source, published)
    options = dict(options or {})
    neck_options = dict(options.pop("neck_options", {}))
    neck_options["bifpn"] = {**bifpn, **neck_options.get("bifpn", {})}
    num_classes = state[_CLASSIFIER].shape[0] // SLOTS
    with Uninitialized():
        detector = create_model(
            name,
            num_classes=num_classes,
            backbone=f"timm/{'tf_' if is_tensorflow else ''}efficientnet_b{number}",
            neck_options=neck_options,
            **options,
        )
    naming = by_parts(
        {
            "backbone.trunk": ("backbone", str),
            "neck": ("fpn", name_bifpn(detector.neck)),
            "head.classes": ("class_net", naming_branch(state, "class_net.")),
            "head.boxes": ("box_net", naming_branch(state, "box_net.")),
        }
    )
    load_renamed(detector, state, naming, source=source, layout=f"effdet's {name}", change=_reorder)
    names, category_ids = name_by_coco_id(num_classes, first=1)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=replace(
            Preprocessing(size=(scaling.size, scaling.size), fit="letterbox"),
            **({"mean": _HALF, "std": _HALF} if is_adversarial else {}),
        ),
        origin=f"effdet's {name}{'_ap' if is_adversarial else ''}, {num_classes} classes",
    )
    return detector


def naming_branch(state: Mapping[str, Tensor], prefix: str = "") -> Naming:
    """Of a head's `Branch`; theirs has its norms by convolution and level, or, without ``bn``, the other way round."""
    is_by_level = not any(key.startswith(f"{prefix}bn_rep.") and ".bn." in key for key in state)
    norm = r"bn_rep.\2.\1." if is_by_level else r"bn_rep.\1.\2.bn."
    return by_patterns(
        [
            (r"^norms\.(\d+)\.(\d+)\.", norm),
            (r"^convs\.", "conv_rep."),
            (r"\.depthwise\.", ".conv_dw."),
            (r"\.pointwise\.", ".conv_pw."),
        ]
    )


def reorder_boxes(value: Tensor) -> Tensor:
    """Deltas of each anchor from their y, x, height, width to our x, y, width, height."""
    return value.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


def _reorder(key: str, value: Tensor) -> Tensor:
    return reorder_boxes(value) if key.startswith("head.boxes.predict.pointwise.") else value


def _unwrap(content: Any) -> dict[str, Tensor]:
    state = unwrap_state(content)
    is_bench = all(key.startswith(("model.", "anchors.")) for key in state)  # theirs of training or prediction
    return {key.removeprefix("model."): v for key, v in state.items() if not (is_bench and key.startswith("anchors."))}


def _has_tensorflow_form(state: Mapping[str, Tensor]) -> bool:
    return has_keys(state, r"fpn\.cell\.\d+\.fnode\.\d+\.after_combine\.conv\.conv_pw\.bias")


def _is_adversarial(name: str, form: str, source: str | os.PathLike[str], published: str | None) -> bool:
    """Whether the detector, which keys tell to be ``name``, was trained with adversarial examples."""
    told = Path(source).name if published is None else published
    found = _PUBLISHED.fullmatch(told.lower())
    known = f"{name} or {name}_ap" if name.startswith("tf_") else name
    remedy = f"name it by --as NAME or load(..., source=NAME): {known}"
    if found is None:
        if published is None and not name.startswith("tf_"):
            return False
        if published is None:
            raise CheckpointError(
                f"{source} is effdet's {name} or {name}_ap, whose keys are the same, and the mean and standard "
                f"deviation of their images are not; {remedy}"
            )
        raise CheckpointError(f"{published!r} is no name that effdet's {name} was published under; {remedy}")
    same = f"{found['tf'] or ''}efficientdet_d{found['number']}" == name
    is_fitting = same and (found["kind"] == "d" or form == "qufpn") and not (found["ap"] and not found["tf"])
    if not is_fitting:
        raise CheckpointError(f"{source} is effdet's {name} by its keys, and {told!r} names another; {remedy}")
    return found["ap"] is not None


def _read_parts(state: Mapping[str, Tensor], source: str | os.PathLike[str]) -> tuple[Scaling, dict[str, Any], int]:
    """Scaling, BiFPN's options and the number of the EfficientNet, as keys and shapes tell them."""

    def count(pattern: str) -> int:
        return len({found[1] for key in state if (found := re.match(pattern, key))})

    last = [v for k, v in state.items() if re.fullmatch(r"backbone\.blocks\.6\.0\.conv_pwl\.weight", k)]
    trunk = (last[0].shape[0] if last else 0, count(r"backbone\.blocks\.6\.(\d+)\."))
    nodes = count(r"fpn\.cell\.0\.fnode\.(\d+)\.")
    if trunk not in TRUNKS or nodes not in FORMS:
        raise CheckpointError(
            f"{source} looks like an EfficientDet of effdet, but is not on EfficientNet-B0 to B7 (its last stage has "
            f"{trunk[1]} blocks of {trunk[0]} channels), or its cells of {nodes} merges are no BiFPN, PAN or QuFPN"
        )
    channels = read_shape(state, _CLASSIFIER, source=source, layout="an EfficientDet of effdet", least=SLOTS)[1]
    shape = (channels, count(r"fpn\.cell\.(\d+)\."), count(r"class_net\.conv_rep\.(\d+)\."))
    size = next((s.size for s in SCALINGS if (s.channels, s.repeats, s.num_convs) == shape), 0)
    bifpn: dict[str, Any] = {"form": FORMS[nodes]}
    # QuFPN's last merges have weights even where the others are plain sums
    if not has_keys(state, r"fpn\.cell\.\d+\.fnode\.[0-7]\.combine\.edge_weights"):
        bifpn["fusion"] = "sum"
    return Scaling(*shape, size), bifpn, TRUNKS[trunk]
