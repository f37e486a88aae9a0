"""`pyrafuse search --engine ray` on two workers: one is killed, then the command itself, and the search goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from process_families import family, wait_until_gone
from pyrafuse.search.journal import FINISHED, read_trials

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMMAND = [
    sys.executable, "-m", "pyrafuse", "search", "shapes:train=8,val=4,size=64", "--backbone", "resnet18",
    "--weights", "none", "--sizes", "64", "--channels", "16", "--max-merges", "12", "--max-gflops", "50",
    "--views", "1", "--rungs", "4,8", "--device", "cpu", "--minutes", "60",
]  # fmt: skip
RAY = ["--engine", "ray", "--workers", "2"]


class Run:
    """A search in a process of its own."""

    def __init__(self, folder: Path, cache: Path, *words: str):
        self.journal = folder / "journal.jsonl"
        self.log = folder.with_suffix(".log")
        self.start = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYRAFUSE_CACHE": str(cache)}
        environment.pop("RAY_ADDRESS", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *words, "--output", str(folder)], stdout=log, stderr=log, env=environment
            )

    def wait_for(self, condition, seconds=500.0):
        """Wait until ``condition`` holds for the trials."""
        until = time.monotonic() + seconds
        while not (self.journal.exists() and self.journal.stat().st_size and condition(read_trials(self.journal))):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def end(self, number: int) -> float:
        """End the process by a signal; the seconds that it ran."""
        self.process.send_signal(number)
        self.process.wait(180)
        return time.monotonic() - self.start


def find_busy(process: int) -> list[int]:
    """Workers that train."""
    return [one for one, title in family(process).items() if title.startswith("ray::Worker.train")]


def count_finished(trials):
    return sum(trial.state == FINISHED for trial in trials)


def numbers(trial):
    return (trial.source, trial.answers, trial.reason, [(rung.steps, rung.loss, rung.ap) for rung in trial.rungs])


def test_no_trial_is_lost_and_no_number_changed_whatever_is_killed(tmp_path):
    cache = tmp_path / "cache"
    local = Run(tmp_path / "local", cache)
    local.wait_for(lambda trials: count_finished(trials) >= 5 + 3)
    local.end(signal.SIGTERM)
    undisturbed = [numbers(trial) for trial in read_trials(local.journal) if trial.state == FINISHED]

    first = Run(tmp_path / "ray", cache, *RAY)
    first.wait_for(lambda _: bool(find_busy(first.process.pid)))
    os.kill(find_busy(first.process.pid)[0], signal.SIGKILL)
    first.wait_for(lambda trials: count_finished(trials) >= 5 and len(trials) > 5)
    processes = family(first.process.pid)
    seconds = first.end(signal.SIGKILL)
    wait_until_gone(processes)
    assert first.log.read_text().count("a worker has ended: Worker unexpectedly exits") == 1
    kept = first.journal.read_bytes()
    finished = [trial for trial in read_trials(first.journal) if trial.state == FINISHED]
    assert 0 < sum(trial.seconds for trial in finished) < seconds

    second = Run(tmp_path / "ray", cache, *RAY)
    second.wait_for(lambda trials: count_finished(trials) >= 5 + 3)
    processes = family(second.process.pid)
    second.end(signal.SIGTERM)
    assert second.process.returncode == 143
    wait_until_gone(processes)
    assert second.log.read_text().rstrip().endswith("pyrafuse: terminated; the same command goes on")
    assert second.journal.read_bytes().startswith(kept.rpartition(b"\n")[0])
    trials = read_trials(second.journal)
    assert list(trials[: len(finished)]) == finished
    ours = [numbers(trial) for trial in trials if trial.state == FINISHED]
    both = min(len(ours), len(undisturbed))
    assert both >= 5 + 3
    assert ours[:both] == undisturbed[:both]
