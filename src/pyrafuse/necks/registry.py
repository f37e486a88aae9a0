"""All necks by name, and chains of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.registry import Registry
from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import GivenNeck, is_graph, is_graph_file, list_necks, read_graph

NECKS: Registry[Neck] = Registry("neck", "pyrafuse.necks")


class NeckChain(Neck):
    """Several necks in a row, each reading the pyramid of the one before."""

    def __init__(self, necks: Sequence[Neck]) -> None:
        super().__init__()
        self.necks = nn.ModuleList(necks)
        self.features = necks[-1].features

    def forward(self, pyramid: Pyramid) -> Pyramid:
        for neck in self.necks:
            pyramid = neck(pyramid)
        return pyramid


def create_neck(
    names: GivenNeck | Sequence[GivenNeck],
    inputs: PyramidSpec,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Neck:
    """Build the neck, or the chain of necks, called ``names`` on a pyramid of ``inputs``.

    Args:
        names: One registered name or several, first reads first. The file (.yaml) or text of a graph is a name, too,
            and so is a `Graph` or the mapping that a text stands for.
        inputs: Channels and strides of what comes in.
        options: Keyword arguments of each neck's constructor, by its name; a graph has none.

    Raises:
        UnknownNameError: If there is no such neck.
        PyrafuseError: If ``names`` are none of these, ``options`` speak of a neck that is not among them or is a graph,
            or a graph has faults.
    """
    chain = list_necks(names)
    options = options or {}
    if strangers := sorted(set(options) - set(chain)):
        raise PyrafuseError(f"options are given for {', '.join(strangers)}, but the necks are {', '.join(chain)}")
    if graphs := [name for name in options if is_graph(name)]:
        raise PyrafuseError(f"a graph takes no options, it says all itself: change {graphs[0]}")
    if not chain:
        raise PyrafuseError(f"a neck is needed; choose from {', '.join(NECKS.names())}")
    necks: list[Neck] = []
    for name in chain:
        spec = necks[-1].features if necks else inputs
        if is_graph(name):
            necks.append(_create_graph_neck(spec, name))
        else:
            necks.append(NECKS.create(name, spec, **options.get(name, {})))
    return necks[0] if len(necks) == 1 else NeckChain(necks)


def with_equal_channels(neck: Neck) -> Neck:
    """``neck``, and a `Projection` behind it where its levels differ in channels."""
    if len(set(neck.features.channels)) == 1:
        return neck
    return NeckChain([neck, NECKS.create("projection", neck.features)])


def _create_graph_neck(inputs: PyramidSpec, name: str) -> GraphNeck:
    graph = read_graph(name)
    try:
        return GraphNeck(inputs, graph)
    except PyrafuseError as error:
        raise PyrafuseError(f"{name}: {error}" if is_graph_file(name) else str(error)) from error
