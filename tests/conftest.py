"""Fixtures that every test may use."""

import os
import pickle
import resource
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

# xdist's workers share the cores between them.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1 if "PYTEST_XDIST_WORKER" in os.environ else 2)))


@pytest.fixture(autouse=True)
def no_network(monkeypatch) -> Iterator[list[object]]:
    """Nothing that the package or its dependencies do in this process reaches another machine: no telemetry."""
    reached: list[object] = []
    own = {"localhost", "::1", "0.0.0.0", socket.gethostname()}
    connect = socket.socket.connect

    def refuse_others(given: socket.socket, address: object) -> None:
        is_here = not isinstance(address, tuple) or address[0] in own or str(address[0]).startswith("127.")
        if not is_here and given.type == socket.SOCK_STREAM and not _is_own(str(address[0])):
            reached.append(address)
            raise ConnectionRefusedError(f"tests reach no other machine, asked was {address}")
        connect(given, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse_others)
    yield reached
    assert not reached


def _is_own(address: str) -> bool:
    """Whether ``address`` is one of this machine, on which Ray's processes find each other."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as taken:
            taken.bind((address, 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real images that lies beside the repository, where there is one."""
    path = Path(__file__).resolve().parents[1].parent / "shared"
    if not path.is_dir():
        pytest.skip("no folder of real images beside the repository")
    return path


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A block in which no file grows past so many bytes, in Python and in what it calls: as on a disk that is full."""

    @contextmanager
    def limit(num_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def in_processes(tmp_path) -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """What a function of its own number gives in each of so many processes of a training: forks, joined by gloo."""

    def run(number: int, function: Callable[[int], Any]) -> list[Any]:
        folder = tmp_path / "processes"
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads; none holds a lock here
            children = [os.fork() or _join(folder, rank, number, function) for rank in range(number)]
        for child in children:
            os.waitpid(child, 0)
        told = [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in range(number)]
        assert not any(fault for _, fault in told), "\n".join(fault for _, fault in told)
        return [result for result, _ in told]

    return run


def _join(folder: Path, rank: int, number: int, function: Callable[[int], Any]) -> int:
    """Run ``function`` as one process of several, leave its result in ``folder``, and end."""
    result, fault = None, ""
    try:
        torch.set_num_threads(1)
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=number, timeout=timedelta(seconds=30)
        )
        result = function(rank)
        dist.barrier()
    except BaseException:
        fault = traceback.format_exc()
    finally:
        (folder / f"{rank}.pkl").write_bytes(pickle.dumps((result, fault)))
        os._exit(0)
