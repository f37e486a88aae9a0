"""Candidates learn in the processes of a Ray cluster, on this machine or on many.

proxy -> a copy in each worker -> candidates shared out by `Crew` -> outcomes, rung by rung

Whatever a worker needs is sent to it, but for cached maps: these are files, which all machines must see.
"""

import logging
import math
import os
import pickle
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyrafuse.base.errors import PyrafuseError, check_count
from pyrafuse.base.extras import naming_extras
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.user_code import import_user_code
from pyrafuse.necks.merging import DOWN, FUSIONS, UP
from pyrafuse.search.engines.registry import ENGINES
from pyrafuse.search.engines.sharing import Answer, Crew
from pyrafuse.search.learners import Outcome
from pyrafuse.search.proxy import Proxy, Trainees
from pyrafuse.search.racing import Candidates
from pyrafuse.search.running import Engine

if TYPE_CHECKING:
    from types import ModuleType

ADDRESS = "RAY_ADDRESS"

VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # or Ray tells on standard output that a worker has ended
    "RAY_worker_niceness": "0",  # or workers wait for everything else on the machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns of what will change
}
"""Set before Ray is imported, which reads them then, and before a cluster of our own starts."""

CONNECT_S = 5.0
"""Seconds for a cluster to answer: Ray itself would try for minutes, and then end the process."""

STORE_BYTES = 2**27
"""Memory for what is sent within a cluster of our own: graphs and numbers."""

OPERATORS = (FUSIONS, UP, DOWN)


@ENGINES.register("ray")
@contextmanager
def ray(
    proxy: Proxy,
    tell: Callable[[str], None],
    imports: Sequence[str],
    *,
    workers: int | None = None,
    ray_address: str | None = None,
) -> Iterator[Engine]:
    """Workers of a cluster; a local one is started where no address is given, and ends with the search.

    Args:
        proxy: What judges candidates; each worker gets a copy.
        tell: Told each sentence that a person may want to read.
        imports: Modules and files of the user's that every worker imports first.
        workers: Number of processes that train; by default one a GPU, on CPUs one a core.
        ray_address: Address of a running cluster, HOST:PORT; by default that of the variable RAY_ADDRESS.

    Raises:
        MissingLibraryError: If Ray is not installed.
        PyrafuseError: If no cluster answers, or it has no room for the workers.
    """
    check_count("workers", 1 if workers is None else workers, 1)
    with connect(ray_address, tell) as library:
        unit = "CPU" if proxy.device.type == "cpu" else "GPU"
        number, cores = divide([node["Resources"] for node in library.nodes() if node["Alive"]], workers, unit)
        processes = Processes(library, proxy, gpus=int(unit == "GPU"), cores=cores, imports=imports)
        try:
            tell(f"{counted(number, 'worker')} of {counted(cores, 'core')} each start")
            yield Crew(processes, number, proxy.settings, tell)
        finally:
            with hold_interrupts():
                processes.end()


@contextmanager
def connect(address: str | None, tell: Callable[[str], None]) -> "Iterator[ModuleType]":
    """Ray, connected to the cluster at ``address``, or that of `ADDRESS`, or a local one that ends with the block.

    Raises:
        MissingLibraryError: If Ray is not installed.
        PyrafuseError: If no cluster answers.
    """
    os.environ.update(VARIABLES)
    with naming_extras():
        import ray as library
    if library.is_initialized():
        yield library  # the caller's own
        return
    address = address or os.environ.get(ADDRESS) or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    else:
        _check_answers(address)
    tell(f"Ray: {'a local cluster starts' if address == 'local' else f'cluster at {address}'}")
    try:
        with hold_interrupts():  # Ray sets a handler of its own for SIGTERM, which goes with the block
            library.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PyrafuseError(
            f"cannot connect to the Ray cluster at {address}: {printable(error, limit=300)}; give --ray-address "
            "HOST:PORT, or leave it and RAY_ADDRESS out for a local one. If the cluster asks for a token, as does "
            "Ray from 2.59 on, set RAY_AUTH_MODE=token"
        ) from error
    try:
        yield library
    finally:
        with hold_interrupts():
            library.shutdown()


def _check_answers(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    reason = "that is no HOST:PORT"
    if colon and host and port.isdecimal() and int(port) < 2**16:
        try:
            socket.create_connection((host, int(port)), CONNECT_S).close()
        except OSError as error:
            reason = str(error.strerror or error)
        else:
            return
    raise PyrafuseError(
        f"no Ray cluster answers at {address} ({reason}): start one by `ray start --head --port=6379` and give "
        "--ray-address HOST:6379, or leave it and RAY_ADDRESS out for a local one"
    )


def divide(nodes: Sequence[Mapping[str, float]], workers: int | None, unit: str) -> tuple[int, int]:
    """How many workers there are, and how many cores each of them gets: as many as fit on the machines.

    Args:
        nodes: Resources of each machine, by Ray's names.
        workers: How many are asked for; by default as many as there are of ``unit``.
        unit: What a worker has one of at least, ``CPU`` or ``GPU``.

    Raises:
        PyrafuseError: If there is no room for them.
    """

    def count_places(cores: int) -> int:
        return sum(int(min(node.get(unit, 0), node.get("CPU", 0) // cores)) for node in nodes)

    most = count_places(1)
    number = most if workers is None else workers
    if not 0 < number <= most:
        remedy = f"give --workers {most} or fewer" if most else "give another --device, or another cluster"
        raise PyrafuseError(
            f"the cluster has room for {counted(most, 'worker')}, each with a {unit}"
            f"{f', and {number} are asked for' if number else ''}: {remedy}"
        )
    largest = int(max(node.get("CPU", 0) for node in nodes))
    return number, max(cores for cores in range(1, largest + 1) if count_places(cores) >= number)


class Worker:
    """What runs in a process of the cluster; see `Processes`."""

    def prepare(self, packed: bytes, imports: Sequence[str], cores: int) -> str:
        """Make ready to train; what is wrong here, in words, or nothing."""
        try:
            for name in imports:
                import_user_code(name)
            proxy, operators = pickle.loads(packed)
        except Exception as error:  # code of users fails in its own ways
            kind = "" if isinstance(error, PyrafuseError) else f"{type(error).__name__} on {socket.gethostname()}: "
            return f"{kind}{error}"
        for table, own in zip(OPERATORS, operators, strict=True):
            table.update(own)
        if proxy.device.type == "cpu":
            torch.set_num_threads(cores)
        self._trainees = Trainees(proxy.on(torch.device(proxy.device.type)))  # Ray shows it one GPU, which is the first
        return ""

    def train(self, candidates: Candidates, until: int, running: Collection[str]) -> Outcome:
        """Forget all that are not ``running``, and train the only one of ``candidates`` up to step ``until``."""
        self._trainees.keep(running)
        (outcome,) = self._trainees.train(candidates, until=until)
        return outcome


class Processes:
    """Processes of a cluster, as `Crew` uses them.

    Args:
        library: Ray, connected.
        proxy: What each of them gets a copy of.
        gpus: Number of GPUs that each has.
        cores: Number of cores that each has.
        imports: Modules and files of the user's that each imports first.
    """

    def __init__(self, library: "ModuleType", proxy: Proxy, *, gpus: int, cores: int, imports: Sequence[str]) -> None:
        self._ray = library
        # never begun again by Ray: the graphs that it kept would be lost silently
        self._kind = library.remote(num_cpus=cores, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Worker)
        packed = library.cloudpickle.dumps((proxy, [_find_own(table) for table in OPERATORS]))
        files = [str(Path(name).resolve()) if name.endswith(".py") else name for name in imports]
        self._settings = library.put(packed), files, cores
        self._handles: list[Any] = []
        self._asked: dict[Any, int] = {}

    def start(self) -> int:
        """As `Workers.start`."""
        handle = self._kind.remote()
        self._handles.append(handle)
        number = len(self._handles) - 1
        self._asked[handle.prepare.remote(*self._settings)] = number
        return number

    def train(self, worker: int, candidates: Candidates, until: int, running: Collection[str]) -> None:
        """As `Workers.train`."""
        self._asked[self._handles[worker].train.remote(candidates, until, running)] = worker

    def wait(self, seconds: float) -> Answer | None:
        """As `Workers.wait`."""
        timeout = None if seconds == math.inf else max(0.0, seconds)
        ready, _ = self._ray.wait([*self._asked], num_returns=1, timeout=timeout)
        if not ready:
            return None
        worker = self._asked.pop(ready[0])
        try:
            answer = self._ray.get(ready[0])
        except self._ray.exceptions.RayTaskError:
            raise  # a fault of ours
        except self._ray.exceptions.RayError as error:
            self._end(worker)
            return Answer(worker, problem=_shorten(error))
        if isinstance(answer, Outcome):
            return Answer(worker, outcome=answer)
        if answer:
            self._end(worker)
        return Answer(worker, problem=answer)

    def end(self) -> None:
        """End all processes, whatever they do."""
        for worker in range(len(self._handles)):
            self._end(worker)

    def _end(self, worker: int) -> None:
        with suppress(Exception):  # it may have ended, or the cluster
            self._ray.kill(self._handles[worker], no_restart=True)


def _find_own(table: Mapping[str, Any]) -> dict[str, Any]:
    """Operators that a user has registered."""
    return {name: make for name, make in table.items() if not make.__module__.startswith("pyrafuse.")}


def _shorten(error: Exception) -> str:
    """The last sentence of Ray's report, which says what happened."""
    text = " ".join(str(error).split())
    return printable(text.partition("Worker exit detail: ")[2].partition(". Some common")[0] or text, limit=200)
