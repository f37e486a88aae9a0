"""What a training says while it goes on."""

import io

import pytest
import torch
from rich.console import Console

from pyrafuse.training.progress import Narrator, duration


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def narrator_of(*, epochs: int, steps: int, every: int) -> tuple[Narrator, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=160)
    narrator = Narrator(epochs=epochs, steps_per_epoch=steps, evaluate_every=every, console=console, clock=clock)
    return narrator, clock, stream


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"val/ap": 0.25, "val/ap50": 0.5}, "loss 2  AP 0.250  AP50 0.500"),
        ({"val/ap": 0.0}, "loss 2  no AP: the validation images hold no objects"),
        ({}, "loss 2"),
    ],
)
def test_an_epochs_line_tells_its_ap(figures, said):
    narrator, _, stream = narrator_of(epochs=1, steps=1, every=1)
    with narrator.telling(done=0):
        narrator.tell_epoch(1, {"train/loss": 2.0, **figures})
    assert [line.rstrip().endswith(said) for line in stream.getvalue().splitlines() if "loss" in line] == [True]


def test_a_log_file_tells_the_time_left_after_ten_steps_and_then_once_a_minute():
    narrator, clock, stream = narrator_of(epochs=4, steps=50, every=2)

    def train(epoch: int, steps: int, seconds: float) -> None:
        narrator.begin_epoch()
        for step in range(1, steps + 1):
            clock.now += 100 if epoch == step == 1 else seconds  # starting costs much, and only once
            narrator.tell_step(epoch, step, torch.tensor(3.0))

    with narrator.telling(done=0):
        narrator._last_line = 100.0
        train(1, 50, 2.0)
        narrator.tell_epoch(1, {"train/loss": 3.0})
        train(2, 50, 2.0)
        with narrator.validating(30) as tell:
            for _ in range(30):
                clock.now += 10
                tell()
        narrator.tell_epoch(2, {"train/loss": 3.0, "val/ap": 0.5, "val/ap50": 0.5})
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    # 40 steps of 2 s are left of the epoch, 190 of the run; the validation is not measured yet
    assert lines[0] == (
        "epoch   1/4  batch 10/50  loss 3  about 80 s left of the epoch, 6 min of the run, validation not counted yet"
    )
    assert [line.split("  ")[1] for line in lines[1:4]] == [" 1/4", " 1/4", " 2/4"]
    assert "batch 40/50" in lines[1]  # a minute later
    assert [line for line in lines if "validating" in line] == [f"validating: batch {n}/30" for n in (2, 8, 14, 20, 26)]
    # 100 steps and one validation of 300 s
    assert lines[-1] == "epoch   2/4     598 s  about 8 min left  loss 3  AP 0.500  AP50 0.500"


def test_a_terminal_of_80_columns_shows_the_whole_bar():
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    narrator = Narrator(epochs=30, steps_per_epoch=50, evaluate_every=3, console=console, clock=clock)
    with narrator.telling(done=0):
        narrator.begin_epoch()
        for step in range(1, 21):
            clock.now += 2
            narrator.tell_step(1, step, torch.tensor(1230.0))
        with narrator.validating(30):
            narrator._progress.refresh()
    shown = stream.getvalue()
    assert "20/1500" in shown
    assert "epoch 60 s, run 49 min left loss 1.23e+03" in shown
    assert "validating" in shown
    assert "0/30" in shown
    assert "…" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5400, "90 min"), (6000, "1 h 40 min"), (200_000, "2 d 07 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
