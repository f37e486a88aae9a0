"""What every backbone promises: the maps that its spec describes, gradients everywhere, the same answer twice."""

import copy

import pytest
import torch
from torch import nn

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.base.errors import PyrafuseError, UnknownNameError

TIMM = ("resnet18", "mobilenetv2_100", "mobilenetv3_small_100", "convnext_atto", "swin_tiny_patch4_window7_224")
DPN = {
    "stem": 8,
    "stem_kernel": 3,
    "residual": 16,
    "bottleneck": 16,
    "groups": 4,
    "depths": (2, 1, 1, 2),
    "growth": (4, 8, 8, 16),
}
SMALL = {
    "darknet53": {"width": 0.25, "depths": (1, 1, 1, 1, 1)},
    "mobilenet_v2": {"width": 0.25},
    "eca_mobilenet_v2": {"width": 0.25},
    "mobilenet_v3_large": {"width": 0.25, "expanded": True},
    "vgg16": {},
    "resnet18": {"width": 16},
    "resnet50": {"width": 16, "style": "caffe"},
    "eca_resnet50": {"width": 16},
    "resnext50_32x4d": {"width": 16},
    "dpn92": DPN,
    "dpn68b": {**DPN, "is_split": True, "activation": "silu"},
}
OWN = tuple(name for name in BACKBONES.names() if name != "recursive_fpn")  # that one is made of others, with a neck
NAMES = (*SMALL, *(f"timm/{name}" for name in TIMM))


def test_every_form_has_a_small_one():
    """What is swept below holds for the large ones: they are the same functions with other numbers."""
    forms = {getattr(BACKBONES.get(name), "func", BACKBONES.get(name)) for name in SMALL}
    assert {getattr(BACKBONES.get(name), "func", BACKBONES.get(name)) for name in OWN} == forms


@pytest.mark.parametrize("name", OWN)
def test_maps_of_full_size_equal_the_spec(name):
    strides = (4, 8, 16) if name == "vgg16" else (4, 8, 16, 32)
    with torch.device("meta"):  # shapes without numbers
        backbone = create_backbone(name, strides=strides).eval()
        maps = backbone(torch.zeros(1, 3, 203, 97))
    assert backbone.features.strides == strides
    sides = [(-(-203 // stride), -(-97 // stride)) for stride in strides]
    expected = [(1, c, *side) for c, side in zip(backbone.features.channels, sides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(name):
    torch.manual_seed(0)
    return create_backbone(name, **SMALL.get(name, {}))


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@torch.no_grad()
def test_maps_equal_the_spec(name, backbone, size):
    maps = backbone.eval()(torch.randn(2, 3, *size))
    spec = backbone.features
    assert spec.strides == ((8, 16) if name == "vgg16" else (8, 16, 32))
    assert [m.shape[1] for m in maps] == list(spec.channels)
    assert [m.shape[0] for m in maps] == [2] * len(spec)
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
    for part in backbone.modules():
        if isinstance(part, nn.BatchNorm2d) and not part.weight.any():  # timm's residual paths add nothing at first
            nn.init.ones_(part.weight)
    maps = backbone.train()(images)
    sum((m * torch.linspace(-1, 1, m.numel()).view_as(m)).sum() for m in maps).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad.abs().max() > 0
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key
    backbone.zero_grad()


@torch.no_grad()
def test_half_precision(backbone):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = backbone.eval()(torch.randn(1, 3, 64, 64))
    assert all(m.isfinite().all() for m in maps)


@torch.no_grad()
def test_weights_in_half_precision(backbone):
    try:
        maps = backbone.eval().bfloat16()(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
        assert all(m.isfinite().all() and m.dtype == torch.bfloat16 for m in maps)
    finally:
        backbone.float()


def slow_but(*quick):
    """All names, those that are not ``quick`` marked slow."""
    names = [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
    return pytest.mark.parametrize("name", names, indirect=True)


@slow_but(*(name for name in NAMES if "swin" not in name))
@torch.no_grad()
def test_export(backbone):
    images = torch.randn(1, 3, 49, 64)
    exported = torch.export.export(backbone.eval(), (images,)).module()(images)
    for ours, theirs in zip(backbone(images), exported, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


@slow_but("darknet53", "vgg16", "resnet18", "dpn92", "timm/resnet18")
@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eval", "train"])
@torch.no_grad()
def test_compiles_whole(backbone, training):
    images = torch.randn(2, 3, 64, 96)
    statistics = copy.deepcopy(dict(backbone.named_buffers()))
    torch._dynamo.reset()
    compiled = torch.compile(backbone.train(training), fullgraph=True, backend="eager")
    for ours, theirs in zip(backbone(images), compiled(images), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    for key, value in backbone.named_buffers():
        value.copy_(statistics[key])


@pytest.mark.parametrize("size", [(1, 1), (5, 33), (31, 2)])
@pytest.mark.parametrize("name", ["resnet50", "dpn92", "eca_mobilenet_v2", "vgg16", "darknet53"], indirect=True)
@torch.no_grad()
def test_the_smallest_images(backbone, size):
    for m, stride in zip(backbone.eval()(torch.randn(1, 3, *size)), backbone.features.strides, strict=True):
        assert m.shape[2:] == (-(-size[0] // stride), -(-size[1] // stride))


class TestFreezing:
    @pytest.mark.parametrize("frozen_stages", [-1, 0, 2, 4])
    @pytest.mark.parametrize("name", ["resnet18", "dpn92", "darknet53"])
    def test_weights_and_statistics_stay(self, name, frozen_stages):
        torch.manual_seed(0)
        backbone = create_backbone(name, **SMALL[name], frozen_stages=frozen_stages).train()
        before = {key: value.clone() for key, value in backbone.state_dict().items()}
        images = torch.randn(2, 3, 64, 64, requires_grad=True)
        sum(m.square().mean() for m in backbone(images)).backward()
        with torch.no_grad():
            for parameter in backbone.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        frozen = ("stem.", *(f"stages.{i}." for i in range(frozen_stages)))[: frozen_stages + 1]
        for key, value in backbone.state_dict().items():
            assert torch.equal(value, before[key]) == key.startswith(frozen), key

    @pytest.mark.parametrize("name", ["resnet18", "dpn92", "darknet53"])
    def test_norms_in_evaluation_mode_learn_and_count_nothing(self, name):
        torch.manual_seed(0)
        backbone = create_backbone(name, **SMALL[name], norm_eval=True)
        images = torch.randn(2, 3, 64, 64)
        before = {key: value.clone() for key, value in backbone.named_buffers()}
        trained = backbone.train()(images)
        assert all(torch.equal(value, before[key]) for key, value in backbone.named_buffers())
        assert all(torch.equal(a, b) for a, b in zip(trained, backbone.eval()(images), strict=True))
        sum(m.square().mean() for m in trained).backward()
        assert all(p.grad is not None for p in backbone.parameters())

    def test_a_switch_to_training_thaws_nothing(self):
        backbone = create_backbone("resnet18", width=16, frozen_stages=1)
        backbone.eval().train()
        assert not any(part.training for part in (*backbone.stem.modules(), *backbone.stages[0].modules()))
        assert backbone.stages[1].training

    @pytest.mark.parametrize(("frozen_stages", "layers"), [(-1, 0), (0, 2), (1, 4), (2, 7), (4, 18)])
    def test_stages_of_mobilenet_v2_end_where_the_stride_grows(self, frozen_stages, layers):
        backbone = create_backbone("mobilenet_v2", width=0.25, frozen_stages=frozen_stages).train()
        assert [not any(p.requires_grad for p in layer.parameters()) for layer in backbone.layers] == [
            number < layers for number in range(18)
        ]
        assert [layer.training for layer in backbone.layers] == [number >= layers for number in range(18)]

    def test_no_such_stage(self):
        with pytest.raises(PyrafuseError, match="up to 4 stages, got 5"):
            create_backbone("resnet18", frozen_stages=5)


@pytest.mark.parametrize("name", ["resnet18", "dpn92", "mobilenet_v2", "darknet53"])
def test_maps_at_other_strides_are_the_same_maps(name):
    torch.manual_seed(0)
    whole = create_backbone(name, **SMALL[name], strides=(4, 8, 16, 32)).eval()
    part = create_backbone(name, **SMALL[name], strides=(4, 16)).eval()
    own = part.state_dict()
    assert set(own) < set(whole.state_dict())
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if key in own})
    images = torch.randn(1, 3, 40, 56)
    for ours, theirs in zip(part(images), (whole(images)[0], whole(images)[2]), strict=True):
        assert torch.equal(ours, theirs)
    assert part.features.channels == (whole.features.channels[0], whole.features.channels[2])


@pytest.mark.parametrize("strides", [(), (64,), (8, 12)])
@pytest.mark.parametrize("name", ["resnet18", "dpn68", "mobilenet_v2", "darknet53", "vgg16"])
def test_no_map_at_such_a_stride(name, strides):
    with torch.device("meta"), pytest.raises(PyrafuseError, match="maps at strides"):
        create_backbone(name, strides=strides)


def test_frozen_layers_keep_weights_and_statistics():
    backbone = create_backbone("mobilenet_v2", width=0.25, frozen_stages=1).train()
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
    with pytest.raises(PyrafuseError, match="up to 4 stages, got 7"):
        create_backbone("mobilenet_v2", frozen_stages=7)


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
