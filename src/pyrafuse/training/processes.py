"""The processes of a training, one for each device: who starts them, and the place of this one among them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # as its documentation has it
from torch.nn.parallel import DistributedDataParallel

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.training.settings import RunSettings

PORT_VARIABLE = "PYRAFUSE_STORE_PORT"
"""Tells the processes that the first one starts where they find it."""
GRACE_S = 10.0
"""Time for a process to say why it ends, after another one has ended with an error."""


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
    """Join the processes of the training; start those for further devices, unless torchrun has started them.

    Args:
        run: Settings of the run.
        devices: Number of devices of this machine, or their numbers.

    Raises:
        PyrafuseError: If torchrun has started another number of processes, or no further one can be started.
    """
    numbers = list(range(devices)) if isinstance(devices, int) else list(devices)
    world_size = run.nodes * len(numbers)
    started = int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE"} <= {*os.environ} else None
    if started is not None and started != world_size:
        raise PyrafuseError(
            f"there are {started} processes, and the run has {world_size} devices: start one process for each, or "
            f"leave --device out"
        )
    local_rank = 0 if started is None else int(os.environ.get("LOCAL_RANK", "0"))
    kind = device_type(run)
    device = torch.device(kind, numbers[local_rank]) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Place(device)
        return
    backend = "nccl" if kind == "cuda" else "gloo"
    if started is None:
        store = TCPStore("127.0.0.1", 0, world_size, is_master=True, wait_for_workers=False)
        with _others(world_size, store.port):
            dist.init_process_group(backend, store=store, rank=0, world_size=world_size)
            yield Place(device, 0, world_size)
            dist.destroy_process_group()
        return
    port = os.environ.get(PORT_VARIABLE)
    store = TCPStore("127.0.0.1", int(port), world_size, is_master=False) if port else None
    rank = int(os.environ["RANK"])
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    yield Place(device, rank, world_size)
    dist.destroy_process_group()


@contextmanager
def _others(world_size: int, port: int) -> Iterator[None]:
    """Start this program once more for each further device; all end with this block, and with the first that fails."""
    words, threads = _command(), str(max(1, (os.cpu_count() or 1) // world_size))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(int(threads))
    shared = {"OMP_NUM_THREADS": threads, **os.environ, PORT_VARIABLE: str(port)}
    shared |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    others = [
        subprocess.Popen(words, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(1, world_size)
    ]
    is_over = threading.Event()
    threading.Thread(target=_watch, args=(others, is_over), daemon=True).start()
    try:
        yield
        is_over.set()
        for process in others:
            process.wait()
    finally:
        is_over.set()
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


def _watch(others: Sequence["subprocess.Popen[bytes]"], is_over: threading.Event) -> None:
    """End this process after another one has failed: it may wait for its answer for ever."""
    while not is_over.wait(1.0):
        failed = [(rank, process.returncode) for rank, process in enumerate(others, 1) if process.poll()]
        if failed and not is_over.wait(GRACE_S):
            for process in others:
                process.kill()
            rank, status = failed[0]
            print(f"pyrafuse: process {rank} of the training ended with status {status}: all end", file=sys.stderr)
            os._exit(1)
