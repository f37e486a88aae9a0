"""A first training beside torchvision's FCOS: the same weights, the same wall time, the median of seeds.

    python benchmarks/first_training.py DATA [DATA ...] [--seeds 0,1,2] [--size 416] [--epochs 30] [--output runs/first]

Ours is `pyrafuse train DATA` without another option (`--size` and `--epochs` shorten both sides). Theirs is
`torchvision.models.detection.FCOS` on torchvision's MobileNetV2, with the weights that come with pyrafuse and an FPN of
128 channels at strides 8 to 128, put together as its FCOS on ResNet-50. It learns for as many seconds as our whole
command took, its own evaluation apart: AdamW with a warm-up and half a cosine over the time, images flipped, read and
fitted by our loader, so that both sides see the same pixels. Both are evaluated by the same code on the validation
split after the last step; best checkpoints are not used. Nothing else should run on the machine.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torchvision.models import mobilenet_v2
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pyrafuse.backbones.weights import read_published
from pyrafuse.base.detections import Detections
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.targets import Batch
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.data.loading.loaders import create_eval_loader, create_train_loader, default_num_workers
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.recipes.small import small
from pyrafuse.training.settings import DEFAULT_SIZE

WEIGHTS = "pyrafuse/mobilenet_v2"
TAPS = {"6": "0", "13": "1", "17": "2"}
"""Layer of MobileNetV2 -> level, at strides 8, 16 and 32."""

CHANNELS = (32, 96, 320)
BATCH, RATE, DECAY, WARM_UP = 8, 1e-3, 0.05, 0.05


class Fitted(FCOS):
    """torchvision's FCOS without its own resizing and normalisation: images come as the network's input."""

    def __init__(self, num_classes: int, size: int) -> None:
        trunk = mobilenet_v2(weights=None)
        trunk.load_state_dict(read_published(WEIGHTS), strict=False)  # batches are not counted in the file
        pyramid = BackboneWithFPN(trunk.features, TAPS, list(CHANNELS), 128, extra_blocks=LastLevelP6P7(128, 128))
        anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
        super().__init__(
            pyramid,
            num_classes,
            anchor_generator=anchors,
            min_size=size,
            max_size=size,
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
            score_thresh=0.001,
            fixed_size=(size, size),
        )


def targets_of(batch: Batch) -> list[dict[str, Tensor]]:
    """The objects of each image, as torchvision takes them."""
    targets = batch.targets
    rows = targets.valid & ~targets.crowd
    return [
        {"boxes": boxes[row], "labels": labels[row].long()}
        for boxes, labels, row in zip(targets.boxes, targets.labels, rows, strict=True)
    ]


def batches_of(splits: Splits, preprocessing: Preprocessing, seed: int) -> Iterator[tuple[Tensor, list]]:
    """Batches without end, flipped by chance."""
    loader = create_train_loader(
        splits.train,
        preprocessing=preprocessing,
        augmentation=replace(Augmentation.none(), flip_probability=0.5),
        batch_size=min(BATCH, len(splits.train)),
        num_workers=default_num_workers(),
        seed=seed,
    )
    epoch = 0
    while True:
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for batch in loader:
            yield normalize(preprocessing, batch.images, batch.sizes), targets_of(batch)
        epoch += 1


def train_theirs(splits: Splits, *, size: int, seed: int, seconds: float) -> tuple[Fitted, int]:
    """Torchvision's FCOS after ``seconds`` of learning, and its steps."""
    torch.manual_seed(seed)
    model = Fitted(len(splits.train.names), size).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    began, steps = time.monotonic(), 0
    for images, targets in batches_of(splits, Preprocessing(size=(size, size)), seed):
        share = (time.monotonic() - began) / seconds
        if share >= 1:
            break
        factor = min(1.0, share / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = RATE * max(factor, 0.01)
        loss = torch.stack(list(model(list(images), targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0)
        optimizer.step()
        steps += 1
    return model.eval(), steps


@torch.inference_mode()
def evaluate_theirs(model: Fitted, splits: Splits, *, size: int) -> dict[str, float]:
    """COCO's figures of ``model`` on the validation split, by our evaluator."""
    preprocessing = Preprocessing(size=(size, size))
    evaluator = CocoEvaluator(splits.val)
    for item in create_eval_loader(splits.val, preprocessing=preprocessing, batch_size=8, num_workers=0):
        images = normalize(preprocessing, item.batch.images, item.batch.sizes)
        found = model(list(images))
        records = [splits.val.records[i] for i in item.batch.indices.tolist()]
        sides = [torch.tensor([r.width, r.height, r.width, r.height]) / size for r in records]  # stretched to a square
        rows = [
            Detections(f["boxes"] * side, f["scores"], f["labels"], torch.zeros_like(f["labels"]))
            for f, side in zip(found, sides, strict=True)
        ]
        evaluator.update(item.batch.indices.tolist(), rows)
    result = evaluator.compute()
    return {"ap": result.ap, "ap50": result.ap50, "ap_small": result.ap_small}


def train_ours(data: str, folder: Path, *, words: Sequence[str], seed: int) -> tuple[dict[str, float], float]:
    """COCO's figures after the last epoch of `pyrafuse train DATA`, and the seconds of the whole command."""
    began = time.monotonic()
    command = ["-m", "pyrafuse", "train", data, "--output", str(folder), "--seed", str(seed), *words]
    subprocess.run([sys.executable, *command], check=True)
    seconds = time.monotonic() - began
    rows = (folder / "metrics.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    return {name: float(last[f"val/{name}"]) for name in ("ap", "ap50", "ap_small")}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--size", type=int, help=f"of both, in pixels; {DEFAULT_SIZE} by default")
    parser.add_argument("--epochs", type=int, help=f"of ours; {small().run.epochs} by default")
    parser.add_argument("--output", type=Path, default=Path("runs/first"))
    arguments = parser.parse_args()
    given = {"--size": arguments.size, "--epochs": arguments.epochs}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    size, summary = arguments.size or DEFAULT_SIZE, []
    for number, data in enumerate(arguments.data):
        rows = []
        for seed in map(int, arguments.seeds.split(",")):
            splits = read_splits(data, seed=seed)
            ours, seconds = train_ours(data, arguments.output / f"{number}-{seed}", words=words, seed=seed)
            model, steps = train_theirs(splits, size=size, seed=seed, seconds=seconds)
            theirs = evaluate_theirs(model, splits, size=size)
            rows.append({"seed": seed, "seconds": seconds, "steps": steps, "ours": ours, "theirs": theirs})
            print(json.dumps(rows[-1]), flush=True)
        middle = {side: {key: median(row[side][key] for row in rows) for key in ours} for side in ("ours", "theirs")}
        summary.append({"data": data, "seconds": median(row["seconds"] for row in rows), **middle})
    print("\n| data | wall time, s | detector | AP | AP50 | AP small |\n|---|---|---|---|---|---|")
    for row in summary:
        for side, name in (("ours", "pyrafuse train DATA"), ("theirs", "torchvision's FCOS")):
            figures = " | ".join(f"{row[side][key]:.3f}" for key in ("ap", "ap50", "ap_small"))
            print(f"| {Path(row['data']).name} | {row['seconds']:.0f} | {name} | {figures} |")


if __name__ == "__main__":
    main()
