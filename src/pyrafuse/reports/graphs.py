"""A graph's merges as `plot_graph` draws them."""

from dataclasses import replace

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.graph import Graph, Merge, plan_graph
from pyrafuse.visualization.pyramid_graph import GraphNode


def list_nodes(graph: Graph, inputs: PyramidSpec) -> list[GraphNode]:
    """What `plot_graph` draws: the maps that come in, and one run of the merges."""
    plan = plan_graph(replace(graph, stack=1), inputs)
    nodes = [GraphNode(f"C{level}", level) for level in plan.levels if f"C{level}" not in graph.ignored]
    nodes += [
        GraphNode(
            step.merge.name,
            step.merge.level,
            step.merge.inputs,
            operation=describe(step.merge),
            is_output=step.merge.name in graph.outputs,
        )
        for step in plan.steps
    ]
    return nodes


def describe(merge: Merge) -> str:
    """The operation of a merge in words."""
    words = []
    if len(merge.inputs) > 1 or merge.fusion not in ("sum", "concat"):
        words.append(merge.fusion)
    if (conv := merge.conv) is not None:
        kind = "separable " if conv.separable else "" if conv.block == "conv" else f"{conv.block} "
        words.append(f"{kind}{conv.kernel_size}x{conv.kernel_size}")
    return ", ".join(words) or merge.down
