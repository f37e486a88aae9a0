"""Files of other kinds are refused by their kind, with what to do."""

import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from pyrafuse.backbones.weights import read_published
from pyrafuse.base.errors import CheckpointError
from pyrafuse.cli.main import main
from pyrafuse.core.storage import read_tensors
from pyrafuse.importers.loading import load

DARKNET = struct.pack("<iiiq", 0, 2, 5, 32013312) + np.linspace(-1, 1, 100, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("yolov3.weights", DARKNET, r"weights of Darknet, a row of numbers without names; mmdetection's files of the"),
        ("YOLOV3.WEIGHTS", DARKNET, "weights of Darknet"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX graph; one that pyrafuse exported runs with pyrafuse predict"),
        ("a.pb", b"\x0a\x05hello", "a graph of TensorFlow"),
        ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(9), "a TensorFlow Lite model"),
        ("a.pth", b"\x1c\0\0\0TFL3" + bytes(9), "a TensorFlow Lite model"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
        ("a.pth", b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
        ("a.npy", b"\x93NUMPY\1\0", "an array of NumPy's"),
        ("a.engine", b"ftrt\0\1", "an engine of TensorRT"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS, .* git lfs pull"),
        ("a.pth", b"<!DOCTYPE html><html>", "a web page, and no download"),
        ("a.pth", b"\n\n<HTML>", "a web page, and no download"),
        ("a.pth.gz", b"\x1f\x8b\x08", "compressed by gzip; unpack it"),
        ("a.pth", b"\x89PNG\r\n\x1a\n" + bytes(9), "a picture; name the checkpoint first"),
        ("a.pkl", b"\x80\x04}\x94.", "a plain pickle; save its state_dict"),
        ("a.yaml", b"a: 1\n", "a text of settings, without parameters"),
        ("a.safetensors", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_by_content_or_name(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    for read in (read_tensors, load, read_published):
        with pytest.raises(CheckpointError, match=rf"{name} \([\d,]+ bytes\) is no checkpoint.*{said}"):
            read(tmp_path / name)


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"\x80\x02}.")
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a.npy", "b.npy"), "arrays of NumPy's .*npz"),
        (("config.json", "metadata.json", "model.weights.h5"), "a model of Keras"),
        (("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), "a program of TorchScript"),
        (("m/models/model.json", "m/archive_format"), r"a program of torch\.export"),
        (("inside/best.ckpt", "readme.txt"), "an archive; unpack it, and name inside/best.ckpt"),
        (("x.txt",), r"a zip archive that torch\.save has not written"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.zip"])
def test_archives(tmp_path, names, said, name):
    with pytest.raises(CheckpointError, match=rf"{name} .*is no checkpoint.*{said}"):
        read_tensors(archive(tmp_path / name, *names))


@pytest.mark.filterwarnings("ignore")
def test_programs_of_pytorch(tmp_path):
    torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"TorchScript \(torch\.jit\.save\), which holds code"):
        read_tensors(tmp_path / "a.pt")
    torch.export.save(torch.export.export(nn.Linear(1, 1), (torch.ones(1, 1),)), tmp_path / "b.pt2")
    with pytest.raises(CheckpointError, match=r"a program of torch\.export, which holds code"):
        read_tensors(tmp_path / "b.pt2")


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    with pytest.raises(CheckpointError, match="arrays of NumPy's"):
        read_tensors(tmp_path / "a.npz")


def test_the_command_refuses_darknet_by_its_name(tmp_path, capsys):
    (tmp_path / "yolov3.weights").write_bytes(DARKNET)
    assert main(["import", str(tmp_path / "yolov3.weights"), "-o", str(tmp_path / "a.ckpt")]) == 2
    assert "weights of Darknet" in capsys.readouterr().err


def test_a_checkpoint_of_another_name_is_read(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.weights")
    assert read_tensors(tmp_path / "a.weights")["a"].tolist() == [1]
