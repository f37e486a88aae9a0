"""An ONNX graph whose network computes in 16-bit floats, and nothing else of it.

ONNX graph, names of the network's nodes -> weights rounded, casts at the borders -> ONNX graph
"""

from collections.abc import Iterator, Set
from typing import Any

KEPT = ("Cast", "DeformConv")
"""A cast says itself what it gives; deformable convolution has kernels of 32 bits alone."""

FEW_OPERANDS = {"Resize": 1}
"""Operands that count as values; further ones are parameters of 32 bits."""


def halve(model: Any, network: Set[str]) -> None:
    """Turn the nodes of the ``network`` into such of 16 bits, in place.

    Args:
        model: An ``onnx.ModelProto``.
        network: Names of nodes.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
    outputs = {value.name for value in graph.output}
    halved: set[str] = set()  # names of values, of which there is a half
    whole = {value.name for value in (*graph.input, *graph.initializer)}  # of which there are 32 bits
    nodes = []

    def cast(name: str, made: str, kind: int) -> None:
        nodes.append(helper.make_node("Cast", [name], [made], name=f"cast_to_{made}", to=kind))

    for node in graph.node:
        if node.name not in network or node.op_type in KEPT:
            for name in dict.fromkeys(_names_read(node)):
                if name in halved and name not in whole:
                    cast(f"{name}_half", name, TensorProto.FLOAT)
                    whole.add(name)
            whole.update(node.output)
            nodes.append(node)
            continue
        for place, name in enumerate(node.input[: FEW_OPERANDS.get(node.op_type)]):
            if name not in floats and name not in weights:
                continue
            if name not in halved:
                if name in weights:
                    rounded = numpy_helper.to_array(weights[name]).astype("float16")
                    graph.initializer.append(numpy_helper.from_array(rounded, f"{name}_half"))
                else:
                    cast(name, f"{name}_half", TensorProto.FLOAT16)
                halved.add(name)
            node.input[place] = f"{name}_half"
        for place, name in enumerate(node.output):
            if name in floats:
                node.output[place] = f"{name}_half"
                halved.add(name)
            else:
                whole.add(name)
        nodes.append(node)
    for name in sorted(outputs & halved - whole):
        cast(f"{name}_half", name, TensorProto.FLOAT)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    read = {name for node in nodes for name in _names_read(node)}
    unread = [weight for weight in graph.initializer if weight.name not in read | outputs]
    for weight in unread:
        graph.initializer.remove(weight)


def _names_read(node: Any) -> Iterator[str]:
    """Names of the values that a node reads, those that its loops and branches take from outside too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            yield from _names_read(inner)
        for value in attribute.g.output if attribute.HasField("g") else ():
            yield value.name
