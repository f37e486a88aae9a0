"""Where output levels disagree about a position of a source level, counted: sums that add up over images.

Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

NETWORK, WEIGHTS, SUM = "network", "weights", "sum"
RULES: Mapping[str, str] = {
    NETWORK: "the network's own gradient, as autograd has it",
    WEIGHTS: "equation 6: each output level's gradient times its weight",
    SUM: "equation 4: sum and concatenation, which pass every output level's gradient as it is",
}
"""Ways for an output level's gradient to reach a source level."""


DEFINITION = (
    "A position of a source level is mixed if the cells of one output level that overlap it are matched to an object "
    "and those of another are not. It is in conflict if, besides, the gradients that it receives from two such levels "
    "have a negative cosine. Norms are means over the positions in conflict under the sum: of the gradients of the "
    "levels matched to an object, and of those of the levels that oppose them."
)


@dataclass(frozen=True)
class Conflicts:
    """Sums over the positions of a source level; those of several batches are added.

    A position is *mixed* if some output level answers there for an object and another one does not: eq. 5's case. It is
    in *conflict* if, besides, the gradients of such a pair have a negative cosine.

    Attributes:
        positions: Number of positions that were compared.
        mixed: Number of mixed positions.
        conflicting: Ones in conflict.
        cosine_sum: Sum of the cosines of all pairs at mixed positions.
        cosine_count: Such pairs whose gradients are both other than zero.
        judged: Positions that the two norms are summed over: those in conflict, by these gradients or by others.
        positive_norm: Norm of the gradient of the levels matched to an object, in pairs in conflict.
        background_norm: Norm of the gradient of the levels that oppose them.
    """

    positions: float = 0
    mixed: float = 0
    conflicting: float = 0
    cosine_sum: float = 0
    cosine_count: float = 0
    judged: float = 0
    positive_norm: float = 0
    background_norm: float = 0

    def __add__(self, other: "Conflicts") -> "Conflicts":
        return Conflicts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def mean_cosine(self) -> float:
        """Of the pairs at mixed positions; NaN without any."""
        return _divide(self.cosine_sum, self.cosine_count)

    @property
    def background_ratio(self) -> float:
        """What opposes, relative to what it opposes; NaN without conflict."""
        return _divide(self.background_norm, self.positive_norm)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; norms as means over the judged positions, null where there are none."""
        values = {
            "positions": int(self.positions),
            "mixed": int(self.mixed),
            "conflicting": int(self.conflicting),
            "conflicting_share": _divide(self.conflicting, self.positions),
            "conflicting_share_of_mixed": _divide(self.conflicting, self.mixed),
            "mean_cosine": self.mean_cosine,
            "positive_norm": _divide(self.positive_norm, self.judged),
            "background_norm": _divide(self.background_norm, self.judged),
            "background_ratio": self.background_ratio,
        }
        return {name: None if value != value else value for name, value in values.items()}


@dataclass(frozen=True)
class GradientExplanation:
    """What the levels of a neck learn against each other over some images.

    Attributes:
        source_strides: Pixels a cell of each source level, finest first.
        output_strides: Stride of each output level in pixels.
        num_images: Images that were measured.
        conflicts: Conflicts by rule and source level.
    """

    source_strides: tuple[int, ...]
    output_strides: tuple[int, ...]
    num_images: int
    conflicts: Mapping[str, tuple[Conflicts, ...]]

    def weights_remove(self, levels: Sequence[int]) -> dict[str, float | None] | None:
        """How much of the opposing gradient's norm the neck's weights remove at some source levels, 0..1.

        Of what uniform weights 1/N would let through, of what a sum lets through, and of the sum's ratio to the
        gradient that it opposes, which no common factor of the weights changes. Below 0 if they let more through; none
        for a neck without weights, and null values without any conflict.
        """
        if WEIGHTS not in self.conflicts:
            return None
        weighted, unweighted = (
            sum((self.conflicts[rule][level] for level in levels), Conflicts()) for rule in (WEIGHTS, SUM)
        )
        if not unweighted.background_norm or not weighted.positive_norm:
            return {"of_uniform": None, "of_sum": None, "of_ratio": None}
        share = weighted.background_norm / unweighted.background_norm
        return {
            "of_uniform": 1 - share * len(self.output_strides),
            "of_sum": 1 - share,
            "of_ratio": 1 - weighted.background_ratio / unweighted.background_ratio,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; ``concat`` is what ``sum`` is, by equation 4."""
        rules: dict[str, Any] = {
            rule: {"meaning": RULES[rule], **self._by_stride(of_sources)} for rule, of_sources in self.conflicts.items()
        }
        if SUM in rules:
            rules["concat"] = rules[SUM]
        removed = None
        if WEIGHTS in self.conflicts:
            every = range(len(self.source_strides))
            removed = {f"stride{s}": self.weights_remove([level]) for level, s in enumerate(self.source_strides)}
            removed["all"] = self.weights_remove(every)
        return {
            "definition": DEFINITION,
            "images": self.num_images,
            "source_strides": list(self.source_strides),
            "output_strides": list(self.output_strides),
            "rules": rules,
            "weights_remove": removed,
        }

    def _by_stride(self, of_sources: Sequence[Conflicts]) -> dict[str, Any]:
        values = {f"stride{s}": c.to_dict() for s, c in zip(self.source_strides, of_sources, strict=True)}
        return {**values, "all": sum(of_sources, Conflicts()).to_dict()}


def _divide(value: float, count: float) -> float:
    return value / count if count else float("nan")
