"""Latency of a network from a table of its operators, each measured once on a device and kept.

network -> run without numbers -> operators with the shapes of what they take -> milliseconds of each, from the
table or measured now -> their sum
"""

import hashlib
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pyrafuse.base.folders import cache_folder
from pyrafuse.base.writing import write_text
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies, measure_peak_memory_mb
from pyrafuse.necks.graph import Graph
from pyrafuse.necks.graph_neck import GraphNeck

MAX_TABLE_BYTES = 64_000_000
ROUNDS = 9


@dataclass(frozen=True)
class GraphCost:
    """What a neck costs for one image.

    Attributes:
        parameters: Number of parameters.
        gflops: Billions of operations; a multiplication and its addition are two.
        peak_memory_mb: Most megabytes (1e6 bytes) that are held at a time, beyond parameters and what comes in.
        latency_ms: Milliseconds by the table of operators.
    """

    parameters: int
    gflops: float
    peak_memory_mb: float
    latency_ms: float


@dataclass(frozen=True)
class Like:
    """What a tensor is known by to an operator: its values do not matter.

    Attributes:
        shape: Sizes.
        stride: Strides, in elements.
        dtype: Type of the elements.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def __repr__(self) -> str:
        ordered = "" if self.stride == _contiguous(self.shape) else f" by {list(self.stride)}"
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}{ordered}"

    def make(self, device: torch.device) -> Tensor:
        """A tensor of this kind: random between 0.5 and 1.5, or zeros, which are legal places, of whole numbers."""
        last = sum((count - 1) * step for count, step in zip(self.shape, self.stride, strict=True))
        flat = torch.empty(1 + last if all(self.shape) else 0, dtype=self.dtype, device=device)
        filled = flat.uniform_(0.5, 1.5) if self.dtype.is_floating_point else flat.zero_()
        return filled.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class Operator:
    """One call of an operator of torch.

    Attributes:
        name: Its name, with what it takes: the key of the table.
        call: Overload of torch.
        args: What it takes by place, tensors as `Like`.
        kwargs: What it takes by name.
        results: What it gives.
    """

    name: str
    call: Callable[..., Any] = field(compare=False)
    args: tuple[Any, ...] = field(compare=False, default=())
    kwargs: Mapping[str, Any] = field(compare=False, default_factory=dict)
    results: tuple[Like, ...] = field(compare=False, default=())

    def on(self, device: torch.device) -> tuple[Callable[[], object], Callable[[], object]]:
        """The same call on tensors of ``device``, and what leaves memory as a network would before it.

        There its maps were just written, and a map that was just read leaves its place to the result. Weights are not
        touched before: a network has used many others since it used these.
        """
        made: list[Tensor] = []

        def make(like: Like) -> Tensor:
            made.append(like.make(device))
            return made[-1]

        args, kwargs = tree_map_only(Like, make, (self.args, dict(self.kwargs)))
        if "device" in kwargs:
            kwargs["device"] = device
        maps = [x for x in made if x.ndim > 1 and x.shape[0] == made[0].shape[0]]

        def lay_out() -> None:
            for like in self.results:
                like.make(device)
            for x in maps:
                x.sum()

        return lambda: self.call(*args, **kwargs), lay_out


def list_operators(module: nn.Module, *inputs: Any) -> Counter[Operator]:
    """The operators that ``module(*inputs)`` runs and how often, without views and what takes no tensor.

    Args:
        module: With or without numbers (``meta``, or fake tensors).
        inputs: On the same device.
    """
    with torch.no_grad(), _Recording() as recording:
        module(*inputs)
    return recording.seen


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Operator] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        taken, named = tree_map_only(Tensor, _like, (args, kwargs or {}))
        made = func(*args, **(kwargs or {}))
        if not func.is_view and any(isinstance(x, Like) for x in tree_leaves(taken)):
            options = {key: value for key, value in named.items() if key != "device"}
            text = ", ".join([*map(repr, taken), *(f"{key}={value!r}" for key, value in options.items())])
            results = tuple(_like(x) for x in tree_leaves(made) if isinstance(x, Tensor))
            self.seen[Operator(f"{func}({text})", func, taken, named, results)] += 1
        return made


class LatencyTable:
    """Milliseconds of operators on one device, kept in a file from one search to the next.

    Args:
        device: Device that is measured.
        folder: Folder of tables; by default ``operators`` in the cache.
        tell: Called with a sentence if the file is damaged.
    """

    def __init__(
        self, device: torch.device, *, folder: Path | None = None, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.device = device
        self._tell = tell
        about = f"{_describe(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        digits = hashlib.sha256(about.encode()).hexdigest()[:16]
        self.path = (folder or cache_folder() / "operators") / f"{digits}.json"
        self._about = about
        self._known = self._read()

    def _read(self) -> dict[str, float]:
        """What is in the file; nothing where it is damaged, as it can be measured anew."""
        try:
            if self.path.stat().st_size > MAX_TABLE_BYTES:
                raise ValueError("it is too large")
            table = json.loads(self.path.read_text(encoding="utf-8"))["ms"]
            if not all(isinstance(ms, float) and math.isfinite(ms) and ms >= 0 for ms in table.values()):
                raise ValueError("a time is no number")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._tell(f"{self.path} is damaged ({error}): operators are measured anew")
            return {}
        return table

    def predict_ms(self, operators: Counter[Operator]) -> float:
        """The sum over ``operators``; those that the table lacks are measured, in turns, and kept."""
        missing = {operator.name: operator for operator in operators if operator.name not in self._known}
        if missing:
            calls = {name: operator.on(self.device) for name, operator in missing.items()}
            work = {name: call for name, (call, _) in calls.items()}
            before = {name: read for name, (_, read) in calls.items()}
            self._known |= measure_latencies(work, rounds=ROUNDS, device=self.device, before=before)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps({"device": self._about, "ms": self._known}))
        return sum(number * self._known[operator.name] for operator, number in operators.items())


def weigh_graph(graph: Graph, inputs: PyramidSpec, size: int, table: LatencyTable) -> GraphCost:
    """What ``graph`` costs for one image of ``size`` pixels a side; nothing is computed but operators that are new.

    Args:
        graph: Neck.
        inputs: Channels and strides of the maps that come in.
        size: Side of the network's input in pixels.
        table: Table of the device.

    Raises:
        PyrafuseError: If the graph does not fit the maps.
    """
    with FakeTensorMode():
        neck = GraphNeck(inputs, graph).eval()
        sides = [-(-size // stride) for stride in inputs.strides]
        maps = tuple(
            torch.zeros(1, channels, side, side) for channels, side in zip(inputs.channels, sides, strict=True)
        )
        parameters, gflops = count_parameters(neck), count_gflops(neck, maps)
        peak, operators = measure_peak_memory_mb(neck, maps), list_operators(neck, maps)
    return GraphCost(parameters, gflops, peak_memory_mb=peak, latency_ms=table.predict_ms(operators))


def _like(x: Tensor) -> Like:
    return Like(tuple(x.shape), tuple(x.stride()), x.dtype)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.processor() or platform.machine()} {_processor()} of {os.cpu_count()}"


def _processor() -> str:
    """The processor's name as Linux tells it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
