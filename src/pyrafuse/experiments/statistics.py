"""What a few runs with different seeds say: mean, spread, and whether a difference is more than chance.

Everything is undefined (NaN) rather than zero where there are too few values.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom; the last one, a little strict, serves beyond."""

LEAST_AP = 0.01
"""A variant whose AP stays below in every run has learnt nothing: what is left are single lucky boxes."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (over n - 1) of ``count`` values."""

    mean: float
    deviation: float
    count: int

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        return f"{self.mean:.3f}" + ("" if math.isnan(self.deviation) else f" ± {self.deviation:.3f}")


@dataclass(frozen=True)
class Difference:
    """How much better ``first`` is than ``second``, seed by seed.

    Attributes:
        first: Name of a variant.
        second: Name of another.
        mean: Mean of the differences first - second.
        standard_error: Standard error of that mean: the differences' standard deviation over the root of their count.
        count: Seeds that both have.
        unlearnt: Those of the two that learnt nothing, see `LEAST_AP`.
    """

    first: str
    second: str
    mean: float
    standard_error: float
    count: int
    unlearnt: tuple[str, ...] = ()

    @property
    def half_width(self) -> float:
        """Half the 95 % confidence interval of the mean; NaN with fewer than two seeds."""
        return student_95(self.count - 1) * self.standard_error if self.count > 1 else math.nan

    @property
    def is_within_spread(self) -> bool | None:
        """Whether the confidence interval holds zero, so that chance explains the difference; None if unknown."""
        return None if self.count < 2 else abs(self.mean) <= self.half_width

    def verdict(self) -> str:
        """The same in words; that a variant learnt nothing comes first, for it explains the rest."""
        if not self.count:
            return "unknown: no seed in common"
        if len(self.unlearnt) == 2:
            return "none: neither learnt anything"
        verdict = "unknown: a spread takes two seeds"
        if self.is_within_spread is not None:
            verdict = "within the spread" if self.is_within_spread else "beyond the spread"
        return f"{verdict}; {self.unlearnt[0]} learnt nothing" if self.unlearnt else verdict


RULE = (
    "Differences are paired by seed: their mean and its standard error (standard deviation of the differences over the "
    "root of the number of seeds). A difference lies within the spread when zero is in its 95 % confidence interval, "
    "mean ± t times the standard error, t of Student for one degree of freedom less than seeds (12.7 for 2 seeds, 4.3 "
    "for 3, 2.8 for 5). Of twenty true zeros about one will look like more: look twice where many variants meet."
)
"""How `Difference` judges, for readers of a table."""


def student_95(degrees: int) -> float:
    """Two-sided 95 % point of Student's t; strict by at most 4 % beyond 30 degrees.

    Raises:
        ValueError: If there is no degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"Student's t needs a degree of freedom, got {degrees}")
    return _STUDENT_95[min(degrees, len(_STUDENT_95)) - 1]


def has_learnt(values: Iterable[float]) -> bool | None:
    """Whether any AP of a variant's runs reaches `LEAST_AP`; None where none is defined."""
    defined = [value for value in values if not math.isnan(value)]
    return max(defined) >= LEAST_AP if defined else None


def summarize(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of the defined ones among ``values``."""
    defined = [value for value in values if not math.isnan(value)]
    mean = fmean(defined) if defined else math.nan
    return Spread(mean, stdev(defined) if len(defined) > 1 else math.nan, len(defined))


def compare_by_seed(first: str, second: str, values: Mapping[str, Mapping[int, float]]) -> Difference:
    """The difference of two variants over the seeds for which both have a defined value.

    Args:
        first: Name of a variant.
        second: Name of another.
        values: AP of each variant by seed.
    """
    shared = sorted(set(values[first]) & set(values[second]))
    spread = summarize([values[first][seed] - values[second][seed] for seed in shared])
    error = spread.deviation / math.sqrt(spread.count) if spread.count else math.nan
    unlearnt = tuple(name for name in (first, second) if has_learnt(values[name].values()) is False)
    return Difference(first, second, spread.mean, error, spread.count, unlearnt)
