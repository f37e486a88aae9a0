"""The weighted sum whose weights can be watched: by hand, its means, its names."""

import pytest
import torch

from pyrafuse.layers.fusion_weights import FusionWeights, find_fusions


def test_sums_by_hand():
    fusion = FusionWeights("stride_8", ("a", "b"), stride=8)
    maps = [torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]), torch.tensor([[[[10.0, 20.0]], [[30.0, 40.0]]]])]
    assert fusion(torch.tensor([2.0, 0.5]), maps).tolist() == [[[[7, 14]], [[21, 28]]]]
    spatial = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.5]]]])
    assert fusion(spatial, maps).tolist() == [[[[1, 10]], [[3, 20]]]]
    assert not fusion.state_dict()


def test_as_many_weights_as_maps():
    with pytest.raises(ValueError, match="zip"):
        FusionWeights("p4", ("a", "b"), stride=16)(torch.ones(2), [torch.ones(1, 1, 1, 1)])


def test_means_of_positions_and_of_scalars():
    weights = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]], [[[0.5, 0.5]], [[0.5, 0.5]]]], requires_grad=True)
    fusion = FusionWeights("p4", ("p3", "p5"), stride=16)
    mean = fusion.mean(weights * torch.tensor([[[[1.0]], [[3.0]]]]))
    torch.testing.assert_close(mean, torch.tensor([0.5, 1.5]))
    assert not mean.requires_grad
    torch.testing.assert_close(fusion.mean(torch.tensor([0.25, 0.75]).half()), torch.tensor([0.25, 0.75]))


def test_each_is_found_by_a_name_of_its_own():
    fusions = [FusionWeights("p4", ("a",), stride=16) for _ in range(3)]
    found = find_fusions(torch.nn.Sequential(*fusions))
    assert list(found) == ["p4", "p4_2", "p4_3"]
    assert list(found.values()) == fusions


@pytest.mark.parametrize("sources", [(), ("a", "a")])
def test_sources_need_names_of_their_own(sources):
    with pytest.raises(ValueError, match="of different names, got"):
        FusionWeights("p4", sources, stride=16)


def test_a_stride_of_less_than_a_pixel():
    with pytest.raises(ValueError, match="the stride of p4 must be 1 pixel or more, got 0"):
        FusionWeights("p4", ("a",), stride=0)
