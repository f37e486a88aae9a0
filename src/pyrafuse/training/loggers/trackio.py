"""Trackio: its own database on this machine, unless its variables of the environment name another place."""

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

from pyrafuse.training.loggers.registry import LOGGERS, LoggedRun, Logger


@LOGGERS.register("trackio", library="trackio")
class TrackioLogger(Logger):
    """`trackio show` shows it; a run that goes on is the same one."""

    def __init__(self, run: LoggedRun) -> None:
        self._library = import_module("trackio")
        with redirect_stdout(StringIO()):  # it tells how to look at the run
            self._library.init(
                project=os.environ.get("TRACKIO_PROJECT", "pyrafuse"),
                name=run.folder.name,
                config=run.flat_settings(),
                resume="allow" if run.is_resumed else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        with redirect_stdout(StringIO()):
            self._library.finish()
