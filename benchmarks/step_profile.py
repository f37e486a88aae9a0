"""Profile a training step of each detector: where its time goes, and how often the host waits for the device.

    python benchmarks/step_profile.py [MODEL ...] [--device cuda] [--size 256] [--objects 20] [--backbone resnet18]

On a GPU the waits are the synchronisations and the copies to the host that the profiler records. On a processor there
is nothing to wait for, and the operations that would wait are counted instead: those that hand a tensor's values, or a
shape that depends on them, to the host. ``aten::item`` of a number that never was on the device is not told apart, so
the count is an upper bound.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pyrafuse import create_model
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.targets import Targets
from pyrafuse.models.registry import MODELS as KNOWN

MODELS = (
    "retinanet", "libra_retinanet", "retinanet_nas_fpn", "ga_retinanet", "fcos", "atss", "ddod", "ddod_fcos",
    "efficientdet_d0", "ssd300", "m2det", "yolov3_asff", "yolov3_plain", "faster_rcnn", "libra_rcnn", "cascade_rcnn",
)  # fmt: skip
OWN_TRUNK = ("ssd300", "m2det", "yolov3_asff", "yolov3_plain")
"""Those that stand on another backbone than a ResNet."""
WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::unique", "aten::_unique2", "aten::bincount",
    "aten::masked_select", "torchvision::nms", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize",
}  # fmt: skip
STAGES = ("forward", "assignment and loss", "backward")


def create(name: str, backbone: str) -> torch.nn.Module:
    options: Mapping[str, Any] = {} if name in OWN_TRUNK else {"backbone": backbone}
    return create_model(name, num_classes=20, **options)


def random_targets(batch: int, objects: int, size: int) -> Targets:
    centers, halves = torch.rand(batch, objects, 2) * size, torch.rand(batch, objects, 2) * size / 8 + 4
    boxes = torch.cat((centers - halves, centers + halves), dim=-1).clamp(0, size)
    return Targets.pad(list(boxes), list(torch.randint(20, (batch, objects))))


def learn(detector: torch.nn.Module, images: torch.Tensor, targets: Targets) -> None:
    """One step, but for the optimiser's."""
    with record_function("forward"):
        predictions = detector(images, targets)
    with record_function("assignment and loss"):
        report = detector.criterion.by_level(predictions, targets)  # type: ignore[union-attr, operator]
        loss = torch.stack([values.sum() for values in report.losses.values()]).sum()
    with record_function("backward"):
        loss.backward()


def run(arguments: argparse.Namespace) -> None:
    number, size = arguments.objects, arguments.size
    print(f"torch {torch.__version__}, {arguments.device}, 2 images of {size} px, {number} objects each")
    print(f"{'':20}" + "".join(f"{stage:>22}" for stage in STAGES) + "  waits")
    for name in arguments.models:
        torch.manual_seed(0)
        detector = create(name, arguments.backbone).to(arguments.device).train()
        images = torch.randn(2, 3, size, size, device=arguments.device)
        targets = random_targets(2, number, size).to(arguments.device)
        learn(detector, images, targets)  # whatever is done once only
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
            learn(detector, images, targets)
            if arguments.device != "cpu":
                torch.cuda.synchronize()
        events = recorded.events() or []
        waits = Counter(event.name for event in events if event.name in WAITS or "DtoH" in event.name)
        if arguments.device != "cpu":
            waits["cudaDeviceSynchronize"] -= 1  # our own, at the end
        seconds = {event.name: event.cpu_time_total / 1e6 for event in events if event.name in STAGES}
        told = ", ".join(f"{number} x {kind}" for kind, number in sorted((+waits).items())) or "none"
        print(f"{name:20}" + "".join(f"{seconds[stage]:20.3f} s" for stage in STAGES) + f"  {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help="all by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=256, help="side of the input in pixels")
    parser.add_argument("--objects", type=int, default=20, help="in each of two images")
    parser.add_argument("--backbone", default="resnet18", help="of the detectors on a ResNet")
    arguments = parser.parse_args()
    try:
        for name in arguments.models:  # before hours of others
            KNOWN.get(name)
        run(arguments)
    except PyrafuseError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
