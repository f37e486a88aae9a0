"""Many trainings in processes of their own: some at a time, resumed where they stopped; failures are isolated.

run's recipe.yaml -> slot (a GPU, or a share of the cores) -> `python -m pyrafuse train` -> results.json, or a reason
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import is_held
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_text
from pyrafuse.training.progress import duration
from pyrafuse.training.settings import Recipe, to_plain

LOG_FILE = "train.log"
PROGRAM = (sys.executable, "-m", "pyrafuse")
PATIENCE_S = 30.0
"""How long an interrupted training may take to end before it is killed."""


@dataclass(frozen=True)
class Run:
    """One training among many.

    Attributes:
        data: Name of the data set.
        variant: Name of what is tried.
        recipe: What is trained; its seed is ``recipe.run.seed``.
        folder: Folder of the training.
    """

    data: str
    variant: str
    recipe: Recipe
    folder: Path

    @property
    def title(self) -> str:
        """What to call it before people."""
        return f"{self.variant} on {self.data}, seed {self.recipe.run.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether its results are there."""
        return (self.folder / "results.json").is_file()


@dataclass(frozen=True)
class Slot:
    """Where one training at a time runs.

    Attributes:
        accelerator: ``cpu``, ``gpu`` or ``mps``.
        workers: Processes that load, for one training; None leaves it to the recipe.
        environment: Environment variables of the process, besides those of this one.
        threads: Threads of one process on a processor; None where it may take all.
    """

    accelerator: str
    workers: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None


@dataclass(frozen=True)
class Failure:
    """A run that left no results, and why."""

    run: Run
    reason: str


def find_slots(device: str = "auto", *, parallel: int | None = None, workers: int | None = None) -> tuple[Slot, ...]:
    """The places to train at: one process a GPU, or ``parallel`` on the processor with its cores divided.

    Args:
        device: ``auto`` (all GPUs, or the processor where there is none), ``cpu``, ``mps``, ``gpu``, or the numbers of
            GPUs, ``0,1``.
        parallel: Trainings at a time; by default one a GPU, one on the processor.
        workers: Loading processes that the recipe wants; by default the cores are divided among the slots.

    Raises:
        PyrafuseError: If there is no such device, or ``parallel`` does not fit.
    """
    if parallel is not None and parallel < 1:
        raise PyrafuseError(f"--parallel must be 1 or more, got {parallel}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = _visible_gpus()
    if device == "mps" or (device == "auto" and not gpus and torch.backends.mps.is_available()):
        if not torch.backends.mps.is_available() or (parallel or 1) > 1:
            raise PyrafuseError("--device mps is one device of a Mac: it takes one training at a time")
        return (Slot("mps"),)
    if device == "cpu" or (device == "auto" and not gpus):
        count = parallel or 1
        if count > cores:
            raise PyrafuseError(f"--parallel {count} needs as many cores, and there are {cores}")
        if count == 1:
            return (Slot("cpu"),)
        threads = min(cores // count, int(os.environ.get("OMP_NUM_THREADS") or cores))
        return (Slot("cpu", _share_workers(cores, count, workers), {"OMP_NUM_THREADS": str(threads)}, threads),) * count
    chosen = gpus if device in {"auto", "gpu", "cuda"} else _choose_gpus(device, gpus)
    if not chosen:
        raise PyrafuseError(f"no device {device!r} here: no GPU is visible; choose cpu")
    if parallel is not None and parallel > len(chosen):
        raise PyrafuseError(f"--parallel {parallel}: a GPU takes one training at a time, and there are {len(chosen)}")
    chosen = chosen[:parallel]
    options = _share_workers(cores, len(chosen), workers)
    return tuple(Slot("gpu", options, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in chosen)


def _share_workers(cores: int, count: int, workers: int | None) -> int | None:
    """Processes that load, where ``count`` trainings divide the cores and the recipe leaves ``workers`` open."""
    return None if count == 1 or workers is not None else min(8, max(1, cores // count - 1))


def _visible_gpus() -> list[str]:
    """Names of the GPUs as CUDA_VISIBLE_DEVICES knows them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(i) for i in range(count)]


def _choose_gpus(device: str, gpus: Sequence[str]) -> list[str]:
    numbers = [number.strip() for number in device.removeprefix("cuda:").split(",")]
    if not all(number.isdecimal() and int(number) < len(gpus) for number in numbers):
        known = ", ".join(["auto", "cpu", *(str(i) for i in range(len(gpus)))])
        raise PyrafuseError(f"no device {device!r} here; choose from {known}, or several numbers such as 0,1")
    return [gpus[int(number)] for number in dict.fromkeys(numbers)]


def run_all(
    runs: Sequence[Run],
    slots: Sequence[Slot],
    *,
    imports: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    console: Console | None = None,
    poll_s: float = 0.2,
) -> tuple[Failure, ...]:
    """Train what is not trained yet, a run at a time in each slot.

    A run with results is left alone, one that was stopped goes on from its last epoch, any other begins. One that
    another process still trains, because whoever started that was killed, is waited for. What a run prints goes to
    train.log in its folder.

    Args:
        runs: In the order to start them.
        slots: Where.
        imports: Modules of the user's that every training imports first.
        program: What stands for `pyrafuse`.
        console: Console for progress output.
        poll_s: Seconds between two looks at the processes.

    Returns:
        The runs that failed.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after all trainings have been stopped; the same call goes on.
    """
    console = console or Terminal(quiet=True)
    waiting = deque(run for run in runs if not run.is_finished)
    active: dict[int, _Active] = {}
    failures: list[Failure] = []
    if done := len(runs) - len(waiting):
        console.print(f"{done} of {len(runs)} runs are finished already", highlight=False)
    progress = _Progress(runs, console)
    try:
        with _ended_by_term(), progress:
            while waiting or active:
                for number in range(len(slots)):
                    if number not in active and (run := _take_free(waiting, progress.tell_once)):
                        active[number] = _Active.start(run, slots[number], imports, program)
                time.sleep(poll_s)
                for number, training in list(active.items()):
                    status = training.process.poll()
                    if status is None:
                        continue
                    del active[number]
                    if status or not training.run.is_finished:
                        failures.append(Failure(training.run, read_reason(training.run.folder / LOG_FILE, status)))
                        progress.tell(f"FAILED  {training.run.title}: {failures[-1].reason}")
                    else:
                        progress.tell(f"done    {training.run.title}, {duration(training.seconds)}")
                progress.update(active=[training.run for training in active.values()])
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with what is left") from None
    finally:
        _stop(training.process for training in active.values())
    return tuple(failures)


def _take_free(waiting: deque[Run], tell: Callable[[str], None]) -> Run | None:
    """The first of the runs ``waiting`` that nobody trains, taken from them; those that became finished are dropped."""
    for run in [*waiting]:
        if is_held(run.folder):
            tell(f"waits   {run.title}: a process that an earlier call left is training it")
            continue
        waiting.remove(run)
        if not run.is_finished:
            return run
    return None


def read_reason(log: Path, status: int) -> str:
    """Why a training ended badly, from the end of what it printed and its exit status."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = next((line.removeprefix("pyrafuse: ") for line in reversed(lines) if line.startswith("pyrafuse: ")), "")
    if status < 0:
        hint = ", perhaps out of memory" if -status == signal.SIGKILL else ""
        return f"killed by signal {-status} ({signal.Signals(-status).name}{hint}); see {log}"
    if status == 0:
        return f"it left no results; see {log}"
    return f"{said or (lines[-1] if lines else f'exit status {status}')}; see {log}"


def count_epochs(folder: Path) -> int:
    """Epochs that the run in ``folder`` has behind it."""
    path = folder / "metrics.csv"
    return max(0, len(path.read_bytes().splitlines()) - 1) if path.is_file() else 0


@dataclass(frozen=True)
class _Active:
    """A training that runs."""

    run: Run
    process: "subprocess.Popen[bytes]"
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @classmethod
    def start(cls, run: Run, slot: Slot, imports: Sequence[str], program: Sequence[str]) -> "_Active":
        is_resumed = (run.folder / "last.ckpt").is_file() and (run.folder / "recipe.yaml").is_file()
        if not is_resumed:
            write_text(run.folder / "recipe.yaml", yaml.safe_dump(to_plain(run.recipe), sort_keys=False))
        command = [
            *program,
            *(f"--import={name}" for name in imports),
            "train",
            *(["--resume"] if is_resumed else [f"--recipe={run.folder / 'recipe.yaml'}"]),
            f"--run.output={run.folder}",
            f"--run.accelerator={slot.accelerator}",
            *([f"--data.workers={slot.workers}"] if slot.workers is not None else []),
        ]
        with (run.folder / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **slot.environment},
                start_new_session=True,  # Ctrl-C reaches the trainings once, through `_stop`
            )
        return cls(run, process, time.monotonic())


def _stop(processes: "Iterator[subprocess.Popen[bytes]]") -> None:
    """Interrupt, wait, and kill what does not end."""
    remaining = [process for process in processes if process.poll() is None]
    for process in remaining:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + PATIENCE_S
    for process in remaining:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _ended_by_term() -> Iterator[None]:
    """End like Ctrl-C when the system asks to, so that no training is left behind."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    if callable(signal.getsignal(signal.SIGTERM)):  # the command line's, which tells the exit status
        yield
        return
    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # only the main thread may
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Progress:
    """A bar over the epochs of all runs, a line for each that ends, and the time that is left."""

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self._runs = runs
        self._console = console
        self._total = sum(run.recipe.run.epochs for run in runs)
        self._finished = sum(run.recipe.run.epochs for run in runs if run.is_finished)
        self._at_start = self._count([run for run in runs if not run.is_finished])
        self._started = time.monotonic()
        self._told: set[str] = set()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("comparing", total=self._total, left="")

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, text: str) -> None:
        ended = sum(run.is_finished for run in self._runs)
        line = f"{ended}/{len(self._runs)}  {text}{self._left()}"
        self._console.print(line, highlight=False, markup=False)

    def tell_once(self, text: str) -> None:
        """As `tell`, unless it was told before."""
        if text not in self._told:
            self._told.add(text)
            self.tell(text)

    def update(self, *, active: Sequence[Run]) -> None:
        if self._console.is_terminal:
            names = ", ".join(f"{run.variant}/{run.recipe.run.seed}" for run in active)
            self._bar.update(self._task, completed=self._done(), description=names, left=self._left())

    def _done(self) -> int:
        return self._count(self._runs)

    def _count(self, runs: Sequence[Run]) -> int:
        return sum(
            run.recipe.run.epochs if run.is_finished else min(count_epochs(run.folder), run.recipe.run.epochs)
            for run in runs
        )

    def _left(self) -> str:
        """The time that is left, judged by the epochs since the start."""
        done = self._done()
        gained = done - self._at_start - self._finished
        if gained <= 0 or done >= self._total:
            return ""
        seconds = (time.monotonic() - self._started) * (self._total - done) / gained
        return f", about {duration(seconds)} left"
