"""What the contracts of detectors are tried with."""

from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
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


@pytest.fixture
def crowded_targets() -> Targets:
    """Two images: 500 objects of every size, and none."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corners, corners + 1 + 30 * torch.rand(500, 2, generator=generator)), dim=1)
    return Targets.pad([boxes, boxes[:0]], [torch.arange(500) % 3, torch.zeros(0)])


class NoLooking(TorchDispatchMode):
    """Refuse whatever makes the host wait for the device: reading a number, or a shape that depends on numbers."""

    FORBIDDEN = (
        "local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default", "bincount",
        "repeat_interleave.Tensor",
    )  # fmt: skip

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.lstrip("_")
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


READERS = ("tolist", "numpy", "cpu", "item", "__bool__", "__float__", "__int__", "__index__")


@contextmanager
def refuse_looking():
    def refuse(*_):
        raise AssertionError("reading a tensor makes the host wait for the device")

    with pytest.MonkeyPatch.context() as patch, NoLooking():
        for reader in READERS:
            patch.setattr(torch.Tensor, reader, refuse)
        yield


class NoWaitingCopies(TorchDispatchMode):
    """Refuse copies from device to device that the host waits for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, device = func.__name__, kwargs.get("device")
        if name.startswith("_to_copy") and device is not None and not kwargs.get("non_blocking"):
            assert torch.device(device).type == args[0].device.type, f"{name} makes the host wait for the device"
        return func(*args, **kwargs)


def learn_on_imagined_gpu(build):
    """The summed losses of a step of the detector that ``build`` gives, on a GPU that computes nothing.

    Fails where a number is read, devices are mixed, or the host waits for a copy.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            detector = build().train()
            images, boxes, labels = torch.randn(2, 3, 64, 96), torch.rand(2, 500, 4), torch.zeros(2, 500).long()
            targets = Targets(boxes, labels, torch.ones(2, 500), valid=labels == 0, crowd=labels == 1)
        with NoWaitingCopies():
            report = detector.criterion.by_level(detector(images, targets), targets)
            return torch.stack([values.sum() for values in report.losses.values()]).sum()


class Decoding(torch.nn.Module):
    def __init__(self, detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images):
        return self.detector.decode(images)


@pytest.fixture
def no_looking():
    """A context in which reading a tensor's values fails."""
    return refuse_looking


@pytest.fixture
def imagined_gpu():
    """See `learn_on_imagined_gpu`."""
    return learn_on_imagined_gpu


@pytest.fixture
def decoding():
    """A detector's `decode` as a module."""
    return Decoding
