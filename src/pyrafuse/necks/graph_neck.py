"""The one module that runs every graph.

graph + channels and strides of what comes in -> plan -> modules, in order; forward is one flat loop over them
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import initialize
from pyrafuse.necks.graph import Graph, Step, plan_graph
from pyrafuse.necks.merging import FUSIONS, Convolution, Edge, FusionPlace, Size


class MergeNode(nn.Module):
    """One merge: inputs -> its level and channels -> fusion -> convolution.

    Attributes:
        edges: The way of each input; idle ones pass it as it is.
        fusion: A function or module over the list of maps; none where one input is all there is.
        conv: None where there is no convolution.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        merge = step.merge
        self.edges = nn.ModuleList(
            Edge((before, after), (level, merge.level), up=merge.up, down=merge.down, project=merge.project)
            for before, after, level in zip(step.before, step.widths, step.levels, strict=True)
        )
        self._is_idle = tuple(edge.is_idle for edge in self.edges if isinstance(edge, Edge))
        is_plain = len(merge.inputs) == 1 and merge.fusion in ("sum", "concat")
        place = FusionPlace(merge.name, merge.inputs, step.widths[0], merge.weight_channels, merge.project.activation)
        self.fusion = None if is_plain else FUSIONS[merge.fusion](place)
        self.conv = None if merge.conv is None else Convolution(step.fused, step.channels, merge.conv)

    def forward(self, inputs: Sequence[Tensor], size: Size | None) -> Tensor:
        """The map of this merge.

        Args:
            inputs: (B, C, H, W), each of its level.
            size: Of this merge's level, where it is known.
        """
        # Parts that hold others are not called but looked into: on small maps a call of Python's counts. Hooks on
        # fusions and on whatever has parameters are served.
        x = self._fuse(inputs, size)
        if self.conv is not None:
            for part in self.conv:
                x = part(x)
        return x

    def _fuse(self, inputs: Sequence[Tensor], size: Size | None) -> Tensor:
        maps: list[Tensor] = []
        for x, edge, is_idle in zip(inputs, self.edges, self._is_idle, strict=True):
            arrived = x if is_idle else edge.forward(x, size)
            size = arrived.shape[-2:] if size is None else size  # of a new level: as the first input arrives
            maps.append(arrived)
        return maps[0] if self.fusion is None else self.fusion(maps)


class GraphNeck(Neck):
    """A neck as its graph says.

    Parameters are called by the merges' names: ``merges.P4.conv.conv.weight``, ``merges.P4.edges.0.project.norm.bias``,
    ``merges.P4.fusion.edge_weights``.

    Args:
        inputs: What comes in.
        graph: What becomes of it.

    Attributes:
        graph: As it was given.
        plan: How it runs on these inputs.

    Raises:
        PyrafuseError: As `plan_graph` does.
    """

    def __init__(self, inputs: PyramidSpec, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.plan = plan_graph(graph, inputs)
        self.features = self.plan.features
        self.merges = nn.ModuleDict({step.merge.name: MergeNode(step) for step in self.plan.steps})
        self._num_inputs = len(inputs)

        levels = sorted({*self.plan.levels, *(step.merge.level for step in self.plan.steps)})
        rank = {level: place for place, level in enumerate(levels)}
        self._num_levels = len(levels)
        self._input_ranks = tuple(rank[level] for level in self.plan.levels)
        # sources, rank of the level, and the maps that nobody needs afterwards
        self._steps = tuple(
            (step.sources, rank[step.merge.level], spent)
            for step, spent in zip(self.plan.steps, _spent_after(self.plan.steps, self.plan.outputs), strict=True)
        )
        initialize(self)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        maps: list[Tensor | None] = list(pyramid)
        sizes: list[Size | None] = [None] * self._num_levels
        for rank, x in zip(self._input_ranks, pyramid, strict=True):
            sizes[rank] = x.shape[-2:]
        for (sources, rank, spent), merge in zip(self._steps, self.merges.values(), strict=True):
            x = merge.forward([maps[source] for source in sources], sizes[rank])  # see there why it is not called
            if sizes[rank] is None:
                sizes[rank] = x.shape[-2:]
            maps.append(x)
            for place in spent:
                maps[place] = None
        return tuple(x for place in self.plan.outputs if (x := maps[place]) is not None)


def _spent_after(steps: Sequence[Step], outputs: Sequence[int]) -> list[tuple[int, ...]]:
    """For each step, the places that no later step and no output reads: their memory can go."""
    spent: list[tuple[int, ...]] = []
    needed = set(outputs)
    for step in reversed(steps):
        spent.insert(0, tuple(place for place in step.sources if place not in needed))
        needed.update(step.sources)
    return spent
