"""Files of other kinds that people give as checkpoints: which kind it is, and what to do instead.

first bytes, names in an archive, suffix -> a sentence
"""

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_STATE_DICT = "save its state_dict with torch.save or safetensors where the model was made"
_LIST = "pyrafuse import --list tells what can be imported"

_BY_START: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it", _LIST),
    (4, b"TFL3", "a TensorFlow Lite model", _LIST),
    (0, b"\x93NUMPY", "an array of NumPy's (.npy)", "save tensors with torch.save or safetensors"),
    (0, b"GGUF", "a GGUF file", _LIST),
    (0, b"version https://git-lfs", "a pointer of Git LFS, and not the file itself", "fetch it with git lfs pull"),
    (0, b"<!", "a web page, and no download", "fetch the file itself: its raw or download link"),
    (0, b"<head", "a web page, and no download", "fetch the file itself: its raw or download link"),
    (0, b"<html", "a web page, and no download", "fetch the file itself: its raw or download link"),
    (0, b"<?xml", "XML", _LIST),
    (0, b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (0, b"BZh", "compressed by bzip2", "unpack it"),
    (0, b"\xfd7zXZ", "compressed by xz", "unpack it"),
    (0, b"7z\xbc\xaf", "an archive of 7-Zip", "unpack it"),
    (0, b"Rar!", "an archive of RAR", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it"),
    (
        257,
        b"ustar",
        "a tar archive",
        "unpack it; files that PyTorch wrote before 0.1.10 are saved anew with torch.save",
    ),
    (0, b"\x89PNG", "a picture", "name the checkpoint first: pyrafuse predict MODEL IMAGES"),
    (0, b"\xff\xd8\xff", "a picture", "name the checkpoint first: pyrafuse predict MODEL IMAGES"),
)

_EXPORTED = (
    "it is a program of torch.export, which holds code: torch.export.load runs it; name the checkpoint that it was "
    "made of, or " + _STATE_DICT
)
_ONNX = "training and import need its original in PyTorch: " + _STATE_DICT
_OURS = "one that pyrafuse exported runs with pyrafuse predict and pyrafuse.runtime.load; " + _ONNX
_BY_SUFFIX: Mapping[str, tuple[str, str]] = {
    ".weights": (
        "weights of Darknet, a row of numbers without names",
        "mmdetection's files of the same YOLOv3 can be imported (pyrafuse import --list), or convert it to PyTorch and "
        "save the state_dict",
    ),
    ".onnx": ("an ONNX graph", _OURS),
    ".pb": ("a graph of TensorFlow", _LIST),
    ".pbtxt": ("a graph of TensorFlow", _LIST),
    ".tflite": ("a TensorFlow Lite model", _LIST),
    ".h5": ("an HDF5 file, as Keras writes it", _LIST),
    ".hdf5": ("an HDF5 file, as Keras writes it", _LIST),
    ".keras": ("a model of Keras", _LIST),
    ".index": ("a part of TensorFlow's checkpoint", _LIST),
    ".meta": ("a part of TensorFlow's checkpoint", _LIST),
    ".engine": ("an engine of TensorRT", _ONNX),
    ".trt": ("an engine of TensorRT", _ONNX),
    ".plan": ("an engine of TensorRT", _ONNX),
    ".mlmodel": ("a model of Core ML", _ONNX),
    ".bin": ("a file of bare numbers", _STATE_DICT),
    ".xml": ("a graph of OpenVINO", _OURS),
    ".param": ("a graph of ncnn", _ONNX),
    ".params": ("a file of MXNet or PaddlePaddle", _LIST),
    ".pdparams": ("a file of PaddlePaddle", _LIST),
    ".caffemodel": ("a model of Caffe", _LIST),
    ".msgpack": ("a file of Flax", _LIST),
    ".joblib": ("an object of joblib", _STATE_DICT),
    ".pkl": ("a plain pickle", _STATE_DICT),
    ".pickle": ("a plain pickle", _STATE_DICT),
    ".npz": ("arrays of NumPy's (.npz)", "save tensors with torch.save or safetensors"),
    ".cfg": ("a text of settings, without parameters", "name the file with the parameters"),
    ".yaml": ("a text of settings, without parameters", "name the file with the parameters, such as best.ckpt"),
    ".yml": ("a text of settings, without parameters", "name the file with the parameters, such as best.ckpt"),
    ".json": ("a text, without parameters", "name the file with the parameters"),
    ".py": ("a program, without parameters", "name the file with the parameters"),
}


def find_kind(path: Path) -> str:
    """What a file that cannot be read is, by its content, else by its suffix, and the remedy; else empty."""
    with path.open("rb") as file:
        head = file.read(512)
    for place, mark, kind, remedy in _BY_START:
        start = head[place:].lstrip().lower() if mark.startswith(b"<") else head[place:]
        if start.startswith(mark):
            return f"it is {kind}; {remedy}"
    with suppress(Exception):  # of an archive that is damaged inside: each fault has its own
        if zipfile.is_zipfile(path) and (found := find_archive(path)):
            return found
    kind, remedy = _BY_SUFFIX.get(path.suffix.lower(), ("", ""))
    return kind and f"it is {kind}; {remedy}"


def find_archive(path: Path) -> str:
    """What a zip archive is, if it holds something else than ``torch.save`` writes; else empty."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last or any("/code/" in f"/{name}" and name.endswith(".py") for name in names):
        return f"it is a program of TorchScript (torch.jit.save), which holds code; {_STATE_DICT}"
    if "data.pkl" in last:
        return _EXPORTED if "archive_format" in last else ""
    if names and all(name.endswith(".npy") for name in names):
        return "it is arrays of NumPy's (.npz); save tensors with torch.save or safetensors"
    if "model.weights.h5" in last or {"config.json", "metadata.json"} <= last:
        return f"it is a model of Keras; {_LIST}"
    if last & {"serialized_exported_program.json", "archive_format"}:
        return _EXPORTED
    inside = sorted(name for name in names if name.endswith((".ckpt", ".pth", ".pt", ".safetensors")))
    return f"it is an archive; unpack it, and name {inside[0]}" if inside else ""
