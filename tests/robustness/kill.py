"""Kill commands at random moments and while they write, let them go on, and compare with an undisturbed run.

    python tests/robustness/kill.py --what train --kills 50 --seed 0

After every kill each file that has its name must be readable. In the end all of them must be those of the undisturbed
run, and nothing temporary may be left. Exits with 1 if anything was at fault.
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from forked_commands import Forked, start
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.storage import read_tensors
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.small import small
from pyrafuse.training.settings import to_plain
from whole_files import contents, find_differences, find_faults, find_leftovers

ENDED = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130,)}
"""Exit statuses of a command that a signal ended: its own, and that of one which came before the command began."""
WAYS = ("moment", "alone", "writing", "terminated", "interrupted")


class Subject(ABC):
    """A command that is killed.

    Attributes:
        root: Folder of what it reads, and of its results.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Write what the command reads."""

    @abstractmethod
    def words(self, place: Path) -> list[str]:
        """The command that begins, or goes on, in ``place``."""

    def begin(self, place: Path) -> None:
        """Make the folder of a run that is not begun."""
        place.mkdir()

    def is_done(self, place: Path) -> bool:
        """Whether all is there, although the command was killed."""
        return False

    def judge(self, place: Path, whole: Path) -> list[str]:
        """What a finished run has otherwise than the undisturbed one."""
        differing = find_differences(contents(place / "out"), contents(whole / "out"))
        return [f"{name} differs from that of the undisturbed run" for name in differing]

    def inspect(self, place: Path) -> list[str]:
        """What is wrong after a kill."""
        return find_faults(place)


class Train(Subject):
    """A training of four epochs with a process that loads."""

    def prepare(self) -> None:
        write_recipe(self.root / "tiny.yaml", epochs=4, workers=1)

    def words(self, place: Path) -> list[str]:
        out = place / "out"
        is_begun = (out / "last.ckpt").is_file()
        return [
            "train",
            *(["--resume"] if is_begun else ["--recipe", str(self.root / "tiny.yaml")]),
            "--output",
            str(out),
        ]

    def judge(self, place: Path, whole: Path) -> list[str]:
        return compare_runs(place / "out", whole / "out")


class Compare(Subject):
    """Two trainings, one after another, and what is told of both."""

    def prepare(self) -> None:
        write_recipe(self.root / "tiny.yaml", epochs=2, workers=0)

    def words(self, place: Path) -> list[str]:
        words = ["compare", DATA, "--recipe", str(self.root / "tiny.yaml"), "--seeds", "0", "--device", "cpu"]
        words += ["--vary", "slow: optimizer.lr=0.001", "--vary", "fast: optimizer.lr=0.01"]
        return [*words, "--output", str(place / "out")]

    def judge(self, place: Path, whole: Path) -> list[str]:
        runs = [path.parent.relative_to(whole / "out") for path in (whole / "out").rglob("results.json")]
        faults = [fault for run in runs for fault in compare_runs(place / "out" / run, whole / "out" / run)]
        told, expected = (
            {
                variant["name"]: variant["figures"]
                for variant in json.loads((folder / "out/comparison.json").read_text())["data"][0]["variants"]
            }
            for folder in (place, whole)
        )
        return [*faults, *([] if told == expected and len(runs) == 2 else ["the comparison tells other figures"])]


class Search(Subject):
    """A search of six seconds in this process."""

    def prepare(self) -> None:
        self._before: dict[Path, int] = {}

    def words(self, place: Path) -> list[str]:
        words = "--backbone resnet18 --weights none --sizes 64 --channels 16 --max-merges 12 --views 1 --rungs 1,2"
        return ["search", DATA, *words.split(), "--device", "cpu", "--minutes", "0.1", "--output", str(place / "out")]

    def inspect(self, place: Path) -> list[str]:
        """The journal may only grow."""
        journal = place / "out/journal.jsonl"
        lines = journal.read_bytes().count(b"\n") if journal.is_file() else 0
        before, self._before[place] = self._before.get(place, 0), lines
        return [*find_faults(place), *([f"the journal has {lines} lines, and had {before}"] if lines < before else [])]

    def judge(self, place: Path, whole: Path) -> list[str]:
        """Milliseconds, which differ, decide what is tried next: only what there is to be is compared."""
        missing = {"journal.jsonl", "search.html", "neck-1.yaml"} - {path.name for path in (place / "out").iterdir()}
        assert (whole / "out/neck-1.yaml").is_file()
        return [f"{name} is not there" for name in missing]


class Predict(Subject):
    """Predictions of thirty images and a video, in every format."""

    def prepare(self) -> None:
        write_checkpoint(self.root / "a.ckpt")
        images = self.root / "images"
        (images / "inner").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for number in range(30):
            place = images / ("inner" if number % 3 else "") / f"{number:03}.png"
            Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(place)
        frames = [Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(8)]
        frames[0].save(images / "clip.gif", save_all=True, append_images=frames[1:], duration=100)

    def words(self, place: Path) -> list[str]:
        words = ["predict", str(self.root / "a.ckpt"), str(self.root / "images"), "--score", "0.1", "--crop"]
        words += ["--formats", "image,json,coco,yolo", "--max-detections", "3", "--device", "cpu"]
        return [*words, "--output", str(place / "out")]

    def begin(self, place: Path) -> None:
        """An earlier prediction of other images is there."""
        place.mkdir()
        other = self.root / "other.png"
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)).save(other)
        words = [str(other) if word == str(self.root / "images") else word for word in self.words(place)]
        assert start(words, place / "log").wait() == 0


class Convert(Subject):
    """A data set written as YOLO: whole, or not there."""

    def prepare(self) -> None:
        self._whole: dict[str, bytes] = {}

    def words(self, place: Path) -> list[str]:
        return ["data", "convert", "shapes:train=24,val=8,size=64", str(place / "out"), "--to", "yolo", "--allow-loss"]

    def is_done(self, place: Path) -> bool:
        return (place / "out").is_dir()

    def inspect(self, place: Path) -> list[str]:
        if (place / "out").exists() and contents(place / "out") != contents(place.parent / "whole/out"):
            return ["half of the data set has its name"]
        return []


class Export(Subject):
    """A graph in the place of an earlier one: that, or the new one."""

    def prepare(self) -> None:
        write_checkpoint(self.root / "a.ckpt")
        assert start(self._words(self.root / "earlier.onnx", 0.3), self.root / "log").wait() == 0

    def _words(self, path: Path, score: float) -> list[str]:
        return ["export", str(self.root / "a.ckpt"), "-o", str(path), "--score", str(score)]

    def words(self, place: Path) -> list[str]:
        return self._words(place / "out/a.onnx", 0.1)

    def begin(self, place: Path) -> None:
        (place / "out").mkdir(parents=True)
        (place / "out/a.onnx").write_bytes((self.root / "earlier.onnx").read_bytes())

    def inspect(self, place: Path) -> list[str]:
        known = (self.root / "earlier.onnx", place.parent / "whole/out/a.onnx")
        is_known = without_date(place / "out/a.onnx") in map(without_date, known)
        return [] if is_known else ["a.onnx is neither the earlier nor the new one"]

    def judge(self, place: Path, whole: Path) -> list[str]:
        one, other = (without_date(folder / "out/a.onnx") for folder in (place, whole))
        return [] if one == other else ["a.onnx differs from that of the undisturbed run"]


DATA = "shapes:train=8,val=4,size=64"
SUBJECTS = {
    "train": Train,
    "compare": Compare,
    "search": Search,
    "predict": Predict,
    "convert": Convert,
    "export": Export,
}


def without_date(path: Path) -> bytes:
    """What an exported file holds, but for the second in which it was written."""
    return re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", b"", path.read_bytes())


def write_recipe(path: Path, *, epochs: int, workers: int) -> None:
    """Write the recipe of a tiny training."""
    base = small()
    tiny = {"backbone": {"width": 0.125}, "necks": {"fpn": {"out_channels": 8}}, "head": {"branches": 8}}
    plain = to_plain(
        replace(
            base,
            model=replace(base.model, name="yolov3_small", options=tiny),
            data=replace(base.data, path=DATA, size=64, workers=workers),
            run=replace(
                base.run, epochs=epochs, batch_size=2, evaluate_every=2, accelerator="cpu", precision="32", loggers=()
            ),
        )
    )
    path.write_text(yaml.safe_dump(plain))


def write_checkpoint(path: Path) -> None:
    """Write a detector that was never trained."""
    torch.manual_seed(0)
    detector = create_model(
        "yolov3_asff",
        num_classes=1,
        backbone={"width": 0.25, "depths": [1, 1, 1, 1, 1]},
        necks={"yolo_fpn": {"width": 0.125}, "asff": {"out_channels": [16, 24, 32]}},
        head={"adaption": False},
    )
    detector.card = replace(detector.card, names=("cell",), preprocessing=Preprocessing(size=(64, 64)))
    save(detector, path)


def compare_runs(found: Path, expected: Path) -> list[str]:
    """What the run in ``found`` has otherwise: weights, bit for bit, and results."""
    faults = []
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (read_tensors(folder / name)["state_dict"] for folder in (found, expected))
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            faults.append(f"{found.name}/{name} holds other weights")
    faults += [
        f"{found.name}/{name} differs"
        for name in ("results.json", "metrics.csv")
        if (found / name).read_bytes() != (expected / name).read_bytes()
    ]
    return faults


@dataclass
class Tally:
    """What was counted.

    Attributes:
        what: Name of the command.
        kills: Processes ended by a signal, by the way in which.
        writing: Kills while a temporary file was there.
        runs: Runs that were ended at least once, and went on to their end.
        equal: Number of killed runs that ended as the undisturbed one.
        faults: What went wrong, a sentence each.
    """

    what: str
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))
    writing: int = 0
    runs: int = 0
    equal: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())


def disturb(process: Forked, place: Path, way: str, moment: float) -> int:
    """End ``process`` after ``moment`` seconds in one of `WAYS`; gives the signal, 0 if it had ended before."""
    due = time.monotonic() + moment
    if not process.wait_until(lambda: time.monotonic() >= due):
        return 0
    if way == "writing" and not process.wait_until(lambda: is_writing(place)):
        return 0
    number = {"terminated": signal.SIGTERM, "interrupted": signal.SIGINT}.get(way, signal.SIGKILL)
    if way in ("alone", "writing"):
        process.send_signal(number)
    else:
        process.signal_group(number)
    return number


def is_writing(place: Path) -> bool:
    """Whether a temporary file or folder is below ``place``."""
    return any(name.endswith(".part") for _, folders, files in os.walk(place) for name in (*folders, *files))


def kill(what: str, root: Path, *, kills: int, seed: int) -> Tally:
    """Kill one command ``kills`` times, in as many runs as that takes."""
    rng, tally = random.Random(seed), Tally(what)
    subject = SUBJECTS[what](root)
    whole = root / "whole"
    subject.begin(whole)
    began = time.monotonic()
    if start(subject.words(whole), log := root / "log").wait():
        raise SystemExit(f"the undisturbed {what} failed:\n{log.read_text()}")
    took = time.monotonic() - began
    print(f"{what}: undisturbed {took:.1f} s", flush=True)
    number = 0
    while tally.total < kills and len(tally.faults) < 10:
        number += 1
        place = root / f"run-{number}"
        subject.begin(place)
        _run_killed(subject, place, tally, rng, took=took, kills=kills, log=log)
    return tally


def _run_killed(
    subject: Subject, place: Path, tally: Tally, rng: random.Random, *, took: float, kills: int, log: Path
) -> None:
    """One run, killed again and again until it reaches its end."""
    before, whole = tally.total, place.parent / "whole"
    while not subject.is_done(place):
        log.unlink(missing_ok=True)
        process = start(subject.words(place), log)
        way, number = rng.choice(WAYS), 0
        if tally.total < kills:
            number = disturb(process, place, way, rng.uniform(0, took))
        was_writing = number == signal.SIGKILL and is_writing(place)
        status = process.wait()
        told = log.read_text(errors="replace") if log.exists() else ""
        faults = subject.inspect(place)
        if "Traceback" in told or status not in (0, *ENDED.get(signal.Signals(number), ())) if number else status:
            faults.append(f"exit status {status} after {way if number else 'no signal'}: {told[-1500:]}")
        tally.faults += [f"{place.name}: {fault}" for fault in faults]
        if number and status != 0:
            tally.kills[way] += 1
            tally.writing += was_writing
            print(f"{tally.what}: kill {tally.total}, {way}{' while writing' * was_writing}", flush=True)
        if status == 0:
            break
        if faults:
            return
    faults = [*subject.judge(place, whole), *(f"{name} is left over" for name in find_leftovers(place))]
    tally.faults += [f"{place.name}: {fault}" for fault in faults]
    if tally.total > before:
        tally.runs += 1
        tally.equal += not faults


def main() -> int:
    """Kill what the command line names, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default=",".join(SUBJECTS), help=f"of {', '.join(SUBJECTS)}; by default all")
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a new folder that everything stays in; by default nothing does")
    options = parser.parse_args()
    tallies = []
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        os.environ["PYRAFUSE_CACHE"] = str(root / "cache")
        for what in options.what.split(","):
            tallies.append(kill(what, root / what, kills=options.kills, seed=options.seed))
            tell(tallies[-1:])
    print()
    tell(tallies)
    return int(any(tally.faults for tally in tallies))


def tell(tallies: list[Tally]) -> None:
    """Print a table, and each fault."""
    print("command  kills  while writing  runs killed  equal  faults")
    for tally in tallies:
        ways = ", ".join(f"{count} {way}" for way, count in tally.kills.items())
        counts = f"{tally.total:5}  {tally.writing:13}  {tally.runs:11}  {tally.equal:5}  {len(tally.faults):6}"
        print(f"{tally.what:7}  {counts}  ({ways})", flush=True)
    for tally in tallies:
        for fault in tally.faults:
            print(f"{tally.what}: {fault}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
