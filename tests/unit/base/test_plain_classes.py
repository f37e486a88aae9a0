"""Objects of training scripts in checkpoints come as plain values; their classes are not looked for."""

import argparse
import enum
import pathlib
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from pyrafuse.core.state_dicts import find_weights
from pyrafuse.core.storage import read_tensors


class Mode(enum.Enum):
    FAST = "fast"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Options:
    rate: float
    names: tuple[str, ...]


@dataclass(slots=True)
class Slots:
    rate: float


class Node(dict):
    """As easydict and yacs have them: a dict with attributes."""

    def __init__(self, *args, **more) -> None:
        super().__init__(*args, **more)
        self.__dict__["frozen"] = False


class Rows(list):
    pass


Pair = namedtuple("Pair", "x y")  # pickles as those of older scripts

CASES = [
    (argparse.Namespace(lr=0.1, data=pathlib.PosixPath("/a/b"), nested=argparse.Namespace(x=[1])),
     {"lr": 0.1, "data": "/a/b", "nested": {"x": [1]}}),
    (SimpleNamespace(a=1), {"a": 1}),
    (argparse.Namespace(), {}),
    (pathlib.PurePosixPath("a/b.txt"), "a/b.txt"),
    (pathlib.PureWindowsPath("C:\\a\\b"), "C:\\a\\b"),
    ({Mode.FAST: Level.HIGH, "mode": Mode.FAST}, {"fast": 3, "mode": "fast"}),
    (Options(0.1, ("a", "b")), {"rate": 0.1, "names": ("a", "b")}),
    (Node(model=Node(depth=50), steps=[Node(a=1)]), {"model": {"depth": 50}, "steps": [{"a": 1}]}),
    (Node(), {"frozen": False}),
    (Rows([1, Rows([2])]), [1, [2]]),
    (Pair(1, "b"), (1, "b")),
    (defaultdict(list, a=[1]), {"a": [1]}),
    (Counter("aab"), {"a": 2, "b": 1}),
    (OrderedDict(a=1), OrderedDict(a=1)),
    (deque([1, 2], maxlen=3), [1, 2]),
    ({frozenset: frozenset({1}), "s": {1, "a"}}, {"builtins.frozenset": {1}, "s": {1, "a"}}),
    (date(2024, 2, 29), "2024-02-29"),
    (datetime(2024, 2, 29, 13, 5, 7, 1200), "2024-02-29T13:05:07.001200"),
    ((range(3), slice(1, None), 1 + 2j, bytearray(b"ab"), b""),
     ("range(0, 3)", "slice(1, None, None)", 1 + 2j, b"ab", b"")),
    ((torch.Size([1, 2]), torch.device("cpu"), torch.float16),
     ((1, 2), "cpu", "torch.float16")),
    ({"optimizer": torch.optim.SGD, "act": nn.functional.relu}["optimizer"], "torch.optim.sgd.SGD"),
    (print, "builtins.print"),
    (partial(dict, a=1), ("builtins.dict", (), {"a": 1}, None)),
    (torchvision.transforms.InterpolationMode.BILINEAR, "bilinear"),
]  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_objects_come_as_plain_values(tmp_path, is_zip, protocol, case):
    given, expected = CASES[case]
    content = {"args": given, "again": [given], "state_dict": {"a": torch.ones(2)}}
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    read = read_tensors(path)
    assert read["args"] == expected
    assert type(read["args"]) is type(expected)
    assert read["again"] == [expected]
    assert read["state_dict"]["a"].tolist() == [1, 1]


def test_attributes_in_slots(tmp_path):
    torch.save({"args": Slots(0.1)}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth") == {"args": {"rate": 0.1}}


OMEGACONF = """
import sys, types, typing, torch
module = types.ModuleType("omegaconf"); sys.modules["omegaconf"] = module
def make(name):
    made = type(name, (), {}); made.__module__ = "omegaconf"; setattr(module, name, made); return made
Dict, List, Any, Meta = map(make, ("DictConfig", "ListConfig", "AnyNode", "ContainerMetadata"))
def node(value, parent=None):
    if isinstance(value, dict):
        made = Dict(); made._content = {k: node(v, made) for k, v in value.items()}
    elif isinstance(value, list):
        made = List(); made._content = [node(v, made) for v in value]
    else:
        made = Any(); made._val = value
    meta = Meta(); meta.ref_type = typing.Any; meta.object_type = dict
    made._metadata, made._parent, made._flags_cache = meta, parent, None
    return made
given = node({"lr": 0.1, "names": ["a", {"b": None}], "none": None})
torch.save({"hyper_parameters": given, "state_dict": {"a": torch.ones(1)}}, sys.argv[1])
"""


def test_settings_of_omegaconf_hold_their_parents(tmp_path):
    subprocess.run([sys.executable, "-c", OMEGACONF, tmp_path / "a.ckpt"], check=True, timeout=60)
    read = read_tensors(tmp_path / "a.ckpt")
    assert read["hyper_parameters"] == {"lr": 0.1, "names": ["a", {"b": None}], "none": None}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.parts = nn.ModuleList([nn.BatchNorm2d(2), nn.Sequential(nn.Linear(2, 2))])
        self.register_buffer("passing", torch.ones(1), persistent=False)
        self.tied = self.conv


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_comes_as_its_state_dict(tmp_path, is_zip):
    net = Net()
    torch.save({"epoch": 1, "model": net}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    entries = find_weights(read_tensors(tmp_path / "a.pth")).entries
    expected = net.state_dict()
    assert entries.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(entries[key], value)
    torch.save(net, tmp_path / "b.pth", _use_new_zipfile_serialization=is_zip)
    assert find_weights(read_tensors(tmp_path / "b.pth")).entries.keys() == expected.keys()
