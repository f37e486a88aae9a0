"""Files that hold mmdetection's own objects are read where its packages are not; code in them is refused."""

import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.storage import read_tensors

# what mmdetection 2.x and 3.x put in their files, by classes of the same names that pickle in the same way
WRITER = """
import os, sys, types
from collections import OrderedDict
import numpy as np
import torch

def put(cls, name):
    cls.__module__ = name
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    setattr(sys.modules[name], cls.__name__, cls)

class HistoryBuffer:
    def __init__(self):
        self._log_history = np.arange(5.0)
        self._count_history = np.ones(5, np.int64)
        self._statistics_methods = OrderedDict(mean=HistoryBuffer.mean)
    def mean(self): ...

class ConfigDict(dict):
    def __getstate__(self): return self
    def __setstate__(self, state): self.update(state)

class Code:
    def __reduce__(self): return os.mkdir, (os.path.join(folder, "executed"),)

class Getter:
    def __reduce__(self): return HistoryBuffer.mean, (1,)

folder = sys.argv[1]
HistoryBuffer.mean.__module__ = "mmengine.logging.history_buffer"
HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
put(HistoryBuffer, "mmengine.logging.history_buffer")

def write(name, **more):
    cfg = ConfigDict(model=ConfigDict(type="RetinaNet", strides=[8, 16]), scale=(1333, 800))
    content = {
        "meta": {"cfg": cfg, "epoch": np.int64(12), "time": np.float32(0.5), "seed": None},
        "state_dict": OrderedDict(weight=torch.arange(4.0)),
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer()), "runtime_info": OrderedDict(iter=7)},
        **more,
    }
    for kind in ("zip", "old"):
        path = os.path.join(folder, f"{name}-{kind}.pth")
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")

put(ConfigDict, "mmcv.utils.config")
write("mmcv")
put(ConfigDict, "mmengine.config.config")
ConfigDict.__reduce_ex__ = lambda self, protocol: (type(self), (dict(self),), None, None, None, None)
write("mmengine")
write("code", hook_msgs=Code())
write("getter", hook_msgs=Getter())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    subprocess.run([sys.executable, "-c", WRITER, str(path)], check=True, timeout=60)
    return path


@pytest.mark.parametrize("kind", ["zip", "old"])
@pytest.mark.parametrize("package", ["mmengine", "mmcv"])
def test_their_objects_come_as_plain_values(folder, package, kind):
    content = read_tensors(folder / f"{package}-{kind}.pth")
    assert content["state_dict"]["weight"].tolist() == [0, 1, 2, 3]
    assert content["meta"]["cfg"] == OrderedDict(
        model=OrderedDict(type="RetinaNet", strides=[8, 16]), scale=(1333, 800)
    )
    assert content["meta"]["epoch"] == 12
    assert content["meta"]["time"] == np.float32(0.5)
    assert content["message_hub"]["runtime_info"] == {"iter": 7}


@pytest.mark.parametrize("kind", ["zip", "old"])
def test_code_among_them_is_refused_by_name(folder, kind):
    with pytest.raises(CheckpointError, match=r"objects that are not loaded: posix\.mkdir\. Nothing was executed"):
        read_tensors(folder / f"code-{kind}.pth")
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("kind", ["zip", "old"])
def test_getattr_gives_nothing_that_can_be_called(folder, kind):
    with pytest.raises(CheckpointError, match=r"not loaded: mmengine\.logging\.history_buffer\.HistoryBuffer\.mean\. "):
        read_tensors(folder / f"getter-{kind}.pth")
