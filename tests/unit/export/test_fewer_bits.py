"""fp16 and int8: only the network computes so, and what it costs is average precision on annotated images."""

import json
import re
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Interface
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.cli.main import main
from pyrafuse.export.batches import generate_images
from pyrafuse.export.exporting import export
from pyrafuse.export.halving import halve
from pyrafuse.export.measuring import DataFeeds, Loss, measure, split_in_two
from pyrafuse.export.quantizing import Node, find_network
from pyrafuse.export.registry import FORMATS
from pyrafuse.importers.loading import load
from pyrafuse.models.factory import create_model

CHECKPOINTS = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"
CARD = Card(names=("a", "b"), preprocessing=Preprocessing(size=(64, 96), fit="letterbox"))


def nodes(*rows):
    return [Node(name, kind, tuple(sources)) for name, kind, *sources in rows]


def test_the_network_is_what_lies_between_its_layers_before_anything_is_selected():
    graph = nodes(
        ("images", "Parameter"),
        ("matrix", "Range", "images"),
        ("resized", "MatMul", "images", "matrix"),  # no weights: it prepares images
        ("first", "Conv", "resized", None),
        ("leaky", "LeakyRelu", "first"),
        ("weights", "Constant"),
        ("second", "Convolution", "leaky", "weights"),
        ("decoded", "Exp", "second"),
        ("best", "TopK", "decoded", None),
        ("regions", "Mul", "best", "decoded"),
        ("pooled", "RoiAlign", "first", "regions"),
        ("third", "Gemm", "pooled", None, None),
        ("scores", "Sigmoid", "third"),
    )
    assert find_network(graph) == {"first", "leaky", "second", "third"}


def small_onnx():
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "v": rng.normal(size=(2, 4, 1, 1)), "scale": np.float32(3)}
    operations = [
        helper.make_node("Mul", ["images", "scale"], ["scaled"], "scaling"),
        helper.make_node("Conv", ["scaled", "w"], ["first"], "first_conv"),
        helper.make_node("Mul", ["first", "scale"], ["middle"], "middle_mul"),
        helper.make_node("Conv", ["middle", "v"], ["second"], "second_conv"),
        helper.make_node("Exp", ["second"], ["output"], "decoding"),
    ]
    graph = helper.make_graph(
        operations,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2, 6, 6])],
        [numpy_helper.from_array(np.asarray(values, np.float32) / 30, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_only_the_network_is_halved_and_answers_nearly_the_same():
    whole, half = small_onnx(), small_onnx()
    halve(half, {"first_conv", "middle_mul", "second_conv"})
    onnx.checker.check_model(half, full_check=True)
    kinds = {value.name: value.data_type for value in half.graph.initializer}
    assert kinds == {
        "w_half": TensorProto.FLOAT16,
        "v_half": TensorProto.FLOAT16,
        "scale_half": TensorProto.FLOAT16,
        "scale": TensorProto.FLOAT,  # what prepares images reads it too
    }
    read = {node.name: list(node.input) for node in half.graph.node}
    assert read["scaling"] == ["images", "scale"]
    assert read["decoding"] == ["second"]
    images = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    found, expected = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"images": images}
        )[0]
        for model in (half, whole)
    )
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-2


@pytest.fixture
def data(tmp_path):
    records = []
    for number, (height, width) in enumerate(((50, 70), (80, 70))):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((height, width, 3), 40 * number, np.uint8)).save(path)
        boxes = np.array([[5, 5, 60, 40], [2, 20, 12, 30]], np.float32)
        sides = boxes[:, 2:] - boxes[:, :2]
        records.append(
            ImageRecord(
                path=path, image_id=number, height=height, width=width, boxes=boxes,
                labels=np.array([0, 1]), areas=sides.prod(axis=1), crowd=np.zeros(2, bool),
            )
        )  # fmt: skip
    return DetectionData(records=tuple(records), names=("a", "b"), category_ids=(1, 2), split="val", layout="coco")


def answer(feeds, *, output, drop_small=False):
    """A run that finds what is annotated, in pixels of the network's input."""
    scales = [min(64 / h, 96 / w) for h, w in ((50, 70), (80, 70))]
    calls = iter(scales)

    def run(_):
        boxes = np.array([[5, 5, 60, 40], [2, 20, 12, 30]], np.float32) * next(calls)
        scores = np.array([[0.9, 0], [0, 0.001 if drop_small else 0.8]], np.float32)
        if output == "rows":
            return {"output": np.column_stack((boxes, scores.max(axis=1), [0, 1]))[None].astype(np.float32)}
        centers = np.column_stack(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], scores))
        return {"output0": centers.T[None].astype(np.float32)}

    return run


@pytest.mark.parametrize("output", ["rows", "raw"])
def test_the_loss_is_that_of_average_precision(data, output):
    interface = Interface(input="fitted", output=output, size=(64, 96), batch=1, score=0.01)
    feeds = DataFeeds(data, interface, CARD.preprocessing)
    assert [feed["images"].shape for feed in feeds] == [(1, 64, 96, 3)] * 2
    exact = measure(answer(feeds, output=output), feeds, CARD)
    assert exact.ap == pytest.approx(1)
    assert not Loss(exact, exact).complain(0)
    worse = Loss(exact, measure(answer(feeds, output=output, drop_small=True), feeds, CARD))
    assert worse.file.ap == pytest.approx(0.5)
    assert "AP 0.5000 instead of 1.0000 on 2 images, +0.5000 lost; of 2 small objects" in worse.complain(0.3)
    assert "more than 0.6" in worse.complain(0.6)  # of small objects all are lost
    assert not worse.complain(1)


def test_data_without_small_objects_or_finds_are_told(data):
    interface = Interface(input="fitted", output="rows", size=(64, 96), batch=1, score=0.01)
    large = replace(data, records=tuple(replace(record, areas=record.areas + 5000) for record in data.records))
    feeds = DataFeeds(large, interface, CARD.preprocessing)
    exact = measure(answer(feeds, output="rows"), feeds, CARD)
    loss = Loss(exact, exact)
    assert "the data have no small object" in loss.tell()
    assert not loss.complain(0.0)
    nothing = measure(lambda _: {"output": np.zeros((1, 0, 6), np.float32)}, feeds, CARD)
    assert "the detector itself has AP 0.0000" in Loss(nothing, nothing).complain(0.5)


@pytest.fixture(scope="module")
def detector():
    made = create_model("yolov3_asff_small", num_classes=2).eval()
    made.card = replace(made.card, model="yolov3_asff_small", names=("a", "b"), preprocessing=CARD.preprocessing)
    return made


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ("fp16 is judged by the average precision that it costs: add annotated images, --check DATA", {}),
        ("maps of levels have no average precision", {"output": "levels"}),
        ("max_ap_loss", {"max_ap_loss": 2.0}),
    ],
)
def test_fewer_bits_without_what_judges_them_are_refused(detector, tmp_path, told, options):
    with pytest.raises(PyrafuseError, match=told):
        export(detector, tmp_path / "a.onnx", precision="fp16", **options)
    assert not list(tmp_path.iterdir())


def test_data_of_other_classes_are_refused(detector, tmp_path, data):
    with pytest.raises(PyrafuseError, match="the detector does not know kite"):
        export(detector, tmp_path / "a.onnx", precision="fp16", data=replace(data, names=("a", "kite")))


def test_int8_needs_its_library(monkeypatch):
    monkeypatch.setattr("pyrafuse.export.registry.find_spec", lambda name: None if name == "nncf" else object())
    FORMATS.create("onnx").require("fp32")
    with pytest.raises(PyrafuseError, match="needs nncf, which is not installed"):
        FORMATS.create("onnx").require("int8")


def test_one_half_gives_the_ranges_and_the_other_judges(data):
    many = replace(data, records=tuple(replace(data.records[0], image_id=number) for number in range(7)))
    told = []
    judging, ranges = ([record.image_id for record in half.records] for half in split_in_two(many, told.append))
    assert (len(judging), len(ranges)) == (4, 3)
    assert sorted(judging + ranges) == list(range(7))
    assert "3 of 7, drawn at random" in told[0]
    with pytest.raises(PyrafuseError, match="one image: add images"):
        split_in_two(replace(data, records=data.records[:1]), told.append)


def annotate(detector, folder) -> Path:
    """A COCO file of four images, in which the objects are what the detector itself finds best, some of them small."""
    images, objects = [], []
    for number, pixels in enumerate([*generate_images(), generate_images()[0][::-1]]):
        file, (height, width) = f"{number}.png", pixels.shape[:2]
        Image.fromarray(pixels).save(folder / file)
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        (found,) = detector.predict(pixels, score=0.001)
        for rank, (box, label) in enumerate(zip(found.boxes[:8].tolist(), found.labels[:8].tolist(), strict=True)):
            x, y, right, bottom = box
            objects.append(
                {
                    "id": len(objects), "image_id": number, "category_id": label, "iscrowd": 0,
                    "bbox": [x, y, right - x, bottom - y], "area": 500 if rank % 2 else 5000,
                }
            )  # fmt: skip
    categories = [{"id": label, "name": name} for label, name in enumerate(detector.names)]
    path = folder / "val.json"
    path.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    return path


@pytest.mark.slow
def test_what_int8_costs_a_detector_is_told_and_limited(tmp_path, capsys, caplog):
    """A stored detector, quantized twice by the command: refused for its loss, and written where that is allowed."""
    with ZipFile(CHECKPOINTS) as files:
        checkpoint = files.extract("yolov3_asff_small.ckpt", tmp_path)
    data, out = annotate(load(checkpoint).eval(), tmp_path), tmp_path / "out" / "a.onnx"
    line = ["export", checkpoint, "-o", str(out), "--static", "--precision", "int8", "--check", str(data)]
    assert main([*line, "--max-ap-loss", "0"]) != 0
    told = capsys.readouterr()
    assert "it loses more than 0: AP 0." in told.err
    assert "allow more with --max-ap-loss" in told.err
    assert not list(out.parent.glob("*"))
    assert main([*line, "--max-ap-loss", "1"]) == 0
    told = capsys.readouterr()
    found = re.search(
        r"AP (0\.\d+) instead of ([01]\.\d+) on 2 images, \+(0\.\d+) lost; "
        r"of (\d+) small objects (0\.\d+) instead of ([01]\.\d+)",
        told.out,
    )
    assert found, told.out
    ap, eager, lost = map(float, found.groups()[:3])
    assert 0 < ap < eager
    assert lost == pytest.approx(eager - ap, abs=2e-4)
    assert int(found[4]) > 0
    assert "Skipping" not in told.err + caplog.text
    weights = {value.data_type for value in onnx.load(out).graph.initializer}
    assert TensorProto.INT8 in weights
