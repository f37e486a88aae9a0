"""Triton Inference Server: a model of its repository, run by its onnxruntime."""

import json

from pyrafuse.export.consumers import ForConsumer, Model, Port
from pyrafuse.export.registry import FORMATS

MOST_BATCH = 8
"""Images that the server may put together, where the file takes any number."""

KINDS = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64", 10: "TYPE_FP16"}
"""Kinds of numbers, by ONNX's number."""


@FORMATS.register("triton", is_listed=False)
class Triton(ForConsumer):
    """``1/model.onnx``, ``labels.txt`` and ``config.pbtxt``; the folder's name is the model's."""

    summary = "a folder for the model repository of Triton Inference Server"
    place = "1/model.onnx"

    def describe(self, model: Model) -> dict[str, str]:
        batch = 0 if model.interface.batch else MOST_BATCH
        lines = [f"name: {json.dumps(model.name, ensure_ascii=False)}", 'backend: "onnxruntime"']
        lines.append(f"max_batch_size: {batch}")
        for kind, ports in (("input", model.inputs), ("output", model.outputs)):
            lines += [line for port in ports for line in (f"{kind} {{", *_describe(port, bool(batch)), "}")]
        return {
            "labels.txt": "".join(f"{label}\n" for label in model.labels),
            "config.pbtxt": "\n".join(lines) + "\n",
        }


def _describe(port: Port, is_batched: bool) -> list[str]:
    sides = port.shape[1:] if is_batched else port.shape
    lines = [
        f"  name: {json.dumps(port.name)}",
        f"  data_type: {KINDS[port.kind]}",
        f"  dims: [ {', '.join(map(str, sides or (1,)))} ]",
    ]
    return lines if sides else [*lines, "  reshape { shape: [ ] }"]  # one number an image
