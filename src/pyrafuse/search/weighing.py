"""What a candidate costs as part of the whole detector, measured as a comparison does."""

from dataclasses import dataclass

import torch

from pyrafuse.base.spec import DetectorSpec
from pyrafuse.core.pyramid import Backbone
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies
from pyrafuse.models.building import build
from pyrafuse.models.describing import change
from pyrafuse.search.choices import Candidate


@dataclass(frozen=True)
class Scale:
    """Weighs candidates: parameters, GFLOPs and latency of one image, forward pass and decoding.

    Attributes:
        spec: The whole detector.
        backbone: Its backbone, which all candidates share.
        device: Device that latency is measured on.
        rounds: Timed images of each candidate.
    """

    spec: DetectorSpec
    backbone: Backbone
    device: torch.device
    rounds: int = 7

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        """The cost of a candidate, by name.

        Raises:
            PyrafuseError: If its detector cannot be built.
        """
        with torch.random.fork_rng(devices=[]):  # its weights are nobody's
            detector = build(change(self.spec, neck=candidate.graph), backbone=self.backbone).eval()
        images = torch.zeros(1, 3, candidate.size, candidate.size)
        gflops = count_gflops(detector.cpu(), images)
        detector, images = detector.to(self.device), images.to(self.device)
        latency = measure_latencies({"": lambda: detector.decode(images)}, rounds=self.rounds, device=self.device)
        return {"latency_ms": latency[""], "gflops": gflops, "parameters": float(count_parameters(detector))}
