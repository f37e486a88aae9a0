"""Time YOLOv3 with ASFF on Darknet-53: forward, training step, and the share of assignment and loss.

    python benchmarks/yolov3_asff.py [--runs 5] [--threads 2]

timm's darknet53 features run in the same process, in turn with ours, so that the ratio holds on any machine. The
official code took 0.40 s for the forward pass and 3.79 s for the training step on two quiet cores; its forward pass
takes 2.4 to 2.6 times as long as timm's darknet53 features.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch

from pyrafuse import create_model
from pyrafuse.core.targets import Targets

SIZE = 416


def median_seconds(work: Callable[[], object], runs: int) -> float:
    work()
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def random_targets(batch_size: int, num_objects: int, num_classes: int) -> Targets:
    generator = torch.Generator().manual_seed(0)
    centers = torch.rand(batch_size, num_objects, 2, generator=generator) * SIZE
    halves = torch.rand(batch_size, num_objects, 2, generator=generator) * 60 + 4
    boxes = torch.cat((centers - halves, centers + halves), dim=-1).clamp(0, SIZE)
    labels = torch.randint(num_classes, (batch_size, num_objects), generator=generator)
    return Targets.pad(list(boxes), list(labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each, after two that are not counted")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    features = timm.create_model("darknet53", features_only=True, out_indices=(3, 4, 5)).eval()
    detector = create_model("yolov3_asff", num_classes=80).eval()
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        base = median_seconds(lambda: features(image), arguments.runs)
        forward = median_seconds(lambda: detector(image), arguments.runs)
        decode = median_seconds(lambda: detector.decode(image), arguments.runs)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {SIZE} px, float32, medians of {arguments.runs}")
    print(f"forward, batch 1, timm darknet53 features  {base:8.3f} s")
    print(f"forward, batch 1, yolov3_asff              {forward:8.3f} s  {forward / base:.2f} times timm's")
    print(f"forward and decode, batch 1, yolov3_asff   {decode:8.3f} s  {decode / base:.2f} times timm's")

    detector.train()
    images = torch.randn(2, 3, SIZE, SIZE)
    targets = random_targets(2, 20, 80)

    def step() -> None:
        detector.zero_grad(set_to_none=True)
        torch.stack(list(detector.criterion(detector(images), targets).values())).sum().backward()

    whole = median_seconds(step, arguments.runs)
    print(f"training step, batch 2, 20 objects an image {whole:7.3f} s  {whole / base:.2f} times timm's forward")

    with torch.no_grad():
        predictions = detector(images)
    leaves = [predictions.deltas, predictions.objectness, predictions.classes, predictions.guides]
    for leaf in leaves:
        leaf.requires_grad_()
    for num_objects in (1, 5, 20, 100, 500):
        crowd = random_targets(2, num_objects, 80)

        def loss(crowd: Targets = crowd) -> None:
            losses = torch.stack(list(detector.criterion(predictions, crowd).values())).sum()
            torch.autograd.grad(losses, leaves)

        seconds = median_seconds(loss, arguments.runs)
        share = 100 * seconds / whole
        print(f"assignment and loss, {num_objects:3d} objects an image {seconds:11.4f} s  {share:.1f} % of the step")


if __name__ == "__main__":
    main()
