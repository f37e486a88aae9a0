"""What a neck fuses, kept while a detector runs once.

pyramid -> parts of the neck, one by one -> pyramid, and aside: weights and weighted sums of the part that weighs levels
"""

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Protocol, runtime_checkable

from torch import Tensor

from pyrafuse.core.pyramid import Neck, Pyramid
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import NeckChain


@runtime_checkable
class WeighingLevel(Protocol):
    """One output level that weighs all source levels at every position, as `ASFFLevel` does.

    A neck whose ``levels``, finest first, are all such can be explained.
    """

    def fuse(self, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Weights (B, L, H, W), finest source first, and the weighted sum (B, C, H, W)."""
        ...

    def expand(self, fused: Tensor) -> Tensor:
        """The level's output, made of its weighted sum."""
        ...


class RecordingNeck(Neck):
    """Does what ``neck`` does and keeps what was fused in the last pass.

    If several necks of a chain weigh levels, the last one counts. One whose strides are not those of the chain's output
    does not: the level of a detection would be none of its levels.

    Attributes:
        weights: (B, L, H, W) of each output level, finest first; none where the neck has no such weights.
        fused: (B, C, H, W) of each output level: the weighted sum, or, without weights, the neck's output.
    """

    def __init__(self, neck: Neck) -> None:
        super().__init__()
        self.neck = neck
        self.features = neck.features
        self.weights: Pyramid | None = None
        self.fused: Pyramid = ()

    def forward(self, pyramid: Pyramid) -> Pyramid:
        weights, fused = None, None
        for part in _parts(self.neck):
            levels = _weighing_levels(part)
            if levels and part.features.strides == self.features.strides:
                weights, fused = zip(*(level.fuse(pyramid) for level in levels), strict=True)
                pyramid = tuple(level.expand(x) for level, x in zip(levels, fused, strict=True))
            else:
                pyramid = part(pyramid)
        self.weights, self.fused = weights, fused or pyramid
        return pyramid


def record(detector: Detector) -> tuple[Detector, RecordingNeck]:
    """The same detector, sharing all its parts, with a neck that keeps what it fuses.

    ``detector`` itself is left as it is, which a hook would not do: other threads may go on using it.
    """
    neck = RecordingNeck(detector.neck)
    twin = copy(detector)
    twin._modules = dict(detector._modules)  # a shallow copy shares even the table of its parts
    twin.neck = neck
    return twin, neck


def _parts(neck: Neck) -> Iterator[Neck]:
    if not isinstance(neck, NeckChain):
        yield neck
        return
    for part in neck.necks:
        assert isinstance(part, Neck)
        yield from _parts(part)


def _weighing_levels(neck: Neck) -> tuple[WeighingLevel, ...]:
    levels = getattr(neck, "levels", ())
    levels = tuple(levels) if isinstance(levels, Iterable) else ()
    return levels if all(isinstance(level, WeighingLevel) for level in levels) else ()
