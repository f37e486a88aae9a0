"""Time this version of pyrafuse beside another checkout of it: predict, evaluate and a training step.

    python benchmarks/versions.py OLD_CHECKOUT [--runs 15] [--works NAME ...] [--threads 1]

Each version runs in a process of its own with the same weights and images, and they take turns run by run. The times
are process time, so that other programs on the machine hardly count. The ratio is new over old: of the fastest runs,
and the median of the turns' ratios. Weights are fresh: few candidates pass the threshold of ``predict``, five images a
run, and nearly all pass that of ``evaluate``, 32 images a run. A step has two images of ten objects each.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve()
SIZE_PX = 320
MODELS = {
    "retinanet": ("retinanet", {"backbone": "resnet18"}),
    "yolov3_small": ("yolov3_small", {}),
    "efficientdet_d0": ("efficientdet_d0", {}),
}
EVALUATION_DATA = f"shapes:train=8,val=32,size={SIZE_PX}"
SHAPES = 5
"""Classes of these data."""
WORKS = (
    *(f"predict {name}" for name in MODELS),
    *(f"evaluate {name}" for name in MODELS),
    "step yolov3_small",
    "step retinanet",
)


def create(name: str, *, num_classes: int):
    """One of MODELS with the same fresh weights in every version, at SIZE_PX."""
    from dataclasses import replace

    import torch

    from pyrafuse import create_model

    torch.manual_seed(0)
    model, options = MODELS[name]
    detector = create_model(model, num_classes=num_classes, **options).eval()
    detector.card = replace(detector.card, preprocessing=detector.card.preprocessing.at_size(SIZE_PX))
    return detector


def create_work(work: str) -> Callable[[], object]:
    """What is timed under the name ``work``."""
    import numpy as np
    import torch

    from pyrafuse.core.targets import Targets

    kind, name = work.split(" ")
    detector = create(name, num_classes=SHAPES if kind == "evaluate" else 80)
    if kind == "predict":
        image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
        return lambda: [list(detector.predict(image, score=0.05)) for _ in range(5)]
    if kind == "evaluate":
        return lambda: detector.evaluate(EVALUATION_DATA, workers=0, batch=8)
    images = torch.randn(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0))
    corners = torch.rand(2, 10, 2, generator=torch.Generator().manual_seed(1)) * (SIZE_PX - 100)
    boxes = torch.cat((corners, corners + 20 + 4 * torch.arange(20.0).view(2, 10, 1)), dim=-1)
    targets = Targets.pad(list(boxes), list(torch.arange(20).view(2, 10) % 3))
    detector.train()

    def step() -> None:
        detector.zero_grad(set_to_none=True)
        torch.stack(list(detector.criterion(detector(images, targets), targets).values())).sum().backward()

    return step


def serve(threads: int) -> None:
    """Run what standard input names, line by line, and print the seconds of process time that each run took."""
    import torch

    import pyrafuse

    torch.set_num_threads(threads)
    print(pyrafuse.__file__, flush=True)
    works: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in works:
            works = {name: create_work(name)}
            works[name]()
            gc.collect()
            gc.freeze()  # a full collection walks all that torch has imported, 0.2 s in whichever run it falls
        start = time.process_time()
        works[name]()
        print(time.process_time() - start, flush=True)


class Version:
    """A checkout of pyrafuse at work in a process of its own."""

    def __init__(self, checkout: Path, threads: int) -> None:
        source = (checkout / "src").resolve()
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--serve", "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        imported = Path(self._answer())
        if source not in imported.parents:
            raise SystemExit(f"{imported} was imported instead of the checkout at {checkout}: give its root folder")

    def time(self, work: str) -> float:
        """Seconds of process time of one run."""
        assert self._process.stdin is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a version ended before its time; its message is above")
        return line.strip()


def compare(old: Version, new: Version, works: list[str], runs: int) -> None:
    """Print a row for each work."""
    print(f"{'work':28} {'old s':>8} {'new s':>8} {'fastest':>8} {'median':>8}")
    for work in works:
        turns: list[tuple[float, float]] = []
        for turn in range(runs + 2):
            if turn % 2:
                first = new.time(work)
                seconds = (old.time(work), first)
            else:
                seconds = (old.time(work), new.time(work))
            if turn >= 2:
                turns.append(seconds)
        before, after = (min(column) for column in zip(*turns, strict=True))
        median = statistics.median(b / a for a, b in turns)
        print(f"{work:28} {before:8.3f} {after:8.3f} {after / before:8.3f} {median:8.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, nargs="?", help="root folder of the other checkout")
    parser.add_argument("--runs", type=int, default=15, help="timed turns of each, after two that are not counted")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.threads)
        return
    if arguments.old is None or not (arguments.old / "src" / "pyrafuse").is_dir():
        parser.error(f"OLD_CHECKOUT is the root folder of another checkout, with src/pyrafuse; given: {arguments.old}")
    versions = [Version(checkout, arguments.threads) for checkout in (arguments.old, HERE.parents[1])]
    try:
        compare(versions[0], versions[1], arguments.works, arguments.runs)
    finally:
        for version in versions:
            version.close()


if __name__ == "__main__":
    main()
