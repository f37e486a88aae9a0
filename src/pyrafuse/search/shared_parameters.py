"""Parameters that many graphs share, each found by what it is part of.

detector of a graph -> key of each parameter: place, operator, shape -> the one parameter of that key in its stead
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyrafuse.models.detector import Detector
from pyrafuse.necks.graph_neck import GraphNeck, MergeNode
from pyrafuse.search.operators import PLACELESS_FUSIONS, describe_conv


class Bank:
    """One parameter for each key.

    Parameters alone are shared: statistics of norms are each detector's own, so those of one graph never reach another.

    Attributes:
        parameters: Shared parameters by key.
        stored: Numbers of further ones, which become parameters when a detector first has their key.
    """

    def __init__(self, stored: Mapping[str, Tensor] | None = None) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        self.stored: dict[str, Tensor] = dict(stored or {})

    def share(self, detector: Detector[Any], *, grows: bool) -> dict[str, nn.Parameter]:
        """Put shared parameters in the place of those of ``detector``, which stand on the device that is used.

        Args:
            detector: A candidate.
            grows: Whether parameters of unknown keys become shared ones; otherwise they stay the detector's own.

        Returns:
            Parameters of ``detector`` that are shared from now on, by key.
        """
        added: dict[str, nn.Parameter] = {}
        instead: dict[int, nn.Parameter] = {}
        for key, parameter in name_parameters(detector).items():
            if key in self.stored:
                with torch.no_grad():
                    parameter.copy_(self.stored[key])
            elif key in self.parameters:
                instead[id(parameter)] = self.parameters[key]
                continue
            elif not grows:
                continue
            added[key] = self.parameters[key] = parameter
            self.stored.pop(key, None)  # only now: an interruption before this line loses nothing
        for part in detector.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and id(parameter) in instead:
                    part._parameters[name] = instead[id(parameter)]
        return added

    def to_tensors(self) -> dict[str, Tensor]:
        """All numbers by key."""
        return {**self.stored, **{key: parameter.detach() for key, parameter in self.parameters.items()}}


def name_parameters(detector: Detector[Any]) -> dict[str, nn.Parameter]:
    """Parameters of ``detector`` by key: two detectors have a key in common where the same part has the same shape.

    In a neck that is a graph, a part is known by its place and by what it does. The place is the level of its merge
    and the number of maps that are made at this level before; for the way of an input also the level that it comes from
    and the number of inputs from there before it. Elsewhere a part is known by its name, and an entry of a list with
    one entry a level also by the level's stride.
    """
    named: dict[str, nn.Parameter] = {}
    known: set[int] = set()
    for what, part in _list_parts(detector, "", detector.neck.features.strides):
        for name, parameter in part.items():
            if parameter is not None and id(parameter) not in known:
                known.add(id(parameter))
                key = f"{what}{name} {'x'.join(map(str, parameter.shape))}"
                assert key not in named, f"two parameters are {key}"
                named[key] = parameter
    return named


def _list_parts(
    module: nn.Module, path: str, strides: tuple[int, ...]
) -> Iterator[tuple[str, Mapping[str, nn.Parameter | None]]]:
    """What the names of parameters begin with, and those parameters."""
    if isinstance(module, GraphNeck):
        for what, part in _list_operators(module):
            yield f"{path}{what}: ", dict(part.named_parameters())
        return
    is_of_levels = isinstance(module, nn.ModuleList | nn.ParameterList) and len(module) == len(strides)

    def name_entry(name: str) -> str:
        return f"{path}{name}@{strides[int(name)]}" if is_of_levels else f"{path}{name}"

    yield "", {name_entry(name): parameter for name, parameter in module._parameters.items()}
    for name, child in module.named_children():
        yield from _list_parts(child, f"{name_entry(name)}.", strides)


def _list_operators(neck: GraphNeck) -> Iterator[tuple[str, nn.Module]]:
    """Parts of a graph that may have parameters, by place and operator."""
    made: Counter[int] = Counter()
    for step in neck.plan.steps:
        merge, node = step.merge, neck.merges[step.merge.name]
        assert isinstance(node, MergeNode)
        place = f"P{merge.level}.{made[merge.level]}"
        made[merge.level] += 1
        read: Counter[int] = Counter()
        for level, edge in zip(step.levels, node.edges, strict=True):
            way = f"{place} from {level}.{read[level]}"
            read[level] += 1
            form = describe_conv(merge.project)
            for name, what in (
                ("project", form),
                ("halve", f"{merge.down} {merge.level - level} {form}"),
                ("fit", f"{merge.up} {level - merge.level}"),
            ):
                if isinstance(part := getattr(edge, name), nn.Module):
                    yield f"{way} {name} {what}", part
        sources = ",".join(map(str, step.levels))
        if isinstance(node.fusion, nn.Module):
            own = "" if merge.fusion in PLACELESS_FUSIONS else f" {merge.weight_channels} {merge.project.activation}"
            yield f"{place} {merge.fusion} of {sources}{own}", node.fusion
        if isinstance(node.conv, nn.Module):
            assert merge.conv is not None
            behind = f" behind {sources}" if merge.fusion == "concat" else ""  # its channels are those of the sources
            yield f"{place} conv {describe_conv(merge.conv)}{behind}", node.conv


def use_group_norms(module: nn.Module) -> None:
    """Put a group norm, of 32 groups where channels allow it, in the place of each batch norm inside of ``module``."""
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                channels = child.num_features
                groups = math.gcd(32, channels, max(1, channels // 2))  # one channel of a 1x1 map has no deviation
                part._modules[name] = nn.GroupNorm(groups, channels, eps=child.eps)


def find_batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """All batch norms in ``module``."""
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
