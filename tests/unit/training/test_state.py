"""What a checkpoint of a training keeps: everything comes back, also from what Lightning wrote."""

import zipfile
from pathlib import Path

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.storage import read_tensors, write_tensors
from pyrafuse.importers.loading import load
from pyrafuse.recipes.small import small
from pyrafuse.training.state import State, check_fits, create_state, own_of, read_content, restore, to_content

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """The last checkpoint of a run of two epochs, which the version with Lightning wrote."""
    with zipfile.ZipFile(ARCHIVE) as files:
        return Path(files.extract("trained.ckpt", tmp_path_factory.mktemp("run")))


def state_of(path: Path) -> State:
    torch.manual_seed(5)
    return create_state(load(path), small(), device=CPU, precision="32")


def with_prefix(detector) -> dict:
    return {f"detector.{key}": value for key, value in detector.state_dict().items()}


def test_a_run_that_lightning_began_goes_on(begun):
    theirs, state = read_tensors(begun), state_of(begun)
    assert "pytorch-lightning_version" in theirs
    check_fits(begun, state.detector, small())
    restore(state, read_content(begun))
    assert (state.epochs, state.steps, state.due, state.waited) == (2, 4, None, 0)
    assert state.average is not None
    assert state.best is not None
    assert state.best.ap == theirs["best_evaluation"]["ap"] > 0
    for detector, key in ((state.average, "state_dict"), (state.detector, "current_model_state")):
        assert all(torch.equal(value, theirs[key][name]) for name, value in with_prefix(detector).items())
    kept = theirs["optimizer_states"][0]["state"]
    ours = state.optimizer.state_dict()["state"]
    assert ours.keys() == kept.keys()
    assert all(torch.equal(ours[n]["exp_avg"], kept[n]["exp_avg"]) for n in kept)
    assert torch.equal(torch.get_rng_state(), theirs["random_state"]["cpu"])


def test_what_lightning_kept_elsewhere_is_found(begun, tmp_path):
    content = read_tensors(begun)
    content["callbacks"]["Epochs"] = {"due": {"epoch": 2, "metrics": {"train/loss": 3.0}}}
    content["callbacks"]["EarlyStopping{'monitor': 'val/ap', 'mode': 'max'}"] = {"wait_count": 3, "patience": 4}
    content |= {"precision": "16-mixed", "MixedPrecision": {"scale": 512.0}}
    write_tensors(tmp_path / "last.ckpt", content)
    found = read_content(tmp_path / "last.ckpt")
    assert (found["due"], found["waited"]) == ({"train/loss": 3.0}, 3)
    assert (found["precision"], found["scaler"]) == ("fp16", {"scale": 512.0})


def test_everything_comes_back(begun, tmp_path):
    state = state_of(begun)
    restore(state, read_content(begun))
    state.epochs, state.steps, state.epoch_steps = 7, 31, 5
    state.due, state.waited = {"train/loss": 0.5}, 2
    values = {"run": {"seed": 3}}
    content = to_content(state, [own_of(state)], recipe_values=values, precision="bf16")
    write_tensors(tmp_path / "last.ckpt", content)
    torch.rand(3)
    other = state_of(begun)
    restore(other, read_content(tmp_path / "last.ckpt"))
    again = to_content(other, [own_of(other)], recipe_values=values, precision="bf16")
    assert again.keys() == content.keys()
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, content[key][name]) for name, value in again[key].items())
        assert not any(name.startswith("detector.detector") for name in again[key])
    assert torch.equal(again["random_state"]["cpu"], content["random_state"]["cpu"])
    for key in ("epoch", "global_step", "epoch_steps", "due", "waited", "precision", "best_evaluation"):
        assert again[key] == content[key], key
    assert content["epoch"] == 6
    moved = [first["exp_avg"] for first in content["optimizer_states"][0]["state"].values()]
    back = [second["exp_avg"] for second in again["optimizer_states"][0]["state"].values()]
    assert all(map(torch.equal, moved, back))


def test_what_is_no_checkpoint_of_a_training_is_refused(begun, tmp_path):
    load(begun).save(tmp_path / "weights.ckpt")
    with pytest.raises(CheckpointError, match="is no checkpoint of a training that could go on; train anew from its"):
        read_content(tmp_path / "weights.ckpt")


def test_another_model_is_refused_with_its_entries(begun):
    other = load(begun)
    other.head.further = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"2 of \d+ entries differ, head.further.bias, head.further.weight"):
        check_fits(begun, other, small())
