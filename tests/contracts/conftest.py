"""What the contracts of detectors are tried with."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyrafuse.core.targets import Targets


@pytest.fixture
def some_targets() -> Targets:
    """Two images: objects of every size, one in a corner, one in a crowd's place; and none."""
    boxes = torch.tensor([[4, 4, 20, 30], [30, 10, 90, 64], [0, 0, 96, 64], [88, 60, 96, 64], [40, 2, 60, 40]])
    return Targets.pad(
        [boxes.float(), torch.zeros(0, 4)],
        [torch.tensor([0, 1, 2, 0, 1]), torch.zeros(0)],
        crowd=[torch.tensor([False, False, False, False, True]), torch.zeros(0)],
    )


class NoLooking(TorchDispatchMode):
    """Refuse whatever makes the host wait for the device: reading a number, or a shape that depends on numbers."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        if any(name.startswith(word) for word in self.FORBIDDEN):
            raise AssertionError(f"{name} makes the host wait for the device")
        if name.startswith("index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for i in arg
        ):
            raise AssertionError(f"{name} by a mask makes the host wait for the device")
        return func(*args, **(kwargs or {}))


class Decoding(torch.nn.Module):
    def __init__(self, detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images):
        return self.detector.decode(images)


@pytest.fixture
def no_looking():
    """A context in which reading a tensor's values fails."""
    return NoLooking


@pytest.fixture
def decoding():
    """A detector's `decode` as a module."""
    return Decoding
