"""Strategies of `pyrafuse search` beside random draws: the same seconds, several seeds, the same short trainings.

    python benchmarks/search_strategies.py DATA [--size 96] [--minutes 5] [--seeds 0,1,2] [--output runs/strategies]

Every strategy has the same minutes of one process, its own work (such as a supernet's training) included. Unlike in
`pyrafuse search` no necks made by hand come first, and no batch but the first is drawn at random. A short training of
a graph gives the same loss whoever proposed it, so that graphs of all runs can be compared: by the loss of the first
rung, in the second half of a run, where a strategy has learnt; and the best of each run, as a search ranks them, by its
last. Runs that are there already are not done again. Nothing else should run on the machine.
"""

import argparse
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

from pyrafuse.base.terminal import Terminal
from pyrafuse.cli.search import make_settings, search
from pyrafuse.search.engines.registry import ENGINES
from pyrafuse.search.journal import FINISHED, Trial, open_journal
from pyrafuse.search.preparing import SearchSettings, Setup, describe_search, gather_material, prepare
from pyrafuse.search.ranking import leaders
from pyrafuse.search.running import Search

STRATEGIES = ("random", "evolution", "tpe", "nsga2", "controller", "supernet")


def main() -> None:
    """Run what is missing, and print the table after every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--output", type=Path, default=Path("runs/strategies"))
    arguments = parser.parse_args()
    defaults = {name: one.default for name, one in inspect.signature(search).parameters.items() if name != "output"}
    changes = {"data": arguments.data, "sizes": (arguments.size,), "minutes": arguments.minutes, "channels": (48,)}
    settings = make_settings(**defaults | changes | {"device": "cpu"})
    console = Terminal()
    setup = prepare(settings, console)
    runs: dict[str, list[tuple[Trial, ...]]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.strategies.split(","):
            folder = arguments.output / f"{name}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            runs.setdefault(name, []).append(run(replace(settings, strategy=name), setup, seed, folder))
            console.print(f"{name}, seed {seed}: {len(finished(runs[name][-1]))} graphs")
        show(runs)


def run(settings: SearchSettings, setup: Setup, seed: int, folder: Path) -> tuple[Trial, ...]:
    """The trials of one strategy from one seed, in the settings' minutes."""
    strategy = settings.create_strategy()
    plan = replace(setup.plan, strategy=strategy, source=settings.strategy, seed=seed, warmup=1, random_every=0)
    description = {**describe_search(settings, setup), "seed": seed}
    with open_journal(folder, description) as journal:
        strategy.prepare(gather_material(settings, replace(setup, plan=plan), folder, tell=print))
        with ENGINES.create(settings.engine, setup.proxy, print, (), **settings.engine_options) as engine:
            Search(journal, plan, engine, setup.scale, by_hand={}).run(seconds=60 * settings.minutes)
        return journal.trials


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """Trials with a figure."""
    return [trial for trial in trials if trial.state == FINISHED and trial.rungs]


def show(runs: dict[str, list[tuple[Trial, ...]]]) -> None:
    """Print medians over seeds; the best tenth is that of all graphs of the random runs, by their first loss."""
    drawn = sorted(trial.rungs[0].loss for trials in runs.get("random", []) for trial in finished(trials))
    tenth = drawn[len(drawn) // 10] if drawn else 0.0
    print("strategy    graphs  over budget  first loss, 2nd half  in best tenth  best: loss     AP  AP of each seed")
    for name, each in runs.items():
        middle = partial(middle_of, each)
        tops = [leaders(trials)[0] for trials in each]
        print(
            f"{name:<11}{middle(lambda trials: len(finished(trials))):7.0f}"
            f"{middle(lambda trials: sum(trial.state != FINISHED for trial in trials)):13.0f}"
            f"{middle(lambda trials: median(first_losses(trials))):22.3f}"
            f"{middle(lambda trials: mean(loss < tenth for loss in first_losses(trials))):15.2f}"
            f"{median(top.rungs[-1].loss for top in tops):12.3f}{median(top.ap or 0.0 for top in tops):7.3f}"
            f"  {' '.join(f'{top.ap or 0.0:.3f}' for top in tops)}",
            flush=True,
        )


def first_losses(trials: Sequence[Trial]) -> list[float]:
    """Losses of the first rung in the second half of a run."""
    done = finished(trials)
    return [trial.rungs[0].loss for trial in done[len(done) // 2 :]]


def middle_of(each: Sequence[tuple[Trial, ...]], figure: Callable[[tuple[Trial, ...]], float]) -> float:
    """Median of a figure over the runs of a strategy."""
    return median(figure(trials) for trials in each)


if __name__ == "__main__":
    main()
