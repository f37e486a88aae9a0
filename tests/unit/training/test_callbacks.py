"""What a training says while it goes on."""

import io
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from rich.console import Console

from pyrafuse.training.callbacks import Narrator, WeightEMA


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"val/ap": 0.25, "val/ap50": 0.5}, "loss 2  AP 0.250  AP50 0.500"),
        ({"val/ap": 0.0}, "loss 2  no AP: the validation images hold no objects"),
        ({}, "loss 2"),
    ],
)
def test_an_epochs_line_tells_its_ap(figures, said):
    stream = io.StringIO()
    narrator = Narrator(epochs=1, steps_per_epoch=1, console=Console(file=stream, width=120))
    trainer = SimpleNamespace(
        is_global_zero=True,
        current_epoch=0,
        check_val_every_n_epoch=1,
        callback_metrics={"train/loss": 2.0, **figures},
    )
    narrator.on_train_start(trainer, None)
    narrator.on_train_epoch_end(trainer, None)
    narrator.on_train_end(trainer, None)
    assert [line.rstrip().endswith(said) for line in stream.getvalue().splitlines() if "loss" in line] == [True]


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
