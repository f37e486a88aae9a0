"""ONNX, for onnxruntime and whatever reads it."""

from pathlib import Path
from typing import Any

import torch

from pyrafuse.export.halving import halve
from pyrafuse.export.onnx_translations import translations
from pyrafuse.export.quantizing import Node, find_network, quantize
from pyrafuse.export.registry import FORMATS, Capture, ExportFormat, Run, quiet
from pyrafuse.runtime.engines.onnxruntime import ONNXRuntime

OPSET = 20
"""Deformable convolution needs 19, affine grids 20."""

MOST_IR = 10
"""Later forms of the file are refused by runtimes that are still in use."""

MOST_FOLDED = 2**28
"""Bytes of weights that are computed in advance."""


@FORMATS.register("onnx")
class ONNX(ExportFormat):
    """ONNX of opset 20 with metadata, in one file."""

    summary = "onnxruntime, and whatever else reads ONNX"
    suffix = ".onnx"
    modules = ("onnx", "onnxscript", "onnxruntime")
    precisions = ("fp32", "fp16", "int8")

    def write(self, capture: Capture, path: Path) -> None:
        import onnx

        model = to_onnx(capture)
        if capture.interface.precision == "int8":
            model = quantize(model, _list_nodes(model), capture.calibration)
        elif capture.interface.precision == "fp16":
            halve(model, find_network(_list_nodes(model)))
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def open(self, path: Path) -> Run:
        return ONNXRuntime(path).run


def to_onnx(capture: Capture, *, is_topk_stable: bool = True) -> Any:
    """The graph as ``onnx.ModelProto``, with its metadata; see `translations`."""
    import onnx
    from onnxscript.optimizer import fold_constants

    with quiet():
        exported = torch.onnx.export(
            capture.program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(capture.inputs),
            output_names=list(capture.outputs),
            custom_translation_table=translations(is_topk_stable=is_topk_stable),
            optimize=True,
            verbose=False,
        )
        assert exported is not None
        if capture.interface.precision != "fp32":  # weights that are still sums and products are no weights to NNCF
            fold_constants(exported.model, input_size_limit=MOST_FOLDED, output_size_limit=MOST_FOLDED)
    model = exported.model_proto
    model.ir_version = min(model.ir_version, MOST_IR)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(capture.metadata))
    _forget_origins(model)
    return model


def _list_nodes(model: Any) -> list[Node]:
    """Inputs and operations, each behind its sources, as ONNX itself demands."""
    inputs = [value.name for value in model.graph.input]
    makers = {name: name for name in inputs} | {name: node.name for node in model.graph.node for name in node.output}
    operations = [
        Node(node.name, node.op_type, tuple(makers.get(name) for name in node.input)) for node in model.graph.node
    ]
    return [*(Node(name, "Parameter", ()) for name in inputs), *operations]


def _forget_origins(model: Any) -> None:
    """Drop stack traces and places of this machine, which the exporter writes to every node."""
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        if hasattr(graph, "metadata_props"):
            del graph.metadata_props[:]
