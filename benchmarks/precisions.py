"""What a trained detector's average precision is in each form and precision that predicts.

    python benchmarks/precisions.py best.ckpt DATA [--size 416] [--max-ap-loss 1.0]

Exports to a temporary folder, and evaluates each form on the val split.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyrafuse.base.records import DetectionData
from pyrafuse.data.reading.rules import DEFAULT_RULES
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.export.exporting import export
from pyrafuse.importers.loading import load
from pyrafuse.inference import evaluating as exported
from pyrafuse.models import evaluating as in_torch
from pyrafuse.models.detector import Detector
from pyrafuse.models.evaluating import read_whole
from pyrafuse.runtime.loading import load as load_exported

Form = tuple[str, Callable[[], CocoEvaluator]]


def forms(detector: Detector[Any], data: DetectionData, folder: Path, arguments: argparse.Namespace) -> Iterator[Form]:
    size = arguments.size
    yield "torch, fp32", partial(in_torch.detect_all, detector, data, size=size)
    yield "torch, fp32, optimized", partial(in_torch.detect_all, detector.optimized(), data, size=size)
    bf16 = detector.optimized(precision="bf16")
    yield "torch, bf16, optimized", partial(in_torch.detect_all, bf16, data, size=size)
    for name, suffix, precision in (
        ("onnxruntime, fp32", "onnx", "fp32"),
        ("OpenVINO, fp32", "xml", "fp32"),
        ("OpenVINO, int8", "xml", "int8"),
    ):
        path = folder / precision / f"detector.{suffix}"
        path.parent.mkdir(exist_ok=True)
        export(
            detector,
            path,
            input="fitted",
            size=size,
            static=precision == "int8",  # of free sizes OpenVINO's int8 is wrong
            precision=precision,  # pyright: ignore[reportArgumentType]
            data=data if precision == "int8" else None,
            max_ap_loss=arguments.max_ap_loss,
        )
        yield name, partial(exported.detect_all, load_exported(path, threads=1), data, size=size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--size", type=int)
    parser.add_argument("--max-ap-loss", type=float, default=1.0)
    arguments = parser.parse_args()
    detector = load(arguments.checkpoint)
    data = read_whole(arguments.data, "val", DEFAULT_RULES)
    print(f"{'form':<24}      AP    AP50    AP75   small  process time, s")
    with TemporaryDirectory() as folder:
        for name, detect in forms(detector, data, Path(folder), arguments):
            start = time.process_time()
            result = detect().compute()
            values = "".join(f"{x:8.4f}" for x in (result.ap, result.ap50, result.ap75, result.ap_small))
            print(f"{name:<24}{values}  {time.process_time() - start:15.1f}", flush=True)


if __name__ == "__main__":
    main()
