"""Runs in processes of their own, with a program that stands for a training."""

import io
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import hold_folder
from pyrafuse.experiments.running import Run, Slot, _take_free, count_epochs, find_slots, run_all
from pyrafuse.training.settings import Recipe

PRETENCE = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
folder = pathlib.Path(next(w for w in words if w.startswith("--run.output=")).partition("=")[2])
with (folder / "calls.txt").open("a") as stream:
    stream.write(json.dumps({"words": words, "threads": os.environ.get("OMP_NUM_THREADS")}) + "\\n")
name = folder.name
if name == "bad":
    print("reading"); print("pyrafuse: the loss became nan", file=sys.stderr); sys.exit(2)
if name == "crash":
    raise RuntimeError("no memory left")
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "empty":
    sys.exit(0)
if name == "slow":
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        sys.exit(130)
(folder / "results.json").write_text("{}")
"""


@pytest.fixture
def program(tmp_path):
    script = tmp_path / "pretence.py"
    script.write_text(PRETENCE)
    return (sys.executable, "-S", str(script))


def runs_in(folder: Path, *names: str) -> list[Run]:
    recipe = replace(Recipe(), run=replace(Recipe().run, epochs=4))
    return [Run("shapes", name, recipe, folder / name) for name in names]


def calls_of(run: Run) -> list[dict]:
    path = run.folder / "calls.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_failures_are_told_and_do_not_stop_the_rest(tmp_path, program):
    runs = runs_in(tmp_path, "bad", "good", "crash", "killed", "empty", "fine")
    stream = io.StringIO()
    failures = run_all(runs, (Slot("cpu"),), program=program, console=Console(file=stream, width=200), poll_s=0.01)
    reasons = {failure.run.variant: failure.reason for failure in failures}
    assert list(reasons) == ["bad", "crash", "killed", "empty"]
    assert reasons["bad"] == f"the loss became nan; see {tmp_path / 'bad/train.log'}"
    assert reasons["crash"].startswith("RuntimeError: no memory left; see ")
    assert "killed by signal 9 (SIGKILL, perhaps out of memory)" in reasons["killed"]
    assert "it left no results" in reasons["empty"]
    assert [run.variant for run in runs if run.is_finished] == ["good", "fine"]
    told = stream.getvalue()
    assert "1/6  done    good on shapes, seed 0" in told
    assert "FAILED  bad on shapes, seed 0: the loss became nan" in told


def test_finished_runs_are_left_alone_and_stopped_ones_go_on(tmp_path, program):
    finished, stopped, fresh = runs = runs_in(tmp_path, "finished", "stopped", "fresh")
    for run in (finished, stopped):
        run.folder.mkdir()
    (finished.folder / "results.json").write_text("{}")
    (stopped.folder / "last.ckpt").touch()
    (stopped.folder / "recipe.yaml").write_text("run: {epochs: 4}\n")
    slot = Slot("gpu", 3, {"OMP_NUM_THREADS": "7"})
    assert run_all(runs, (slot,), imports=("my_neck",), program=program, poll_s=0.01) == ()
    assert calls_of(finished) == []
    common = [f"--run.output={stopped.folder}", "--run.accelerator=gpu", "--data.workers=3"]
    assert calls_of(stopped) == [{"words": ["--import=my_neck", "train", "--resume", *common], "threads": "7"}]
    (call,) = calls_of(fresh)
    assert call["words"][:3] == ["--import=my_neck", "train", f"--recipe={fresh.folder / 'recipe.yaml'}"]
    assert (stopped.folder / "recipe.yaml").read_text() == "run: {epochs: 4}\n"
    assert run_all(runs, (slot,), program=program, poll_s=0.01) == ()
    assert len(calls_of(fresh)) == 1


def test_a_run_that_another_process_trains_is_waited_for(tmp_path):
    held, free = runs_in(tmp_path, "held", "free")
    waiting, told = deque([held, free]), []
    with hold_folder(held.folder):
        assert _take_free(waiting, told.append) is free
        assert _take_free(waiting, told.append) is None
        assert told == [f"waits   {held.title}: a process that an earlier call left is training it"] * 2
        assert [*waiting] == [held]
    held.folder.mkdir(exist_ok=True)
    (held.folder / "results.json").write_text("{}")
    assert _take_free(waiting, told.append) is None
    assert not waiting


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_trainings(tmp_path, program, number):
    (slow,) = runs = runs_in(tmp_path, "slow")

    def stop() -> None:
        while not (slow.folder / "calls.txt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        run_all(runs, (Slot("cpu"),), program=program, poll_s=0.01)
    assert signal.getsignal(signal.SIGTERM) is before
    assert time.monotonic() - start < 25  # the training itself would take 60 seconds
    assert not slow.is_finished


def test_runs_share_the_slots(tmp_path, program):
    """Both slots are busy at once: two that wait for each other would otherwise never end."""
    script = Path(program[-1])
    script.write_text(
        PRETENCE + "\nother = folder.parent / ('b' if name == 'a' else 'a') / 'results.json'\n"
        "while not other.exists(): time.sleep(0.01)\n"
    )
    slots = (Slot("gpu", None, {"CUDA_VISIBLE_DEVICES": "0"}), Slot("gpu", None, {"CUDA_VISIBLE_DEVICES": "1"}))
    assert run_all(runs_in(tmp_path, "a", "b"), slots, program=program, poll_s=0.01) == ()


def test_epochs_are_read_off_the_history(tmp_path):
    assert count_epochs(tmp_path) == 0
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")
    assert count_epochs(tmp_path) == 2


class TestSlots:
    @pytest.fixture(autouse=True)
    def four_cores(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    @pytest.fixture
    def gpus(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 3)

    def test_one_on_a_processor_takes_all(self):
        assert find_slots("cpu") == (Slot("cpu"),)

    def test_several_divide_the_cores(self, monkeypatch):
        slot = Slot("cpu", 1, {"OMP_NUM_THREADS": "2"}, 2)
        assert find_slots("cpu", parallel=2) == (slot, slot)
        assert find_slots("cpu", parallel=2, workers=0)[0].workers is None
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert find_slots("cpu", parallel=2)[0].threads == 1

    def test_a_gpu_each(self, gpus, monkeypatch):
        names = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in find_slots("auto")]
        assert names == ["0", "1", "2"]
        assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in find_slots("2,0")] == ["2", "0"]
        assert len(find_slots("gpu", parallel=2)) == 2
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
        assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in find_slots("1,2")] == ["5", "7"]

    def test_complaints(self, gpus):
        for device, parallel, said in [
            ("cpu", 5, "--parallel 5 needs as many cores, and there are 4"),
            ("cpu", 0, "--parallel must be 1 or more, got 0"),
            ("3", None, "no device '3' here; choose from auto, cpu, 0, 1, 2"),
            ("tpu", None, "no device 'tpu' here"),
            ("gpu", 4, "a GPU takes one training at a time, and there are 3"),
        ]:
            with pytest.raises(PyrafuseError) as error:
                find_slots(device, parallel=parallel)
            assert said in str(error.value)

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        for device in ("gpu", "0"):
            with pytest.raises(PyrafuseError, match=f"no device '{device}' here"):
                find_slots(device)
