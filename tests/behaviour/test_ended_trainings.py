"""Trainings that are ended from outside: by SIGTERM, by SIGKILL at any moment, and one process of several."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from pyrafuse.core.storage import read_tensors
from pyrafuse.recipes.small import small
from pyrafuse.training.settings import to_plain

LONGEST_S = 300
COMMAND = [sys.executable, "-m", "pyrafuse", "train"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    base = small()
    tiny = {"backbone": {"width": 0.125}, "necks": {"fpn": {"out_channels": 8}}}
    plain = to_plain(
        replace(
            base,
            model=replace(base.model, name="yolov3_small", options={**tiny, "head": {"branches": 8}}),
            data=replace(base.data, path="shapes:train=16,val=4,size=64", size=64, workers=1),
            run=replace(base.run, batch_size=4, evaluate_every=2, accelerator="cpu", precision="32"),
        )
    )
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@contextmanager
def started(argv: list[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own, whose processes are all killed at the end."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            argv, stdout=stream, stderr=stream, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | env
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LONGEST_S)


def wait_for(is_ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LONGEST_S
    while process.poll() is None and time.monotonic() < end and not is_ready():
        time.sleep(0.02)
    assert is_ready()


def test_a_terminated_training_says_what_is_saved(recipe, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    with started([*COMMAND, "--recipe", str(recipe), "--epochs", "3000", "--output", str(output)], log) as process:
        wait_for(lambda: "epoch" in log.read_text() and (output / "last.ckpt").is_file(), process)
        os.killpg(process.pid, signal.SIGTERM)  # as a batch system tells the processes that load as well
        assert process.wait(LONGEST_S) == 128 + signal.SIGTERM
    text = log.read_text()
    assert "Traceback" not in text
    told = re.search(
        r"terminated; (\d+) of 3000 epochs(?: and (\d+) steps? of the next)? are saved in (.*); go on with", text
    )
    assert told is not None, text
    last = read_tensors(output / "last.ckpt")
    assert (int(told[1]), int(told[2] or 0)) == (last["epoch"] + 1, last["epoch_steps"])
    assert [path for path in output.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_training_killed_at_any_moment_ends_as_an_undisturbed_one(recipe, tmp_path, seed):
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log"
    options = ["--recipe", str(recipe), "--epochs", "5"]
    start = time.monotonic()
    with started([*COMMAND, *options, "--output", str(whole)], log) as process:
        assert process.wait(LONGEST_S) == 0
    took = time.monotonic() - start
    moments = torch.rand(4, generator=torch.Generator().manual_seed(seed)).mul(took).tolist()
    for moment in moments:
        go_on = ["--resume"] if (broken / "last.ckpt").is_file() else options
        argv = [*COMMAND, *go_on, "--output", str(broken)]
        with started(argv, log) as process, suppress(subprocess.TimeoutExpired):
            process.wait(moment)
    go_on = ["--resume"] if (broken / "last.ckpt").is_file() else options
    with started([*COMMAND, *go_on, "--output", str(broken)], log) as process:
        assert process.wait(LONGEST_S) == 0, log.read_text()
    expected, found = (read_tensors(folder / "last.ckpt")["state_dict"] for folder in (whole, broken))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (broken / "results.json").read_text() == (whole / "results.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_terminated_within_an_epoch_ends_as_an_undisturbed_one(recipe, tmp_path, processes):
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log"
    options = ["--recipe", str(recipe), "--data.path", "shapes:train=240,val=4,size=64", "--run.accumulate", "2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29518", "-m"]
    train = [*torchrun, "pyrafuse", "train"] if processes == 2 else COMMAND
    with started([*train, *options, "--epochs", "1", "--output", str(whole)], log) as process:
        assert process.wait(LONGEST_S) == 0, log.read_text()
    with started([*train, *options, "--epochs", "1", "--output", str(broken)], log) as process:
        wait_for(lambda: "batch 10/120" in log.read_text(), process)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(LONGEST_S) != 0
    assert "terminated; 0 of 1 epochs and " in log.read_text(), log.read_text()
    last = read_tensors(broken / "last.ckpt")
    assert 5 <= last["epoch_steps"] < 60
    with started([*train, "--resume", "--output", str(broken)], log) as process:
        assert process.wait(LONGEST_S) == 0, log.read_text()
    expected, found = (read_tensors(folder / "last.ckpt") for folder in (whole, broken))
    for key in ("state_dict", "current_model_state", "random_state", "others"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)
    for name in ("metrics.csv", "results.json"):
        assert (broken / name).read_text() == (whole / name).read_text()


@pytest.mark.slow
def test_all_processes_of_a_training_end_with_one(recipe, tmp_path):
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"]
    argv += ["-m", "pyrafuse", "train", "--recipe", str(recipe), "--epochs", "3000", "--output", str(tmp_path / "run")]
    with started(argv, log) as process:
        wait_for(lambda: (tmp_path / "run/last.ckpt").is_file(), process)
        ranks = children_of(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGTERM)
        assert process.wait(60) != 0
        assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
