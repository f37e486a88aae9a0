"""Weights & Biases: offline, for `wandb sync` later, unless WANDB_MODE=online asks for more."""

import os
from collections.abc import Mapping
from importlib import import_module

from pyrafuse.training.loggers.registry import LOGGERS, LoggedRun, Logger


@LOGGERS.register("wandb", library="wandb")
class WandbLogger(Logger):
    """Writes into ``wandb`` in the run's folder; a run that goes on is another one of the same group."""

    def __init__(self, run: LoggedRun) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pyrafuse"),
            name=run.folder.name,
            group=run.folder.name,
            dir=str(run.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(run.settings),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
