"""Averaged weights."""

import lightning as L
import pytest
import torch

from pyrafuse.training.callbacks import WeightEMA


class Expanded(L.LightningModule):
    """One number in the places of three, as `expand` leaves it, and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("shapes", torch.ones(1).expand(3))


def test_averages_of_a_buffer_whose_values_share_their_memory():
    module = Expanded()
    average = WeightEMA(0.5)
    average.setup(None, module, "fit")
    for step, weight in enumerate((2.0, 4.0)):
        with torch.no_grad():
            module.weight.fill_(weight)
            module.shapes.copy_(torch.tensor([1.0, 2.0, 3.0]) * (step + 1))
        assert average.should_update(step_idx=step)
        average._average_model.update_parameters(module)
    # the second step's decay is 2/11
    assert average._average_model.module.weight.tolist() == pytest.approx([2 * 2 / 11 + 4 * 9 / 11] * 2)
    assert average._average_model.module.shapes.tolist() == pytest.approx([s * 20 / 11 for s in (1, 2, 3)])
