"""Whether the processes that a training on several machines needs were started; free of torch."""

import os

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training.settings import RunSettings


def check_nodes(run: RunSettings) -> None:
    """Refuse several machines that would wait for one another for ever.

    Raises:
        PyrafuseError: With the command to type on each of them.
    """
    started = os.environ.get("GROUP_WORLD_SIZE")  # torchrun's word for the number of machines
    if started is None and run.nodes > 1:
        raise PyrafuseError(
            f"run.nodes {run.nodes} needs torchrun, which tells the machines of one another. Type on each: torchrun "
            f"--nnodes {run.nodes} --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29500 -m "
            f"pyrafuse train ... --run.nodes {run.nodes} --output DIR, with the number of its GPUs in the place of 1"
        )
    if started is not None and int(started) != run.nodes:
        raise PyrafuseError(
            f"torchrun has started {started} machine{'s' if int(started) > 1 else ''}, and run.nodes is {run.nodes}: "
            f"give --run.nodes {started}, or torchrun --nnodes {run.nodes}"
        )
