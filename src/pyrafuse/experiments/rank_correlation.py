"""Whether two figures order things alike: Spearman's rank correlation, and an interval of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 4000
"""Resamples of the graphs for an interval."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two figures over graphs.

    Attributes:
        what: What is correlated with what, in words.
        value: -1..1; NaN where a figure is the same for all.
        low: Lower end of the 95 % interval, by resampling the graphs.
        high: Upper end.
        count: Number of graphs.
    """

    what: str
    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two rows of numbers; equal ones share their mean rank.

    Returns:
        -1..1; NaN where a row has one value only.

    Raises:
        ValueError: If the rows differ in length.
    """
    a, b = place_each(first), place_each(second)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} and {b.size} numbers have no rank correlation")
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def correlate(what: str, first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Correlation:
    """The rank correlation with a percentile interval over `RESAMPLES` resamples of the pairs (Efron, 1979).

    Args:
        what: What is correlated with what.
        first: A figure of each graph; pairs with a NaN are left out.
        second: Another.
        seed: Seed of the resampling.
    """
    pairs = np.array([pair for pair in zip(first, second, strict=True) if not any(map(math.isnan, pair))])
    if len(pairs) < 2:
        return Correlation(what, math.nan, math.nan, math.nan, len(pairs))
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(pairs), size=(RESAMPLES, len(pairs)))
    values = np.array([spearman(*pairs[each].T) for each in rows])
    low, high = np.nanpercentile(values, (2.5, 97.5)) if not np.isnan(values).all() else (math.nan, math.nan)
    return Correlation(what, spearman(*pairs.T), float(low), float(high), len(pairs))


def place_each(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 0, of the least value first; equal values share the mean of theirs."""
    _, places, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[places]
