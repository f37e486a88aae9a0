"""Several machines are started by torchrun, or refused."""

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training.launching import check_nodes
from pyrafuse.training.settings import RunSettings


def test_machines_that_nobody_started_are_refused_with_the_command(monkeypatch):
    for name in ("GROUP_WORLD_SIZE", "SLURM_NTASKS", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    check_nodes(RunSettings())
    with pytest.raises(PyrafuseError, match=r"torchrun --nnodes 2 .* -m pyrafuse train \.\.\. --run.nodes 2"):
        check_nodes(RunSettings(nodes=2))
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    check_nodes(RunSettings(nodes=2))
    with pytest.raises(PyrafuseError, match=r"torchrun has started 2 machines, and run.nodes is 1: give --run.nodes 2"):
        check_nodes(RunSettings())
