"""What every block promises: a whole graph for the compiler and for export, gradients, inputs left alone."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from torch import nn

import pyrafuse.layers
from pyrafuse.layers.alignment import AlignedUpsampling, FeatureSelection
from pyrafuse.layers.aspp import ASPP, FeedbackASPP
from pyrafuse.layers.attention import EncoderLayer
from pyrafuse.layers.carafe import CARAFE
from pyrafuse.layers.conv import ConvNormAct, ZeroConv2d
from pyrafuse.layers.deformable import Deformable, DeformableConv2d, DeformableConv3x3, FeatureAdaption
from pyrafuse.layers.dropblock import DropBlock
from pyrafuse.layers.dynamic_relu import DynamicReLU
from pyrafuse.layers.eca import ECA
from pyrafuse.layers.fusion_weights import FusionWeights
from pyrafuse.layers.l2_norm import L2Norm
from pyrafuse.layers.non_local import NonLocal
from pyrafuse.layers.packed import PackedConv2d
from pyrafuse.layers.rep_conv import RepConv, RepCSP, RepELAN
from pyrafuse.layers.rfb import RFB
from pyrafuse.layers.se import SE
from pyrafuse.layers.spp import YOLOSPP, SpatialPyramidPooling
from pyrafuse.layers.switchable_atrous import SwitchableAtrousConv
from pyrafuse.layers.weight_standardization import ConvAWS

CHANNELS = 16


class Weighed(nn.Module):
    """Each channel weighed at each position by a softmax over them."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = FusionWeights("stride_8", [str(i) for i in range(CHANNELS)], stride=8)

    def forward(self, x):
        return self.weights(x.softmax(dim=1), x.split(1, dim=1))


BLOCKS = {
    "encoder_layer": lambda: EncoderLayer(CHANNELS),
    "rep_conv": lambda: RepConv(CHANNELS, 8, activation="relu"),
    "rep_csp": lambda: RepCSP(CHANNELS, 8, depth=1, activation="relu"),
    "rep_elan": lambda: RepELAN(CHANNELS, 8, depth=2, activation="relu"),
    "aligned": lambda: AlignedUpsampling(CHANNELS, 8),
    "aspp": lambda: ASPP(CHANNELS, 8, rates=(2, 4), dropout=0.0),
    "feedback_aspp": lambda: FeedbackASPP(CHANNELS),
    "carafe": lambda: CARAFE(CHANNELS, 2),
    "conv_norm_act": lambda: ConvNormAct(CHANNELS, 8, 3, stride=2),
    "zero_conv": lambda: ZeroConv2d(CHANNELS, 8, start=0.5),
    "deformable": lambda: DeformableConv2d(CHANNELS, 8),
    "deformable, modulated": lambda: DeformableConv2d(CHANNELS, 8, stride=2, groups=2, modulated=True),
    "deformable, offsets given": lambda: DeformableConv3x3(CHANNELS, 8),
    "feature_selection": lambda: FeatureSelection(CHANNELS),
    "feature_adaption": lambda: FeatureAdaption(CHANNELS, 4),
    "feature_adaption, rfb": lambda: FeatureAdaption(CHANNELS, 4, rfb=True),
    "drop_block": lambda: DropBlock(3),
    "dynamic_relu": lambda: DynamicReLU(CHANNELS),
    "eca": lambda: ECA(CHANNELS),
    "eca, circular": lambda: ECA(CHANNELS, kernel_size=5, padding="circular"),
    "fusion_weights": lambda: Weighed(),
    "l2_norm": lambda: L2Norm(CHANNELS),
    "non_local": lambda: NonLocal(CHANNELS),
    "non_local, dot_product": lambda: NonLocal(CHANNELS, mode="dot_product"),
    "rfb": lambda: RFB(CHANNELS),
    "se": lambda: SE(CHANNELS, reduction=4),
    "spp": lambda: SpatialPyramidPooling((1, 2, 4)),
    "spp, average": lambda: SpatialPyramidPooling((1, 3), mode="average"),
    "yolo_spp": lambda: YOLOSPP(),
    "switchable_atrous": lambda: SwitchableAtrousConv(CHANNELS, 8, stride=2),
    "switchable_atrous, deformable": lambda: SwitchableAtrousConv(CHANNELS, 8, deform=True),
    "conv_aws": lambda: ConvAWS(CHANNELS, 8, 3, padding=1),
}
SECOND_INPUT = {"aligned": 8, "deformable, offsets given": 18, "feature_adaption": 8, "feature_adaption, rfb": 8}
"""Channels of those that read two maps."""


@pytest.fixture(params=BLOCKS)
def name(request):
    return request.param


def create(name):
    torch.manual_seed(0)
    block = BLOCKS[name]()
    with torch.no_grad():
        for parameter in block.parameters():  # what starts at zero would hide what is behind it
            parameter.add_(0.1 * torch.randn_like(parameter))
    return block


def inputs_of(name, height=13, width=18):
    generator = torch.Generator().manual_seed(1)
    channels = (CHANNELS, *((SECOND_INPUT[name],) if name in SECOND_INPUT else ()))
    return tuple(torch.randn(2, c, height, width, generator=generator) for c in channels)


def test_every_block_is_here():
    modules = [
        importlib.import_module(m.name) for m in pkgutil.iter_modules(pyrafuse.layers.__path__, "pyrafuse.layers.")
    ]
    classes = {c for m in modules for _, c in inspect.getmembers(m, inspect.isclass) if c.__module__ == m.__name__}
    # a packed convolution is no block of its own: test_optimized.py compares it with what it replaces; nor is a base
    assert {c for c in classes if issubclass(c, nn.Module)} - {PackedConv2d, Deformable} == {
        FusionWeights if name == "fusion_weights" else type(create(name)) for name in BLOCKS
    }


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_compiles_whole(name, training):
    block = create(name).train(training)
    inputs = inputs_of(name)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    torch.manual_seed(2)
    expected = block(*inputs)
    torch.manual_seed(2)
    torch.testing.assert_close(compiled(*inputs), expected, rtol=1e-4, atol=1e-5)  # a kernel may be another


@torch.no_grad()
def test_export(name):
    block, inputs = create(name).eval(), inputs_of(name)
    exported = torch.export.export(block, inputs).module()(*inputs)
    torch.testing.assert_close(exported, block(*inputs), rtol=1e-5, atol=1e-5)


def test_gradients(name):
    block = create(name).eval()
    inputs = tuple(x.requires_grad_() for x in inputs_of(name))
    before = [x.detach().clone() for x in inputs]
    out = block(*inputs)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
    read = inputs[:1] if name.startswith("feature_adaption") else inputs  # nothing returns to guides
    for tensor in (*read, *block.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()
