"""EfficientDet's head with plain convolutions and other activations, against its layers one by one."""

import pytest
import torch
import torch.nn.functional as F

from pyrafuse.base.errors import UnknownNameError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.efficientdet import Branch, EfficientDetHead


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "act"), [("relu6", F.relu6), ("mish", F.mish), ("leaky_relu_0.01", F.leaky_relu), ("silu", F.silu)]
)
def test_plain_convolutions(name, act):
    branch = Branch(4, 6, num_convs=1, num_levels=2, activation=name, separable=False).eval()
    pyramid = (torch.randn(1, 4, 6, 5) * 9, torch.randn(1, 4, 3, 3) * 9)
    for level, norm in enumerate(branch.norms[0]):
        norm.weight.fill_(2.0 + level)
        expected = F.conv2d(pyramid[level], branch.convs[0].weight, padding=1) / (1 + 1e-3) ** 0.5 * (2 + level)
        expected = F.conv2d(act(expected), branch.predict.weight, branch.predict.bias, padding=1)
        assert torch.allclose(branch(pyramid)[level], expected, atol=1e-5)


def test_the_first_score_is_the_prior():
    head = EfficientDetHead(PyramidSpec((4, 4), (8, 16)), num_classes=2, num_convs=0, prior=0.1, separable=False)
    assert torch.allclose(head.classes.predict.bias.sigmoid(), torch.tensor(0.1))
    assert not head.boxes.predict.bias.any()


def test_an_unknown_activation_is_named():
    with pytest.raises(UnknownNameError, match="unknown activation 'swish'; did you mean 'mish'"):
        Branch(4, 4, num_convs=1, num_levels=1, activation="swish")
