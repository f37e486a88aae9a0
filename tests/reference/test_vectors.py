"""The golden vectors are all there, as they were made."""

import hashlib

import numpy as np

from vectors import FOLDER

DATA = {".npz", ".json"}


def read_index() -> dict[str, str]:
    lines = (FOLDER / "INDEX").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_each_file_is_there_unchanged():
    found = {
        path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.rglob("*")
        if path.suffix in DATA
    }
    assert found == read_index()
    assert len(found) == 157


def test_thinned_results_know_their_shape():
    for path in FOLDER.rglob("*.npz"):
        arrays = np.load(path)
        for name in arrays.files:
            for shape, stride, part in (("__shape", "__stride", ""), (".shape", ".stride", ".sub")):
                if name.endswith(stride) and name.removesuffix(stride) + shape in arrays.files:
                    whole = name.removesuffix(stride)
                    size = int(np.prod(arrays[whole + shape]))
                    assert arrays[whole + part].size == -(-size // int(arrays[name])), (path.name, whole)
