"""All necks by name, and chains of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import Part, read_part
from pyrafuse.base.registry import Registry
from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.necks.graph import Graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import GivenNeck, is_graph, list_necks, read_graph, read_text

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


@NECKS.register("chain", makers={"necks": NECKS}, is_listed=False)
def chain(inputs: PyramidSpec, *, necks: Sequence[Callable[[PyramidSpec], Neck]]) -> Neck:
    """Necks in a row; of one alone it is that one.

    Args:
        inputs: The pyramid that comes in.
        necks: The first reads first.
    """
    if not necks:
        raise PyrafuseError(f"a neck is needed; choose from {', '.join(NECKS.names())}")
    built: list[Neck] = []
    for make in necks:
        built.append(make(built[-1].features if built else inputs))
    return built[0] if len(built) == 1 else NeckChain(built)


@NECKS.register("graph", is_listed=False)
def graph(inputs: PyramidSpec, *, graph: str) -> GraphNeck:
    """The neck that a graph describes.

    Args:
        inputs: The pyramid that comes in.
        graph: Its text.
    """
    return GraphNeck(inputs, read_graph(graph))


def read_necks(given: Any) -> Any:
    """``given``, one neck or several, with each graph, whatever it is told by, as a part that holds its text.

    Args:
        given: A registered name, a part, or a mapping of its name and options; of a graph its file, its text, a `Graph`
            or what the YAML of one holds.

    Raises:
        PyrafuseError: If a graph cannot be read.
    """
    if isinstance(given, list | tuple) and not any(isinstance(one, list | tuple) for one in given):
        return tuple(map(read_necks, given))
    if isinstance(given, Graph) or (isinstance(given, Mapping) and "merges" in given):
        return Part("graph", {"graph": list_necks(given)[0]})
    if isinstance(given, str) and is_graph(given):
        return Part("graph", {"graph": read_text(given)})
    if not isinstance(given, str | Part | Mapping):
        raise PyrafuseError(f"a neck is a registered name, a graph, or a list of these; got {given!r}")
    return given


def create_neck(given: GivenNeck | Part | Sequence[GivenNeck | Part], inputs: PyramidSpec, **options: Any) -> Neck:
    """Build a neck, or several in a row, on a pyramid of ``inputs``.

    Args:
        given: One neck or several, as `read_necks` takes them; the first reads first.
        inputs: Channels and strides of what comes in.
        options: Keyword arguments of the neck's constructor, where it is one.

    Raises:
        UnknownNameError: If there is no such neck.
        PyrafuseError: If ``given`` is none of these, a neck takes no such option, or a graph has faults.
    """
    row = read_necks(given)
    row = row if isinstance(row, tuple) else (row,)
    if options:
        row = tuple(read_part(one).with_options(**options) for one in row)
    return NECKS.build(Part("chain", {"necks": row}), inputs)
