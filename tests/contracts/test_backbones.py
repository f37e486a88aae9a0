"""What every backbone promises: the maps that its spec describes, gradients everywhere, the same answer twice."""

import pytest
import torch
from torch import nn

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.core.errors import PyrafuseError, UnknownNameError

TIMM = ("resnet18", "mobilenetv2_100", "mobilenetv3_small_100", "convnext_atto", "swin_tiny_patch4_window7_224")
SMALL = {"darknet53": {"width": 0.25, "depths": (1, 1, 1, 1, 1)}, "mobilenet_v2": {"width": 0.25}}
NAMES = (*BACKBONES.names(), *(f"timm/{name}" for name in TIMM))


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(name):
    torch.manual_seed(0)
    return create_backbone(name, **SMALL.get(name, {}))


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@torch.no_grad()
def test_maps_equal_the_spec(backbone, size):
    maps = backbone.eval()(torch.randn(2, 3, *size))
    spec = backbone.features
    assert spec.strides == (8, 16, 32)
    assert [m.shape[1] for m in maps] == list(spec.channels)
    assert [m.shape[0] for m in maps] == [2, 2, 2]
    for m, stride in zip(maps, spec.strides, strict=True):
        for cells, side in zip(m.shape[2:], size, strict=True):  # most pad the last cell, ConvNeXt drops it
            assert cells in (side // stride, -(-side // stride))
        assert m.dtype == torch.float32


@torch.no_grad()
def test_same_answer_twice(backbone):
    images = torch.randn(1, 3, 64, 64)
    backbone.eval()
    for first, second in zip(backbone(images), backbone(images), strict=True):
        assert torch.equal(first, second)


def test_gradients(backbone):
    images = torch.randn(2, 3, 96, 96, requires_grad=True)
    maps = backbone.train()(images)
    sum((m * torch.linspace(-1, 1, m.numel()).view_as(m)).sum() for m in maps).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    backbone.zero_grad()


@torch.no_grad()
def test_half_precision(backbone):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = backbone.eval()(torch.randn(1, 3, 64, 64))
    assert all(m.isfinite().all() for m in maps)


def test_frozen_layers_keep_weights_and_statistics():
    backbone = create_backbone("mobilenet_v2", width=0.25, frozen=4).train()
    before = {k: v.clone() for k, v in backbone.layers[:4].state_dict().items()}
    maps = backbone(torch.randn(2, 3, 64, 64))
    sum(m.square().mean() for m in maps).backward()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad
    for key, value in backbone.layers[:4].state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(m.training for m in backbone.layers[:4].modules() if isinstance(m, nn.BatchNorm2d))
    assert backbone.layers[4].conv[0][0].weight.grad.abs().max() > 0


def test_too_many_frozen_layers():
    with pytest.raises(PyrafuseError, match="first 0 to 6 layers, got frozen=7"):
        create_backbone("mobilenet_v2", frozen=7)


def test_other_strides():
    backbone = create_backbone("timm/resnet18", strides=(4, 16))
    assert backbone.features.channels == (64, 256)
    assert [tuple(m.shape[2:]) for m in backbone(torch.zeros(1, 3, 64, 64))] == [(16, 16), (4, 4)]


def test_a_plain_transformer_is_refused():
    with pytest.raises(PyrafuseError, match=r"offers maps at strides \(16, .*\(8, 16, 32\) are needed"):
        create_backbone("timm/vit_tiny_patch16_224")


def test_names_nearly_right():
    with pytest.raises(UnknownNameError, match="unknown backbone 'darknet52'; did you mean 'darknet53'"):
        create_backbone("darknet52")
    with pytest.raises(UnknownNameError, match="unknown timm model 'resnet_18'; did you mean"):
        create_backbone("timm/resnet_18")
