"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
import torch

# xdist's workers share the cores between them.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real images and golden vectors that lies beside the repository, where there is one."""
    path = Path(__file__).resolve().parents[1].parent / "shared"
    if not path.is_dir():
        pytest.skip("no folder of real images and golden vectors beside the repository")
    return path
