"""What a neck fuses, kept while a detector runs once; and detectors with a part replaced.

pyramid -> parts of the neck, one by one -> pyramid, and aside: what each part read, and every weighted sum
"""

from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid
from pyrafuse.layers.fusion_weights import FusionWeights, find_fusions
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import NeckChain


@dataclass(frozen=True, eq=False)
class RecordedFusion:
    """One pass of a `FusionWeights`.

    Attributes:
        name: By which `find_fusions` calls it.
        part: Rank of the part of the neck, of a chain, that it belongs to.
        module: The fusion, with the names of its sources.
        weights: (S,), or (B, S, H, W).
        maps: S maps (B, C, H, W), what is weighed.
        fused: (B, C, H, W), their weighted sum.
    """

    name: str
    part: int
    module: FusionWeights
    weights: Tensor
    maps: tuple[Tensor, ...]
    fused: Tensor


class RecordingNeck(Neck):
    """Does what ``neck`` does and keeps what was read and fused in the last pass.

    It runs a copy that shares all tensors: a hook on ``neck`` itself would hear what other threads compute with it.

    Args:
        neck: What is recorded.
        cut: Let no gradient past what the neck reads: this becomes leaves.

    Attributes:
        read: For each part of the neck, of a chain, what it read. Gradients at these are of what follows alone.
        made: What the neck gave.
        fusions: In the order in which they ran.
    """

    def __init__(self, neck: Neck, *, cut: bool = False) -> None:
        super().__init__()
        shared = {id(t): t for t in (*neck.parameters(), *neck.buffers())}
        self.neck = deepcopy(neck, shared)
        self.features = neck.features
        self.read: list[Pyramid] = []
        self.made: Pyramid = ()
        self.fusions: list[RecordedFusion] = []
        self._cut = cut
        for name, fusion in find_fusions(self.neck).items():
            fusion.register_forward_hook(partial(self._keep, name))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        self.read, self.fusions = [], []
        if self._cut:
            pyramid = tuple(x.detach().requires_grad_() for x in pyramid)
        for part in _parts(self.neck):
            # an alias: what comes out of a part may also be used inside of it, and view_as may change the strides
            pyramid = tuple(x[...] for x in pyramid)
            self.read.append(pyramid)
            pyramid = part(pyramid)
        self.made = pyramid
        return pyramid

    def strides_before(self, part: int) -> tuple[int, ...]:
        """Strides of what a part of a chain reads, but for the first."""
        return list(_parts(self.neck))[part - 1].features.strides

    def _keep(self, name: str, module: nn.Module, inputs: tuple[Any, ...], fused: Tensor) -> None:
        assert isinstance(module, FusionWeights)
        weights, maps = inputs
        self.fusions.append(RecordedFusion(name, len(self.read) - 1, module, weights, tuple(maps), fused))


class Given(nn.Module):
    """Stands in for a part whose output is known: gives ``pyramid`` whatever comes in."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, _: object) -> Pyramid:
        return self.pyramid


def record(detector: Detector, *, cut: bool = False) -> tuple[Detector, RecordingNeck]:
    """The same detector, sharing all its weights, with a neck that keeps what it fuses."""
    neck = RecordingNeck(detector.neck, cut=cut)
    return replace_parts(detector, neck=neck), neck


def replace_parts(detector: Detector, **parts: nn.Module) -> Detector:
    """The same detector, sharing all its parts but those given; ``detector`` itself is left as it is."""
    twin = copy(detector)
    twin._modules = {**detector._modules, **parts}  # a shallow copy shares even the table of its parts
    return twin


def _parts(neck: Neck) -> Iterator[Neck]:
    if not isinstance(neck, NeckChain):
        yield neck
        return
    for part in neck.necks:
        assert isinstance(part, Neck)
        yield from _parts(part)
