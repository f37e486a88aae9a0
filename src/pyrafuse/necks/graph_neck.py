"""The one module that runs every graph.

graph + channels and strides of what comes in -> plan -> modules, in order; forward is one flat loop over them
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import initialize
from pyrafuse.necks.convolving import create_block
from pyrafuse.necks.graph import Graph, Step, plan_graph
from pyrafuse.necks.merging import FUSIONS, Edge, FusionPlace, Size


class MergeNode(nn.Module):
    """The parts of one merge, which `GraphNeck` runs: inputs -> edges -> fusion -> convolution.

    Attributes:
        edges: The way of each input.
        ways: The same; none where an input passes as it is.
        fusion: A function or module of the maps; none where one input is all there is.
        conv: None where there is no convolution.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        merge = step.merge
        edges = [
            Edge(
                (before, after),
                (level, merge.level),
                up=merge.up,
                down=merge.down,
                project=merge.project,
                guide_channels=step.widths[0],
            )
            for before, after, level in zip(step.before, step.widths, step.levels, strict=True)
        ]
        self.edges = nn.ModuleList(edges)
        self.ways = tuple(None if edge.is_idle else edge for edge in edges)
        is_plain = len(merge.inputs) == 1 and merge.fusion in ("sum", "concat")
        place = FusionPlace(
            merge.name, merge.inputs, step.stride, step.widths[0], merge.weight_channels, merge.project.activation
        )
        self.fusion = None if is_plain else FUSIONS[merge.fusion](place)
        self.conv = None if merge.conv is None else create_block(step.fused, step.channels, merge.conv)


class GraphNeck(Neck):
    """A neck as its graph says.

    Parameters are called by the merges' names: ``merges.P4.conv.conv.weight``, ``merges.P4.edges.0.project.norm.bias``,
    ``merges.P4.fusion.edge_weights``.

    Args:
        inputs: Channels and strides of the input pyramid.
        graph: What becomes of it.

    Attributes:
        graph: Graph as it was given.
        plan: How it runs on these inputs.

    Raises:
        PyrafuseError: On the same faults as `plan_graph`.
    """

    def __init__(self, inputs: PyramidSpec, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.plan = plan_graph(graph, inputs)
        self.features = self.plan.features
        steps = self.plan.steps
        nodes = [MergeNode(step) for step in steps]
        self.merges = nn.ModuleDict({step.merge.name: node for step, node in zip(steps, nodes, strict=True)})
        levels = sorted({*self.plan.levels, *(step.merge.level for step in steps)})
        self._input_ranks = tuple(levels.index(level) for level in self.plan.levels)
        self._num_levels = len(levels)
        # On small maps, to look a part up in its module takes as long as its work does: it is done here, once. Layers
        # themselves are looked up in `conv`, for whoever puts others in their place (synchronised batch norm).
        self._steps = tuple(
            (tuple(zip(step.sources, node.ways, strict=True)), node.fusion, node.conv or (), rank, spent)
            for step, node, rank, spent in zip(
                steps,
                nodes,
                (levels.index(step.merge.level) for step in steps),
                _spent_after(steps, self.plan.outputs),
                strict=True,
            )
        )
        initialize(self)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        # Edges and convolutions are looked into, not called; hooks on fusions and on layers are served.
        maps = dict(enumerate(pyramid))
        sizes: list[Size | None] = [None] * self._num_levels
        for rank, x in zip(self._input_ranks, pyramid, strict=True):
            sizes[rank] = x.shape[2:]
        for place, (ways, fusion, conv, rank, spent) in enumerate(self._steps, start=len(pyramid)):
            size = sizes[rank]
            arrived: list[Tensor] = []
            for source, edge in ways:
                x = maps[source]
                if edge is not None:
                    x = edge.forward(x, size, arrived)
                    if size is None:  # a new level is as large as what arrives there first
                        size = sizes[rank] = x.shape[2:]
                arrived.append(x)
            x = arrived[0] if fusion is None else fusion(*arrived)
            del arrived
            for source in spent:
                del maps[source]
            for part in conv:
                x = part(x)
            maps[place] = x
        return tuple(maps[place] for place in self.plan.outputs)


def _spent_after(steps: Sequence[Step], outputs: Sequence[int]) -> list[tuple[int, ...]]:
    """For each step, the places that no later step and no output reads: their memory can go."""
    spent: list[tuple[int, ...]] = []
    needed = set(outputs)
    for step in reversed(steps):
        spent.insert(0, tuple(place for place in step.sources if place not in needed))
        needed.update(step.sources)
    return spent
