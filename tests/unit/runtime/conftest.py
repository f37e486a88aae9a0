"""Exported files made by hand: their detections are written in them, the scores times the image's brightness."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pyrafuse.base.card import Card
from pyrafuse.base.exported import Interface, write_metadata
from pyrafuse.base.preprocessing import Preprocessing

CARD = Card(
    names=("cat", "dog"),
    category_ids=(7, 9),
    preprocessing=Preprocessing(size=(64, 64), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
)

BOXES = ((0, 0, 32, 32), (1, 0, 32, 32), (0, 0, 32, 31), (40, 40, 64, 64))
SCORES = (0.9, 0.8, 0.7, 0.3)
LABELS = (0, 0, 1, 1)


def build(
    interface: Interface,
    *,
    boxes: Sequence[Sequence[float]] = BOXES,
    scores: Sequence[float] = SCORES,
    labels: Sequence[int] = LABELS,
    count: int | None = None,
    metadata: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A graph that answers a white image with the boxes, scores and labels given; ``names`` renames its outputs."""
    is_tensor = interface.input == "tensor"
    batch: Any = interface.batch or "batch"
    sides = list(interface.size or ("height", "width"))
    images = helper.make_tensor_value_info(
        "images",
        TensorProto.FLOAT if is_tensor else TensorProto.UINT8,
        [batch, 3, *sides] if is_tensor else [batch, *(["h", "w"] if interface.input == "image" else sides), 3],
    )
    inputs = [images]
    if interface.takes_sizes:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [batch, 2]))
    if interface.threshold == "input":
        inputs.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch]))
    floats = np.array([1.0 if is_tensor else 255.0], np.float32)
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "white": floats,
        "nothing": np.zeros(1, np.float32),
        "line": np.array([-1, 1], np.int64),
        "box_line": np.array([-1, 1, 1], np.int64),
        "all_boxes": np.array(boxes, np.float32).reshape(1, -1, 4),
        "all_scores": np.array(scores, np.float32)[None],
        "all_labels": np.array(labels, np.float32)[None],
        "all_counts": np.array([len(scores) if count is None else count], np.float32),
        "all_rows": np.column_stack([np.array(boxes, np.float32).reshape(-1, 4), scores, labels])[None].astype("f4"),
        "only_scores": np.array([0, 0, 0, 0, 1, 0], np.float32),
        "whole": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"]),
        helper.make_node("Div", ["mean", "white"], ["share"]),
        helper.make_node("Reshape", ["share", "line"], ["bright"]),
        helper.make_node("Mul", ["bright", "nothing"], ["zero"]),
        helper.make_node("Reshape", ["zero", "box_line"], ["box_zero"]),
        helper.make_node("Reshape", ["zero", "whole"], ["line_zero"]),
    ]
    if interface.output == "nms":
        outputs = {"boxes": 1, "scores": 1, "labels": 7, "levels": 7, "rows": 7, "count": 7}
        nodes += [
            helper.make_node("Add", ["box_zero", "all_boxes"], ["boxes"]),
            helper.make_node("Mul", ["bright", "all_scores"], ["scores"]),
            helper.make_node("Add", ["zero", "all_labels"], ["float_labels"]),
            helper.make_node("Cast", ["float_labels"], ["labels"], to=TensorProto.INT64),
            helper.make_node("Identity", ["labels"], ["levels"]),
            helper.make_node("Identity", ["labels"], ["rows"]),
            helper.make_node("Add", ["line_zero", "all_counts"], ["float_count"]),
            helper.make_node("Cast", ["float_count"], ["count"], to=TensorProto.INT64),
        ]
    else:
        outputs = {"output" if interface.output == "rows" else "output0": 1}
        nodes += [
            helper.make_node("Sub", ["bright", "white" if is_tensor else "one"], ["darkness"]),
            helper.make_node("Reshape", ["darkness", "box_line"], ["box_darkness"]),
            helper.make_node("Mul", ["box_darkness", "only_scores"], ["loss"]),
            helper.make_node("Mul", ["loss", "all_rows"], ["lost"]),
            helper.make_node("Add", ["lost", "all_rows"], [next(iter(outputs))]),
        ]
        constants["one"] = np.ones(1, np.float32)
    for old, new in (names or {}).items():
        nodes.append(helper.make_node("Identity", [old], [new]))
        outputs[new] = outputs.pop(old)
    graph = helper.make_graph(
        nodes,
        "detector",
        inputs,
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, dict(write_metadata(CARD, interface) if metadata is None else metadata))
    return model


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the file that `build` makes of these arguments."""

    def write_file(interface: Interface, **options: Any) -> Path:
        path = tmp_path / "model.onnx"
        onnx.save(build(interface, **options), path)
        return path

    return write_file
