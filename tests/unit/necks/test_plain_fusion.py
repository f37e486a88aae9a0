"""Fusion by sum and by concatenation: against ASFF with its weights taken away, and worked by hand."""

import pytest
import torch
from torch import nn

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.models.factory import create_model
from pyrafuse.necks.registry import NECKS

SPEC = PyramidSpec((6, 4, 5), (8, 16, 32))


def pyramid_of(height: int, width: int):
    generator = torch.Generator().manual_seed(3)
    return tuple(
        torch.randn(2, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(SPEC.channels, SPEC.strides, strict=True)
    )


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (72, 40)])
def test_a_sum_is_asff_with_equal_weights(size):
    torch.manual_seed(0)
    asff = NECKS.create("asff", SPEC, out_channels=(7, 8, 9)).eval()
    summed = NECKS.create("sum_fusion", SPEC, out_channels=(7, 8, 9)).eval()
    summed.load_state_dict({k: v for k, v in asff.state_dict().items() if k in summed.state_dict()})
    for level in asff.levels:
        nn.init.zeros_(level.weigh.weight)  # every softmax is then 1/3
        level.expand.conv.weight.mul_(3)
    pyramid = pyramid_of(*size)
    for a, b in zip(asff(pyramid), summed(pyramid), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_sum_worked_by_hand():
    spec = PyramidSpec((1, 1), (8, 16))
    neck = NECKS.create("sum_fusion", spec, activation="none").eval()
    fine, coarse = neck.levels
    for conv in (fine.expand.conv, coarse.expand.conv, coarse.resizes[0].project[0].conv):
        conv.weight.zero_()[..., 1, 1] = 1  # every convolution copies the cell under its centre
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    out = neck((x, torch.full((1, 1, 1, 1), 10.0)))
    torch.testing.assert_close(out[0], x + 10, rtol=0, atol=1e-3)  # batch norm divides by the root of 1 + 1e-5
    torch.testing.assert_close(out[1], torch.full((1, 1, 1, 1), 11.0), rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_concatenation_chosen_by_its_convolution():
    torch.manual_seed(0)
    neck = NECKS.create("concat_fusion", SPEC, activation="none").eval()
    summed = NECKS.create("sum_fusion", SPEC, activation="none").eval()
    summed.load_state_dict({k: v for k, v in neck.state_dict().items() if k in summed.state_dict()})
    for level, width in zip(neck.levels, SPEC.channels, strict=True):
        assert level.merge.conv.weight.shape == (width, 3 * width, 1, 1)
        level.merge.conv.weight.copy_(torch.eye(width).repeat(1, 3)[..., None, None])  # adds the three parts
    pyramid = pyramid_of(64, 64)
    for a, b in zip(neck(pyramid), summed(pyramid), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "before"), [("yolov3_asff", "yolo_fpn"), ("yolov3_asff_small", "fpn")])
def test_a_model_with_another_fusion_is_alike_in_all_else(name, before):
    def parts(**options):
        with torch.device("meta"):
            detector = create_model(name, num_classes=3, **options)
        shapes = {key: tuple(value.shape) for key, value in detector.state_dict().items()}
        fusion = ("squeezes", "weigh", "merge")
        return detector, {k: v for k, v in shapes.items() if not any(word in k for word in fusion)}

    asff, expected = parts()
    for fusion in ("sum_fusion", "concat_fusion"):
        detector, found = parts(neck=(before, fusion))
        assert found == expected
        assert detector.neck.features == asff.neck.features


def test_complaint():
    with pytest.raises(ValueError, match=r"3 levels come in, and out_channels are \(1, 2\)"):
        NECKS.create("sum_fusion", SPEC, out_channels=(1, 2))
