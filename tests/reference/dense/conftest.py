"""Golden vectors of the dense detectors' parts, where they lie beside the repository."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch


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
def vectors(shared_dir: Path):
    """`vectors("losses")`: the arrays and settings of that file."""
    folder = shared_dir / "reference" / "mmdet"
    if not folder.is_dir():
        pytest.skip("no golden vectors of dense detectors beside the repository")
    return lambda name: Vectors(folder, name)
