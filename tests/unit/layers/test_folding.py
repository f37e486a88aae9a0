"""Folded convolutions against the two modules one after the other."""

import pytest
import torch
from torch import nn

from pyrafuse.layers.folding import fold, run_folded


def block(before: int, after: int, **options) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, **options), nn.BatchNorm2d(after), nn.ReLU6())


@pytest.fixture
def sequence():
    torch.manual_seed(0)
    parts = nn.Sequential(block(3, 8, bias=False), block(8, 8, groups=8), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    for part in parts.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.1, 2)
    return parts.eval().double()


def test_the_same_maps_and_gradients(sequence):
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    expected = sequence(x)
    found = run_folded(sequence, x)
    torch.testing.assert_close(found, expected)
    parameters = list(sequence.parameters())
    wanted = torch.autograd.grad(expected.square().sum(), parameters)
    for got, want in zip(torch.autograd.grad(found.square().sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_norms_that_learn_their_statistics_are_run_as_they_are(sequence):
    sequence.train()
    before = sequence[3].running_mean.clone()
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(run_folded(sequence, x), sequence(x))
    assert not torch.equal(sequence[3].running_mean, before)


def test_the_norm_is_not_called(sequence):
    called = []
    sequence[3].register_forward_hook(lambda *_: called.append(1))
    run_folded(sequence, torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    assert not called
    weight, bias = fold(sequence[2], sequence[3])
    assert (weight.shape, bias.shape) == ((4, 8, 1, 1), (4,))
