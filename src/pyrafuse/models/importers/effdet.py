"""Names of effdet's BiFPN (EfficientDet in PyTorch): our key -> theirs, for all three forms.

What a key means was learnt from the published files' keys and shapes. To be used with `renaming.by_parts`.
"""

from collections.abc import Iterator

from pyrafuse.core.pyramid import Neck
from pyrafuse.models.importers.renaming import Naming, by_modules
from pyrafuse.necks.graph_neck import GraphNeck


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
