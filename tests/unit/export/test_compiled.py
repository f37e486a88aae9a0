"""Formats that a compiler of the machine makes: AOTInductor's packages, TensorRT's engines."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import nn

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import METADATA_KEY, Interface, read_metadata, write_metadata
from pyrafuse.export.exporting import export
from pyrafuse.export.registry import FORMATS, Capture, format_for
from pyrafuse.importers.loading import load

CHECKPOINTS = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"


@pytest.fixture
def capture():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.1)).eval()
    example = {"images": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    program = torch.export.export(module, (torch.from_numpy(example["images"]),))
    interface = Interface(input="tensor", output="rows", size=(8, 8), batch=1)
    metadata = write_metadata(Card(names=("a", "b")), interface)
    return Capture(module, program, example, ("images",), ("output",), interface, metadata)


def test_a_package_ends_as_a_program_does_and_is_named(tmp_path):
    assert format_for(tmp_path / "a.pt2") == "exported_program"
    assert format_for(tmp_path / "a.engine") == "tensorrt"


def test_a_package_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(PyrafuseError, match="no-such-compiler is not there: install g"):
        FORMATS.create("aotinductor").require("fp32")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_package_answers_as_torch_does(capture, tmp_path):
    form, path = FORMATS.create("aotinductor"), tmp_path / "a.pt2"
    form.write(capture, path)
    found = form.open(path)(capture.example)["output"]
    with torch.no_grad():
        expected = capture.graph(torch.from_numpy(capture.example["images"])).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with ZipFile(path) as package:
        place = next(name for name in package.namelist() if name.endswith("/pyrafuse.json"))
        card, interface = read_metadata({METADATA_KEY: package.read(place).decode()}, source=path)
    assert (card.names, interface) == (("a", "b"), capture.interface)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_whole_detector_is_compiled(tmp_path):
    """Suppression with its loop, and the input of the score; half a minute of a compiler."""
    with ZipFile(CHECKPOINTS) as files:
        detector = load(files.extract("yolov3_asff_small.ckpt", tmp_path))
    exported = export(detector, tmp_path / "a.pt2", format="aotinductor", static=True, input="tensor")
    assert exported.agreement.num_compared > 20
    assert exported.agreement.box_px < 0.01


def put_trtexec(folder, monkeypatch, text):
    program = folder / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_without_trtexec_the_onnx_file_is_left_and_the_line_to_type_told(capture, tmp_path, monkeypatch):
    monkeypatch.setattr("pyrafuse.export.formats.tensorrt.shutil.which", lambda _: None)
    form, path = FORMATS.create("tensorrt"), tmp_path / "a.engine"
    form.write(capture, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert form.made(path) == tmp_path / "a.onnx"
    assert f"type trtexec --onnx={tmp_path}/a.onnx --saveEngine={tmp_path}/a.engine (untested)" in form.remark(path)
    with torch.no_grad():
        expected = capture.graph(torch.from_numpy(capture.example["images"])).numpy()
    np.testing.assert_allclose(form.open(path)(capture.example)["output"], expected, atol=1e-5)


def test_trtexec_builds_the_engine_or_says_why_not(capture, tmp_path, monkeypatch):
    form, path = FORMATS.create("tensorrt"), tmp_path / "a.engine"
    put_trtexec(tmp_path, monkeypatch, 'printf "%s" "$1" > "${2#--saveEngine=}"')
    form.write(capture, path)
    assert path.read_text() == f"--onnx={tmp_path}/a.onnx"
    assert form.made(path) == path
    assert "is untested" in form.remark(path)
    (tmp_path / "bin" / "trtexec").write_text("#!/bin/sh\necho no such layer >&2; exit 3\n")
    with pytest.raises(PyrafuseError, match=r"exit status 3\): no such layer"):
        form.write(capture, path)
