"""A rare class: its AP with nothing done, with repeat-factor sampling, with class weights, and with both.

    python benchmarks/imbalance.py [--data shapes:train=200,val=100,size=128,rare=30] [--seeds 0,1,2] [--epochs 12]

The last class of the data is the rare one (`rare` of `shapes` makes it so; in validation all classes are alike). Every
variant is `pyrafuse train` with `--epochs`, which repeated images make longer: `longer` trains with nothing else for as
many steps as `repeated` does. Each line is the AP of the rare class and the mean of the others, a value a seed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.loading.balancing import count_images

THRESHOLD = 0.3


def train(data: str, output: Path, seed: int, epochs: int, options: list[str]) -> dict[str, float]:
    """AP of each class after a training."""
    command = [sys.executable, "-m", "pyrafuse", "train", data, "--seed", str(seed), "--epochs", str(epochs)]
    subprocess.run([*command, "--output", str(output), *options], check=True, stdout=subprocess.DEVNULL)
    result = json.loads((output / "results.json").read_text())
    return {row["name"]: row["ap"] for row in result["classes"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="shapes:train=200,val=100,size=128,rare=30")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--variants", default="nothing,longer,repeated,balanced,effective,both")
    parser.add_argument("--output", type=Path, default=Path("runs/imbalance"))
    given, options = parser.parse_known_args()
    images = read_splits(given.data).train
    ratio = count_images(images, THRESHOLD) / len(images)
    repeated = ["--data.repeat_threshold", str(THRESHOLD)]
    variants = {
        "nothing": (given.epochs, []),
        "longer": (round(given.epochs * ratio), []),
        "repeated": (given.epochs, repeated),
        "balanced": (given.epochs, ["--data.class_weights", "balanced"]),
        "effective": (given.epochs, ["--data.class_weights", "effective"]),
        "both": (given.epochs, [*repeated, "--data.class_weights", "balanced"]),
    }
    rare = images.names[-1]
    counts = [
        sum(int((record.labels == label).sum()) for record in images.records) for label in range(len(images.names))
    ]
    print(f"objects: {dict(zip(images.names, counts, strict=True))}; repeats make an epoch {ratio:.2f} times as long")
    for name in given.variants.split(","):
        epochs, changes = variants[name]
        found = [
            train(given.data, given.output / name / seed, int(seed), epochs, [*changes, *options])
            for seed in given.seeds.split(",")
        ]
        rares = [ap[rare] for ap in found]
        others = [mean(value for key, value in ap.items() if key != rare) for ap in found]
        words = [f"{mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})" for values in (rares, others)]
        print(f"{name:<20}{epochs:>3} epochs   {rare} {words[0]}   others {words[1]}", flush=True)


if __name__ == "__main__":
    main()
