"""All that needs a GPU, in under eight minutes: waits of the host, latencies, bf16, training, equality of outputs.

    python benchmarks/on_gpu.py [--json FILE] [--dry]

Each section ends with a sentence that says whether it holds; the status is 1 if one does not. The sections end by
themselves when the time is used up, and say so. ``--dry`` runs them on a processor with a tiny model, to see that the
script works; its figures mean nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyrafuse import create_model
from pyrafuse.core.devices import describe_device
from pyrafuse.core.targets import Targets
from pyrafuse.inference.dissecting import measure_peak
from pyrafuse.inference.measuring import count_gflops, time_in_turns
from pyrafuse.inference.turns import compare_in_pairs
from pyrafuse.models.detector import Detector

BUDGET_S = 7 * 60
"""The script ends within eight minutes, compilations that have begun included."""

TINY = {"backbone": {"width": 0.25}}


@dataclass(frozen=True)
class Plan:
    """What is measured: on which device, which model, and how large."""

    device: torch.device
    model: str
    options: dict[str, Any]
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    is_dry: bool
    start: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.start > BUDGET_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--dry", action="store_true", help="a tiny model on a processor")
    arguments = parser.parse_args()
    if not arguments.dry and not torch.cuda.is_available():
        print("no GPU here: run this where there is one, or --dry to see that the script works", file=sys.stderr)
        return 2
    start = time.monotonic()
    if arguments.dry:
        plan = Plan(torch.device("cpu"), "yolov3_asff_small", TINY, (64,), (1, 2), 2, is_dry=True, start=start)
    else:
        plan = Plan(torch.device("cuda"), "yolov3_asff", {}, (608, 800), (1, 32), 20, is_dry=False, start=start)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(describe_device(plan.device))
    told: dict[str, Any] = {"device": describe_device(plan.device), "dry": plan.is_dry}
    sections: dict[str, Callable[[Plan], dict[str, Any]]] = {
        "waits": look_for_waits,
        "equality": compare_outputs,
        "training": time_training,
        "forward": time_forward,
    }
    for name, section in sections.items():
        if plan.is_over:
            print(f"{name}: left out, {BUDGET_S} s are over")
            told[name] = {"holds": False, "left_out": True}
            continue
        told[name] = section(plan)
        if arguments.json:
            with open(arguments.json, "w", encoding="utf-8") as stream:
                json.dump(told, stream, indent=1)
    print(f"{time.monotonic() - start:.0f} s in all")
    return int(not all(told[name]["holds"] for name in sections))


def build(plan: Plan) -> Detector:
    """The model, with the same random weights each time."""
    torch.manual_seed(0)
    return create_model(plan.model, num_classes=80, **plan.options).eval().to(plan.device)


def images_of(plan: Plan, batch: int, size: int) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(plan.device)


def targets_of(plan: Plan, batch: int, size: int, *, count: int = 20) -> Targets:
    generator = torch.Generator().manual_seed(0)
    centers = torch.rand(batch, count, 2, generator=generator) * size
    halves = torch.rand(batch, count, 2, generator=generator) * size / 8 + 4
    boxes = torch.cat((centers - halves, centers + halves), dim=-1).clamp(0, size)
    return Targets.pad(list(boxes), list(torch.randint(80, (batch, count), generator=generator))).to(plan.device)


def train_step(detector: Detector, optimizer: torch.optim.Optimizer, images: Tensor, targets: Targets) -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, torch.bfloat16):
        predictions = detector(images, targets)
    torch.stack(list(detector.criterion(predictions, targets).values())).sum().backward()
    optimizer.step()


def look_for_waits(plan: Plan) -> dict[str, Any]:
    """Whether forward pass or training step make the host wait for the GPU."""
    detector, size = build(plan), plan.sizes[0]
    images, targets = images_of(plan, 2, size), targets_of(plan, 2, size)
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-5)
    found = {}

    def forward() -> None:
        with torch.inference_mode():
            detector.eval().decode(images)

    def step() -> None:
        train_step(detector.train(), optimizer, images, targets)

    for name, work in (("forward and decode", forward), ("training step", step)):
        work()  # kernels are chosen with waits, once
        if not plan.is_dry:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
        try:
            work()
            found[name] = ""
        except RuntimeError as error:
            found[name] = str(error)[:300]
        finally:
            if not plan.is_dry:
                torch.cuda.set_sync_debug_mode("default")
        print(f"waits, {name}: {found[name] or 'none'}")
    return {"holds": not any(found.values()), "found": found}


def compare_outputs(plan: Plan) -> dict[str, Any]:
    """Scores of the processor and of the optimised, bf16 and compiled detectors beside those of the eager one."""
    detector, images = build(plan), images_of(plan, 2, plan.sizes[0])
    forms = {"optimized": detector.optimized(), "bf16": detector.optimized(precision="bf16")}
    if not plan.is_dry:
        forms["compiled"] = detector.optimized(compiled=True)
    limits = {"processor": 1e-3, "optimized": 1e-3, "compiled": 1e-3, "bf16": 5e-2}
    with torch.inference_mode():
        eager = detector.decode(images).scores
        apart = {name: (form.decode(images).scores - eager).abs().max().item() for name, form in forms.items()}
        on_processor = detector.cpu().decode(images.cpu()).scores
    apart["processor"] = (on_processor - eager.cpu()).abs().max().item()
    for name, value in apart.items():
        print(f"largest difference of a score, {name}: {value:.1e} (limit {limits[name]:.0e})")
    return {"holds": all(value <= limits[name] for name, value in apart.items()), "apart": apart}


def time_training(plan: Plan) -> dict[str, Any]:
    """Images a second of training in bf16."""
    size, batch = plan.sizes[0], plan.batches[-1] // 2
    detector = build(plan).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-5, momentum=0.9)
    images, targets = images_of(plan, batch, size), targets_of(plan, batch, size)
    step = partial(train_step, detector, optimizer, images, targets)
    for _ in range(2):
        step()
    _wait(plan)
    start = time.perf_counter()
    for _ in range(plan.rounds):
        step()
    _wait(plan)
    per_second = batch * plan.rounds / (time.perf_counter() - start)
    print(f"training, bf16, batch {batch}, {size} px: {per_second:.1f} images/s")
    return {"holds": True, "images_per_second": per_second, "batch": batch, "size": size}


def time_forward(plan: Plan) -> dict[str, Any]:
    """Latencies of eager, optimised, bf16 and compiled detectors in turns, and their share of the GPU's peak."""
    detector = build(plan)
    rows = []
    for size in plan.sizes:
        gflops = count_gflops(build(plan).cpu(), torch.zeros(1, 3, size, size))
        for batch in plan.batches:
            if plan.is_over:
                print(f"{size} px, batch {batch}: left out, {BUDGET_S} s are over")
                return {"holds": False, "rows": rows}
            rows += _time_forms(plan, detector, size, batch, gflops)
    return {"holds": True, "rows": rows}


def _time_forms(plan: Plan, detector: Detector, size: int, batch: int, gflops: float) -> list[dict[str, Any]]:
    images = images_of(plan, batch, size)
    forms = {"eager": detector, "optimized": detector.optimized(), "bf16": detector.optimized(precision="bf16")}
    if not plan.is_dry:
        torch.compiler.reset()
        forms["compiled bf16"] = detector.optimized(precision="bf16", compiled=True)
    work = {name: partial(form.decode, images) for name, form in forms.items()}
    times = time_in_turns(work, rounds=plan.rounds, warmup=2, device=plan.device)
    peaks = {
        dtype: max(measure_peak(plan.device, dtype, rounds=plan.rounds).values())
        for dtype in (torch.float32, torch.bfloat16)
    }
    rows = []
    for name, values in times.items():
        latency = sorted(values)[len(values) // 2]
        share = 1000 * gflops * batch / latency / peaks[torch.bfloat16 if "bf16" in name else torch.float32]
        least, _, most = compare_in_pairs(times["eager"], values)
        print(
            f"{size} px, batch {batch}, {name}: {latency:.2f} ms, {1000 * batch / latency:.1f} images/s, "
            f"{share:.0%} of the peak, {least:+.2f} to {most:+.2f} ms faster than eager"
        )
        rows.append({"size": size, "batch": batch, "form": name, "latency_ms": latency, "peak_share": share})
    return rows


def _wait(plan: Plan) -> None:
    if plan.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
