"""How far the ranking of a search foretells that of full trainings, and whether it can be trusted."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyrafuse.base.printable import counted
from pyrafuse.base.typed_values import without_nan
from pyrafuse.experiments.rank_correlation import Correlation, correlate
from pyrafuse.experiments.statistics import summarize

TRUSTED = 0.5
"""Rank correlation with full training below which a ranking is called untrustworthy."""


@dataclass(frozen=True)
class Judged:
    """One graph, judged by the search and by full trainings.

    Attributes:
        name: To call it by.
        parameters: Numbers in the whole detector.
        gflops: Billions of operations of the whole detector for one image.
        losses: Mean training loss of each rung.
        ap: AP after the last rung of the short training.
        full: AP of the full trainings by seed.
    """

    name: str
    parameters: float
    gflops: float
    losses: tuple[float, ...]
    ap: float
    full: Mapping[int, float]

    @property
    def truth(self) -> float:
        """Mean AP of the full trainings; NaN without any."""
        return summarize([*self.full.values()]).mean


@dataclass(frozen=True)
class Trust:
    """How far the ranking of a search foretells that of full trainings.

    Attributes:
        graphs: What it was measured on.
        rungs: Correlation of each rung's loss, the lower the better, and of the last AP with AP in full.
        stability: Correlation of AP in full with one seed and with the other: no ranking foretells more.
        sizes: Correlation of parameters and of GFLOPs with AP in full.
    """

    graphs: tuple[Judged, ...]
    rungs: tuple[Correlation, ...]
    stability: Correlation
    sizes: tuple[Correlation, ...]

    @property
    def is_trusted(self) -> bool:
        """Whether every rung's correlation reaches `TRUSTED`."""
        return all(one.value >= TRUSTED for one in self.rungs)

    def sentences(self) -> list[str]:
        """All correlations, and what follows."""
        lines = [
            f"Spearman's rank correlation with full training over {counted(len(self.graphs), 'random graph')} "
            "(95 % interval):",
            *map(str, (*self.rungs, *self.sizes, self.stability)),
        ]
        if not self.is_trusted:
            weak = ", ".join(one.what for one in self.rungs if not one.value >= TRUSTED)
            lines.append(f"The ranking cannot be trusted on these data: below {TRUSTED} are {weak}.")
        return lines

    def to_json(self) -> str:
        """Everything for programs; null where a figure is undefined."""
        plain: dict[str, Any] = {
            "trusted": self.is_trusted,
            "correlations": [vars(one) for one in (*self.rungs, *self.sizes, self.stability)],
            "graphs": [{**vars(one), "full": dict(one.full)} for one in self.graphs],
        }
        return json.dumps(without_nan(plain), indent=2, allow_nan=False) + "\n"


def find_trust(graphs: Sequence[Judged], seeds: Sequence[int]) -> Trust:
    """Correlate all that the search knew of ``graphs`` with what became of them.

    Args:
        graphs: Judged graphs.
        seeds: Seeds of the full trainings; the first two are held against each other.
    """
    truth = [one.truth for one in graphs]
    losses = list(zip(*(one.losses for one in graphs), strict=True))
    rungs = [
        correlate(f"loss of rung {place}", [-loss for loss in values], truth) for place, values in enumerate(losses, 1)
    ]
    rungs.append(correlate(f"AP of rung {len(losses)}", [one.ap for one in graphs], truth))
    stability = correlate(
        f"full training with seed {seeds[0]} and with seed {seeds[1]}",
        *([one.full.get(seed, math.nan) for one in graphs] for seed in seeds[:2]),
    )
    sizes = (
        correlate("parameters", [one.parameters for one in graphs], truth),
        correlate("GFLOPs", [one.gflops for one in graphs], truth),
    )
    return Trust(tuple(graphs), tuple(rungs), stability, sizes)
