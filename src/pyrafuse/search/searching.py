"""A whole search: prepared, searched, shown; begun and gone on with by the same call.

settings -> `Setup` -> journal -> `Search` -> full trainings, if asked for -> search.html, neck-1.yaml ...
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.terminal import Terminal
from pyrafuse.search.by_hand import name_by_hand
from pyrafuse.search.confirming import Confirmation, choose
from pyrafuse.search.correlating import measure_trust
from pyrafuse.search.engines.registry import ENGINES
from pyrafuse.search.evidence import Evidence
from pyrafuse.search.journal import Trial, check_folder, open_journal
from pyrafuse.search.preparing import SearchSettings, Setup, describe_search, gather_material, prepare
from pyrafuse.search.report import PageWriter, write_best
from pyrafuse.search.running import RANDOM, Engine, Search
from pyrafuse.search.strategies.registry import STRATEGIES
from pyrafuse.search.training_in_full import train_in_full
from pyrafuse.training.progress import duration

OpenEngine = Callable[[], AbstractContextManager[Engine]]
"""Opens what trains the candidates, and closes it after the block."""

RANDOM_FOLDER, FULL_FOLDER, TRUST_FOLDER = "random", "full", "ranking"


@dataclass(frozen=True)
class SearchResult:
    """What a search left behind.

    Attributes:
        folder: Everything is here: journal.jsonl, search.html, neck-1.yaml and so on.
        trials: All trials.
        necks: Files of the best graphs, the best first.
    """

    folder: Path
    trials: tuple[Trial, ...]
    necks: tuple[Path, ...]


def search(
    settings: SearchSettings,
    folder: Path,
    *,
    command: str = "",
    train: str = "pyrafuse train DATA",
    imports: Sequence[str] = (),
    console: Console | None = None,
) -> SearchResult:
    """Search until the minutes are over; what an earlier call did in ``folder`` is not done again.

    Then, if it is asked for, the best necks are trained in full, and the ranking is held against full trainings.

    Args:
        settings: What is searched, and how.
        folder: For everything; new, or that of the same search.
        command: What to type to go on, for the page.
        train: What to type to train such a detector, for the page; size and neck are added.
        imports: Modules and files of the user's that other processes import first.
        console: Console for progress output.

    Raises:
        PyrafuseError: If the detector cannot be built, its backbone cannot be frozen, nothing is within the budget, or
            the folder holds another search.
        DataError: If the data cannot be read, or nothing can be learnt from them.
        KeyboardInterrupt: When it is interrupted; everything is kept.
    """
    began = time.monotonic()
    console = console or Terminal(quiet=True)
    check_folder(folder)
    setup = prepare(settings, console)
    plan = setup.plan
    open_engine = partial(
        ENGINES.create, settings.engine, setup.proxy, console.print, imports, **settings.engine_options
    )
    with open_journal(folder, describe_search(settings, setup)) as journal:
        if journal.notice:
            console.print(journal.notice)
        if journal.trials:
            console.print(f"going on after {len(journal.trials)} trials in {journal.path}")
        plan.strategy.prepare(gather_material(settings, setup, folder, tell=console.print))
        page = PageWriter(folder, plan, command=command, train=train)
        necks: list[Path] = []
        evidence = Evidence()
        try:
            with open_engine() as engine:
                Search(
                    journal,
                    plan,
                    engine,
                    setup.scale,
                    by_hand=setup.by_hand,
                    tell=console.print,
                    watch=lambda: page.write_if_old(journal.trials),
                ).run(seconds=60 * settings.minutes, began=began)
            if words := plan.strategy.describe(journal.trials):
                console.print(words)
            with hold_interrupts():  # full trainings take hours, and the graphs can be used meanwhile
                write_best(folder, journal.trials, plan)
            evidence = gather_evidence(
                settings, setup, open_engine, journal.trials, folder, imports=imports, console=console
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on") from None
        finally:
            with hold_interrupts():
                necks = write_best(folder, journal.trials, plan)
                page.write(journal.trials, is_running=False, evidence=evidence)
        return SearchResult(folder, journal.trials, tuple(necks))


def gather_evidence(
    settings: SearchSettings,
    setup: Setup,
    open_engine: OpenEngine,
    trials: Sequence[Trial],
    folder: Path,
    *,
    imports: Sequence[str],
    console: Console,
) -> Evidence:
    """What full trainings say of a search, as far as they are asked for."""
    confirmation = trust = None
    if settings.full.confirm:
        drawn = search_at_random(settings, setup, open_engine, trials, folder / RANDOM_FOLDER, console)
        chosen = choose(setup.plan, trials, drawn)
        results = train_in_full(
            chosen.candidates,
            settings.recipe,
            folder / FULL_FOLDER,
            settings.full,
            seeds=settings.full.seeds,
            device=settings.device,
            imports=imports,
            console=console,
        )
        confirmation = Confirmation(chosen, results)
        for line in (*confirmation.sentences(), *results.failures):
            console.print(line)
    if settings.full.correlate:
        trust = measure_trust(settings, setup, folder / TRUST_FOLDER, imports=imports, console=console)
    return Evidence(confirmation, trust)


def search_at_random(
    settings: SearchSettings,
    setup: Setup,
    open_engine: OpenEngine,
    trials: Sequence[Trial],
    folder: Path,
    console: Console,
) -> tuple[Trial, ...]:
    """Trials of a random search that takes the seconds of the search's own graphs; none where that was random, too."""
    plan = replace(setup.plan, strategy=STRATEGIES.create(RANDOM), source=RANDOM)
    if setup.plan.source == RANDOM:
        return ()
    seconds = sum(trial.own_seconds + trial.seconds for trial in trials if not name_by_hand(trial.source))
    console.print(f"random draws for as long as the search's own graphs were trained, {duration(seconds)}")
    with (
        open_journal(
            folder, describe_search(replace(settings, strategy=RANDOM, strategy_options={}), setup)
        ) as journal,
        open_engine() as engine,
    ):
        one = Search(journal, plan, engine, setup.scale, by_hand={}, tell=console.print)
        one.run(seconds=seconds)
        return journal.trials
