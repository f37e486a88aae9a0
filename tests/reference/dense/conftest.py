"""Golden vectors of the dense detectors' parts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vectors import FOLDER


class Vectors:
    """One file of arrays and, where there is one, what was asked for."""

    def __init__(self, folder: Path, name: str) -> None:
        self._arrays = np.load(folder / f"{name}.npz")
        described = folder / f"{name}.json"
        self.settings = json.loads(described.read_text()) if described.is_file() else {}
        self.names = tuple(self._arrays.files)

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._arrays[name])


@pytest.fixture(scope="session")
def vectors():
    """`vectors("losses")`: the arrays and settings of that file."""
    return lambda name: Vectors(FOLDER / "mmdet", name)
