"""The place where a neck's weights can be watched: nothing changes there, and means are means."""

import pytest
import torch

from pyrafuse.layers.fusion_weights import FusionWeights


def test_weights_pass_as_they_are():
    weights = torch.rand(2, 3, 4, 5)
    passage = FusionWeights("stride_8", ("a", "b", "c"))
    assert passage(weights) is weights
    assert not passage.state_dict()


def test_means_of_positions_and_of_scalars():
    weights = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]], [[[0.5, 0.5]], [[0.5, 0.5]]]], requires_grad=True)
    passage = FusionWeights("p4", ("p3", "p5"))
    mean = passage.mean(weights * torch.tensor([[[[1.0]], [[3.0]]]]))
    torch.testing.assert_close(mean, torch.tensor([0.5, 1.5]))
    assert not mean.requires_grad
    torch.testing.assert_close(passage.mean(torch.tensor([0.25, 0.75]).half()), torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("sources", [(), ("a", "a")])
def test_sources_need_names_of_their_own(sources):
    with pytest.raises(ValueError, match="of different names, got"):
        FusionWeights("p4", sources)
