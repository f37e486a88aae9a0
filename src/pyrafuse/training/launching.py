"""Who starts the processes of a training: this program, torchrun, or Slurm's srun; free of torch.

srun's variables -> torchrun's variables -> refused where the settings disagree -> number of processes
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import counted
from pyrafuse.training.settings import RunSettings

PORT_VARIABLE = "PYRAFUSE_STORE_PORT"
"""Tells the processes that the first one starts where they find it."""


def is_launched() -> bool:
    """Whether this process is one of several that something else than the training itself has started."""
    return {"RANK", "WORLD_SIZE"} <= {*os.environ} and PORT_VARIABLE not in os.environ


def count_processes(devices: int | Sequence[int]) -> int:
    """Number of processes of the training.

    Args:
        devices: Devices of this machine, or their numbers.
    """
    return int(os.environ["WORLD_SIZE"]) if is_launched() else devices if isinstance(devices, int) else len(devices)


def join_launcher(run: RunSettings) -> None:
    """Take the place among the processes of a training that torchrun or srun gives this one.

    Raises:
        PyrafuseError: If the settings start processes too, or name another number of machines or devices; with what
            to type.
    """
    if "RANK" not in os.environ:
        _take_variables_of_srun()
    if not is_launched():
        if run.nodes > 1:
            raise PyrafuseError(
                f"run.nodes {run.nodes} needs torchrun or srun, which tell the machines of one another. Type on each: "
                f"torchrun --nnodes {run.nodes} --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint "
                f"FIRST_MACHINE:29500 -m pyrafuse train ... --run.nodes {run.nodes} --output DIR, with the number of "
                "its GPUs in the place of 1"
            )
        return
    launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun" if "SLURM_JOB_ID" in os.environ else "RANK"
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))  # torchrun's word for the number of machines
    if run.nodes not in (1, nodes):
        raise PyrafuseError(
            f"{launcher} has started {counted(nodes, 'machine')}, and run.nodes is {run.nodes}: give --run.nodes "
            f"{nodes}, or start {run.nodes} with --{'nodes' if launcher == 'srun' else 'nnodes'} {run.nodes}"
        )
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if (
        run.devices == "auto"
        or run.devices == here
        or (isinstance(run.devices, tuple) and len(run.devices) == here == 1)
    ):
        return
    devices = run.devices if isinstance(run.devices, int) else list(run.devices)
    raise PyrafuseError(
        f"{launcher} has started {counted(here, 'process', 'processes')} on this machine, one for each device, and "
        f"run.devices {devices} would start others: leave --device out (--run.devices auto), and choose GPUs with the "
        "variable CUDA_VISIBLE_DEVICES"
    )


def _take_variables_of_srun() -> None:
    """Set torchrun's variables where srun has started this process as one of several."""
    given = os.environ
    tasks, nodes = (int(given.get(f"SLURM_STEP_NUM_{what}", "1")) for what in ("TASKS", "NODES"))
    if tasks == 1:
        return
    if tasks % nodes:
        raise PyrafuseError(
            f"srun has started {tasks} tasks on {nodes} machines: each machine needs as many as the others, one for "
            "each device; give --ntasks-per-node"
        )
    job = int(given["SLURM_JOB_ID"]) + int(given.get("SLURM_STEP_ID", "0"))
    first = {"MASTER_ADDR": first_machine(given["SLURM_STEP_NODELIST"]), "MASTER_PORT": str(20000 + job % 10000)}
    given |= {name: value for name, value in first.items() if name not in given}
    given |= {
        "RANK": given["SLURM_PROCID"],
        "LOCAL_RANK": given["SLURM_LOCALID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_WORLD_SIZE": str(tasks // nodes),
        "GROUP_WORLD_SIZE": str(nodes),
    }


def first_machine(names: str) -> str:
    """The first of Slurm's ``names`` of machines, such as ``gpu[007-009,12],login``."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", names)
    assert first is not None, "the pattern matches nothing at all as well"
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def may_be_restarted() -> bool:
    """Whether torchrun starts processes again that fail, or Slurm has put the job into its queue again.

    torchrun's number of restarts is not the same on all machines, and all processes have to choose the same: so every
    start with ``--max-restarts`` counts.
    """
    return any(int(os.environ.get(name, "0")) for name in ("TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT"))


def go_on_after_restart(run: RunSettings) -> RunSettings:
    """``run`` that resumes what is saved in its folder, where torchrun or Slurm may be starting it again."""
    if run.resume or run.output is None or not may_be_restarted():
        return run
    return replace(run, resume=(Path(run.output) / "last.ckpt").is_file())
