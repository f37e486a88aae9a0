"""Resident memory after many images: ``detector.predict(folder)`` from Python, and `pyrafuse predict MODEL FOLDER`.

    python benchmarks/memory.py [--images 500 3000] [--size 96]

Each measurement runs in a process of its own over the same generated pictures, and prints the memory that the process
holds at its end and held at most, in MiB. Linux alone tells of another process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve()
MODEL = "yolov3_small"
POLL_S = 0.05


def write_images(folder: Path, count: int, size_px: int) -> None:
    """Pictures of coloured squares, each of a size of its own within a third of ``size_px``."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        height, width = generator.integers(size_px * 2 // 3, size_px * 4 // 3, 2).tolist()
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / f"{number:05}.png"), picture)


def write_model(path: Path, size_px: int) -> None:
    """A detector with fresh weights."""
    from dataclasses import replace

    import torch

    from pyrafuse import create_model

    torch.manual_seed(0)
    detector = create_model(MODEL, num_classes=3)
    preprocessing = detector.card.preprocessing.at_size((size_px + 31) // 32 * 32)
    detector.card = replace(detector.card, preprocessing=preprocessing, names=("a", "b", "c"))
    detector.save(path)


def predict_all(model: Path, folder: Path) -> None:
    """Predict from Python and drop what is found."""
    from pyrafuse import load

    for _ in load(model).predict(folder, score=0.01):
        pass


def held_mib(process: int) -> tuple[float, float]:
    """What the process holds, and held at most; zeros once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    kib = {name: float(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    return kib.get("VmRSS", 0) / 1024, kib.get("VmHWM", 0) / 1024


def measure(command: list[str]) -> tuple[float, float, float]:
    """MiB held by the command at its end, MiB held at most, and seconds."""
    start = time.perf_counter()
    last, most = 0.0, 0.0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        while process.poll() is None:
            now, highest = held_mib(process.pid)
            last, most = now or last, max(most, highest)
            time.sleep(POLL_S)
        said.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}: {said.read()}")
    return last, most, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 3000], help="numbers of images")
    parser.add_argument("--size", type=int, default=96, help="side of the pictures and of the input, in pixels")
    parser.add_argument("--predict", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        predict_all(*arguments.predict)
        return
    if not os.path.exists("/proc/self/status"):
        parser.error("memory is read from /proc, which this system does not have: run it on Linux")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        model = root / "model.ckpt"
        write_model(model, arguments.size)
        print(f"{'way':28} {'images':>7} {'end MiB':>9} {'most MiB':>9} {'s':>7}")
        for count in arguments.images:
            folder = root / f"images_{count}"
            write_images(folder, count, arguments.size)
            shell = [sys.executable, "-m", "pyrafuse", "predict", str(model), str(folder), "--score", "0.01"]
            ways = {
                "detector.predict(folder)": [sys.executable, str(HERE), "--predict", str(model), str(folder)],
                "pyrafuse predict": [*shell, "--device", "cpu", "--output", str(root / f"found_{count}")],
            }
            for way, command in ways.items():
                last, most, seconds = measure(command)
                print(f"{way:28} {count:7} {last:9.1f} {most:9.1f} {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
