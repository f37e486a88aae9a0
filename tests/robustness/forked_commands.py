"""Commands of pyrafuse as processes that start at once: PyTorch is imported here, and each command is a fork of this.

What runs, and is killed, is the command's own function in a process, session and group of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pyrafuse.cli.main import main
from pyrafuse.experiments import running
from pyrafuse.export import exporting  # noqa: F401  # imported once, here
from pyrafuse.inference import predicting  # noqa: F401
from pyrafuse.search import searching  # noqa: F401
from pyrafuse.training import run  # noqa: F401

LONGEST_S = 300.0
_LOOK_S = 0.0005


class Forked:
    """A command that runs in a fork of this process; as much of `subprocess.Popen` as `pyrafuse compare` asks for."""

    def __init__(self, argv: Sequence[str], *, stdout: Any = None, stderr: Any = None, **_: Any) -> None:
        """Start ``argv``: words of pyrafuse, after ``python -m pyrafuse`` or without it."""
        words = list(argv[argv.index("pyrafuse") + 1 :]) if "pyrafuse" in argv else list(argv)
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(words, stdout)

    def _run(self, words: list[str], log: Any) -> None:
        status = 70
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            status = main(words)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def poll(self) -> int | None:
        """The exit status, minus a signal's number, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = LONGEST_S) -> int:
        """Wait until it ends."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("pyrafuse", timeout)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def wait_until(self, is_due: Callable[[], bool]) -> bool:
        """Wait until ``is_due``, looked at every half millisecond; False if it ends before."""
        end = time.monotonic() + LONGEST_S
        while self.poll() is None and time.monotonic() < end:
            if is_due():
                return True
            time.sleep(_LOOK_S)
        return False

    def send_signal(self, number: int) -> None:
        """Signal the process alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process alone."""
        self.send_signal(signal.SIGKILL)

    def signal_group(self, number: int) -> None:
        """Signal the process and all that it started, as a terminal or a batch system does."""
        if self.poll() is None:
            os.killpg(self.pid, number)


_SUBPROCESS = SimpleNamespace(
    Popen=Forked, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT, TimeoutExpired=subprocess.TimeoutExpired
)


def start(argv: Sequence[str], log: Path) -> Forked:
    """Start a command whose output is added to ``log``."""
    torch.set_num_threads(1)
    running.subprocess = _SUBPROCESS  # type: ignore[assignment]  # trainings of a comparison are forks, too
    with log.open("ab") as stream:
        return Forked(argv, stdout=stream)
