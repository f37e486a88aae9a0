"""Time each stage of the loader on one core: reading, decoding, every kind of variation, fitting, batches.

    python benchmarks/loading.py DATA [--size 416] [--images 32] [--rounds 5]

Milliseconds of process time an image, and images a second of one core. The stages take turns over the same images. A
variation is made to every image, and fitted.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from pyrafuse.base.images.reading import read_image
from pyrafuse.base.members import read_bytes
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.data.augment.mixing import mixup, mosaic
from pyrafuse.data.augment.operations import augment
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.loading.loaders import collate
from pyrafuse.inference.turns import take_turns
from pyrafuse.recipes.registry import RECIPES

PLAIN = Augmentation.none()
VARIATIONS = {
    "colour, fitting": {"color_probability": 1.0},
    "canvas, fitting": {"expand_probability": 1.0},
    "patch, fitting": {"crop_probability": 1.0},
    "flip, fitting": {"flip_probability": 1.0},
    "affine, fitting": {"affine_probability": 1.0},
}


def stages(data: DetectionData, size: int) -> dict[str, Callable[[], object]]:
    """Work over all images of ``data``, by name."""
    preprocessing = Preprocessing(size=(size, size))
    samples = [Sample.of(record, read_image(record.path)) for record in data.records]
    pairs = list(zip(samples, samples[1:] + samples[:1], strict=True))
    fills = preprocessing.fill_color()

    def vary(settings: Augmentation) -> list[Sample]:
        generator = np.random.default_rng(0)
        return [augment(sample, preprocessing, settings, generator) for sample in samples]

    fitted = list(enumerate(vary(PLAIN)))
    batches = [fitted[first : first + 8] for first in range(0, len(fitted), 8)]
    return {
        "reading": lambda: [read_bytes(record.path) for record in data.records],
        "reading and decoding": lambda: [read_image(record.path) for record in data.records],
        "fitting": partial(vary, PLAIN),
        **{name: partial(vary, replace(PLAIN, **settings)) for name, settings in VARIATIONS.items()},
        "mixup": lambda: [mixup(*pair, 0.5) for pair in pairs],
        "mosaic": lambda: [mosaic([*pair, *pair], (size, size), fills, np.random.default_rng(0)) for pair in pairs],
        "batches of 8": lambda: [collate(batch) for batch in batches],
        "all of the recipe small": partial(vary, RECIPES.create("small").augmentation),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    data = read_split(arguments.data, "train").data
    data = replace(data, records=data.records[: arguments.images])
    times = take_turns(stages(data, arguments.size), rounds=arguments.rounds, warmup=1, clock=time.process_time)
    per_image = {name: median(values) / len(data) for name, values in times.items()}
    print(f"{'stage':<24}  ms an image  images a second")
    for name, ms in per_image.items():
        print(f"{name:<24}  {ms:11.2f}  {1000 / ms:15.0f}")


if __name__ == "__main__":
    main()
