"""How well the table of operators foretells the latency of whole necks: random graphs of the space, both measured.

    python benchmarks/neck_latency.py [--graphs 20] [--device cpu] [--threads 1] [--seed 0]

The table is made anew in a temporary folder. Each neck is timed alone, and the median of its rounds counts.
"""

import argparse
import random
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from pyrafuse.base.memory import keep_freed_memory
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.inference.measuring import measure_latencies
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.search.choices import Space
from pyrafuse.search.latency import LatencyTable, weigh_graph
from pyrafuse.search.space import sample

INPUTS = PyramidSpec(channels=(32, 96, 320), strides=(8, 16, 32))  # MobileNetV2's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = torch.device(arguments.device)
    rng = random.Random(arguments.seed)
    ratios = []
    print(f"{'table, ms':>10}{'neck, ms':>10}{'ratio':>8}  merges, runs, px")
    with TemporaryDirectory() as folder:
        table = LatencyTable(device, folder=Path(folder))
        for _ in range(arguments.graphs):
            candidate = sample(Space(), INPUTS, rng)
            cost = weigh_graph(candidate.graph, INPUTS, candidate.size, table)
            neck = GraphNeck(INPUTS, candidate.graph).eval().to(device)
            sides = [-(-candidate.size // stride) for stride in INPUTS.strides]
            maps = tuple(torch.randn(1, c, s, s, device=device) for c, s in zip(INPUTS.channels, sides, strict=True))
            latency = measure_latencies({"": lambda neck=neck, maps=maps: neck(maps)}, rounds=15, device=device)[""]
            ratios.append(cost.latency_ms / latency)
            about = f"{len(candidate.graph.merges)}, {candidate.graph.stack}, {candidate.size}"
            print(f"{cost.latency_ms:10.2f}{latency:10.2f}{ratios[-1]:8.3f}  {about}", flush=True)
    near = sum(abs(ratio - 1) <= 0.15 for ratio in ratios)
    print(f"within 15 %: {near} of {len(ratios)}; median ratio {median(ratios):.3f}")


if __name__ == "__main__":
    main()
