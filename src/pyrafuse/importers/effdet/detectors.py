"""effdet's EfficientDets (PyTorch) -> ours: ``efficientdet_d0`` and its like, and those trained with TensorFlow.

What a key means was learnt from the published files' keys and shapes; what none tells stands in `published`.
state dict -> which BiFPN and towers, on which trunk -> ours -> every key renamed, none left over
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Neck
from pyrafuse.importers import origins
from pyrafuse.importers.class_names import name_by_coco_id
from pyrafuse.importers.effdet.published import PUBLISHED, Structure, find_published
from pyrafuse.importers.engine import Changes, File, Found, Importer, Keys, State
from pyrafuse.importers.renaming import Naming, by_modules, by_parts, by_patterns, has_keys
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import list_models
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


def describe_effdet(file: File) -> Found:
    """Which of `PUBLISHED` ``file`` is; weights of the merges are normalised fast, which no key tells."""
    layout = read_layout(file)
    name = find_published(layout, source=file.source, published=file.published)
    told, state = PUBLISHED[name], file.state
    num_classes = state[_classifier_of(state)].shape[0] // SLOTS
    colors = {"mean": _HALF, "std": _HALF} if told.is_half else {}
    return Found(
        layout=f"effdet's {name}",
        model=model_of(name, layout),
        edits=[edit_of(name, layout)],
        keys=lambda detector: Keys(naming_of(detector, state), change=_reorder),
        classes=name_by_coco_id(num_classes, first=1),
        preprocessing=replace(
            Preprocessing(size=(told.size, told.size), fit="letterbox", padding=told.padding), **colors
        ),
        origin=f"effdet's {name}, {num_classes} classes",
    )


def model_of(name: str, layout: Structure) -> str:
    """Our model that the one of `PUBLISHED` called ``name`` is a form of."""
    base = name.removesuffix("_ap")
    return base if base in list_models() else f"{'tf_' if layout.is_tensorflow else ''}efficientdet_d0"


def edit_of(name: str, layout: Structure) -> Changes:
    """What sets the one of `PUBLISHED` called ``name`` apart from `model_of` it.

    Args:
        name: effdet's.
        layout: Structure of the file, whose form and fusion of the BiFPN may be others than the published ones.
    """
    told = PUBLISHED[name]
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
    return {"backbone": f"timm/{told.backbone}", "neck": bifpn, "head": head}


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


def _renew(state: State) -> State:
    is_bench = all(key.startswith(("model.", "anchors.")) for key in state)  # theirs of training or prediction
    return {key.removeprefix("model."): v for key, v in state.items() if not (is_bench and key.startswith("anchors."))}


def _is_separable(state: Mapping[str, Tensor]) -> bool:
    return has_keys(state, r"class_net\..*\.conv_pw\.")


def _classifier_of(state: Mapping[str, Tensor]) -> str:
    return f"class_net.predict.conv{'_pw' if _is_separable(state) else ''}.weight"


def read_layout(file: File) -> Structure:
    """The layout, as keys and shapes tell it."""
    state = file.state

    def count(pattern: str) -> int:
        return len({found[1] for key in state if (found := re.match(pattern, key))})

    channels = file.shape(_classifier_of(state), layout=_LAYOUT, least=SLOTS)[1]
    last = file.shape("fpn.resample.3.conv.conv.weight", layout=_LAYOUT)[1]
    num_levels = count(r"class_net\.bn_rep\.0\.(\d+)\.bn\.") or count(r"class_net\.bn_rep\.(\d+)\.")
    nodes = count(r"fpn\.cell\.0\.fnode\.(\d+)\.")
    forms = {2 * num_levels - 2: "bifpn", 2 * num_levels: "pan", 5 * num_levels - 4: "qufpn"}
    if nodes not in forms:
        raise CheckpointError(
            f"{file.source} looks like {_LAYOUT}, but its cells of {nodes} merges on {num_levels} levels are no BiFPN, "
            "PAN or QuFPN"
        )
    return Structure(
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


EFFDET = Importer(origins.EFFDET, (r"class_net\.", r"box_net\.", r"backbone\."), describe_effdet, _renew)
