"""effdet's EfficientDets (PyTorch) -> ours: ``efficientdet_d0`` and its like, and those trained with TensorFlow.

What a key means was learnt from the published files' keys and shapes; what none tells stands in `effdet_published`.
state dict -> which BiFPN and towers, on which trunk -> ours -> every key renamed, none left over
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Neck
from pyrafuse.importers.class_names import name_by_coco_id
from pyrafuse.importers.effdet_published import PUBLISHED, Layout, find_published
from pyrafuse.importers.renaming import (
    Naming,
    by_modules,
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model, list_models
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.necks.graph_neck import GraphNeck

SLOTS = 9
_LAYOUT = "an EfficientDet of effdet"
_HALF = (0.5, 0.5, 0.5)


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
            is_separable = merge.conv is not None and merge.conv.separable
            yield f"{ours}.conv.depthwise", f"{theirs}.after_combine.conv.conv_dw"
            yield f"{ours}.conv.conv", f"{theirs}.after_combine.conv.conv{'_pw' if is_separable else ''}"
            yield f"{ours}.conv.norm", f"{theirs}.after_combine.conv.bn"


def _projection(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.project.conv", f"{theirs}.conv.conv"
    yield f"{ours}.project.norm", f"{theirs}.conv.bn"


def looks_like_effdet(content: Any) -> bool:
    """Whether ``content``, as read from a file, is an EfficientDet of effdet."""
    return has_keys(_unwrap(content), r"class_net\.", r"box_net\.", r"backbone\.")


def import_effdet(
    content: Any,
    *,
    source: str | os.PathLike[str],
    published: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Build the detector that ``content`` holds the parameters of, with its own preprocessing and test settings.

    Weights of the merges are normalised fast, which no key tells.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages, and for its name: ``tf_efficientdet_d0_ap-d0cdbd0a.pth``.
        published: The name it was published under, where the file has another.
        options: Further options of the model; ``{"neck_options": {"bifpn": {"fusion": "softmax"}}}`` say.

    Raises:
        CheckpointError: If it is none of `PUBLISHED`, or does not fit (keys are named); if its name is of another
            detector, or nothing tells how it is used.
    """
    state = _unwrap(content)
    layout = _read_layout(state, source)
    name = find_published(layout, source=source, published=published)
    told = PUBLISHED[name]
    num_classes = state[_classifier_of(state)].shape[0] // SLOTS
    with Uninitialized():
        detector = create_published(name, layout, num_classes=num_classes, options=options or {})
    naming = naming_of(detector, state)
    load_renamed(detector, state, naming, source=source, layout=f"effdet's {name}", change=_reorder)
    names, category_ids = name_by_coco_id(num_classes, first=1)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=replace(
            Preprocessing(size=(told.size, told.size), fit="letterbox", padding=told.padding),
            **({"mean": _HALF, "std": _HALF} if told.is_half else {}),
        ),
        origin=f"effdet's {name}, {num_classes} classes",
    )
    return detector


def create_published(
    name: str, layout: Layout, *, num_classes: int, options: Mapping[str, Any] = MappingProxyType({})
) -> Detector:
    """The detector of `PUBLISHED` called ``name``, with fresh weights.

    Args:
        name: effdet's.
        layout: Of the file; it has the form and fusion of the BiFPN, which may be others than the published ones.
        num_classes: K.
        options: Further options of the model.
    """
    told = PUBLISHED[name]
    base = name.removesuffix("_ap")
    if base not in list_models():  # what the name stands for is all in the options
        base = f"{'tf_' if layout.is_tensorflow else ''}efficientdet_d0"
    bifpn = {
        "out_channels": layout.channels,
        "num_levels": layout.num_levels,
        "repeats": layout.repeats,
        "form": layout.form,
        "fusion": "fast_normalized" if layout.is_weighted else "sum",
        "separable": layout.separable,
        "activation": told.activation,
        **({"up": "bilinear", "down": "bilinear"} if told.is_bilinear else {}),
    }
    head = {
        "num_convs": layout.num_convs,
        "scale": told.scale,
        "shapes": told.shapes,
        "separable": layout.separable,
        "activation": told.head_activation or told.activation,
    }
    neck_options = options.get("neck_options", {})
    merged = {
        **options,
        "neck_options": {**neck_options, "bifpn": {**bifpn, **neck_options.get("bifpn", {})}},
        "head_options": {**head, **options.get("head_options", {})},
    }
    return create_model(base, num_classes=num_classes, **{"backbone": f"timm/{told.backbone}", **merged})


def naming_of(detector: Detector, state: Mapping[str, Tensor]) -> Naming:
    """Of a whole detector; ``state`` tells the order of norms in its head."""
    return by_parts(
        {
            "backbone.trunk": ("backbone", str),
            "neck": ("fpn", name_bifpn(detector.neck)),
            "head.classes": ("class_net", naming_branch(state, "class_net.")),
            "head.boxes": ("box_net", naming_branch(state, "box_net.")),
        }
    )


def naming_branch(state: Mapping[str, Tensor], prefix: str = "") -> Naming:
    """Of a head's `Branch`; theirs has its norms by convolution and level, or, without ``bn``, the other way round."""
    is_by_level = not any(key.startswith(f"{prefix}bn_rep.") and ".bn." in key for key in state)
    norm = r"bn_rep.\2.\1." if is_by_level else r"bn_rep.\1.\2.bn."
    return by_patterns(
        [
            (r"^norms\.(\d+)\.(\d+)\.", norm),
            (r"^convs\.", "conv_rep."),
            (r"^(conv_rep\.\d+|predict)\.(weight|bias)$", r"\1.conv.\2"),
            (r"\.depthwise\.", ".conv_dw."),
            (r"\.pointwise\.", ".conv_pw."),
        ]
    )


def reorder_boxes(value: Tensor) -> Tensor:
    """Deltas of each anchor from their y, x, height, width to our x, y, width, height."""
    return value.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


def _reorder(key: str, value: Tensor) -> Tensor:
    return reorder_boxes(value) if key.startswith("head.boxes.predict.") and ".depthwise." not in key else value


def _unwrap(content: Any) -> dict[str, Tensor]:
    state = unwrap_state(content)
    is_bench = all(key.startswith(("model.", "anchors.")) for key in state)  # theirs of training or prediction
    return {key.removeprefix("model."): v for key, v in state.items() if not (is_bench and key.startswith("anchors."))}


def _is_separable(state: Mapping[str, Tensor]) -> bool:
    return has_keys(state, r"class_net\..*\.conv_pw\.")


def _classifier_of(state: Mapping[str, Tensor]) -> str:
    return f"class_net.predict.conv{'_pw' if _is_separable(state) else ''}.weight"


def _read_layout(state: Mapping[str, Tensor], source: str | os.PathLike[str]) -> Layout:
    def count(pattern: str) -> int:
        return len({found[1] for key in state if (found := re.match(pattern, key))})

    channels = read_shape(state, _classifier_of(state), source=source, layout=_LAYOUT, least=SLOTS)[1]
    last = read_shape(state, "fpn.resample.3.conv.conv.weight", source=source, layout=_LAYOUT)[1]
    num_levels = count(r"class_net\.bn_rep\.0\.(\d+)\.bn\.") or count(r"class_net\.bn_rep\.(\d+)\.")
    nodes = count(r"fpn\.cell\.0\.fnode\.(\d+)\.")
    forms = {2 * num_levels - 2: "bifpn", 2 * num_levels: "pan", 5 * num_levels - 4: "qufpn"}
    if nodes not in forms:
        raise CheckpointError(
            f"{source} looks like {_LAYOUT}, but its cells of {nodes} merges on {num_levels} levels are no BiFPN, PAN "
            "or QuFPN"
        )
    return Layout(
        last=last,
        channels=channels,
        repeats=count(r"fpn\.cell\.(\d+)\."),
        num_convs=count(r"class_net\.conv_rep\.(\d+)\."),
        num_levels=num_levels,
        form=forms[nodes],
        # QuFPN's last merges have weights even where the others are plain sums
        is_weighted=has_keys(state, r"fpn\.cell\.\d+\.fnode\.[0-7]\.combine\.edge_weights"),
        is_tensorflow=has_keys(state, r"fpn\.cell\.\d+\.fnode\.\d+\.after_combine\.conv\.conv_pw\.bias"),
        has_squeeze=has_keys(state, r"backbone\..*\.se\."),
        separable=_is_separable(state),
    )
