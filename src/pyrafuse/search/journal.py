"""What a search did, one JSON line an event: nothing that is written is changed, and a killed process loses no trial.

first line: whose journal it is; then events -> `Journal`, which writes them -> `Trial`, all that is known of one
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, ClassVar, get_args

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.locking import hold_folder, refuse_held
from pyrafuse.base.parts import find_differences, plain, to_plain
from pyrafuse.base.printable import printable
from pyrafuse.base.typed_values import check_kind, create
from pyrafuse.search.choices import Answer
from pyrafuse.search.learners import Rung

JOURNAL_FILE = "journal.jsonl"
VERSION = 1
MAX_LINE_BYTES = 2**20
MAX_FILE_BYTES = 2**29

BEGUN, FINISHED, FAILED, OVER_BUDGET = "begun", "finished", "failed", "over budget"
"""States of a trial."""


@dataclass(frozen=True)
class Trial:
    """One candidate that was tried.

    Attributes:
        number: Place, from 0, in the order in which they were proposed.
        source: What proposed it: a strategy, or a neck that was made by hand.
        answers: Answers that draw its graph from the space, by question.
        fingerprint: The same for graphs that compute the same.
        size: Height and width in pixels of the network's input.
        cost: Parameters, GFLOPs, memory and latency by name; empty where they were not asked for.
        state: `BEGUN`, `FINISHED`, `FAILED` or `OVER_BUDGET`. A trial that others left behind is finished, too.
        rungs: What it reached, rung by rung.
        reason: Why it failed, or what exceeds the budget.
        own_seconds: Seconds of the strategy's own work before it proposed this trial, such as the training of weights.
        cut_seconds: Its seconds of trainings that the end of the time cut off, and that are done anew.
    """

    number: int
    source: str
    answers: Mapping[str, Answer]
    fingerprint: str
    size: int
    cost: Mapping[str, float]
    state: str = BEGUN
    rungs: tuple[Rung, ...] = ()
    reason: str = ""
    own_seconds: float = 0.0
    cut_seconds: float = 0.0

    @property
    def ap(self) -> float | None:
        """AP after the last rung that it reached; none where it was not measured."""
        return self.rungs[-1].ap if self.rungs else None

    @property
    def seconds(self) -> float:
        """Seconds that its rungs took."""
        return sum(rung.seconds for rung in self.rungs)


@dataclass(frozen=True)
class _Begun:
    number: int
    source: str
    answers: dict[str, Any]
    fingerprint: str
    size: int
    cost: dict[str, float]
    name: ClassVar = BEGUN

    def apply(self, trials: list[Trial]) -> None:
        if self.number != len(trials):
            raise PyrafuseError(f"trial {self.number} follows trial {len(trials) - 1}")
        for question, answer in self.answers.items():
            check_kind(answer, bool | int | str, f"the answer to {question!r}")
        trials.append(Trial(self.number, self.source, self.answers, self.fingerprint, self.size, self.cost))


@dataclass(frozen=True)
class _Prepared:
    number: int
    seconds: float
    name: ClassVar = "prepared"

    def apply(self, trials: list[Trial]) -> None:
        trial = _find_open(trials, self.number)
        trials[self.number] = replace(trial, own_seconds=trial.own_seconds + self.seconds)


@dataclass(frozen=True)
class _Reached:
    number: int
    rung: int
    steps: int
    loss: float
    ap: float | None
    seconds: float
    name: ClassVar = "rung"

    def apply(self, trials: list[Trial]) -> None:
        trial = _find_open(trials, self.number)
        if not 0 <= self.rung <= len(trial.rungs):
            raise PyrafuseError(f"trial {self.number} is at rung {len(trial.rungs)}, not at {self.rung}")
        # what was interrupted begins anew
        rungs = (*trial.rungs[: self.rung], Rung(self.steps, self.loss, self.ap, self.seconds))
        trials[self.number] = replace(trial, rungs=rungs)


@dataclass(frozen=True)
class _Cut:
    number: int
    seconds: float
    name: ClassVar = "cut"

    def apply(self, trials: list[Trial]) -> None:
        trial = _find_open(trials, self.number)
        trials[self.number] = replace(trial, cut_seconds=trial.cut_seconds + self.seconds)


@dataclass(frozen=True)
class _Ended:
    """The base of events that end a trial."""

    number: int
    reason: str
    name: ClassVar[str] = ""

    def apply(self, trials: list[Trial]) -> None:
        trial = _find_open(trials, self.number)
        trials[self.number] = replace(trial, state=self.name, reason=self.reason)


@dataclass(frozen=True)
class _Finished(_Ended):
    name: ClassVar = FINISHED


@dataclass(frozen=True)
class _Failed(_Ended):
    name: ClassVar = FAILED


@dataclass(frozen=True)
class _OverBudget(_Ended):
    name: ClassVar = OVER_BUDGET


_Event = _Begun | _Prepared | _Reached | _Cut | _Finished | _Failed | _OverBudget
_EVENTS: dict[str, type[_Event]] = {kind.name: kind for kind in get_args(_Event)}


def _find_open(trials: list[Trial], number: int) -> Trial:
    if not 0 <= number < len(trials):
        raise PyrafuseError(f"trial {number} has not begun")
    if trials[number].state != BEGUN:
        raise PyrafuseError(f"trial {number} is {trials[number].state} already")
    return trials[number]


class Journal:
    """An open journal: what it holds, and what is written to it from now on. See `open_journal`.

    Attributes:
        path: Path of the file.
        notice: A sentence about a line that was passed over; empty where all lines are whole.
    """

    def __init__(self, path: Path, stream: IO[bytes], trials: list[Trial], notice: str) -> None:
        self.path = path
        self.notice = notice
        self._stream = stream
        self._trials = trials

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by their number."""
        return tuple(self._trials)

    def begin(
        self,
        *,
        source: str,
        answers: Mapping[str, Answer],
        fingerprint: str,
        size: int,
        cost: Mapping[str, float],
    ) -> Trial:
        """Write down that a trial begins, before any work is done for it.

        Args:
            source: What proposed it.
            answers: Its genotype, by question.
            fingerprint: Fingerprint of the graph.
            size: Side of the input in pixels.
            cost: What it costs, by name.
        """
        self._write(_Begun(len(self._trials), source, dict(answers), fingerprint, size, dict(cost)))
        return self._trials[-1]

    def prepare(self, number: int, seconds: float) -> None:
        """Write down that so many ``seconds`` of the strategy's own work went before trial ``number``."""
        self._write(_Prepared(number, seconds))

    def reach(self, number: int, place: int, rung: Rung) -> None:
        """Write down what trial ``number`` reached at its rung ``place`` (from 0)."""
        self._write(_Reached(number, place, **vars(rung)))

    def cut(self, number: int, seconds: float) -> None:
        """Write down that the time was over before trial ``number`` was finished, after so many ``seconds`` for it."""
        self._write(_Cut(number, seconds))

    def finish(self, number: int) -> None:
        """Write down that trial ``number`` is finished: at the last rung, or stopped for others."""
        self._write(_Finished(number, ""))

    def fail(self, number: int, reason: str) -> None:
        """Write down that trial ``number`` failed."""
        self._write(_Failed(number, printable(reason, limit=2000)))

    def refuse(self, number: int, reason: str) -> None:
        """Write down that trial ``number`` is not trained, because it exceeds the budget."""
        self._write(_OverBudget(number, reason))

    def _write(self, event: _Event) -> None:
        event.apply(self._trials)
        _append(self._stream, {"event": event.name, **vars(event)}, self.path)


@contextmanager
def open_journal(folder: Path, head: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal in ``folder``, for one writer at a time: a new one, or that of the same search.

    Args:
        folder: Folder of the search; created.
        head: Whose journal it is, in plain values: space, data, backbone, settings, seed.

    Raises:
        PyrafuseError: If another process writes to the folder, or it holds another search, naming what differs, or
            other things.
        DataError: If the journal is damaged, naming the line.
    """
    path = folder / JOURNAL_FILE
    wanted = {"journal": "pyrafuse search", "version": VERSION, **to_plain(plain(head))}
    check_folder(folder)
    with hold_folder(folder):
        try:
            try:
                path.touch()
                # without a buffer: what a full disk refuses must not be tried again when the file is closed
                stream = path.open("r+b", buffering=0)
            except OSError as error:
                raise _unwritable(path, error) from error
            with stream:
                with path.open("rb") as buffered:
                    trials, end = _read(path, buffered, wanted)
                cut = stream.seek(0, os.SEEK_END) - end
                stream.truncate(end)  # or the next line would be glued to it
                notice = f"{path}: the last line was cut off after {cut} bytes; it is passed over" if cut else ""
                if end == 0:
                    _append(stream, wanted, path)
                yield Journal(path, stream, trials, notice)
        finally:
            if path.is_file() and not path.stat().st_size:
                path.unlink()


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a search, before any work is done for it.

    Raises:
        PyrafuseError: If it does, or another process searches in it.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise PyrafuseError(f"{folder} is a file, and no folder: choose another --output")
    refuse_held(folder)
    others = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if others and not (folder / JOURNAL_FILE).exists():
        raise PyrafuseError(f"{folder} is there already and holds no search: choose another --output")


def read_trials(path: Path) -> tuple[Trial, ...]:
    """The trials of a journal that another process may be writing; a last line that is not whole is left aside.

    Raises:
        DataError: If it is not there, or damaged.
    """
    try:
        with path.open("rb") as stream:
            return tuple(_read(path, stream, None)[0])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(path: Path, stream: IO[bytes], wanted: Mapping[str, Any] | None) -> tuple[list[Trial], int]:
    """The trials, and where the last whole line ends."""
    if os.fstat(stream.fileno()).st_size > MAX_FILE_BYTES:
        raise DataError(f"{path} holds more than {MAX_FILE_BYTES >> 20} MiB, which no search writes: remove it")
    stream.seek(0)
    trials: list[Trial] = []
    end = 0
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), 1):
        if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
            break
        place = f"{path}, line {number}"
        values = _parse(line, place)
        if number == 1:
            _check_head(path, values, wanted)
        else:
            try:
                _read_event(values).apply(trials)
            except PyrafuseError as error:
                raise _damaged(place, str(error)) from error
        end += len(line)
    return trials, end


def _check_head(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> None:
    if found.get("journal") != "pyrafuse search":
        raise PyrafuseError(f"{path} is no journal of a search: choose another --output")
    if found.get("version") != VERSION:
        raise PyrafuseError(
            f"{path} has version {found.get('version')!r}, and {VERSION} is read here: choose another --output"
        )
    if wanted is not None and (difference := next(find_differences(found, wanted), "")):
        raise PyrafuseError(
            f"{path} is the journal of another search: {printable(difference, limit=400)}. Choose another --output, or "
            "ask for what is there"
        )


def _read_event(values: dict[str, Any]) -> _Event:
    name = values.pop("event", None)
    if not isinstance(name, str) or name not in _EVENTS:
        raise PyrafuseError(f"there is no event {name!r}")
    names = [field.name for field in fields(_EVENTS[name])]
    if set(values) != set(names):
        raise PyrafuseError(f"{name!r} holds {', '.join(names)}, not {', '.join(values)}")
    return create(_EVENTS[name], values)


def _parse(line: bytes, place: str) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _damaged(place, f"it is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        values = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(place, "it is no JSON") from error
    if not isinstance(values, dict):
        raise _damaged(place, "it is no JSON object")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _damaged(place: str, reason: str) -> DataError:
    return DataError(
        f"{place} is damaged ({printable(reason, limit=400)}): strike it and all below, or remove the file"
    )


def _append(stream: IO[bytes], values: Mapping[str, Any], path: Path) -> None:
    """Write a line that survives a crash of the machine; where the disk is full, no part of it stays."""
    before = stream.seek(0, os.SEEK_END)
    line = memoryview(json.dumps(values, allow_nan=False).encode() + b"\n")
    try:
        while line:
            line = line[stream.write(line) :]
        os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            stream.truncate(before)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> PyrafuseError:
    return PyrafuseError(f"cannot write {path}: {error.strerror or error}; free space, and the same command goes on")
