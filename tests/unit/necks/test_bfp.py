"""Balanced feature pyramid, worked by hand."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.bfp import BFP


def test_by_hand():
    neck = BFP(PyramidSpec((1, 1, 1), (8, 16, 32)), refinement="none")
    fine = torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0], [0, 0, 0, 9]]]])
    middle = torch.tensor([[[[10.0, 20], [30, 40]]]])
    coarse = torch.tensor([[[[100.0]]]])
    # (6 + 10 + 100) / 3 and so on, gathered at stride 16
    mean = torch.tensor([[116.0, 128], [130, 149]]) / 3
    out = neck((fine, middle, coarse))
    assert torch.equal(out[0], fine + mean.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(out[1], middle + mean)
    assert torch.equal(out[2], coarse + mean.max())


@pytest.mark.parametrize(
    ("strides", "level"), [((4, 8, 16, 32, 64), 2), ((8, 16, 32, 64, 128), 1), ((32, 64, 128), 1), ((8,), 0)]
)
def test_gathers_at_stride_16_or_in_the_middle(strides, level):
    channels = (2,) * len(strides)
    chosen, given = (BFP(PyramidSpec(channels, strides), level=i, refinement="none") for i in (None, level))
    pyramid = tuple(torch.randn(1, 2, 512 // s, 256 // s) for s in strides)
    for a, b in zip(chosen(pyramid), given(pyramid), strict=True):
        assert torch.equal(a, b)


def test_equal_channels_need_no_projection():
    assert [name for name, _ in BFP(PyramidSpec((4, 4), (8, 16)), refinement="none").named_parameters()] == []
    projected = BFP(PyramidSpec((4, 6), (8, 16)), refinement="none")
    assert projected.features.channels == (4, 4)
    assert {name for name, _ in projected.named_parameters()} == {"laterals.1.weight", "laterals.1.bias"}


def test_bad_arguments():
    inputs = PyramidSpec((4, 4), (8, 16))
    with pytest.raises(ValueError, match=r"2 levels come in; level must lie in 0\.\.1, got 2"):
        BFP(inputs, level=2)
    with pytest.raises(ValueError, match="unknown refinement 'nonlocal'"):
        BFP(inputs, refinement="nonlocal")
