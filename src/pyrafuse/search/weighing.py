"""What a candidate costs as part of the whole detector, measured as a comparison does."""

from dataclasses import dataclass, field
from typing import Any

import torch

from pyrafuse.base.spec import DetectorSpec
from pyrafuse.core.pyramid import Backbone
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies
from pyrafuse.models.building import build
from pyrafuse.models.describing import change
from pyrafuse.models.detector import Detector
from pyrafuse.search.choices import Candidate
from pyrafuse.search.latency import LatencyTable, weigh_graph
from pyrafuse.search.running import Limits

FAR_ABOVE = 1.3
"""How many times the budget a neck alone may cost by the table before the whole detector is not measured."""


@dataclass(frozen=True)
class Scale:
    """Weighs candidates: parameters, GFLOPs and latency of one image, forward pass and decoding.

    Attributes:
        spec: The whole detector.
        backbone: Its backbone, which all candidates share.
        device: Device that latency is measured on.
        limits: What is allowed; what is over it by its operations or parameters is not timed, nor is a neck that the
            table of operators puts far above the latency.
        table: Table of operators of the device; it is needed only for a limit on latency.
        rounds: Timed images of each candidate.
    """

    spec: DetectorSpec
    backbone: Backbone
    device: torch.device
    limits: Limits = field(default_factory=Limits)
    table: LatencyTable | None = None
    rounds: int = 7

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """The cost of a candidate, by name: as much of it as tells whether it is within the limits.

        Raises:
            PyrafuseError: If its detector cannot be built.
        """
        most_ms = self.limits.latency_ms
        if most_ms is not None and self.table is not None:
            neck = weigh_graph(candidate.graph, self.backbone.features, candidate.size, self.table)
            if neck.latency_ms > FAR_ABOVE * most_ms:
                return {
                    "latency_ms": neck.latency_ms,
                    "gflops": neck.gflops,
                    "parameters": float(neck.parameters),
                }
        detector, images = self._build(candidate)
        counted = {"gflops": count_gflops(detector, images), "parameters": float(count_parameters(detector))}
        if self.limits.find_excess(counted):
            return counted
        detector, images = detector.to(self.device), images.to(self.device)
        latency = measure_latencies({"": lambda: detector.decode(images)}, rounds=self.rounds, device=self.device)
        return {"latency_ms": latency[""], **counted}

    def count_gflops(self, candidate: Candidate) -> float:
        """Billions of operations of the whole detector for one image; nothing is timed."""
        return count_gflops(*self._build(candidate))

    def _build(self, candidate: Candidate) -> tuple[Detector[Any], torch.Tensor]:
        """The detector on the processor, and one image."""
        with torch.random.fork_rng(devices=[]):  # its weights are nobody's
            detector = build(change(self.spec, neck=candidate.graph), backbone=self.backbone).eval().cpu()
        return detector, torch.zeros(1, 3, candidate.size, candidate.size)
