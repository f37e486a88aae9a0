"""What a training says while it goes on."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from pyrafuse.training.callbacks import Narrator


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
