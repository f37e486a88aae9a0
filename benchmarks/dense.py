"""Time dense detectors on ResNet-50: forward passes, and a training step of DDOD, beside mmdetection where it is there.

    python benchmarks/dense.py [--runs 5] [--threads 2]

timm's resnet50 features run in the same process, in turn with ours, so that the ratio holds on any machine. With
mmdetection 3.x installed, its models of the same names run too. On two cores with torch 2.1 mmdetection 3.3 took
0.241 s (RetinaNet), 0.405 s (DDOD) and 0.415 s (RetinaNet with NAS-FPN) for a forward pass of one image of 416 px, and
2.744 s for a training step of DDOD with two images of 320 px and ten objects each.
"""

import argparse
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import timm
import torch

from pyrafuse import create_model
from pyrafuse.core.targets import Targets

FORWARD_PX = 416
TRAINING_PX = 320
MODELS = {
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "ddod": "ddod/ddod_r50_fpn_1x_coco.py",
    "retinanet_nas_fpn": "nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py",
}
"""Ours, and mmdetection's configuration of the same."""


def compare(works: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each; they take turns, so that whatever else the machine does hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(runs + 2):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def random_objects(batch_size: int, num_objects: int, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centers = torch.rand(batch_size, num_objects, 2, generator=generator) * size_px
    halves = torch.rand(batch_size, num_objects, 2, generator=generator) * 60 + 4
    boxes = torch.cat((centers - halves, centers + halves), dim=-1).clamp(0, size_px)
    return boxes, torch.randint(80, (batch_size, num_objects), generator=generator)


def create_theirs(config: str) -> torch.nn.Module | None:
    """The model of mmdetection with fresh weights; None where mmdetection is not installed."""
    if importlib.util.find_spec("mmdet") is None:
        return None
    folder = Path(str(importlib.import_module("mmdet").__file__)).parent / ".mim" / "configs"
    return importlib.import_module("mmdet.apis").init_detector(str(folder / config), None, device="cpu")


def their_step(model: torch.nn.Module, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> None:
    structures = importlib.import_module("mmdet.structures")
    instances = importlib.import_module("mmengine.structures").InstanceData
    side = images.shape[-1]
    samples = []
    for own_boxes, own_labels in zip(boxes, labels, strict=True):
        sample = structures.DetDataSample(
            metainfo={"img_shape": (side, side), "pad_shape": (side, side), "batch_input_shape": (side, side)}
        )
        sample.gt_instances = instances(bboxes=own_boxes, labels=own_labels)
        samples.append(sample)
    losses = model.loss(images, samples)  # type: ignore[operator]
    parts = [part for values in losses.values() for part in (values if isinstance(values, list) else [values])]
    model.zero_grad(set_to_none=True)
    torch.stack([part.sum() for part in parts]).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, after two that are not counted")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, float32, medians of {arguments.runs}")

    features = timm.create_model("resnet50", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    image = torch.randn(1, 3, FORWARD_PX, FORWARD_PX)
    works: dict[str, Callable[[], object]] = {"timm resnet50 features": lambda: features(image)}
    for name, config in MODELS.items():
        works[name] = partial(create_model(name, num_classes=80).eval(), image)
        if (theirs := create_theirs(config)) is not None:
            works[f"mmdetection {name}"] = partial(theirs.eval(), image, mode="tensor")
    with torch.inference_mode():
        seconds = compare(works, arguments.runs)
    base = seconds["timm resnet50 features"]
    print(f"forward, batch 1, {FORWARD_PX} px")
    for name, value in seconds.items():
        print(f"  {name:32} {value:8.3f} s  {value / base:5.2f} times timm's")

    boxes, labels = random_objects(2, 10, TRAINING_PX)
    images = torch.randn(2, 3, TRAINING_PX, TRAINING_PX)
    targets = Targets.pad(list(boxes), list(labels))
    detector = create_model("ddod", num_classes=80, backbone={"frozen_stages": 1, "norm_eval": True}).train()

    def step() -> None:
        detector.zero_grad(set_to_none=True)
        torch.stack(list(detector.criterion(detector(images), targets).values())).sum().backward()

    steps: dict[str, Callable[[], object]] = {"timm resnet50 features": lambda: features(image), "ddod": step}
    if (theirs := create_theirs(MODELS["ddod"])) is not None:
        steps["mmdetection ddod"] = partial(their_step, theirs.train(), images, boxes, labels)
    seconds = compare(steps, arguments.runs)
    print(f"training step, batch 2, {TRAINING_PX} px, 10 objects an image; timm's forward pass as above")
    for name, value in seconds.items():
        print(f"  {name:32} {value:8.3f} s  {value / seconds['timm resnet50 features']:5.2f} times timm's")


if __name__ == "__main__":
    main()
