"""The catalogue of parts: paper, options and cost of each.

name -> signature and docstring -> `Option`s; name -> the part, built and run once -> `Cost`
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import docstring_parser
import timm
import torch
from torch import Tensor, nn

from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.backbones.timm_pyramid import TimmPyramid
from pyrafuse.base.errors import unknown_name
from pyrafuse.base.registry import Registry
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.criteria.registry import CRITERIA, LEVEL_WEIGHTS
from pyrafuse.heads.registry import HEADS, PROPOSAL_HEADS, ROI_HEADS
from pyrafuse.inference.measuring import count_gflops, count_parameters
from pyrafuse.losses.registry import LOSSES
from pyrafuse.models.factory import create_model
from pyrafuse.models.registry import MODELS
from pyrafuse.models.two_stage import STAGES
from pyrafuse.necks.registry import NECKS
from pyrafuse.ops.registry import CODERS
from pyrafuse.postprocess.registry import DECODERS, PROPOSALS, SELECTIONS
from pyrafuse.samplers.registry import DRAWS, SAMPLERS

KINDS: Mapping[str, Registry[Any]] = {"model": MODELS, "backbone": BACKBONES, "neck": NECKS, "head": HEADS}
"""What is listed by default, with what it costs."""
INNER_KINDS: Mapping[str, Registry[Any]] = {
    "proposal_head": PROPOSAL_HEADS,
    "roi_head": ROI_HEADS,
    "stage": STAGES,
    "coder": CODERS,
    "criterion": CRITERIA,
    "assigner": ASSIGNERS,
    "sampler": SAMPLERS,
    "draw": DRAWS,
    "loss": LOSSES,
    "level_weights": LEVEL_WEIGHTS,
    "decoder": DECODERS,
    "selection": SELECTIONS,
    "proposals": PROPOSALS,
}
"""The parts inside of a description besides."""
ALL_KINDS = {**KINDS, **INNER_KINDS}
SIZE_PX = 416
"""Side in pixels of the image that costs are measured on."""
NECK_INPUTS = PyramidSpec((512, 1024, 2048), (8, 16, 32))
"""What necks are measured on: the maps of a ResNet-50."""
HEAD_INPUTS = (
    PyramidSpec((256,) * 5, (8, 16, 32, 64, 128)),
    PyramidSpec((256,) * 6, (8, 16, 32, 64, 128, 256)),
    PyramidSpec((256,) * 3, (8, 16, 32)),
)
"""What heads are measured on: the first of these that they can read."""
NUM_CLASSES = 80


@dataclass(frozen=True)
class Cost:
    """Of one image of `SIZE_PX`.

    Attributes:
        parameters: Numbers that are learnt.
        gflops: Billions of floating-point operations, as `count_gflops` has it.
    """

    parameters: int
    gflops: float


@dataclass(frozen=True)
class Option:
    """One keyword argument of a part.

    Attributes:
        name: Name of the argument.
        default: Default as Python writes it; empty where a value must be given.
        meaning: From the docstring.
    """

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class NamedPart:
    """One part that can be named.

    Attributes:
        kind: A key of `ALL_KINDS`.
        name: In its registry, or ``timm/NAME``.
        summary: First line of its docstring.
        paper: arXiv id; empty where none is told.
        options: Options of its constructor.
    """

    kind: str
    name: str
    summary: str
    paper: str
    options: tuple[Option, ...]


def describe_part(kind: str, name: str) -> NamedPart:
    """What is known of a part without building it.

    Raises:
        UnknownNameError: If there is no such kind or part.
    """
    if kind not in ALL_KINDS:
        raise unknown_name("kind of part", kind, ALL_KINDS)
    is_timm = kind == "backbone" and name.startswith("timm/")
    builder = TimmPyramid if is_timm else ALL_KINDS[kind].get(name)
    first_line = (inspect.getdoc(getattr(builder, "func", builder)) or "").partition("\n")[0]
    if is_timm:
        return NamedPart(kind, name, first_line, "", _options(builder))
    summary = ALL_KINDS[kind].entry(name).facts.get("summary", first_line)
    return NamedPart(kind, name, summary, ALL_KINDS[kind].paper(name), _options(builder))


def find_kinds(name: str) -> tuple[str, ...]:
    """The kinds that have a part called ``name``: ``fcos`` is a model and a head.

    Raises:
        UnknownNameError: If none has.
    """
    if name.startswith("timm/"):
        if not timm.is_model(bare := name.removeprefix("timm/")):
            raise unknown_name("timm model", bare, timm.list_models())
        return ("backbone",)
    kinds = tuple(kind for kind, registry in ALL_KINDS.items() if name in registry.names())
    if not kinds:
        raise unknown_name("part", name, {n for registry in ALL_KINDS.values() for n in registry.names()})
    return kinds


def tell_cost(kind: str, name: str) -> Cost | None:
    """The cost of a part as it was measured once for all that come with the package, or else by `measure_cost`."""
    if kind not in KINDS:
        return None
    known = _read_costs().get(kind, {})
    if name in known:
        return None if known[name] is None else Cost(**known[name])
    return measure_cost(kind, name)


def measure_cost(kind: str, name: str) -> Cost | None:
    """Build a part with its defaults and run it once on a CPU; None if it cannot read what its kind is measured on."""
    try:
        with torch.random.fork_rng():
            if kind == "neck":
                return _run(NECKS.create(name, NECK_INPUTS), zeros_of(NECK_INPUTS, SIZE_PX))
            if kind == "head":
                return _measure_head(name)
            part = create_backbone(name) if kind == "backbone" else create_model(name, num_classes=NUM_CLASSES)
            return _run(part, torch.zeros(1, 3, SIZE_PX, SIZE_PX))
    except (ValueError, TypeError):  # needs options, or other levels
        return None


def zeros_of(spec: PyramidSpec, size: int, *, batch: int = 1) -> Pyramid:
    """An empty pyramid of an image of ``size`` px a side."""
    sides = [-(-size // stride) for stride in spec.strides]
    return tuple(torch.zeros(batch, c, side, side) for c, side in zip(spec.channels, sides, strict=True))


def _measure_head(name: str) -> Cost | None:
    for spec in HEAD_INPUTS:
        try:
            head = HEADS.create(name, spec, num_classes=NUM_CLASSES)
        except ValueError:  # made for other levels
            continue
        return _run(head, zeros_of(spec, SIZE_PX))
    return None


def _run(module: nn.Module, inputs: Tensor | Pyramid) -> Cost:
    return Cost(count_parameters(module), round(count_gflops(module, inputs), 3))


@cache
def _read_costs() -> dict[str, dict[str, Any]]:
    return json.loads(files("pyrafuse.inference").joinpath("costs.json").read_text())


def _options(builder: Callable[..., Any]) -> tuple[Option, ...]:
    """Keyword arguments with a plain default, or with none; what only code can give is left out."""
    function = getattr(builder, "func", builder)
    described = docstring_parser.parse(inspect.getdoc(function) or "").params
    meanings = {given.arg_name: " ".join((given.description or "").split()) for given in described}
    found = []
    for name, given in inspect.signature(builder).parameters.items():
        if given.kind is not given.KEYWORD_ONLY or name == "num_classes":
            continue
        is_needed = given.default is given.empty
        if is_needed or isinstance(given.default, str | int | float | bool | tuple | Mapping | None):
            found.append(Option(name, "" if is_needed else _write(given.default), meanings.get(name, "")))
    return tuple(found)


def _write(value: Any) -> str:
    return repr(dict(value)) if isinstance(value, Mapping) else repr(value)
