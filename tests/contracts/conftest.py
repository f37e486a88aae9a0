"""The detectors that contracts are tried on, small ones of every kind, and what they are tried with."""

import re
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pyrafuse.core.targets import Targets
from pyrafuse.models.factory import create_model, list_models

DARKNET = {"backbone": {"width": 0.25, "depths": (1, 1, 1, 1, 1)}}
MOBILE = {"backbone": {"width": 0.25}}
SMALL_YOLO = {
    "yolov3_small": MOBILE,
    "yolov3_asff_small": MOBILE,
    "yolov3": {**DARKNET, "necks": {"yolo_fpn": {"width": 1 / 8}}},
    "yolov3_plain": {**DARKNET, "necks": {"yolo_fpn": {"width": 1 / 8}}},
    "yolov3_asff": {
        **DARKNET,
        "necks": {"yolo_fpn": {"width": 1 / 8}, "asff": {"out_channels": (16, 24, 32)}},
        "head": {"rfb": True},
    },
}
YOLO = {
    **{name: (name, SMALL_YOLO.get(name, {})) for name in list_models() if name.startswith("yolov3")},
    "plain anchors": ("yolov3", {**SMALL_YOLO["yolov3"], "head": {"guided": False, "adaption": False}}),
    "neighbours": (
        "yolov3_asff_small",
        {
            **MOBILE,
            "head": {"reach": 1.0},
            "criterion": {
                "assigner": {"radius": 1},
                "iou_objectness": True,
                "label_smoothing": True,
                "box_weight": 2.0,
            },
        },
    ),
    "timm": ("yolov3_asff_small", {"backbone": "timm/mobilenetv3_small_100"}),
}

TINY_DENSE = {
    "backbone": {"name": "resnet18", "width": 8},
    "necks": {"fpn": {"out_channels": 16}},
    "head": {"channels": 16, "num_convs": 1},
}
CELLS = {**TINY_DENSE, "necks": {"nas_fpn": {"out_channels": 16, "stack": 1}}}
TWO_MAPS = {"backbone": {"name": "resnet18", "width": 8, "strides": (8, 16)}}
SEPARABLE = {
    "backbone": {"name": "resnet18", "width": 8},
    "necks": {"bifpn": {"out_channels": 8, "repeats": 1}},
    "head": {"num_convs": 1},
}
OTHER_DENSE = {
    "retinanet_nas_fpn": CELLS,
    "ssd300": {**TWO_MAPS, "necks": {"ssd_extra": {"out_channels": (16, 16, 16, 16)}}},
    "ssd512": {**TWO_MAPS, "necks": {"ssd_extra": {"out_channels": (16, 16, 16, 16, 16)}}},
    "ssdlite320": {**TWO_MAPS, "necks": {"ssd_extra": {"out_channels": (16, 16, 16, 16)}}},
    "m2det": {**TWO_MAPS, "necks": {"mlfpn": {"num_levels": 2, "channels": 8}}},
    "efficientdet_d0": SEPARABLE,
    "tf_efficientdet_d0": SEPARABLE,
}
"""Where `TINY_DENSE` does not fit."""
OTHER_KINDS = re.compile(r"yolo|rcnn|efficientdet_d[1-9]")
"""In the names of models that have contracts of their own, or are one of these with other numbers."""
DENSE = {
    **{name: (name, OTHER_DENSE.get(name, TINY_DENSE)) for name in list_models() if not OTHER_KINDS.search(name)},
    "thresholds of their own": (
        "retinanet",
        {
            **TINY_DENSE,
            "criterion": {
                "box_assigner": {"name": "max_iou", "positive_iou": 0.4},
                "box_loss": "ciou",
                "assigner": {"crowd_share": 0.5},
            },
        },
    ),
    "level weights apart": (
        "atss",
        {
            **TINY_DENSE,
            "criterion": {
                "level_weights": {"name": "counted", "shared": False, "ends": (0.5, 1.0)},
                "quality": "iou",
            },
        },
    ),
    "centre sampling": (
        "fcos",
        {
            **TINY_DENSE,
            "head": {**TINY_DENSE["head"], "distances": "scaled_relu", "centerness_on_boxes": True},
            "criterion": {"assigner": {"radius": 1.5}, "box_loss": "giou"},
        },
    ),
    "torchvision's RetinaNet": (
        "retinanet",
        {**TINY_DENSE, "head": {**TINY_DENSE["head"], "norm": "group_norm", "whole_pixels": True}},
    ),
    "torchvision's FCOS": (
        "fcos",
        {
            **TINY_DENSE,
            "head": {
                **TINY_DENSE["head"],
                "distances": "relu",
                "whole_steps": True,
                "redundant_bias": True,
                "centerness_on_boxes": True,
            },
            "postprocess": {"joint_quality": True},
        },
    ),
    "finest level": (
        "atss",
        {
            **TINY_DENSE,
            "backbone": {"name": "resnet18", "width": 8, "strides": (4, 8, 16, 32)},
            "necks": {"fpn": {"out_channels": 16, "num_levels": 4}},
        },
    ),
}

SMALL_PARTS = {
    "stages": {"head": {"channels": 16}, "sampler": {"number": 24}},
    "learning_proposals": {"max_per_level": 60, "max_regions": 40},
    "proposals": {"max_per_level": 60, "max_regions": 30},
}
FPN = {"name": "fpn", "out_channels": 16, "num_levels": 5}
TINY_TWO_STAGE = {
    **SMALL_PARTS,
    "backbone": {"name": "resnet18", "width": 8},
    "necks": {"fpn": {"out_channels": 16}},
}
RECURSIVE = {
    **SMALL_PARTS,
    "backbone": {
        "backbone": {"name": "resnet18", "width": 8, "strides": (4, 8, 16, 32)},
        "neck": FPN,
    },
}
TWO_STAGE = {
    **{name: (name, RECURSIVE if name.endswith("rfp") else TINY_TWO_STAGE) for name in list_models() if "rcnn" in name},
    "pafpn": ("faster_rcnn", {**TINY_TWO_STAGE, "neck": "pafpn", "necks": {"pafpn": {"out_channels": 16}}}),
    "stride 8": (
        "faster_rcnn",
        {**TINY_TWO_STAGE, "backbone": {"name": "resnet18", "width": 8, "strides": (8, 16, 32)}},
    ),
    "classes of a cascade": (
        "cascade_rcnn",
        {**TINY_TWO_STAGE, "stages": {"head": {"channels": 16, "class_agnostic": False}, "sampler": {"number": 24}}},
    ),
    "boxes compared": (
        "faster_rcnn",
        {**TINY_TWO_STAGE, "criterion": {"regions": {"box_loss": "giou"}, "proposals": {"box_loss": "iou"}}},
    ),
    "timm": (
        "faster_rcnn",
        {
            **TINY_TWO_STAGE,
            "backbone": "timm/mobilenetv3_small_100",
            "neck": "bifpn",
            "necks": {"bifpn": {"out_channels": 16, "repeats": 1}},
        },
    ),
}

KINDS = {"yolo": YOLO, "dense": DENSE, "two_stage": TWO_STAGE}
_MODELS = {name: made for kind in KINDS.values() for name, made in kind.items() if name == made[0]}


@pytest.fixture
def small_options():
    """(name of a model) -> options that make it small."""
    return lambda name: _MODELS[name][1] if name in _MODELS else SEPARABLE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try ``detector``, built once a module, and ``detector_name`` on the kinds in the module's KINDS, or all."""
    kinds = getattr(metafunc.module, "KINDS", tuple(KINDS))
    names = [f"{kind}-{name}" for kind in kinds for name in KINDS[kind]]
    for argument in {"detector", "detector_name"} & set(metafunc.fixturenames):
        metafunc.parametrize(argument, names, indirect=argument == "detector", scope="module")


def build_variant(name: str):
    """The detector of a variant, KIND-VARIANT, or of a model's name."""
    model, options = _MODELS[name] if name in _MODELS else KINDS[name.split("-", 1)[0]][name.split("-", 1)[1]]
    torch.manual_seed(0)
    return create_model(model, num_classes=3, **options)


@pytest.fixture(scope="module")
def detector(request):
    """One of the detectors, in whatever mode the test before left it."""
    return build_variant(request.param)


@pytest.fixture(scope="session")
def build():
    """(name of a variant) -> the detector, anew."""
    return build_variant


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
            targets = Targets(
                boxes,
                labels,
                torch.ones(2, 500),
                valid=labels == 0,
                crowd=labels == 1,
                sizes=torch.ones(2, 2) * 50,
                padded_sizes=torch.ones(2, 2) * 64,
            )
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
