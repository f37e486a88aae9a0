"""Candidates while they learn: a detector on given maps, its state, and what became of it.

graph -> description with a light head -> detector on `GivenMaps` -> `Learner` -> `Outcome`
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec
from pyrafuse.models.building import build
from pyrafuse.models.describing import change
from pyrafuse.models.detector import Detector
from pyrafuse.necks.graph import Graph
from pyrafuse.search.settings import ProxySettings
from pyrafuse.search.views import MapBatch
from pyrafuse.training.loop import HALF
from pyrafuse.training.precision import spare
from pyrafuse.training.state import State
from pyrafuse.training.step import level_losses


@dataclass(frozen=True)
class Rung:
    """How a candidate stood at the end of a rung.

    Attributes:
        steps: Steps since the first one.
        loss: Mean training loss over the steps of this rung alone.
        ap: Average precision on the validation images; None where it was not measured.
        seconds: Seconds that the candidate took for this rung, its share of the reading included.
    """

    steps: int
    loss: float
    ap: float | None
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        fingerprint: Fingerprint of the graph.
        rungs: The rungs that it came to the end of.
        reason: Why it failed; empty where it did not.
    """

    fingerprint: str
    rungs: tuple[Rung, ...]
    reason: str = ""


@dataclass
class Learner:
    """A candidate while it learns.

    Attributes:
        fingerprint: Its name, which its weights are drawn by.
        size: Side of the network's input in pixels.
        state: Detector, averaged weights and optimiser; None after it failed or was left behind.
        rungs: The rungs that it came to the end of.
        losses: Losses of the steps since.
        reason: Why it failed; empty where it did not.
    """

    fingerprint: str
    size: int
    state: State | None = None
    rungs: list[Rung] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    reason: str = ""

    def stop(self, reason: str = "") -> None:
        """Learn no more, and give the memory back; ``reason`` says why it failed, if it did."""
        self.state, self.losses, self.reason = None, [], reason

    @property
    def outcome(self) -> Outcome:
        """What became of it so far."""
        return Outcome(self.fingerprint, tuple(self.rungs), self.reason)


class GivenMaps(Backbone):
    """Stands in for a frozen backbone: gives the maps that it was handed, whatever the images.

    Attributes:
        given: The maps.
    """

    def __init__(self, features: PyramidSpec) -> None:
        super().__init__()
        self.features = features
        self.given: Pyramid = ()

    def forward(self, images: Tensor) -> Pyramid:  # noqa: ARG002
        return self.given


def hand(detector: Detector[Any], maps: Pyramid) -> None:
    """Let ``detector`` find ``maps`` where it looks for those of its backbone."""
    assert isinstance(detector.backbone, GivenMaps)
    detector.backbone.given = maps


def describe_candidate(spec: DetectorSpec, graph: Graph, settings: ProxySettings) -> DetectorSpec:
    """``spec`` with ``graph`` as its neck and a light head: towers of few convolutions of few channels."""
    limits = {"num_convs": settings.head_convs, "channels": settings.head_channels}
    head: dict[str, Any] = {
        name: min(limit, own)
        for name, limit in limits.items()
        if limit is not None and isinstance(own := spec.head.options.get(name), int)
    }
    return change(spec, neck=graph, head=head) if head else change(spec, neck=graph)


def create_candidate(card: Card, graph: Graph, inputs: PyramidSpec, settings: ProxySettings) -> Detector[Any]:
    """The detector of ``card`` with ``graph`` as its neck, fresh weights, and `GivenMaps` of ``inputs``.

    Raises:
        PyrafuseError: If it cannot be built.
    """
    assert card.spec is not None, "a search begins with a description"
    detector = build(describe_candidate(card.spec, graph, settings), backbone=GivenMaps(inputs))
    detector.card = replace(card, spec=detector.card.spec)
    spare(detector)
    return detector


def compute_loss(detector: Detector[Any], batch: MapBatch, size: tuple[int, int], *, precision: str) -> Tensor:
    """The loss () of ``detector`` on ``batch``.

    Args:
        detector: A candidate, on the device of the batch.
        batch: Maps and objects.
        size: Height and width of the network's input in pixels.
        precision: What convolutions compute in: ``32`` or ``bf16``.
    """
    hand(detector, batch.maps)
    images = torch.empty(1, 3, *size, device="meta").expand(len(batch.sizes), -1, -1, -1)
    device = batch.maps[0].device.type
    with torch.autocast(device, HALF.get(precision), precision in HALF, cache_enabled=False):
        predictions = detector(images, batch.targets, sizes=batch.sizes)
        terms = level_losses(detector, predictions, batch.targets).terms
        return torch.stack(list(terms.values())).sum()


def draw_seed(seed: int, name: str, what: object) -> int:
    """A seed that differs for each candidate and each of its steps."""
    return int.from_bytes(blake2b(f"{seed} {name} {what}".encode(), digest_size=7).digest())


@contextmanager
def without_traces(device: torch.device) -> Iterator[None]:
    """Within, random numbers are drawn without a trace outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def failing(learner: Learner) -> Iterator[None]:
    """Within, whatever goes wrong stops ``learner`` with a reason: parts of users fail in their own ways."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, PyrafuseError) else f"{type(error).__name__}: "
        learner.stop(f"{kind}{error}" if str(error) else type(error).__name__)
