"""Candidates learn in the processes of a Ray cluster, on this machine or on many.

proxy -> a copy in each worker -> candidates shared out by `Crew` -> outcomes, rung by rung

Whatever a worker needs is sent to it, but for cached maps: these are files, which all machines must see.
"""

import math
import pickle
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from pyrafuse.base.cluster import connect, divide, last_words
from pyrafuse.base.errors import PyrafuseError, check_count
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.printable import counted
from pyrafuse.base.user_code import absolute_names, import_user_code
from pyrafuse.necks.merging import DOWN, FUSIONS, UP
from pyrafuse.search.engines.registry import ENGINES
from pyrafuse.search.engines.sharing import Answer, Crew
from pyrafuse.search.learners import Outcome
from pyrafuse.search.proxy import Proxy, Trainees
from pyrafuse.search.racing import Candidates
from pyrafuse.search.running import Engine

if TYPE_CHECKING:
    from types import ModuleType

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
        tell: Function that is called with each sentence for the user.
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
        self._settings = library.put(packed), absolute_names(imports), cores
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
            return Answer(worker, problem=last_words(error))
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
