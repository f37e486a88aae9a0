"""Balanced feature pyramid, worked by hand."""

import pytest
import torch
from torch import nn

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


@torch.no_grad()
def test_dot_product_against_loops():
    torch.manual_seed(0)
    neck = BFP(PyramidSpec((2, 2), (8, 16)), level=1, refinement="dot_product").double()
    for parameter in neck.parameters():
        nn.init.normal_(parameter)
    fine, coarse = (torch.randn(1, 2, n, n + 2, dtype=torch.float64) for n in (4, 2))
    pooled = torch.stack([fine[0, :, 2 * i : 2 * i + 2, :].amax(1) for i in range(2)], dim=1)
    pooled = torch.stack([pooled[:, :, a:b].amax(2) for a, b in ((0, 2), (1, 3), (3, 5), (4, 6))], dim=2)
    cells = ((pooled + coarse[0]) / 2).flatten(1).T  # 8 cells of 2 channels

    def apply(conv: nn.Conv2d, cell: torch.Tensor) -> torch.Tensor:
        return conv.weight[:, :, 0, 0] @ cell + conv.bias

    refined = []
    for cell in cells:
        found = torch.zeros(2, dtype=torch.float64)
        for other in cells:
            weight = apply(neck.refine.query, cell) @ apply(neck.refine.key, other) / len(cells)
            found += weight * apply(neck.refine.value, other)
        refined.append(cell + apply(neck.refine.out, found))
    expected = coarse[0] + torch.stack(refined, dim=1).view(2, 2, 4)
    torch.testing.assert_close(neck((fine, coarse))[1][0], expected)


def test_forms_of_the_non_local_block_have_the_same_keys():
    inputs = PyramidSpec((4, 4), (8, 16))
    pyramid = (torch.randn(1, 4, 4, 4), torch.randn(1, 4, 2, 2))
    paper, alias, product = (BFP(inputs, refinement=r) for r in ("non_local", "embedded_gaussian", "dot_product"))
    nn.init.normal_(paper.refine.out.weight)
    for other in (alias, product):
        other.load_state_dict(paper.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(paper(pyramid), alias(pyramid), strict=True))
    assert not torch.allclose(paper(pyramid)[0], product(pyramid)[0])


def test_bad_arguments():
    inputs = PyramidSpec((4, 4), (8, 16))
    with pytest.raises(ValueError, match=r"2 levels come in; level must lie in 0\.\.1, got 2"):
        BFP(inputs, level=2)
    with pytest.raises(ValueError, match="unknown refinement 'nonlocal'; choose from none, conv, non_local, emb"):
        BFP(inputs, refinement="nonlocal")
