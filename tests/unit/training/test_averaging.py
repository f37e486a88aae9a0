"""Averaged weights."""

import pytest
import torch

from pyrafuse.training.averaging import copy_to_average, follow, own_buffers


class Expanded(torch.nn.Module):
    """One number in the places of three, as `expand` leaves it, a count, and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("shapes", torch.ones(1).expand(3))
        self.register_buffer("count", torch.tensor(0))


def test_averages_of_a_buffer_whose_values_share_their_memory():
    module = Expanded()
    own_buffers(module)
    average = copy_to_average(module)
    assert not average.training
    for step, weight in enumerate((2.0, 4.0)):
        with torch.no_grad():
            module.weight.fill_(weight)
            module.shapes.copy_(torch.tensor([1.0, 2.0, 3.0]) * (step + 1))
            module.count += 1
        follow(average, module, step=step, decay=0.5)
    # the first step is copied, the second step's decay is 2/11
    assert average.weight.tolist() == pytest.approx([2 * 2 / 11 + 4 * 9 / 11] * 2)
    assert average.shapes.tolist() == pytest.approx([s * 20 / 11 for s in (1, 2, 3)])
    assert average.count == 2
    assert module.weight.tolist() == [4.0, 4.0]


def test_the_decay_is_the_recipes_after_the_first_steps():
    module = Expanded()
    own_buffers(module)
    average = copy_to_average(module)
    with torch.no_grad():
        module.weight.fill_(3.0)
    follow(average, module, step=100, decay=0.75)
    assert average.weight.tolist() == pytest.approx([1.5, 1.5])
