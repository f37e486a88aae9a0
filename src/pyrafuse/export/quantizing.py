"""Fewer bits for the network alone: what decodes, weighs boxes or prepares images keeps its 32.

graph of any format -> `Node`s -> names of the layers and of what lies between them -> int8 by NNCF
"""

import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from pyrafuse.base.telemetry import refuse_telemetry
from pyrafuse.export.registry import Feeds, quiet

LAYERS = ("Conv", "ConvTranspose", "DeformConv", "Gemm", "MatMul")
OPENVINO_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "DeformableConvolution", "MatMul")

MOST_CALIBRATION = 300
"""Images that int8 takes its ranges from."""


@dataclass(frozen=True)
class Node:
    """An operation of a graph.

    Attributes:
        name: Name of its own.
        kind: What it does.
        sources: Names of the nodes whose results it takes, by argument; None for weights that are stored.
    """

    name: str
    kind: str
    sources: tuple[str | None, ...]


def find_network(nodes: Sequence[Node]) -> set[str]:
    """Names of the network's nodes: layers with weights, and what stands between them before anything is selected.

    What follows the last layer decodes; what comes before the first one prepares images; and what lies between layers
    but behind a selection is arithmetic of boxes (proposals, regions).

    Args:
        nodes: All of a graph, each behind its sources.
    """
    varies: set[str] = set()  # hangs on what is put in
    behind: set[str] = set()
    selected: set[str] = set()
    layers: set[str] = set()
    for node in nodes:
        sources = {source for source in node.sources if source is not None}
        if node.kind == "Parameter" or sources & varies:
            varies.add(node.name)
        if sources & (behind | layers):
            behind.add(node.name)
        if node.kind == "TopK" or sources & selected:
            selected.add(node.name)
        has_weights = len(node.sources) > 1 and node.sources[1] not in varies
        if node.kind in (*LAYERS, *OPENVINO_LAYERS) and node.name in varies and has_weights:
            layers.add(node.name)
    before: set[str] = set()
    for node in reversed(nodes):
        if node.name in (before | layers) - selected:
            before.update(source for source in node.sources if source is not None)
    return layers | {node.name for node in nodes if node.name in (behind & before & varies) - selected}


def quantize(model: Any, nodes: Sequence[Node], calibration: Sequence[Feeds]) -> Any:
    """The model, of ONNX or OpenVINO, with its network in int8; ranges are those that the calibration images take.

    Args:
        model: What NNCF takes.
        nodes: All of its graph, each behind its sources.
        calibration: Inputs by name.
    """
    refuse_telemetry()
    network = find_network(nodes)
    with quiet(), redirect_stdout(StringIO()):  # bars of progress
        import nncf

        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(calibration, dict),
            preset=nncf.QuantizationPreset.MIXED,  # activations below 0, of leaky ReLU and swish, have their own range
            subset_size=min(len(calibration), MOST_CALIBRATION),
            ignored_scope=nncf.IgnoredScope(
                names=[node.name for node in nodes if node.name not in network], validate=False
            ),
        )
