import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import METADATA_KEY, Interface, read_metadata
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.spec import TwoStageSpec
from pyrafuse.cli.export import _read_images, _read_train
from pyrafuse.cli.main import main
from pyrafuse.export.checking import Agreement
from pyrafuse.export.exporting import _hidden, export
from pyrafuse.export.formats.exported_program import ExportedProgramFormat
from pyrafuse.export.formats.tensorrt import TensorRT
from pyrafuse.export.registry import FORMATS, Capture, quiet
from pyrafuse.export.support import VALIDATED
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model, list_models


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    made = create_model("retinanet", backbone="mobilenet_v2", num_classes=2, head={"num_convs": 1}).eval()
    torch.nn.init.normal_(made.head.classes.weight, std=0.5)  # something is found
    made.card = replace(
        made.card, model="retinanet", names=("a", "b"), preprocessing=Preprocessing(size=(64, 96), fit="letterbox")
    )
    return made


def images(*shapes):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def test_an_onnx_file_finds_what_the_detector_finds(detector, tmp_path):
    path = tmp_path / "a.onnx"
    given = images((50, 70), (90, 61))
    exported = export(detector, path, images=given)
    assert exported.agreement.num_compared > 20
    assert exported.agreement.box_px < 0.01
    assert [place.name for place in tmp_path.iterdir()] == ["a.onnx"]
    model = onnx.load(path)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    card, interface = read_metadata(texts, source=path)
    assert (card.spec, card.names) == (detector.card.spec, ("a", "b"))
    assert interface == exported.interface
    assert ast.literal_eval(texts["names"]) == {0: "a", 1: "b"}
    assert model.ir_version <= 10
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)  # no place of this machine
    run = FORMATS.create("onnx").open(path)
    for image in given:  # one image at a time, where two were captured: pixels of the image itself, as predict gives
        found, (expected,) = run({"images": image[None]}), detector.predict(image, score=0.05)
        count = int((found["scores"][0] >= 0.05).sum())
        assert count == len(expected)
        np.testing.assert_allclose(found["boxes"][0, :count], expected.boxes, atol=0.5)
        np.testing.assert_allclose(found["scores"][0, :count], expected.scores, atol=0.02)
        assert found["labels"][0, :count].tolist() == expected.labels.tolist()


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("fitted", "rows"),
        ("tensor", "raw"),
        *(pytest.param(*forms, marks=pytest.mark.slow) for forms in (("fitted", "levels"), ("image", "rows"))),
    ],
)
def test_a_program_of_torch_gives_every_form(detector, tmp_path, form, output):
    path = tmp_path / "a.pt2"
    exported = export(detector, path, input=form, output=output)
    assert exported.agreement.num_compared > 0
    extra = {"pyrafuse.json": "", "outputs": ""}
    with quiet():
        module = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["pyrafuse.json"])["interface"]["output"] == output
    shape = {"fitted": (3, 256, 192, 3), "tensor": (3, 3, 256, 192), "image": (3, 33, 41, 3)}[form]
    sizes = (torch.tensor([[256, 192]] * 3),) if exported.interface.takes_sizes else ()
    found = module(torch.zeros(shape, dtype=torch.float32 if form == "tensor" else torch.uint8), *sizes)
    if output == "rows":
        assert found[0].shape[::2] == (3, 6)
    elif output == "raw":
        assert found[0].shape[:2] == (3, 4 + 2)
    else:
        assert [tuple(x.shape[2:]) for x in found[::2]] == [(32, 24), (16, 12), (8, 6), (4, 3), (2, 2)]
        assert extra["outputs"].split()[:4] == ["classes_0", "deltas_0", "classes_1", "deltas_1"]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("a.tflite", {}, "does not tell the format"),
        ("a.pt2", {"format": "onxx"}, "did you mean 'onnx'"),
        ("a.pt2", {"precision": "int8"}, "takes no precision int8; choose from fp32"),
        ("a.pt2", {"batch": 2}, "static is not given"),
        ("a.pt2", {"static": True, "batch": 0}, "batch must be a whole number, 1 or more"),
        ("a.pt2", {"input": "fitted", "size": 100}, "multiples of 32 px.*--size 128"),
        ("a.pt2", {"size": 8}, "size must be a whole number, 32 or more"),
        ("a.pt2", {"score": 1.5}, r"score must be in 0\.\.1"),
        ("a.xml", {"input": "fitted", "precision": "int8"}, "int8 wrongly where height and width are free.*--static"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(detector, tmp_path, name, given, message):
    with pytest.raises(PyrafuseError, match=message):
        export(detector, tmp_path / name, **given)
    assert not list(tmp_path.iterdir())


def test_keep_ratio_is_exported_fitted(detector, tmp_path):
    other = create_model("faster_rcnn", backbone="resnet18", num_classes=2).eval()
    other.card = replace(other.card, preprocessing=Preprocessing(size=(64, 96), fit="keep_ratio"))
    with pytest.raises(PyrafuseError, match="choose the input fitted"):
        export(other, tmp_path / "a.pt2", input="image")
    with pytest.raises(PyrafuseError, match="two-stage detector has no output raw"):
        export(other, tmp_path / "a.pt2", output="raw")


def test_a_missing_library_is_named(detector, tmp_path, monkeypatch):
    monkeypatch.setattr("pyrafuse.export.registry.find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(PyrafuseError, match=r'needs onnxscript, which is not installed; type pip install "pyrafuse'):
        export(detector, tmp_path / "a.onnx")


def test_a_place_that_cannot_be_made_is_told(tmp_path):
    path = tmp_path / "made" / f"{'a' * 250}.onnx"
    with pytest.raises(PyrafuseError, match=r"cannot write .*: File name too long; .*another place"), _hidden(path):
        pytest.fail("there is no such place")


def test_a_full_disk_is_an_error_and_no_end_of_the_process():
    example = (torch.zeros(1, 2),)
    program = torch.export.export(torch.nn.Linear(2, 2), example)
    captured = Capture(torch.nn.Identity(), program, {}, ("images",), ("output0",), Interface(), {METADATA_KEY: "{}"})
    with pytest.raises(OSError, match="No space left on device"):
        ExportedProgramFormat().write(captured, Path("/dev/full"))


def test_a_file_that_answers_otherwise_is_not_written(detector, tmp_path, monkeypatch):
    path = tmp_path / "a.pt2"
    path.write_text("an earlier one")
    opened = ExportedProgramFormat.open

    def shifted(self, place):
        run = opened(self, place)
        return lambda feeds: {**run(feeds), "boxes": run(feeds)["boxes"] + 1}

    monkeypatch.setattr(ExportedProgramFormat, "open", shifted)
    with pytest.raises(PyrafuseError, match="was not written, since it answers otherwise than the detector"):
        export(detector, path)
    assert [place.name for place in tmp_path.iterdir()] == ["a.pt2"]
    assert path.read_text() == "an earlier one"


def test_the_command(detector, tmp_path, capsys):
    save(detector, tmp_path / "a.ckpt")
    assert main(["export", str(tmp_path / "a.ckpt"), "-o", str(tmp_path / "b.pt2")]) == 0
    said = capsys.readouterr().out
    assert "detections compared in 3 batches" in said
    assert "b.pt2: exported_program, fp32, image" in said
    assert main(["export", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "onnxruntime" in listed
    assert "refuse" not in listed
    assert main(["export", str(tmp_path / "a.ckpt")]) == 2
    assert "export needs MODEL and -o FILE" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none.ckpt"), "-o", str(tmp_path / "b.pt2")]) == 2
    assert "none.ckpt" in capsys.readouterr().err
    assert METADATA_KEY not in said


def test_a_loss_that_nothing_would_judge_is_refused(capsys):
    assert main(["export", "none.ckpt", "-o", "b.onnx", "--max-ap-loss", "0.1"]) == 2
    assert "--max-ap-loss is for fp16 and int8, and the precision is fp32" in capsys.readouterr().err


def test_the_list_tells_what_is_validated_available_and_refused(capsys, monkeypatch):
    reason = "no boxes after boxes"
    monkeypatch.setattr(TensorRT, "refusal", lambda _, spec, __: reason if isinstance(spec, TwoStageSpec) else None)
    assert main(["export", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|"))
    cells = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows[1:]}
    assert sorted(cells) == sorted(list_models())
    assert cells["faster_rcnn"]["tensorrt"] == "refused"
    assert cells["atss"]["tensorrt"] == "available"
    assert lines[-1].startswith("tensorrt refuses cascade_rcnn, cascade_rcnn_rfp, faster_rcnn")
    assert lines[-1].endswith(f": {reason}")
    for form, models in VALIDATED.items():
        assert [model for model in cells if cells[model][form] == "validated"] == sorted(models)


@pytest.mark.slow
def test_what_finds_nothing_is_compared_with_every_score(detector, tmp_path, monkeypatch):
    told = []
    exported = export(detector, tmp_path / "a.pt2", static=True, score=1.0, tell=told.append)
    assert exported.agreement.num_compared > 0
    assert exported.interface.score == 1.0
    assert any("nothing scores 1 in these images" in each for each in told)
    opened = ExportedProgramFormat.open

    def wrong(self, place):
        run = opened(self, place)
        return lambda feeds: {**run(feeds), "boxes": run(feeds)["boxes"] + 1}

    monkeypatch.setattr(ExportedProgramFormat, "open", wrong)
    with pytest.raises(PyrafuseError, match="answers otherwise"):
        export(detector, tmp_path / "b.pt2", static=True, score=1.0)
    nothing = Agreement(1, 0, 0.0, 0.0)
    monkeypatch.setattr("pyrafuse.export.exporting.compare", lambda *_, **__: nothing)
    with pytest.raises(PyrafuseError, match="was not written, since the detector finds nothing in these images"):
        export(detector, tmp_path / "b.pt2", static=True)
    assert [place.name for place in tmp_path.iterdir()] == ["a.pt2"]


def test_a_data_set_gives_the_images_of_a_check():
    given = _read_images("shapes:train=1,val=3,size=64")
    assert [image.shape for image in given] == [(64, 64, 3)] * 3
    assert len(_read_train("shapes:train=1,val=3,size=64")) == 1
