"""What Frigate, DeepStream and Triton would read of the folders made for them, by the rules of their documentation."""

import configparser
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Interface
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.main import main
from pyrafuse.export.consumers import Model, Port
from pyrafuse.export.exporting import export
from pyrafuse.export.formats.deepstream import DeepStream
from pyrafuse.export.formats.frigate import Frigate
from pyrafuse.export.formats.triton import Triton
from pyrafuse.importers.loading import load
from pyrafuse.runtime import load as load_exported

CHECKPOINTS = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"
NAMES = ("7 up", 'two\nlines: "é" 🐟')
LABELS = ["7 up", 'two lines: "é" 🐟']


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    with zipfile.ZipFile(CHECKPOINTS) as files:
        made = load(files.extract("ssd300.ckpt", tmp_path_factory.mktemp("detector"))).eval()
    made.card = replace(made.card, names=NAMES, preprocessing=replace(made.card.preprocessing, size=(64, 64)))
    return made


def region(height, width):
    rng = np.random.default_rng(5)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def decode(detector, resized):
    """Boxes (N, 4) and scores (N, K) of the detector itself for an image of the network's size."""
    pixels = torch.from_numpy(resized.transpose(2, 0, 1)[None].copy()).float() / 255
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (detector.card.preprocessing.mean, detector.card.preprocessing.std)
    )
    with torch.no_grad():
        candidates = detector.decode((pixels - mean) / std)
    return candidates.boxes[0].numpy(), candidates.scores[0].numpy()


def run(path, feeds):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_inputs()] == list(feeds)
    return session.run(None, feeds)


def test_frigate_finds_its_settings_and_the_detector_s_boxes(detector, tmp_path):
    folder = tmp_path / "mine"
    exported = export(detector, folder, format="frigate")
    assert exported.agreement.num_compared > 100
    assert sorted(p.name for p in folder.iterdir()) == ["frigate.yml", "labelmap.txt", "model.onnx"]

    settings = yaml.safe_load((folder / "frigate.yml").read_text(encoding="utf-8"))
    model = settings["model"]
    assert model == {
        "model_type": "yolo-generic",
        "path": "/config/model_cache/mine/model.onnx",
        "labelmap_path": "/config/model_cache/mine/labelmap.txt",
        "width": 64,
        "height": 64,
        "input_tensor": "nchw",
        "input_pixel_format": "rgb",
        "input_dtype": "float",
    }
    assert [one["type"] for one in settings["detectors"].values()] == ["onnx"]
    lines = (folder / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].split(" ", maxsplit=1)[0].isdigit()  # so every line is number and name
    labelmap = {int(number): name for number, name in (line.split(" ", maxsplit=1) for line in lines)}
    assert labelmap == dict(enumerate(LABELS))
    assert settings["objects"]["track"] == LABELS

    # a square region, resized without a filter; channels first; floats in 0..1
    resized = cv2.resize(region(150, 150), (model["width"], model["height"]), interpolation=cv2.INTER_LINEAR)
    (output,) = run(folder / "model.onnx", {"images": resized.transpose(2, 0, 1)[None].astype(np.float32) / 255})
    columns = np.squeeze(output)
    assert columns.shape[0] < columns.shape[1]  # what tells it that the columns are the candidates
    rows = columns.T
    boxes, scores = decode(detector, resized)
    corners = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2), axis=1)
    np.testing.assert_allclose(corners, boxes, atol=1e-2)
    np.testing.assert_allclose(rows[:, 4:], scores, atol=1e-4)
    assert scores.max() > 0.1


def test_deepstream_finds_its_settings_and_the_detector_s_boxes(detector, tmp_path):
    folder = tmp_path / "mine"
    export(detector, folder, format="deepstream", batch=2, nms_iou=0.45, max_detections=50)
    assert sorted(p.name for p in folder.iterdir()) == ["config_infer_primary.txt", "labels.txt", "model.onnx"]
    settings = configparser.ConfigParser()
    settings.read(folder / "config_infer_primary.txt", encoding="utf-8")
    given = settings["property"]
    assert (folder / given["labelfile-path"]).read_text(encoding="utf-8").splitlines() == LABELS
    assert given["num-detected-classes"] == "2"
    assert given["batch-size"] == "2"
    assert given["parse-bbox-func-name"] == "NvDsInferParseYolo"
    assert dict(settings["class-attrs-all"]) == {
        "nms-iou-threshold": "0.45",
        "pre-cluster-threshold": "0.25",
        "topk": "50",
    }
    channels, height, width = map(int, given["infer-dims"].split(";"))
    assert (channels, given["model-color-format"], given["maintain-aspect-ratio"]) == (3, "0", "0")
    frames = [
        cv2.resize(region(*shape), (width, height), interpolation=cv2.INTER_LINEAR) for shape in ((90, 160), (70, 50))
    ]
    feeds = np.stack(
        [float(given["net-scale-factor"]) * frame.transpose(2, 0, 1).astype(np.float32) for frame in frames]
    )
    (output,) = run(folder / given["onnx-file"], {"images": feeds})
    for rows, frame in zip(output, frames, strict=True):
        boxes, scores = decode(detector, frame)
        boxes = boxes.clip(0, 64)
        is_inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        indices, labels = np.nonzero((scores > 0.001) & is_inside[:, None])  # every class of every box
        expected = np.column_stack((boxes[indices], scores[indices, labels], labels))
        found = rows[rows[:, 4] > 0]
        assert len(found) == len(expected) > len(set(indices))
        found, expected = (
            each[np.lexsort((each[:, 0], each[:, 1], each[:, 4], each[:, 5]))] for each in (found, expected)
        )
        np.testing.assert_allclose(found[:, 4:], expected[:, 4:], atol=1e-4)
        np.testing.assert_allclose(found[:, :4].sum(axis=0), expected[:, :4].sum(axis=0), rtol=1e-4)

    # the file says of itself what it takes, and runs here too
    (found,) = load_exported(folder / "model.onnx").predict(region(64, 64), score=0.05)
    (expected,) = detector.predict(region(64, 64), score=0.05, nms_iou=0.45, max_detections=50)
    assert len(found) == len(expected) > 20
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.1)
    assert found.labels.tolist() == expected.labels.tolist()


def model_config():
    """Those fields of Triton's ModelConfig that are written, as its protocol numbers and types them."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    names = (
        "INVALID",
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
    )
    file.enum_type.add(name="DataType").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=f"TYPE_{name}", number=n) for n, name in enumerate(names)
    )

    def add(message, *fields):
        made = file.message_type.add(name=message)
        for name, number, kind, is_repeated in fields:
            typed = {"type_name": kind} if isinstance(kind, str) else {"type": kind}
            label = kinds.LABEL_REPEATED if is_repeated else kinds.LABEL_OPTIONAL
            made.field.add(name=name, number=number, label=label, **typed)

    add("ModelTensorReshape", ("shape", 1, kinds.TYPE_INT64, True))
    tensor = (("name", 1, kinds.TYPE_STRING, False), ("data_type", 2, ".inference.DataType", False))
    reshape = ("reshape", 5, ".inference.ModelTensorReshape", False)
    add("ModelInput", *tensor, ("dims", 4, kinds.TYPE_INT64, True), reshape)
    add("ModelOutput", *tensor, ("dims", 3, kinds.TYPE_INT64, True), reshape)
    add(
        "ModelConfig",
        ("name", 1, kinds.TYPE_STRING, False),
        ("backend", 17, kinds.TYPE_STRING, False),
        ("max_batch_size", 4, kinds.TYPE_INT32, False),
        ("input", 5, ".inference.ModelInput", True),
        ("output", 6, ".inference.ModelOutput", True),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()


TRITON_TYPES = {2: np.uint8, 9: np.int64, 10: np.float16, 11: np.float32}


@pytest.mark.slow
def test_triton_finds_its_settings_and_the_detector_s_boxes(detector, tmp_path):
    folder = tmp_path / "mine"
    export(detector, folder, format="triton")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "1/model.onnx", "config.pbtxt", "labels.txt",
    ]  # fmt: skip
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config())
    assert (config.name, config.backend, config.max_batch_size) == ("mine", "onnxruntime", 8)
    (given,) = config.input
    assert (given.name, TRITON_TYPES[given.data_type], list(given.dims)) == ("images", np.uint8, [-1, -1, 3])

    image = region(64, 64)
    found = run(folder / "1" / "model.onnx", {"images": np.stack([image, image[::-1]])})
    assert len(found) == len(config.output)
    for values, told in zip(found, config.output, strict=True):
        dims = list(told.reshape.shape if told.HasField("reshape") else told.dims)
        assert values.shape == (2, *dims), told.name
        assert values.dtype == TRITON_TYPES[told.data_type], told.name
    by_name = {told.name: values[0] for values, told in zip(found, config.output, strict=True)}
    assert list(config.output[-1].dims) == [1]  # one number an image
    (expected,) = detector.predict(image, score=0.05)
    count = int((by_name["scores"][: by_name["count"]] >= 0.05).sum())
    assert count == len(expected) > 0
    np.testing.assert_allclose(by_name["boxes"][:count], expected.boxes, atol=0.1)
    assert by_name["labels"][:count].tolist() == expected.labels.tolist()


def test_a_fixed_batch_is_told_to_triton_with_all_sides(detector):
    ports = [Port("images", 1, (4, 3, 64, 64))], [Port("output", 1, (4, 100, 6))]
    interface = Interface(input="tensor", output="rows", size=(64, 64), batch=4)
    text = Triton().describe(Model("a", detector.card, interface, *ports))["config.pbtxt"]
    config = text_format.Parse(text, model_config())
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [4, 3, 64, 64]
    assert list(config.output[0].dims) == [4, 100, 6]


@pytest.mark.parametrize(
    ("preprocessing", "ratio", "told"),
    [
        (Preprocessing(fit="letterbox", padding="black"), "1", False),
        (Preprocessing(fit="letterbox"), "1", True),
        (Preprocessing(fit="keep_ratio"), "1", True),
        (Preprocessing(fit="stretch"), "0", False),
    ],
)
def test_deepstream_is_told_how_frames_are_fitted(detector, preprocessing, ratio, told):
    card = replace(detector.card, preprocessing=preprocessing)
    model = Model("a", card, Interface(input="scaled", output="rows", size=(64, 64), batch=1), (), ())
    text = DeepStream().describe(model)["config_infer_primary.txt"]
    assert f"maintain-aspect-ratio={ratio}\nsymmetric-padding=0\n" in text
    assert ("the detector knows another padding" in text) is told


def test_frigate_needs_a_size_where_the_input_follows_the_image(detector):
    card = replace(detector.card, preprocessing=Preprocessing(size=(800, 1333), fit="keep_ratio"))
    with pytest.raises(PyrafuseError, match="add --size 640"):
        Frigate().preprocessing(card, None)
    assert Frigate().preprocessing(card, 320).size == (320, 320)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("frigate", {"output": "rows"}, "takes no output rows; choose from raw"),
        ("frigate", {"input": "image"}, "takes no input image; choose from scaled"),
        ("frigate", {"batch": 2}, "one image at a time, and batch is 2"),
        ("deepstream", {"output": "nms"}, "takes no output nms; choose from rows"),
    ],
)
def test_what_a_consumer_cannot_take_is_refused(detector, tmp_path, name, options, told):
    with pytest.raises(PyrafuseError, match=told):
        export(detector, tmp_path / "mine", format=name, **options)


def test_a_folder_gets_no_name_of_a_file(detector, tmp_path):
    with pytest.raises(PyrafuseError, match=r"frigate writes a folder, and no a\.onnx: type -o .*/a"):
        export(detector, tmp_path / "a.onnx", format="frigate")
    with pytest.raises(PyrafuseError, match="the end of mine does not tell the format"):
        export(detector, tmp_path / "mine")


def test_the_command_refuses_a_format_beside_a_consumer(tmp_path, capsys):
    words = ["export", "a.ckpt", "--for", "triton", "--format", "onnx", "-o", str(tmp_path / "a")]
    assert main(words) == 2
    assert "--for triton names a format already: leave --format onnx out" in capsys.readouterr().err
