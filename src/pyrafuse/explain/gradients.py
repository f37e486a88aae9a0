"""What each source level of a fusion learns from each output level, and how far these lessons conflict.

Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.4, equations 3 to 6.
images, objects -> losses by output level -> gradients at the sources, a backward pass a level -> `Conflicts`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrafuse.base.conflicts import NETWORK, SUM, WEIGHTS, Conflicts
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.losses import LevelCriterion
from pyrafuse.core.pyramid import Pyramid
from pyrafuse.core.targets import Targets
from pyrafuse.explain.conflicts import find_conflicts, measure_conflicts, spread_positives
from pyrafuse.explain.recording import RecordedFusion, RecordingNeck, record
from pyrafuse.layers.fusion_weights import spread_weights
from pyrafuse.models.detector import Detector
from pyrafuse.models.two_stage import TwoStageDetector


@dataclass(frozen=True, eq=False)
class SourceGradients:
    """What S source levels receive from N output levels, for a batch.

    Attributes:
        source_strides: Pixels a cell of each source level, finest first.
        output_strides: Stride of each output level.
        received: For each rule of `RULES` that the neck allows, and each source level, (N, B, C, H, W).
        is_positive: For each source level (N, B, H, W): whether a cell of the output level that overlaps this position
            is matched to an object.
    """

    source_strides: tuple[int, ...]
    output_strides: tuple[int, ...]
    received: dict[str, tuple[Tensor, ...]]
    is_positive: tuple[Tensor, ...]

    def conflicts(self) -> dict[str, tuple[Conflicts, ...]]:
        """Of each rule and source level. The norms are all measured where ``sum`` has its conflicts, so that they can
        be compared; where there is no ``sum``, at the rule's own conflicts.
        """  # fmt: skip
        judged: list[Tensor | None] = [None] * len(self.source_strides)
        if SUM in self.received:
            judged = [find_conflicts(g, p) for g, p in zip(self.received[SUM], self.is_positive, strict=True)]
        return {
            rule: tuple(
                measure_conflicts(g, p, judged=j) for g, p, j in zip(gradients, self.is_positive, judged, strict=True)
            )
            for rule, gradients in self.received.items()
        }

    def norms(self, rule: str) -> tuple[Tensor, ...]:
        """(N, B, H, W) of each source level: the norm over channels of what it receives."""
        return tuple(torch.linalg.vector_norm(g, dim=2) for g in self.received[rule])

    def conflict_maps(self, rule: str) -> tuple[Tensor, ...]:
        """(B, H, W) bool of each source level: whether the position is in conflict."""
        return tuple(
            find_conflicts(g, p).any(dim=0).any(dim=0)
            for g, p in zip(self.received[rule], self.is_positive, strict=True)
        )


def compute_source_gradients(detector: Detector, images: Tensor, targets: Targets) -> SourceGradients:
    """One forward pass, and a backward pass for the loss of each output level.

    The source levels are what the neck reads; of a chain, what its last part reads that brings levels together. The
    rules ``weights`` and ``sum`` are computed for a neck that weighs all sources in one step for each output level, as
    ASFF does. ``weights`` takes the weights as constants, ``network`` as functions of the sources.

    Args:
        detector: In the mode to be explained: evaluation, so that no image depends on the others.
        images: (B, 3, H, W), normalised.
        targets: Objects in pixels of ``images``.

    Raises:
        PyrafuseError: If the detector's criterion does not tell losses by level.
    """
    # of a two-stage detector the proposals are explained: they alone have cells
    criterion = detector.criterion.proposals if isinstance(detector, TwoStageDetector) else detector.criterion
    if not isinstance(criterion, LevelCriterion):
        raise PyrafuseError(
            f"gradients by level need a criterion with by_level, and {type(criterion).__name__} has none: explain this "
            "detector without --gradients"
        )
    twin, neck = record(detector, cut=True)
    with torch.enable_grad():
        predictions = twin.head(twin.pyramid(images))
        report = criterion.by_level(predictions, targets)
        part = _find_mixing_part(neck)
        sources = neck.read[part]
        received = {NETWORK: _stack([_pull(loss, sources) for loss in report.of_levels])}
        fusions = [fusion for fusion in neck.fusions if fusion.part == part]
        if _is_one_step(fusions, len(sources), detector.neck.features.strides):
            unweighted, weighted = [], []
            for loss, fusion in zip(report.of_levels, fusions, strict=True):
                (pull,) = _pull(loss, (fusion.fused,))
                shares = [pull * w for w in spread_weights(fusion.weights.detach())]
                unweighted.append(_pull(fusion.maps, sources, [pull] * len(sources)))
                weighted.append(_pull(fusion.maps, sources, shares))
            received |= {WEIGHTS: _stack(weighted), SUM: _stack(unweighted)}
    output_strides = detector.neck.features.strides
    strides = detector.backbone.features.strides if part == 0 else neck.strides_before(part)
    positives = predictions.grid.cells_of(report.is_positive)
    return SourceGradients(
        source_strides=strides,
        output_strides=output_strides,
        received=received,
        is_positive=tuple(
            spread_positives(positives, output_strides, (x.shape[-2], x.shape[-1]), stride)
            for x, stride in zip(sources, strides, strict=True)
        ),
    )


def _find_mixing_part(neck: RecordingNeck) -> int:
    """Rank of the last part of a chain that brings levels together; one such as a projection is passed over."""
    for part in reversed(range(1, len(neck.read))):
        read, made = neck.read[part], [*neck.read, neck.made][part + 1]
        others = [[x for s, x in enumerate(read) if s != level] for level in range(len(made))]
        if len(read) != len(made) or any(_depends(x, of_others) for x, of_others in zip(made, others, strict=True)):
            return part
    return 0


def _depends(made: Tensor, others: Sequence[Tensor]) -> bool:
    """Whether ``made`` is computed of any of the others."""
    pulls = torch.autograd.grad(made.sum(), others, retain_graph=True, allow_unused=True) if others else ()
    return any(x is not None for x in pulls)


def _is_one_step(fusions: Sequence[RecordedFusion], num_sources: int, strides: Sequence[int]) -> bool:
    """Whether these are one fusion an output level, each of all sources and of no other fusion: equation 1."""
    if [f.module.stride for f in fusions] != list(strides) or any(len(f.maps) != num_sources for f in fusions):
        return False
    return not any(_depends(f.fused, [other.fused for other in fusions if other is not f]) for f in fusions)


def _pull(outputs: Any, inputs: Pyramid, gradients: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
    """The gradient of ``outputs`` at each of ``inputs``; zero where there is no way."""
    return torch.autograd.grad(outputs, inputs, gradients, retain_graph=True, materialize_grads=True)


def _stack(by_output: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Tensors by output and source level, as one of all outputs for each source level."""
    return tuple(torch.stack(of_source) for of_source in zip(*by_output, strict=True))
