"""Whole files of mmdetection: whether the name they are given is of what their keys tell."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.loading import build
from pyrafuse.importers.mmdetection.dense import name_detector
from pyrafuse.importers.mmdetection.families import DENSE
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized


def state_of(family) -> dict[str, torch.Tensor]:
    """A detector's parameters, all of them one value, under mmdetection's names."""
    with Uninitialized():
        detector = create_model(family.model, num_classes=80, backbone="resnet18", **family.changes)
    naming = name_detector(detector, family).naming
    return {
        naming(key): torch.zeros(()).expand(value.shape)
        for key, value in detector.state_dict().items()
        if not key.startswith("criterion.")
    }


@pytest.fixture(scope="module")
def states():
    families = [f for f in DENSE if f.model in ("retinanet", "retinanet_nas_fpn", "fcos", "ddod")]
    return {family.title: state_of(family) for family in families}


@pytest.mark.parametrize(
    ("title", "name", "size", "multiple"),
    [
        ("RetinaNet", "retinanet_r18_fpn_1x_coco", (800, 1333), 32),
        ("RetinaNet with NAS-FPN", "retinanet_r18_nasfpn_crop640_50e_coco", (640, 640), 128),
        ("RetinaNet with norms of each level", "retinanet_r18_fpn_crop640_50e_coco", (640, 640), 64),
    ],
)
def test_each_pyramid_has_names_of_its_own(states, title, name, size, multiple):
    detector = build(states[title], source="x.pth", published=name)
    given = detector.card.preprocessing
    assert (given.size, given.pad_multiple) == (size, multiple)
    for other in states:
        if other != title:
            with pytest.raises(
                CheckpointError, match=rf"x.pth is mmdetection's {other} on a ResNet of 18 layers, and "
            ):
                build(states[other], source="x.pth", published=name)


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("bbox_head.cls_convs.3.conv.conv_offset.weight", "its head's towers"),
        ("bbox_head.reg_convs.3.conv_offset.bias", "its head's towers"),
        ("backbone.layer2.0.conv2.conv_offset.weight", "its backbone"),
        ("backbone.layer2.0.conv2_offset.weight", "its backbone"),
    ],
)
def test_deformable_convolutions_are_named(states, key, place):
    name = "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_dcn_1x_coco-ae4d8b3d.pth"
    content = {**states["FCOS"], key: torch.zeros(1)}
    with pytest.raises(CheckpointError, match=f"{name} has deformable convolutions in {place}, which are not read"):
        build(content, source=name)


def test_ddod_s_own_are_read(states):
    assert build(states["DDOD"], source="x.pth", published="ddod_r18_fpn_1x_coco").card.model == "ddod"


def test_names_that_are_not_one_for_each_class_are_refused(states):
    content = {"state_dict": states["RetinaNet"], "meta": {"CLASSES": ("cat", "dog")}}
    with pytest.raises(CheckpointError, match=r"names 2 classes \(cat, dog\), and its parameters tell 80 apart"):
        build(content, source="x.pth", published="retinanet_r18_fpn_1x_coco")
