"""Random graphs judged as in a search, but none left behind, and trained in full: does the one foretell the other?

random graphs within the budget -> every rung, kept in a journal -> `train_in_full` -> `Trust`
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import counted
from pyrafuse.base.progress import create_bar
from pyrafuse.base.writing import write_text
from pyrafuse.search.journal import BEGUN, FINISHED, Journal, Trial, open_journal
from pyrafuse.search.preparing import SearchSettings, Setup, describe_search
from pyrafuse.search.proxy import Proxy
from pyrafuse.search.running import MAX_REFUSED, RANDOM, name_candidate
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.registry import restore
from pyrafuse.search.training_in_full import train_in_full
from pyrafuse.search.trust import Judged, Trust, find_trust

TRUST_FILE = "ranking.json"


def measure_trust(
    settings: SearchSettings, setup: Setup, folder: Path, *, imports: Sequence[str] = (), console: Console
) -> Trust:
    """Hold the search's ranking of random graphs against that of full trainings; ends with `TRUST_FILE`.

    Args:
        settings: Number of graphs, seeds and epochs among them.
        setup: What the search stands on.
        folder: For everything; new, or that of the same call, which is gone on with.
        imports: Modules of the user's that every training imports first.
        console: Console for progress output.

    Raises:
        PyrafuseError: If there are not as many graphs within the budget, or the folder holds something else.
    """
    full, plan = settings.full, setup.plan
    with open_journal(
        folder, describe_search(replace(settings, strategy=RANDOM, strategy_options={}), setup)
    ) as journal:
        draw_within_budget(journal, setup, full.correlate)
        judge_all(journal, setup, console)
        trials = [trial for trial in journal.trials if trial.state == FINISHED]
        if failed := len(journal.trials) - len(trials):
            console.print(f"left out, because the short training failed: {counted(failed, 'random graph')}")
    candidates = {f"{RANDOM}-{trial.number}": restore(plan.space, plan.inputs, trial) for trial in trials}
    results = train_in_full(
        candidates,
        settings.recipe,
        folder / "full",
        full,
        seeds=full.seeds[:2],
        device=settings.device,
        imports=imports,
        console=console,
    )
    graphs = [
        Judged(
            name,
            trial.cost["parameters"],
            trial.cost["gflops"],
            tuple(rung.loss for rung in trial.rungs),
            math.nan if trial.ap is None else trial.ap,
            results.precisions[name],
        )
        for name, trial in zip(candidates, trials, strict=True)
    ]
    trust = find_trust(graphs, full.seeds)
    write_text(folder / TRUST_FILE, trust.to_json())
    for line in (*trust.sentences(), *results.failures):
        console.print(line)
    return trust


def draw_within_budget(journal: Journal, setup: Setup, count: int) -> None:
    """Begin trials of random graphs within the budget until there are ``count``.

    Raises:
        PyrafuseError: If there are none for `MAX_REFUSED` draws.
    """
    plan = setup.plan
    known, refused, attempt = {trial.fingerprint for trial in journal.trials}, 0, 0
    while len(journal.trials) < count:
        candidate = sample(plan.space, plan.inputs, random.Random(f"{plan.seed}/correlation/{attempt}"))
        attempt += 1
        name = name_candidate(candidate, plan.inputs)
        if name in known:
            continue
        cost = setup.scale(candidate)
        if plan.limits.find_excess(cost):
            refused += 1
            if refused == MAX_REFUSED:
                raise PyrafuseError(
                    f"{len(journal.trials)} of {count} random graphs are within the budget, and the last {MAX_REFUSED} "
                    "were not: allow more, or correlate fewer"
                )
            continue
        known.add(name)
        refused = 0
        journal.begin(source=RANDOM, answers=candidate.answers, fingerprint=name, size=candidate.size, cost=cost)


def judge_all(journal: Journal, setup: Setup, console: Console) -> None:
    """Bring every trial that has begun through all rungs, a batch at a time."""
    plan = setup.plan
    waiting = [trial for trial in journal.trials if trial.state == BEGUN]
    with create_bar(console) as bar:
        task = bar.add_task("random graphs", total=len(journal.trials), completed=len(journal.trials) - len(waiting))
        for start in range(0, len(waiting), plan.batch):
            batch = waiting[start : start + plan.batch]
            _judge(journal, batch, setup)
            bar.advance(task, len(batch))


def _judge(journal: Journal, batch: Sequence[Trial], setup: Setup) -> None:
    proxy: Proxy = setup.proxy
    graphs = [restore(setup.plan.space, setup.plan.inputs, trial).graph for trial in batch]
    learners = [proxy.begin(trial.fingerprint, graph, trial.size) for trial, graph in zip(batch, graphs, strict=True)]
    for until in proxy.settings.rungs:
        proxy.learn([one for one in learners if one.state is not None], until=until)
    for trial, learner in zip(batch, learners, strict=True):
        for place, rung in enumerate(learner.rungs):
            journal.reach(trial.number, place, rung)
        if learner.reason:
            journal.fail(trial.number, learner.reason)
        else:
            journal.finish(trial.number)
