import json
import sys

import numpy as np
import onnx
import pytest

from pyrafuse.base.card import Card
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.exported import METADATA_KEY, Interface, write_metadata
from pyrafuse.models.describing import describe
from pyrafuse.runtime import load


def refused(path, message, **options):
    with pytest.raises(PyrafuseError, match=message) as caught:
        load(path, **options)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


def test_a_file_of_others_is_told_by_its_outputs(write):
    path = write(Interface(output="raw"), metadata={"names": "{0: 'cat'}", "task": "detect"})
    refused(path, r"was not exported by pyrafuse: it gives output0 .* gives boxes, scores, labels, levels, rows, count")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(write, share):
    path = write(Interface())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"empty|cut off|refuses|not exported by pyrafuse"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, I am no graph at all", "cut off or no ONNX file; copy or export it anew"),
        (b"<!doctype html><p>404", "a web page, and no download"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
    ],
)
def test_what_is_no_onnx_file_is_said(tmp_path, content, message):
    (tmp_path / "a.onnx").write_bytes(content)
    refused(tmp_path / "a.onnx", message)


def test_a_file_of_another_suffix_is_refused(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"x")
    refused(tmp_path / "a.ckpt", r"no exported detector: .* \.onnx or \.xml; checkpoints are read by pyrafuse\.load")


def test_a_missing_file_is_suggested_from_its_neighbours(write):
    path = write(Interface())
    with pytest.raises(CheckpointError, match=r"no such checkpoint: .*model1\.onnx; did you mean .*model\.onnx\?"):
        load(path.with_name("model1.onnx"))


def test_an_unknown_engine_is_refused_with_the_choice(write):
    with pytest.raises(PyrafuseError, match=r"unknown engine 'onnx'.*onnxruntime, openvino"):
        load(write(Interface()), engine="onnx")


@pytest.mark.parametrize("output", ["raw", "levels"])
def test_outputs_for_other_programs_are_refused(write, output):
    refused(write(Interface(output=output)), f"gives {output} predictions, for other programs: export it with --output")


@pytest.mark.parametrize("options", [{"suppression": "soft"}, {"suppression": "matrix"}, {"vote_iou": 0.5}])
def test_rows_of_a_detector_that_suppresses_otherwise_are_refused(write, options):
    card = Card(spec=describe("retinanet", num_classes=2, postprocess=options), names=("a", "b"))
    for output in ("rows", "nms"):
        interface = Interface(input="fitted", output=output)
        path = write(interface, metadata=write_metadata(card, interface))
        if output == "rows":
            refused(path, "its detector's way of suppression is not greedy.*export it with --output nms")
        else:
            assert load(path).card == card


def test_a_card_of_other_classes_is_refused(write):
    metadata = write_metadata(Card(spec=describe("retinanet", num_classes=3), names=("a", "b", "c")), Interface())
    own = json.loads(metadata[METADATA_KEY])
    own["card"]["names"] = ["a", "b"]
    refused(
        write(Interface(), metadata={METADATA_KEY: json.dumps(own)}), "names 2 classes, and its detector tells 3 apart"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', '{"version": "x"}', "[" * 100_000])
def test_metadata_that_are_damaged_are_refused(write, text):
    refused(write(Interface(), metadata={METADATA_KEY: text}), "describes itself wrongly")


def test_outputs_that_differ_from_what_the_file_says_are_refused(write):
    path = write(Interface(), names={"levels": "stages"})
    refused(path, "gives boxes, scores, labels, rows, count, stages, and says that it gives boxes, scores, labels")


def test_inputs_that_differ_from_what_the_file_says_are_refused(write):
    says = write_metadata(Card(names=("a", "b")), Interface(input="fitted", takes_sizes=True))
    refused(write(Interface(input="fitted"), metadata=says), "takes images, and says that it takes images, sizes")


def test_boxes_of_another_shape_are_told_when_the_file_runs(write):
    path = write(Interface())
    model = onnx.load(path)
    node = next(node for node in model.graph.node if "boxes" in node.output)
    node.CopyFrom(onnx.helper.make_node("Identity", ["bright"], ["boxes"]))
    onnx.save(model, path)
    with pytest.raises(PyrafuseError, match=r"levels of an image have the shapes \(1,\), \(4,\), .*export it anew"):
        list(load(path).predict(np.zeros((8, 8, 3), np.uint8)))


def test_weights_in_another_file_that_is_missing_are_named(write):
    path = write(Interface())
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "heavy"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["heavy"], ["unused"]))
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=1024)
    assert load(path).names == ("cat", "dog")
    path.with_name("weights.data").unlink()
    refused(path, r"keeps its weights in weights\.data, which is missing, cut off or elsewhere: put it whole beside it")


def test_a_missing_library_is_named_with_the_line_to_type(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PyrafuseError, match=r'needs onnxruntime, .*: pip install "pyrafuse\[runtime\]"'):
        load(write(Interface()))


def test_threads_are_a_count(write):
    with pytest.raises(PyrafuseError, match="threads must be a whole number, 1 or more, got 0"):
        load(write(Interface()), threads=0)
    assert load(write(Interface()), threads=1).names == ("cat", "dog")
