"""What a neck fuses, kept while a detector runs once; and detectors with a part replaced.

pyramid -> parts of the neck, one by one -> pyramid, and aside: what the part that fuses levels read and made
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import NeckChain


@runtime_checkable
class FusingLevel(Protocol):
    """One output level that fuses all source levels, as `ASFFLevel` does and `PlainFusionLevel`.

    What a neck whose ``levels``, finest first, are all such fuses can be explained.
    """

    def fuse(self, pyramid: Pyramid) -> tuple[Tensor | None, Tensor]:
        """Weights (B, L, H, W), finest source first, and the weighted sum (B, C, H, W).

        No weights where no position has its own: a sum, a concatenation.
        """
        ...

    def expand(self, fused: Tensor) -> Tensor:
        """The level's output, made of what is fused."""
        ...


@runtime_checkable
class ResizingLevel(FusingLevel, Protocol):
    """One that also tells what it weighs."""

    def resize(self, pyramid: Pyramid) -> Sequence[Tensor]:
        """Each source level (B, C, H, W) at the channels and size of this one."""
        ...


class RecordingNeck(Neck):
    """Does what ``neck`` does and keeps what was fused in the last pass.

    If several necks of a chain fuse all levels, the last one counts. One whose strides are not those of the chain's
    output does not: the level of a detection would be none of its levels.

    Args:
        neck: What is recorded.
        cut: Let no gradient past the sources: they become leaves that take it.

    Attributes:
        read: What the neck read.
        made: What it gave.
        sources: What the part that fuses all levels read; without such a part, what the neck read.
        levels: The levels of that part, finest first; none without such a part.
        weights: (B, L, H, W) of each output level, finest first; none where the neck has no such weights.
        fused: (B, C, H, W) of each output level: what is fused there; without such a part, the neck's output.
    """

    def __init__(self, neck: Neck, *, cut: bool = False) -> None:
        super().__init__()
        self.neck = neck
        self.features = neck.features
        self.read: Pyramid = ()
        self.made: Pyramid = ()
        self.sources: Pyramid = ()
        self.levels: tuple[FusingLevel, ...] = ()
        self.weights: Pyramid | None = None
        self.fused: Pyramid = ()
        self._cut = cut

    def forward(self, pyramid: Pyramid) -> Pyramid:
        read = sources = pyramid = self._begin(pyramid)
        fusing: tuple[FusingLevel, ...] = ()
        weights, fused = (), None
        for part in _parts(self.neck):
            levels = _fusing_levels(part)
            if levels and part.features.strides == self.features.strides:
                sources, fusing = self._begin(pyramid), levels
                weights, fused = zip(*(level.fuse(sources) for level in levels), strict=True)
                pyramid = tuple(level.expand(x) for level, x in zip(levels, fused, strict=True))
            else:
                pyramid = part(pyramid)
        self.read, self.made = read, pyramid
        self.sources, self.levels, self.fused = sources, fusing, fused or pyramid
        self.weights = tuple(w for w in weights if w is not None) or None
        return pyramid

    def _begin(self, pyramid: Pyramid) -> Pyramid:
        return tuple(x.detach().requires_grad_() for x in pyramid) if self._cut else pyramid


class Given(nn.Module):
    """Stands in for a part whose output is known: gives ``pyramid`` whatever comes in."""

    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, _: object) -> Pyramid:
        return self.pyramid


def record(detector: Detector, *, cut: bool = False) -> tuple[Detector, RecordingNeck]:
    """The same detector, sharing all its parts, with a neck that keeps what it fuses."""
    neck = RecordingNeck(detector.neck, cut=cut)
    return replace_parts(detector, neck=neck), neck


def replace_parts(detector: Detector, **parts: nn.Module) -> Detector:
    """The same detector, sharing all its parts but those given.

    ``detector`` itself is left as it is, which a hook would not do: other threads may go on using it.
    """
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


def _fusing_levels(neck: Neck) -> tuple[FusingLevel, ...]:
    levels = getattr(neck, "levels", ())
    levels = tuple(levels) if isinstance(levels, Iterable) else ()
    return levels if all(isinstance(level, FusingLevel) for level in levels) else ()
