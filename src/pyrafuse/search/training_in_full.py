"""Graphs trained in full, unfrozen, by the recipe: variants of one comparison.

named graphs -> YAML files and variants of the recipe -> `compare` -> figures by seed, cost, differences
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from pyrafuse.base.writing import write_text
from pyrafuse.comparison.comparing import compare
from pyrafuse.comparison.planning import Comparison, Variant, name_data_sets
from pyrafuse.comparison.report import DataResult
from pyrafuse.experiments.running import find_slots
from pyrafuse.necks.graph_text import write_graph
from pyrafuse.search.choices import Candidate
from pyrafuse.search.settings import FullTrainings
from pyrafuse.training.settings import Recipe

RUNS = "runs"


@dataclass(frozen=True)
class FullResults:
    """What full trainings left.

    Attributes:
        data: Figures by seed, costs and differences.
        seeds: Those that were asked for.
        failures: A sentence for each training without results.
    """

    data: DataResult
    seeds: tuple[int, ...]
    failures: tuple[str, ...]

    @property
    def precisions(self) -> dict[str, dict[int, float]]:
        """AP by name and seed."""
        return {
            variant.name: {seed: values["ap"] for seed, values in variant.figures.items()}
            for variant in self.data.variants
        }


def train_in_full(
    candidates: Mapping[str, Candidate],
    recipe: Recipe,
    folder: Path,
    full: FullTrainings,
    *,
    seeds: Sequence[int],
    device: str,
    imports: Sequence[str] = (),
    console: Console,
) -> FullResults:
    """Train each of ``candidates`` once with each seed; what is finished in ``folder`` is not done again.

    Args:
        candidates: By a name that is fit for a folder.
        recipe: Recipe as it was asked for; size and neck are the candidates'.
        folder: For a YAML file of each graph, and the comparison in `RUNS`; new, or that of the same candidates.
        full: Epochs, and trainings at a time.
        seeds: Seeds of the trainings.
        device: ``auto``, ``cpu`` and so on.
        imports: Modules of the user's that every training imports first.
        console: Console for progress output.

    Raises:
        PyrafuseError: If the folder holds other trainings.
    """
    variants = []
    for name, candidate in candidates.items():
        path = (folder / f"{name}.yaml").resolve()
        write_text(path, write_graph(candidate.graph))
        variants.append(
            Variant(
                name,
                replace(
                    recipe,
                    model=replace(recipe.model, neck=(str(path),)),
                    data=replace(recipe.data, size=candidate.size),
                    run=replace(recipe.run, epochs=full.epochs or recipe.run.epochs),
                ),
            )
        )
    comparison = Comparison(tuple(variants), name_data_sets([recipe.data.path]), tuple(seeds))
    slots = find_slots(device, parallel=full.parallel, workers=recipe.data.workers)
    report = compare(comparison, folder / RUNS, slots=slots, imports=imports, console=console).report
    (data,) = report.data
    failures = tuple(f"{failure.run.title} failed: {failure.reason}" for failure in report.failures)
    return FullResults(data, report.seeds, failures)
