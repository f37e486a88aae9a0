"""Golden vectors of the originals."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vectors import FOLDER, compare, fill


class Goldens:
    """The folder of vectors, its comparison functions, and checkpoints made from its manifests."""

    fill = fill
    compare = compare

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str) -> np.lib.npyio.NpzFile:
        return np.load(self.folder / name)

    def image(self, seed: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self.fill.image(seed, shape))

    def state(self, model: str) -> dict[str, torch.Tensor]:
        """The official checkpoint of ``model``, as its manifest and the gain table describe it."""
        return self.fill_in(
            dict(self.read_json(f"manifest_{model}.json")), "mobile" if "mobile" in model else "darknet"
        )

    def write_file(
        self,
        path: Path,
        model: str,
        *,
        num_classes: int = 80,
        prefix: str = "",
        wrapper: str = "",
        is_zip: bool = True,
    ) -> Path:
        """Write a file in the layout of ``model``, all zeros, as its authors' tools could have written it."""
        state = {}
        for key, shape in self.read_json(f"manifest_{model}.json"):
            if shape and shape[0] == 4 * 85:
                shape = [4 * (5 + num_classes), *shape[1:]]
            dtype = torch.int64 if key.endswith("num_batches_tracked") else torch.float32
            state[prefix + key] = torch.zeros(shape, dtype=dtype)
        content = {wrapper: state, "epoch": 300} if wrapper else state
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        return path

    def fill_in(self, shapes: Mapping[str, Sequence[int]], gains: str) -> dict[str, torch.Tensor]:
        """Values of entries with these shapes; each depends on its key, its shape, and its gain in table ``gains``."""
        table = self.read_json("gains.json")[gains]
        return {
            key: torch.from_numpy(np.array(self.fill.value(key, shape, self.compare.gain(key, table))))
            for key, shape in shapes.items()
        }

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def check(self, arrays: np.lib.npyio.NpzFile, name: str, value: torch.Tensor, **tolerances: float) -> None:
        """Compare with an entry, stored whole or packed."""
        if f"{name}__shape" in arrays.files:
            self.compare.check_packed(arrays, name, value.detach().numpy(), **tolerances)
        else:
            np.testing.assert_allclose(value.detach().numpy(), arrays[name], **tolerances)


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """Golden vectors of the original ASFF."""
    return Goldens(FOLDER / "asff")


class Vectors:
    """All folders of vectors: their arrays, and parameters and inputs made from keys, shapes and seeds."""

    fill = fill

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def npz(self, name: str) -> np.lib.npyio.NpzFile:
        return np.load(self.folder / name)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def state(
        self, manifest: Sequence[tuple[str, Sequence[int]]], gains: float | Sequence[tuple[str, float | str]] = 1.0
    ) -> dict[str, torch.Tensor]:
        """The checkpoint of a manifest; ``gains`` is a factor, or rules of which the first found in the key counts."""
        rules = [("", gains)] if isinstance(gains, int | float) else gains
        state = {}
        for key, shape in manifest:
            gain = next((gain for pattern, gain in rules if re.search(pattern, key)), 1.0)
            is_absolute = isinstance(gain, str)
            value = np.asarray(self.fill.value(key, shape, float(gain.removeprefix("abs")) if is_absolute else gain))
            state[key] = torch.from_numpy(np.abs(value) if is_absolute else value).reshape(tuple(shape))
        return state

    def image(self, text: str) -> torch.Tensor:
        """The input that an index calls ``image(SEED,(SHAPE))``; words after it are left aside."""
        seed, shape = ast.literal_eval(re.match(r"image(\(.*?\)\))", text)[1])
        return torch.from_numpy(self.fill.image(seed, shape))

    def error(self, arrays: np.lib.npyio.NpzFile, name: str, value: torch.Tensor) -> float:
        """Largest difference from an entry, whole or every so many values, by the entry's largest magnitude."""
        got = value.detach().double().numpy()
        for shape, stride, part in (("__shape", "__stride", ""), (".shape", ".stride", ".sub")):
            if name + shape in arrays.files:
                assert got.shape == tuple(arrays[name + shape])
                expected = arrays[name + part].reshape(-1)
                got = got.reshape(-1)[:: int(arrays[name + stride])]
                break
        else:
            expected = arrays[name]
        assert got.shape == expected.shape
        return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="session")
def vectors() -> Vectors:
    """Golden vectors of all originals."""
    return Vectors(FOLDER)
