"""What changes in a training, how a checkpoint keeps it, and how a run goes on from one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrafuse.base.card import CARD_KEY, PREFIX, card_to_dict
from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.over_processes import gather
from pyrafuse.core.storage import read_tensors
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.models.detector import Detector
from pyrafuse.training.averaging import copy_to_average, follow, own_buffers
from pyrafuse.training.optimizing import check_optimizer, optimizer_for
from pyrafuse.training.settings import Recipe
from pyrafuse.training.step import Means


@dataclass
class State:
    """Everything that changes in a training, and that a run which goes on needs.

    Attributes:
        detector: Detector that learns.
        average: Averaged weights; None without.
        optimizer: Moves the weights of ``detector``.
        scaler: Keeps the gradients of fp16 in its range.
        epochs: Trained, all of them whole.
        steps: Steps of the optimiser.
        epoch_steps: Those of the epoch that is under way; 0 between two epochs.
        means: Means of that epoch so far, over the images of this process.
        due: Metrics of the last epoch, while its validation is due; else None.
        best: The best evaluation so far.
        waited: Evaluations since the best one.
    """

    detector: Detector
    average: Detector | None
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    epochs: int = 0
    steps: int = 0
    epoch_steps: int = 0
    means: Means = field(default_factory=Means)
    due: dict[str, float] | None = None
    best: EvaluationResult | None = None
    waited: int = 0

    @property
    def evaluated(self) -> Detector:
        """What is evaluated and kept: the averaged weights where there are any."""
        return self.detector if self.average is None else self.average

    def move(self, recipe: Recipe) -> None:
        """Move the weights by the gradients that are there, and the averaged ones after them: a step."""
        if recipe.optimizer.clip_norm:
            self.scaler.unscale_(self.optimizer)
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, recipe.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            follow(self.average, self.detector, step=self.steps, decay=recipe.run.ema)
        self.steps += 1


def create_state(detector: Detector, recipe: Recipe, *, device: torch.device, precision: str) -> State:
    """The state before the first epoch; ``detector`` is moved to ``device``."""
    own_buffers(detector)
    detector.to(device)
    return State(
        detector,
        copy_to_average(detector) if recipe.run.ema else None,
        optimizer_for(detector, recipe),
        torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
    )


def own_of(state: State) -> dict[str, Any]:
    """What only this process of the training has: its random numbers, and the sums of the epoch's means."""
    random_state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_state["cuda"] = torch.cuda.get_rng_state()
    return {"random_state": random_state, "means": state.means.to_plain()}


def gather_own(state: State) -> list[dict[str, Any]]:
    """`own_of` of every process, the first one's first; called by all of them."""
    return gather(own_of(state))


def to_content(
    state: State, own: Sequence[Mapping[str, Any]], *, recipe_values: Mapping[str, Any], precision: str
) -> dict[str, Any]:
    """What a checkpoint holds: what `load` needs under ``state_dict`` and the card, and all that a resumed run needs.

    Args:
        state: Between two steps.
        own: `own_of` of the processes.
        recipe_values: The recipe as plain values.
        precision: ``32``, ``bf16`` or ``fp16``.
    """
    content = {
        CARD_KEY: {"card": card_to_dict(state.detector.card), "recipe": recipe_values},
        "state_dict": _entries(state.evaluated),
        "epoch": state.epochs - 1,
        "global_step": state.steps,
        "epoch_steps": state.epoch_steps,
        "due": state.due,
        "waited": state.waited,
        "best_evaluation": None if state.best is None else state.best.to_dict(with_curves=True),
        "optimizer_states": [state.optimizer.state_dict()],
        "scaler": state.scaler.state_dict(),
        "precision": precision,
        **own[0],
        "others": list(own[1:]),
    }
    if state.average is not None:
        content["current_model_state"] = _entries(state.detector)
    return content


def read_content(path: Path) -> dict[str, Any]:
    """Read what `to_content` made, or what versions up to 2026-11 wrote by Lightning.

    Raises:
        CheckpointError: If the file cannot be read, or is no checkpoint of a training.
    """
    content = read_tensors(path)
    needed = ("epoch", "global_step", CARD_KEY, "state_dict", "optimizer_states", "random_state")
    if (
        not isinstance(content, Mapping)
        or not all(key in content for key in needed)
        or not {"due", "callbacks"} & {*content}
    ):
        raise CheckpointError(f"{path} is no checkpoint of a training that could go on; train anew from its weights")
    return dict(content) if "due" in content else _of_lightning(content)


def _of_lightning(content: Mapping[str, Any]) -> dict[str, Any]:
    callbacks = content["callbacks"]
    due = callbacks.get("Epochs", {}).get("due")
    return {
        **content,
        "due": None if due is None else due["metrics"],
        "waited": sum(kept["wait_count"] for name, kept in callbacks.items() if name.startswith("EarlyStopping")),
        "scaler": content.get("MixedPrecision", {}),
        "precision": {"32-true": "32", "bf16-mixed": "bf16", "16-mixed": "fp16"}.get(content.get("precision", "")),
    }


def restore(state: State, content: Mapping[str, Any], *, rank: int = 0, world_size: int = 1) -> None:
    """Go on where ``content`` stands, with its random numbers and the evaluation that is to be beaten.

    Args:
        state: A fresh one.
        content: From `read_content`.
        rank: Number of this process. Where there were as many as now, each goes on with what it had of its own.
        world_size: Number of processes.
    """
    state.detector.load_state_dict(learning_entries(content))
    if state.average is not None:
        state.average.load_state_dict(_without_prefix(content["state_dict"]))
    state.optimizer.load_state_dict(content["optimizer_states"][0])
    if content["scaler"]:
        state.scaler.load_state_dict(content["scaler"])
    state.epochs, state.steps = content["epoch"] + 1, content["global_step"]
    state.epoch_steps = content.get("epoch_steps", 0)
    state.due, state.waited = content["due"], content["waited"]
    best = content["best_evaluation"]
    state.best = None if best is None else EvaluationResult.from_dict(best)
    own = [content, *content.get("others", ())]
    if len(own) == world_size:
        means = [own[rank].get("means", ())]
    else:  # they count in together: which process has which share makes no difference to the mean
        means = [one.get("means", ()) for one in own] if rank == 0 else []
    device = next(state.detector.parameters()).device
    state.means = Means.from_plain(chain.from_iterable(means), device)
    random_state = own[rank if rank < len(own) else 0]["random_state"]
    torch.set_rng_state(random_state["cpu"].cpu())
    if torch.cuda.is_available() and "cuda" in random_state:
        torch.cuda.set_rng_state(random_state["cuda"].cpu())


def check_fits(path: Path, detector: Detector, recipe: Recipe) -> None:
    """Refuse a checkpoint whose entries are not those of ``detector``.

    Raises:
        PyrafuseError: With the first entries that differ, or the groups of its optimiser.
    """
    content = read_content(path)
    ours, theirs = detector.state_dict(), learning_entries(content)
    other = [key for key in ours.keys() | theirs.keys() if key not in ours or key not in theirs]
    other += [key for key in ours.keys() & theirs.keys() if ours[key].shape != theirs[key].shape]
    if other:
        raise CheckpointError(
            f"{path} does not fit the model of these options: {len(other)} of {len(ours)} entries differ, "
            f"{', '.join(sorted(other)[:3])} among them; resume with the options that the run began with"
        )
    check_optimizer(content["optimizer_states"][0], optimizer_for(detector, recipe))


def learning_entries(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Entries of the detector that learns."""
    return _without_prefix(content.get("current_model_state", content["state_dict"]))


def _entries(detector: Detector) -> dict[str, Tensor]:
    return {f"{PREFIX}{key}": value for key, value in detector.state_dict().items()}


def _without_prefix(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(PREFIX): value for key, value in entries.items() if key.startswith(PREFIX)}
