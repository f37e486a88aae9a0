"""Small objects in large images: AP and images a second of one detector with and without tiles.

    python benchmarks/tiling.py [--data shapes:train=24,val=12,size=768,smaller=6] [--tile 128] [--size 128]

The detector learns on tiles (`pyrafuse train --tile`), or is given as `--model FILE`, and is evaluated on whole images
in the ways that `pyrafuse evaluate` has. Further options are given to the training. Images a second are those of this
machine, reading included.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from pyrafuse.base.views.cutting import Views
from pyrafuse.base.views.detecting import in_views
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.importers.loading import load
from pyrafuse.inference.evaluating import detect_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes:train=24,val=12,size=768,smaller=6")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--model", help="a checkpoint to evaluate, instead of a training")
    parser.add_argument("--output", type=Path, default=Path("runs/tiling"))
    given, options = parser.parse_known_args()
    if given.model is None:
        train = [sys.executable, "-m", "pyrafuse", "train", given.data, "--tile", str(given.tile)]
        train += ["--size", str(given.size), "--epochs", str(given.epochs), "--output", str(given.output), *options]
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
    detector = load(given.model or given.output / "best.ckpt")
    data = read_splits(given.data).val
    tile = given.tile
    ways = {
        "whole images": Views(),
        "tiles, overlap 0": Views(tile=tile, overlap=0.0),
        "tiles, overlap 0.2": Views(tile=tile),
        "tiles, overlap 0.2, wbf": Views(tile=tile, merge="wbf"),
        "tiles, overlap 0.5": Views(tile=tile, overlap=0.5),
        "tiles and the whole image": Views(tile=tile, whole=True),
        "tiles, flipped too": Views(tile=tile, flip=True),
        "tiles, flipped too, wbf": Views(tile=tile, flip=True, merge="wbf"),
    }
    for name, views in ways.items():
        began = time.perf_counter()
        result = detect_all(in_views(detector, views), data).compute()
        rate = len(data) / (time.perf_counter() - began)
        print(f"{name:<26} AP {result.ap:.3f}  AP50 {result.ap50:.3f}  {rate:6.2f} images/s", flush=True)


if __name__ == "__main__":
    main()
