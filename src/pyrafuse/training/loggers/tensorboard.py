"""TensorBoard: `tensorboard --logdir runs` shows it."""

from collections.abc import Mapping
from importlib import import_module

from pyrafuse.training.loggers.registry import LOGGERS, LoggedRun, Logger


@LOGGERS.register("tensorboard", library="tensorboard")
class TensorBoardLogger(Logger):
    """Writes event files into ``tensorboard`` in the run's folder."""

    def __init__(self, run: LoggedRun) -> None:
        self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(run.folder / "tensorboard"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
