"""Places of processes: one alone, those of torchrun, and those that cannot be started."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training import processes
from pyrafuse.training.processes import Place, take_place
from pyrafuse.training.settings import RunSettings

CPU = RunSettings(accelerator="cpu")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_others():
    with take_place(CPU, 1) as place:
        assert place == Place(torch.device("cpu"), 0, 1)
        assert place.is_first
        module = nn.Linear(1, 1)
        assert place.spread(module, sync_bn=True) is module
        assert not torch.distributed.is_initialized()


def test_a_program_that_cannot_be_started_again_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None))
    with pytest.raises(PyrafuseError, match="from the command line or from a script, or give one"), take_place(CPU, 2):
        pass
    assert not torch.distributed.is_initialized()


def test_the_command_is_started_as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/pyrafuse", "train", "--device", "0,1"])
    module = SimpleNamespace(__spec__=SimpleNamespace(name="pyrafuse.__main__"))
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert processes._command() == [sys.executable, "-m", "pyrafuse.__main__", "train", "--device", "0,1"]
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=None, __file__="/somewhere/pyrafuse"))
    assert processes._command() == [sys.executable, "/somewhere/pyrafuse", "train", "--device", "0,1"]
