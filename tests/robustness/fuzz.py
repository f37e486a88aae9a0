"""Random changes of good files, read by every reader: `python tests/robustness/fuzz.py --inputs 100000`.

For each input: an error is a `PyrafuseError`, nothing in it is run, no file outside its folder is opened or changed,
and time and memory are bounded. An input that breaks this is kept in `--output`; the last lines are a table. Inputs
depend on the seed and their number alone: `--reader NAME --first N --inputs 1` makes input N again.
"""

import argparse
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType
from typing import Any

import pyrafuse
from mutations import draw_values
from pyrafuse.base.errors import PyrafuseError
from readers import Reader, make_readers

NUM_VALUES = 300
"""Values that hypothesis draws, of which nodes of trees are taken."""

_WRITES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
}
_RUNS = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "pickle.",
    "socket.connect",
    "ctypes.dl",
)
_PLACES = tuple(
    os.path.realpath(place)
    for place in (
        sys.prefix,
        sys.base_prefix,
        Path(pyrafuse.__file__).parent,
        "/proc",
        "/sys",
        "/dev",
        "/usr",
        "/etc/mime.types",
    )
)


class TooSlowError(BaseException):
    """An input that takes more processor time than it may."""


@dataclass
class Outcome:
    """What a reader did with its inputs.

    Attributes:
        inputs: How many there were.
        refused: How many of them were refused.
        faults: Each fault with its kind and the number of its first input.
        num_faults: Inputs with a fault.
        longest_s: Longest processor time of one input.
        most_mb: Growth of the process at its peak.
    """

    inputs: int = 0
    refused: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    num_faults: int = 0
    longest_s: float = 0.0
    most_mb: float = 0.0

    @property
    def accepted(self) -> int:
        return self.inputs - self.refused - self.num_faults


class Watch:
    """Listens to what Python does while an input is read: files, processes, code."""

    def __init__(self, folder: Path, *, leads_elsewhere: bool) -> None:
        self._inside = (os.path.realpath(folder / "in"), *_PLACES, *(["/"] if leads_elsewhere else []))
        self.told: list[str] = []
        self.is_on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event == "open":
            self._judge(
                event, args[0], is_written="w" in (args[1] or "") or bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
            )
        elif event in _WRITES:
            self._judge(event, args[0], is_written=True)
        elif event.startswith(_RUNS):
            self.told.append(f"{event} {str(args)[:100]}")
        elif event == "exec" and isinstance(args[0], CodeType):
            file = args[0].co_filename
            if not file.startswith(("<", *_PLACES)):  # dataclasses and named tuples make code without a file
                self.told.append(f"exec {file}")

    def _judge(self, event: str, path: Any, *, is_written: bool) -> None:
        if not isinstance(path, str | bytes) or path == "<unknown>":  # where `ast.parse` looks for the line of an error
            return
        real = os.path.realpath(os.fsdecode(path))
        if real.startswith(self._inside[0]) or (not is_written and real.startswith(self._inside)):
            return
        self.told.append(f"{event} of {real[:100]!r}")


def fuzz(
    name: str,
    make: Any,
    *,
    inputs: int,
    seed: int,
    output: Path,
    first: int = 0,
    seconds: float = 10.0,
    megabytes: float = 1500.0,
    budget_s: float = float("inf"),
    values: list[Any] | None = None,
) -> Outcome:
    """Read ``inputs`` changed files in child processes, from number ``first`` on; a child that dies is replaced.

    Args:
        name: Name of the reader.
        make: What makes it in a folder.
        inputs: How many.
        seed: Seed of the changes.
        output: Folder of inputs with a fault; written only if there is one.
        first: Number of the first input.
        seconds: Processor time that an input may take.
        megabytes: Memory that the process may grow by.
        budget_s: Time after which no further input is read.
        values: What `draw_values` gave.
    """
    values = draw_values(NUM_VALUES) if values is None else values
    outcome, number, end = Outcome(), first, time.monotonic() + budget_s
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in").mkdir()
        reader = make(folder / "in")
        for each in reader.seeds:
            reader.read(each)  # what is refused here is no seed
        shared = mmap.mmap(-1, 16)
        while number < first + inputs and time.monotonic() < end:
            log = folder / "log.jsonl"
            log.unlink(missing_ok=True)
            if (child := os.fork()) == 0:
                _work(
                    name, reader, folder, range(number, first + inputs), seed, values, shared, seconds, megabytes, end
                )
            _, status = os.waitpid(child, 0)
            last = int.from_bytes(shared[:8], "little")
            told = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            if status:
                outcome.refused += int.from_bytes(shared[8:], "little")
                told.append({"number": last, "fault": f"the process ended with status {status}"})
            for line in told:
                _note(outcome, line, name, reader, seed, values, output)
            outcome.inputs += last + 1 - number
            number = last + 1
    return outcome


def _work(
    name: str,
    reader: Reader,
    folder: Path,
    numbers: range,
    seed: int,
    values: list[Any],
    shared: mmap.mmap,
    seconds: float,
    megabytes: float,
    end: float,
) -> None:
    """The child: reads inputs until all are read; never returns."""
    try:
        watch = Watch(folder, leads_elsewhere=reader.leads_elsewhere)
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        signal.signal(signal.SIGPROF, _stop)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)  # what does not come back to Python in three times as long
        begin = _peak_mb()
        limit = int((_size_mb() + megabytes) * 1e6)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        refused, longest = 0, 0.0
        with (folder / "log.jsonl").open("w") as log:
            for number in numbers:
                shared[:16] = number.to_bytes(8, "little") + refused.to_bytes(8, "little")
                data = reader.change(Random(f"{seed}/{name}/{number}"), values)
                fault = ""
                started = time.process_time()
                signal.setitimer(signal.ITIMER_PROF, seconds)
                signal.setitimer(signal.ITIMER_VIRTUAL, 3 * seconds)
                watch.is_on = True
                try:
                    reader.read(data)
                except PyrafuseError:
                    refused += 1
                except TooSlowError:
                    fault = f"takes more than {seconds:g} s"
                except BaseException as error:
                    where = traceback.extract_tb(error.__traceback__)
                    ours = next((f for f in reversed(where) if "pyrafuse" in f.filename), where[-1])
                    fault = f"{type(error).__name__} in {Path(ours.filename).name}:{ours.lineno}: {str(error)[:100]}"
                watch.is_on = False
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                longest = max(longest, time.process_time() - started)
                if watch.told:
                    fault = fault or watch.told[0]
                    watch.told.clear()
                if fault:
                    print(json.dumps({"number": number, "fault": fault}), file=log, flush=True)
                if time.monotonic() > end:
                    break
            print(json.dumps({"refused": refused, "longest": longest, "mb": _peak_mb() - begin}), file=log, flush=True)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _note(
    outcome: Outcome, line: dict[str, Any], name: str, reader: Reader, seed: int, values: list[Any], output: Path
) -> None:
    """Add a line of a child's log; the first input of each fault is kept."""
    if "fault" not in line:
        outcome.refused += line["refused"]
        outcome.longest_s = max(outcome.longest_s, line["longest"])
        outcome.most_mb = max(outcome.most_mb, line["mb"])
        return
    outcome.num_faults += 1
    if line["fault"] not in outcome.faults:
        outcome.faults[line["fault"]] = line["number"]
        output.mkdir(parents=True, exist_ok=True)
        data = reader.change(Random(f"{seed}/{name}/{line['number']}"), values)
        (output / f"{name.replace(' ', '_').replace(':', '')}-{line['number']}").write_bytes(data)


def _stop(*_: Any) -> None:
    raise TooSlowError


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _size_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize() / 1e6


def main() -> int:
    """Fuzz, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs a reader")
    parser.add_argument(
        "--reader", action="append", help="name of a reader; may be given several times; by default all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=10.0, help="processor time that an input may take")
    parser.add_argument("--megabytes", type=float, default=1500.0, help="memory that a process may grow by")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds a reader")
    parser.add_argument("--output", type=Path, default=Path("fuzz-faults"), help="folder of inputs with a fault")
    given = parser.parse_args()
    values, found, rows = draw_values(NUM_VALUES), Counter(), []
    for name, make in make_readers(given.reader).items():
        outcome = fuzz(
            name,
            make,
            inputs=given.inputs,
            seed=given.seed,
            output=given.output,
            first=given.first,
            seconds=given.seconds,
            megabytes=given.megabytes,
            budget_s=given.budget,
            values=values,
        )
        found[name] = outcome.num_faults
        for fault, number in list(outcome.faults.items())[:20]:
            print(f"{name}, input {number}: {fault}", flush=True)
        rows.append(
            f"| {name} | {outcome.inputs:,} | {outcome.refused:,} | {outcome.accepted:,} | {outcome.num_faults:,} "
            f"| {outcome.longest_s:.2f} | {outcome.most_mb:.0f} |"
        )
        print(rows[-1], flush=True)
    print("\n| reader | inputs | refused | accepted | faults | longest s | most MB |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    return int(bool(found.total()))


if __name__ == "__main__":
    raise SystemExit(main())
