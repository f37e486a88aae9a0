"""The recursive pyramid: against a written-out loop, what it starts as, and what it refuses."""

import pytest
import torch
from torch import nn

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import Part, part
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.mmdetection.blocks import naming_recursive_fpn
from pyrafuse.layers.conv import ZeroConv2d
from pyrafuse.layers.switchable_atrous import SwitchableAtrousConv
from pyrafuse.layers.weight_standardization import ConvAWS
from pyrafuse.models.recursive_fpn import RecursiveFPN
from pyrafuse.necks.identity import IdentityNeck


def build(**options) -> RecursiveFPN:
    torch.manual_seed(0)
    defaults = {
        "backbone": part("resnet18", strides=(4, 8, 16, 32), width=8),
        "standardized": False,
        "neck": part("fpn", num_levels=5, out_channels=8),
    }
    return BACKBONES.build(Part("recursive_fpn", {**defaults, **options}))


@pytest.fixture
def images():
    return torch.randn(2, 3, 70, 97, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_three_rounds_against_a_loop(images):
    model = build(num_rounds=3).eval()
    for parameter in (*model.rounds.parameters(), *model.fusion.parameters()):
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)

    def look_again(again, pyramid):
        x = again.trunk.stem(images)
        maps = []
        for i, stage in enumerate(again.trunk.stages):
            for j, block in enumerate(stage):
                x = block.add(x)
                if i and not j:
                    x = x + again.feedback[str(i)](model.aspp(pyramid[i]))
                x = x.relu()
            maps.append(x)
        return model.neck(tuple(maps))

    pyramid = model.neck(model.trunk(images))
    for again in model.rounds:
        found = look_again(again, pyramid)
        weights = [model.fusion(new).sigmoid() for new in found]
        pyramid = tuple(w * new + (1 - w) * old for w, new, old in zip(weights, found, pyramid, strict=True))
    got = model(images)
    assert [x.shape[1] for x in got] == [8] * 5 == list(model.features.channels)
    assert model.features.strides == (4, 8, 16, 32, 64)
    for a, b in zip(got, pyramid, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_fresh_rounds_of_equal_weights_change_nothing(images):
    model = build().eval()
    model.rounds[0].trunk.load_state_dict(model.trunk.state_dict())
    for a, b in zip(model(images), model.neck(model.trunk(images)), strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_standardised_and_switchable_backbones_keep_their_function(images):
    model = build(standardized=True, switchable=True).eval()
    assert all(isinstance(part, ConvAWS) for part in (model.trunk.stem.conv1, model.trunk.stages[0][0].conv1))
    assert not isinstance(model.trunk.stages[0][0].conv1, SwitchableAtrousConv)
    assert isinstance(model.rounds[0].trunk.stages[1][0].conv1, SwitchableAtrousConv)
    assert isinstance(model.trunk.stages[1][0].conv1.switch, ZeroConv2d)  # no convolution to standardise
    plain = create_backbone("resnet18", width=8, strides=(4, 8, 16, 32)).eval()
    plain.load_state_dict({key: model.trunk.state_dict()[key] for key in plain.state_dict()})
    for a, b in zip(plain(images), model.trunk(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_gradients(images):
    model = build(backbone=part("resnet18", strides=(8, 16, 32), width=8)).train()
    nn.init.normal_(model.rounds[0].feedback["2"].weight)
    sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in model(images)).backward()
    assert model.rounds[0].levels == (0, 1, 2)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.rounds[0].feedback["1"].weight.grad.abs().max() > 0
    assert model.aspp.branches[1].conv.weight.grad.abs().max() > 0


@torch.no_grad()
def test_compiles_whole_and_exports(images):
    model = build().eval()
    expected = model(images)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    exported = torch.export.export(model, (images,)).module()
    for a, b, c in zip(expected, compiled(images), exported(images), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


def test_names_of_switchable_and_later_rounds():
    model = build(num_rounds=3, standardized=True, switchable=True)
    naming = naming_recursive_fpn(model)
    names = {naming(key) for key in model.state_dict()}
    assert len(names) == len(model.state_dict())
    assert {
        "backbone.layer2.0.conv1.offset_s.bias",
        "backbone.layer1.0.conv1.weight_gamma",
        "neck.rfp_modules.1.layer4.0.rfp_conv.weight",
        "neck.rfp_modules.0.layer3.1.conv2.weight_diff",
        "neck.rfp_modules.1.layer3.1.conv2.post_context.weight",
        "neck.rfp_aspp.aspp.3.bias",
        "neck.rfp_weight.weight",
        "neck.fpn_convs.3.conv.weight",
    } <= names


def test_what_it_refuses():
    def pyramid(trunks, channels=(8, 8, 8, 8), strides=(4, 8, 16, 32)):
        return RecursiveFPN(trunks, IdentityNeck(PyramidSpec(channels, strides)))

    trunks = [create_backbone("resnet18", width=8, strides=(4, 8, 16, 32)) for _ in range(2)]
    with pytest.raises(PyrafuseError, match="a trunk for each of two rounds or more"):
        pyramid(trunks[:1])
    with pytest.raises(PyrafuseError, match="a trunk for each of two rounds or more"):
        pyramid([trunks[0], create_backbone("resnet18", width=16, strides=(4, 8, 16, 32))])
    with pytest.raises(PyrafuseError, match=r"levels of equal channels can be fed back, got \(8, 4\)"):
        pyramid(trunks, (8, 4), (4, 8))
    with pytest.raises(PyrafuseError, match="nothing to feed back: the neck's levels have strides"):
        pyramid(trunks, (8,), (64,))
    with pytest.raises(PyrafuseError, match="which StagedBackbone has none of; take a resnet"):
        build(backbone="vgg16")
    with pytest.raises(PyrafuseError, match="two rounds or more, got num_rounds=0"):
        build(num_rounds=0)


def test_identity():
    inputs = PyramidSpec((8, 16), (8, 16))
    maps = (torch.zeros(1), torch.ones(1))
    assert IdentityNeck(inputs)(maps) is maps
    assert IdentityNeck(inputs).features is inputs
