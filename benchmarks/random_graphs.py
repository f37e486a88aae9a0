"""Draw random graphs of the search's space, and plan, build, run and export them.

python benchmarks/random_graphs.py [--graphs 100000] [--built 300] [--exported 10] [--seed 0]
"""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.export import Dim

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.graph import plan_graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import write_graph
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.space import Space, sample

MAPS = (
    PyramidSpec((24, 40, 112, 320), (4, 8, 16, 32)),
    PyramidSpec((24, 96, 320), (8, 16, 32)),
    PyramidSpec((64, 128), (8, 16)),
    PyramidSpec((64,), (16,)),
)


class Pooled(nn.Module):
    """Images -> maps of every stride, each with the first colours over and over -> neck."""

    def __init__(self, inputs: PyramidSpec, neck: nn.Module) -> None:
        super().__init__()
        self.inputs, self.neck = inputs, neck

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps, stride, x = [], 1, images
        for channels, wanted in zip(self.inputs.channels, self.inputs.strides, strict=True):
            while stride < wanted:
                x, stride = nn.functional.max_pool2d(x, 3, 2, 1), 2 * stride
            maps.append(x[:, :1].expand(-1, channels, -1, -1))
        return self.neck(tuple(maps))


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.process_time()
    yield
    print(f"{what}: {time.process_time() - start:.1f} s of one core", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=100_000)
    parser.add_argument("--built", type=int, default=300)
    parser.add_argument("--exported", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    space, rng = Space(), random.Random(arguments.seed)
    seen, chosen = set(), []
    seconds = {"drawn": 0.0, "planned": 0.0, "fingerprints": 0.0}
    for number in range(1, arguments.graphs + 1):
        inputs = MAPS[number % len(MAPS)]
        times = [time.process_time()]
        graph = sample(space, inputs, rng).graph
        times.append(time.process_time())
        plan_graph(graph, inputs)
        times.append(time.process_time())
        seen.add((inputs, fingerprint(graph, inputs)))
        times.append(time.process_time())
        for what, (start, end) in zip(seconds, pairwise(times), strict=True):
            seconds[what] += end - start
        if number <= max(arguments.built, arguments.exported):
            chosen.append((inputs, graph))
        if number == arguments.graphs or number % 10_000 == 0:
            taken = ", ".join(f"{what} in {end:.1f} s" for what, end in seconds.items())
            print(f"{number} graphs {taken} of one core; {len(seen)} distinct", flush=True)
    with (
        timed(f"{arguments.built} built, run without values on two odd sizes, and every fifth with values"),
        torch.no_grad(),
    ):
        for number, (inputs, graph) in enumerate(chosen[: arguments.built]):
            for device, side in (("meta", (203, 317)), ("meta", (161, 97)), ("cpu", (45, 77)))[: 2 + (number % 5 == 0)]:
                with torch.device(device):
                    neck = GraphNeck(inputs, graph).eval()
                    outputs = Pooled(inputs, neck)(torch.rand(2, 3, *side))
                assert len(outputs) == len(neck.features)
                for x, channels, stride in zip(outputs, neck.features.channels, neck.features.strides, strict=True):
                    assert x.shape[:2] == (2, channels)
                    slack = 2 * max(neck.features.strides)  # a new level is as large as what arrives there first
                    fits = all(abs(n * stride - want) <= slack for n, want in zip(x.shape[2:], side, strict=True))
                    assert fits, f"{tuple(x.shape)} at stride {stride} of {side}:\n{write_graph(graph)}"
                    assert device == "meta" or x.isfinite().all()
    rows, columns = (32 * Dim(name, min=1, max=64) for name in ("rows", "columns"))
    free = {0: Dim("batch", max=64), 2: rows, 3: columns}
    with (
        timed(f"{arguments.exported} exported with a free batch and free sides, compared on other sizes"),
        torch.no_grad(),
    ):
        for inputs, graph in chosen[: arguments.exported]:
            model = Pooled(inputs, GraphNeck(inputs, graph)).eval()
            images = torch.rand(2, 3, 512, 640)
            program = torch.export.export(model, (images,), dynamic_shapes=(free,), strict=False).module()
            for batch, height, width in ((1, 160, 288), (3, 224, 352)):
                images = torch.rand(batch, 3, height, width)
                for ours, theirs in zip(program(images), model(images), strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


if __name__ == "__main__":
    main()
