"""Trainings of several processes: equal to one process, whoever starts them; where one is gone, all end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import yaml

from pyrafuse.cli.main import main
from pyrafuse.core.storage import read_tensors
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.data.loading.batching import EpochBatchSampler
from pyrafuse.training.reporting import read_history
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
    to_plain,
)

LONGEST_S = 300
WITH_OBJECTS = {0, 3, 6}
"""Training images that keep their objects: in most steps some processes have one, and others have none."""
MODEL = ModelSettings(
    name="yolov3_asff",
    options={
        "backbone": {"width": 0.125, "depths": (1, 1, 1, 1, 1)},
        "necks": {"yolo_fpn": {"width": 1 / 8}, "asff": {"out_channels": (16, 24, 32)}},
    },
)

# half a batch has other statistics than a whole one: here each image has its own
SCRIPT = """
import sys
from torch import nn
from pyrafuse.cli.main import main
nn.BatchNorm2d.forward = lambda self, x: nn.functional.group_norm(x, 1, self.weight, self.bias)
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""

GRADIENTS = (
    SCRIPT.partition("if __name__")[0]
    + """
import torch
from pyrafuse.core.targets import Batch, Targets
from pyrafuse.core.over_processes import each_process_alone
from pyrafuse.models.factory import create_model
from pyrafuse.training.launching import join_launcher
from pyrafuse.training.processes import take_place
from pyrafuse.training.settings import RunSettings
from pyrafuse.training.step import TrainingStep
from pyrafuse.training.watching import NeckWatch

torch.set_num_threads(1)
HEAD = {"channels": 16, "num_convs": 1}
TINY = {"backbone": {"name": "resnet18", "width": 8}, "necks": {"fpn": {"out_channels": 16}}, "head": HEAD}
MODELS = {name: TINY for name in ("retinanet", "libra_retinanet", "ga_retinanet", "atss", "ddod", "fcos", "ddod_fcos")}
MODELS["yolov3_small"] = {
    "backbone": {"width": 0.125}, "necks": {"fpn": {"out_channels": 8}}, "head": {"branches": 8}
}

def batch_of(rows):
    boxes, labels = torch.tensor([[8.0, 8.0, 40.0, 44.0], [30.0, 20.0, 60.0, 50.0]]), torch.tensor([0, 2])
    objects = [(boxes, labels), (boxes[:1], labels[:1]), *[(boxes[:0], labels[:0])] * 2]
    images = torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    targets = Targets.pad(*([each[i] for each in objects[rows]] for i in (0, 1)))
    return Batch(images[rows], targets, torch.arange(4)[rows], ((64, 64),) * len(images[rows]))

def gradients(step, batch):
    step.zero_grad()
    step(batch)["train/loss"].backward()
    return {name.removeprefix("module."): value.grad.clone() for name, value in step.named_parameters()}

join_launcher(RunSettings())
with take_place(RunSettings(accelerator="cpu"), 2) as place:
    for name, options in MODELS.items():
        torch.manual_seed(0)
        step = TrainingStep(create_model(name, num_classes=3, **options).train(), NeckWatch())
        with each_process_alone():
            expected = gradients(step, batch_of(slice(0, 4)))
        spread = place.spread(step, sync_bn=False)
        for _ in range(2):  # where a process leaves a parameter out, the second step is refused
            found = gradients(spread, batch_of(slice(2 * place.rank, 2 * place.rank + 2)))
        for key, value in expected.items():
            difference, size = (found[key] - value).norm(), value.norm()
            assert difference <= 1e-3 * size + 1e-6, f"{name} {key}: {difference} of {size}"
        print(name, "is equal", flush=True)
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The script, a recipe, and eight images; of those for validation only the first one has objects."""
    root = tmp_path_factory.mktemp("many")
    data = write_shapes(root / "data", num_train=8, num_val=1, size=96)
    path = data / "instances_train.json"
    content = json.loads(path.read_text())
    ids = [image["id"] for image in content["images"]]
    for name, rows in (("train", WITH_OBJECTS), ("val", {0})):
        kept = [each for each in content["annotations"] if ids.index(each["image_id"]) in rows]
        (data / f"instances_{name}.json").write_text(json.dumps({**content, "annotations": kept}))
    recipe = Recipe(
        model=MODEL,
        data=DataSettings(path=str(data), size=96, sizes=(64, 96), workers=0),
        optimizer=OptimizerSettings(lr=0.01, lr_batch=4),
        schedule=ScheduleSettings(burn_in_epochs=1.5),
        run=RunSettings(
            epochs=2, batch_size=4, ema=0.9, evaluate_every=1, accelerator="cpu", precision="32", loggers=()
        ),
    )
    (root / "recipe.yaml").write_text(yaml.safe_dump(to_plain(recipe)))
    (root / "script.py").write_text(SCRIPT)
    return root


def train(folder: Path, name: str, *options: str) -> list[str]:
    """The script and what it is told."""
    words = [str(folder / "script.py"), "train", "--recipe", str(folder / "recipe.yaml")]
    return [*words, "--output", str(folder / name), *options]


def torchrun(processes: int, *options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *options]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def srun(task: int, port: str, **more: str) -> dict[str, str]:
    """The variables that a task of two on this machine gets from srun."""
    known = {"JOB_ID": "7", "PROCID": str(task), "LOCALID": str(task), "STEP_NUM_TASKS": "2", "STEP_NUM_NODES": "1"}
    return {f"SLURM_{name}": value for name, value in known.items()} | {
        "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": port, **more
    }  # fmt: skip


@contextmanager
def started(
    commands: Sequence[tuple[list[str], dict[str, str]]], log: Path
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Commands that write to ``log``, each in a session of its own that is killed at the end."""
    settings = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    with log.open("wb") as stream:
        processes = [
            subprocess.Popen(
                argv, stdout=stream, stderr=stream, start_new_session=True, env=os.environ | settings | variables
            )
            for argv, variables in commands
        ]
    try:
        yield processes
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(LONGEST_S)


def wait_for(is_ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + LONGEST_S
    while process.poll() is None and time.monotonic() < end and not is_ready():
        time.sleep(0.05)
    assert is_ready(), log.read_text()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_torchrun_and_numbers_of_devices_are_two_starts(monkeypatch, capsys, tmp_path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "shapes", "--device", "0,1", "--output", str(tmp_path / "run")]) == 2
    assert "torchrun has started 2 processes on this machine" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_some_processes_have_objects_while_others_have_none():
    for processes in (2, 4):
        shares = [[*EpochBatchSampler(8, 4, seed=0, rank=rank, world_size=processes)] for rank in range(processes)]
        steps = [
            [bool({each.index for each in share} & WITH_OBJECTS) for share in step]
            for step in zip(*shares, strict=True)
        ]
        assert any(any(step) and not all(step) for step in steps)


@pytest.mark.slow
def test_several_processes_are_one_whoever_starts_them(folder, tmp_path):
    log, port = tmp_path / "log", free_port()
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--nnodes=2", "--local-addr=127.0.0.1"]
    started_by = {
        "one": [([sys.executable, *train(folder, "one")], {})],
        "itself": [([sys.executable, *train(folder, "itself", "--run.devices", "2")], {})],
        "torchrun": [([*torchrun(4, "--standalone"), *train(folder, "torchrun")], {})],
        "two machines": [([*torchrun(1, *meeting), *train(folder, "two machines")], {})] * 2,
        "srun": [
            ([sys.executable, *train(folder, "srun")], srun(task, free)) for free in [free_port()] for task in (0, 1)
        ],
    }
    for commands in started_by.values():
        with started(commands, log) as processes:
            assert [process.wait(LONGEST_S) for process in processes] == [0] * len(commands), log.read_text()
    one, *others = started_by
    expected = read_tensors(folder / one / "last.ckpt")["state_dict"]
    history = read_history(folder / one)
    ap = json.loads((folder / one / "results.json").read_text())["ap"]
    for name in others:
        found = read_tensors(folder / name / "last.ckpt")["state_dict"]
        for key, value in expected.items():
            torch.testing.assert_close(
                found[key], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name, k=key: f"{n}, {k}: {m}"
            )
        other = read_history(folder / name)
        assert len(history["train/loss"]) == len(other["train/loss"]) == 2
        for key, values in history.items():
            if key.startswith(("train/", "level/")):
                assert other[key] == pytest.approx(values, rel=1e-3), (name, key)
        assert json.loads((folder / name / "results.json").read_text())["ap"] == pytest.approx(ap, abs=1e-3)


@pytest.mark.slow
def test_gradients_of_every_family_are_those_of_one_process(tmp_path):
    """One of two processes has no object."""
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    log = tmp_path / "log"
    with started([([*torchrun(2, "--standalone"), str(tmp_path / "gradients.py")], {})], log) as (process,):
        assert process.wait(LONGEST_S) == 0, log.read_text()
    assert log.read_text().count("is equal") == 2 * 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "number", "reason"),
    [
        (1, signal.SIGKILL, "process 1 was killed by SIGKILL"),
        (0, signal.SIGKILL, "process 0 is gone, or its machine does not answer"),
        (1, signal.SIGSTOP, "process 1 has not answered for 30 s"),
    ],
)
def test_all_processes_end_within_a_minute_with_a_sentence(folder, tmp_path, lost, number, reason):
    log, name = tmp_path / "log", f"lost-{lost}-{number.name}"
    command = [sys.executable, *train(folder, name, "--run.devices", "2", "--epochs", "3000")]
    with started([(command, {})], log) as (process,):
        wait_for(lambda: (folder / name / "last.ckpt").is_file(), process, log)
        (other,) = children_of(process.pid)
        os.kill((process.pid, other)[lost], number)
        end = time.monotonic() + 60
        while time.monotonic() < end and (process.poll() is None or Path(f"/proc/{other}").exists()):
            time.sleep(0.1)
        assert process.poll() not in (None, 0), log.read_text()
        assert not Path(f"/proc/{other}").exists(), log.read_text()
    assert re.search(f"^pyrafuse: {reason}: all processes end; .*--resume", log.read_text(), re.M), log.read_text()


@pytest.mark.slow
def test_torchrun_starts_a_killed_training_again_where_it_was(folder, tmp_path):
    log, options = tmp_path / "log", ["--epochs", "12", "--data.workers", "1"]
    launcher = torchrun(2, "--standalone", "--max-restarts=1")
    for name in ("undisturbed", "restarted"):
        with started([([*launcher, *train(folder, name, *options)], {})], log) as (process,):
            if name == "restarted":
                wait_for(lambda: (folder / "restarted/last.ckpt").is_file(), process, log)
                os.kill(children_of(process.pid)[0], signal.SIGKILL)
            assert process.wait(LONGEST_S) == 0, log.read_text()
    assert "resumed after" in log.read_text()
    expected, found = (read_tensors(folder / name / "last.ckpt") for name in ("undisturbed", "restarted"))
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)
    assert (folder / "restarted/metrics.csv").read_text() == (folder / "undisturbed/metrics.csv").read_text()


@pytest.mark.slow
def test_a_signal_of_slurm_saves_and_the_requeued_job_goes_on(folder, tmp_path):
    log, name = tmp_path / "log", "requeued"
    command = [sys.executable, *train(folder, name, "--epochs", "12", "--run.stop_signal", "USR1")]
    port = free_port()
    with started([(command, srun(task, port)) for task in (0, 1)], log) as processes:
        wait_for(lambda: (folder / name / "last.ckpt").is_file(), processes[0], log)
        for process in processes:
            process.send_signal(signal.SIGUSR1)
        assert [process.wait(60) for process in processes] == [143, 143], log.read_text()
    assert "pyrafuse: terminated; " in log.read_text(), log.read_text()
    assert read_tensors(folder / name / "last.ckpt")["epoch"] + 1 < 12
    port = free_port()
    with started([(command, srun(task, port, SLURM_RESTART_COUNT="1")) for task in (0, 1)], log) as processes:
        assert [process.wait(LONGEST_S) for process in processes] == [0, 0], log.read_text()
    assert "resumed after" in log.read_text()
    assert len(read_history(folder / name)["train/loss"]) == 12
