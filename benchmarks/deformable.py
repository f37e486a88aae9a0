"""Time the deformable convolution, forward and backward, against torchvision's.

python benchmarks/deformable.py [--runs 5] [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from pyrafuse.layers.deformable import deformable_conv3x3


def median_seconds(conv: Callable[..., Tensor], inputs: list[Tensor], runs: int) -> float:
    times = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        torch.autograd.grad(conv(*inputs).square().mean(), inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for batch, channels, side in ((8, 96, 40), (2, 256, 52), (2, 512, 26), (2, 1024, 13)):
        generator = torch.Generator().manual_seed(0)
        shapes = ((batch, channels, side, side), (batch, 72, side, side), (channels, channels, 3, 3), (channels,))
        inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        theirs = median_seconds(lambda *t: deform_conv2d(*t, padding=1), inputs, arguments.runs)
        ours = median_seconds(deformable_conv3x3, inputs, arguments.runs)
        print(f"{shapes[0]}: torchvision {theirs:.3f} s, ours {ours:.3f} s, {theirs / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
