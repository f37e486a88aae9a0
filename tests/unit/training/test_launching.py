"""Who starts the processes of a training: torchrun and srun are joined, or refused where the settings disagree."""

import os

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training.launching import (
    PORT_VARIABLE,
    count_processes,
    first_machine,
    go_on_after_restart,
    is_launched,
    join_launcher,
)
from pyrafuse.training.settings import RunSettings

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}
TORCHRUN |= {"LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "0"}
SRUN = {"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
SRUN |= {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-08]"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """An environment of its own, without launchers."""
    known = {*TORCHRUN, *SRUN, "MASTER_ADDR", "MASTER_PORT", "SLURM_RESTART_COUNT", PORT_VARIABLE}
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in known})


def test_machines_that_nobody_started_are_refused_with_the_command():
    join_launcher(RunSettings())
    with pytest.raises(PyrafuseError, match=r"torchrun --nnodes 2 .* -m pyrafuse train \.\.\. --run.nodes 2"):
        join_launcher(RunSettings(nodes=2))
    assert not is_launched()
    assert (count_processes(3), count_processes([4, 5])) == (3, 2)


def test_torchrun_says_how_many_machines_and_processes_there_are():
    os.environ |= TORCHRUN
    join_launcher(RunSettings())
    join_launcher(RunSettings(nodes=2, devices=2))
    assert count_processes(2) == 4
    with pytest.raises(PyrafuseError, match=r"torchrun has started 2 machines, and run.nodes is 3: give --run.nodes 2"):
        join_launcher(RunSettings(nodes=3))


@pytest.mark.parametrize("devices", [(0, 1), (0,), 1, 3])
def test_processes_are_not_started_twice(devices):
    os.environ |= TORCHRUN
    with pytest.raises(PyrafuseError, match=r"torchrun has started 2 processes on this machine.* leave --device out"):
        join_launcher(RunSettings(devices=devices))


def test_one_process_of_torchrun_takes_the_gpu_that_is_named():
    os.environ |= TORCHRUN | {"LOCAL_WORLD_SIZE": "1"}
    join_launcher(RunSettings(devices=(3,)))
    with pytest.raises(PyrafuseError, match="torchrun has started 1 process on this machine"):
        join_launcher(RunSettings(devices=(2, 3)))


def test_those_that_a_training_starts_itself_keep_their_devices():
    os.environ |= {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", PORT_VARIABLE: "29500"}
    join_launcher(RunSettings(devices=(0, 1)))
    assert not is_launched()
    assert count_processes([0, 1]) == 2


def test_tasks_of_srun_become_processes():
    os.environ |= SRUN
    join_launcher(RunSettings())
    expected = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}
    expected |= {"MASTER_ADDR": "gpu07", "MASTER_PORT": "24569"}
    assert {name: os.environ[name] for name in expected} == expected
    with pytest.raises(PyrafuseError, match="srun has started 4 processes on this machine"):
        join_launcher(RunSettings(devices=(0, 1)))
    with pytest.raises(
        PyrafuseError, match=r"srun has started 2 machines, and run.nodes is 4.* start 4 with --nodes 4"
    ):
        join_launcher(RunSettings(nodes=4))


def test_the_meeting_point_can_be_given():
    os.environ |= SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"}
    join_launcher(RunSettings())
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.1", "5000")


def test_a_job_without_srun_and_torchrun_under_srun_are_left_alone():
    os.environ |= SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}
    join_launcher(RunSettings(devices=(0, 1)))
    assert not is_launched()
    os.environ |= SRUN | TORCHRUN
    join_launcher(RunSettings())
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("3", "4")


def test_machines_with_different_numbers_of_tasks_are_refused():
    os.environ |= SRUN | {"SLURM_STEP_NUM_TASKS": "7"}
    with pytest.raises(PyrafuseError, match=r"7 tasks on 2 machines.*--ntasks-per-node"):
        join_launcher(RunSettings())


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("gpu07", "gpu07"),
        ("gpu07,gpu09", "gpu07"),
        ("gpu[007-009,12],login", "gpu007"),
        ("gpu[3,5]-ib.example.org", "gpu3-ib.example.org"),
        ("rack[1-2]node[04-05]", "rack1node04"),
    ],
)
def test_the_first_machine_of_a_list(names, first):
    assert first_machine(names) == first


@pytest.mark.parametrize("name", ["TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT"])
def test_a_run_that_a_launcher_starts_again_goes_on(name, tmp_path):
    run = RunSettings(output=str(tmp_path))
    os.environ[name] = "1"
    assert go_on_after_restart(run) == run  # nothing is saved yet
    (tmp_path / "last.ckpt").touch()
    assert go_on_after_restart(run).resume
    assert not go_on_after_restart(RunSettings()).resume  # each start has a folder of its own
    os.environ[name] = "0"
    assert go_on_after_restart(run) == run
