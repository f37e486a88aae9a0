"""The processes of a training, one for each device: who starts them, and the place of this one among them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # as its documentation has it
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training.heartbeats import Heartbeats
from pyrafuse.training.launching import PORT_VARIABLE, count_processes, is_launched
from pyrafuse.training.settings import RunSettings


@dataclass(frozen=True)
class Place:
    """The place of this process among those of a training.

    Attributes:
        device: Device of this process.
        rank: Number of this process; the first one, 0, writes the files.
        world_size: Number of processes.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def spread(self, module: nn.Module, *, sync_bn: bool) -> nn.Module:
        """The same module, whose gradients are averaged over all processes where there are several.

        Args:
            module: A module on `device`.
            sync_bn: Whether batch norms see the batch of all GPUs.
        """
        if self.world_size == 1:
            return module
        is_cuda = self.device.type == "cuda"
        if sync_bn and is_cuda:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return DistributedDataParallel(module, device_ids=[self.device] if is_cuda else None)


def device_type(run: RunSettings) -> str:
    """Where the run trains: ``cpu``, ``cuda`` or ``mps``."""
    if run.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return {"gpu": "cuda"}.get(run.accelerator, run.accelerator)


@contextmanager
def take_place(run: RunSettings, devices: int | Sequence[int]) -> Iterator[Place]:
    """Join the processes of the training; start those for further devices, unless torchrun or srun has started them.

    Args:
        run: Settings of the run.
        devices: Number of devices of this machine, or their numbers.

    Raises:
        PyrafuseError: If no further process can be started, or another one of the training is gone.
    """
    numbers = list(range(devices)) if isinstance(devices, int) else list(devices)
    world_size = count_processes(devices)
    is_started = is_launched() or PORT_VARIABLE in os.environ
    rank, local_rank = (int(os.environ.get(name, "0")) if is_started else 0 for name in ("RANK", "LOCAL_RANK"))
    kind = device_type(run)
    device = torch.device(kind, numbers[local_rank]) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Place(device)
        return
    starting: AbstractContextManager[list[subprocess.Popen[bytes]]] = nullcontext([])
    if is_launched():
        store, _, _ = next(rendezvous("env://"))
    else:
        port = int(os.environ.get(PORT_VARIABLE, "0"))
        store = TCPStore("127.0.0.1", port, world_size, is_master=not is_started, wait_for_workers=False)
        starting = starting if is_started else _others(world_size, store.port)
    with (
        starting as others,
        Heartbeats(store, rank, world_size, others).exchanged(),
    ):
        backend = "nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
        yield Place(device, rank, world_size)
        dist.barrier()  # the store may end with the first process
        dist.destroy_process_group()


@contextmanager
def _others(world_size: int, port: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Start this program once more for each further device; all of them end with this block."""
    words, threads = _command(), str(max(1, (os.cpu_count() or 1) // world_size))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(int(threads))
    shared = {"OMP_NUM_THREADS": threads, **os.environ, PORT_VARIABLE: str(port)}
    shared |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    others = [
        subprocess.Popen(words, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(1, world_size)
    ]
    try:
        yield others
        for process in others:
            process.wait()
    finally:
        for process in others:
            process.kill()


def _command() -> list[str]:
    """What started this program."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return [sys.executable, "-m", main.__spec__.name, *sys.argv[1:]]
    if getattr(main, "__file__", None) is None:
        raise PyrafuseError(
            "several devices need a program that can be started once for each: train from the command line or from a "
            "script, or give one device"
        )
    return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
