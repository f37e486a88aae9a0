"""A whole search: read, described, cached, searched, shown; begun and gone on with by the same call.

settings -> data, detector, cached maps -> journal -> `Search` -> search.html, neck-1.yaml ...
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from pyrafuse.base.errors import check_between
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.typed_values import to_plain
from pyrafuse.core.devices import choose_device
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.models.detector import Detector
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.engines.registry import ENGINES
from pyrafuse.search.features import cache_features, fingerprint_data
from pyrafuse.search.frozen import digest_weights
from pyrafuse.search.journal import Trial, check_folder, open_journal
from pyrafuse.search.latency import LatencyTable
from pyrafuse.search.points import POINTS
from pyrafuse.search.proxy import Proxy
from pyrafuse.search.recognizing import recognize
from pyrafuse.search.report import PageWriter, write_best
from pyrafuse.search.running import Limits, Plan, Search, name_candidate
from pyrafuse.search.settings import ProxySettings
from pyrafuse.search.strategies.registry import STRATEGIES
from pyrafuse.search.weighing import Scale
from pyrafuse.training.preparing import create_detector
from pyrafuse.training.settings import Recipe
from pyrafuse.training.starting import settle

DEAREST = 2
"""How many times the operations of the dearest neck by hand a candidate may have where no limit is given."""

BY_HAND = ("fpn", "pafpn", "bifpn", "nas_fpn", "asff")
"""Necks of `POINTS` that are tried first."""


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and how.

    Attributes:
        recipe: Data, detector, and how the winners will be trained; its neck is replaced by the candidates.
        space: What may be chosen.
        strategy: Registered name of what proposes.
        engine: Registered name of what trains.
        proxy: How candidates are judged; its seed is that of all proposals, too.
        limits: What a candidate may cost as part of the whole detector.
        minutes: Minutes of the whole search, those of earlier calls included.
        device: Device to train and to measure latency on.
        cache_gb: Size in GiB that cached maps may take.

    Raises:
        PyrafuseError: If a name is unknown, or minutes are not positive.
    """

    recipe: Recipe
    space: Space = field(default_factory=Space)
    strategy: str = "evolution"
    engine: str = "local"
    proxy: ProxySettings = field(default_factory=ProxySettings)
    limits: Limits = field(default_factory=Limits)
    minutes: float = 20.0
    device: str = "auto"
    cache_gb: float = 10.0

    def __post_init__(self) -> None:
        STRATEGIES.entry(self.strategy)
        ENGINES.entry(self.engine)
        check_between("minutes", self.minutes, 0)
        for name, limit in vars(self.limits).items():
            check_between(name, limit, 0)


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
    console: Console | None = None,
) -> SearchResult:
    """Search until the minutes are over; what an earlier call did in ``folder`` is not done again.

    Args:
        settings: What is searched, and how.
        folder: For everything; new, or that of the same search.
        command: What to type to go on, for the page.
        train: What to type to train such a detector, for the page; size and neck are added.
        console: Where to tell the progress.

    Raises:
        PyrafuseError: If the detector cannot be built, its backbone cannot be frozen, nothing is within the budget, or
            the folder holds another search.
        DataError: If the data cannot be read, or nothing can be learnt from them.
        KeyboardInterrupt: When it is interrupted; everything is kept.
    """
    began = time.monotonic()
    console = console or Terminal(quiet=True)
    check_folder(folder)
    device = choose_device(settings.device)
    recipe, start = settle(settings.recipe)
    data = recipe.data
    splits = read_splits(
        data.path,
        val_fraction=data.val_fraction,
        seed=recipe.run.seed,
        train=data.train,
        val=data.val,
        rules=data.reading,
    )
    console.print(f"{data.path}: {splits.finding}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)  # the same call finds the same random weights
        detector = create_detector(recipe, splits.train, say=console.print, start=start)
    if not recipe.model.brings_weights:
        console.print("the backbone is frozen at random weights, which tell necks apart poorly: give --weights")
    features = cache_features(
        detector.to(device),
        splits,
        augmentation=recipe.augmentation,
        views=settings.proxy.views,
        sizes=settings.space.sizes,
        seed=settings.proxy.seed,
        limit_gb=settings.cache_gb,
        workers=data.workers,
        console=console,
    )
    inputs = detector.backbone.features
    assert detector.card.spec is not None
    proxy = Proxy(detector.card, recipe, features, splits.val, settings.proxy, device=device)
    by_hand = find_by_hand(settings.space, inputs, console)
    table = LatencyTable(device, tell=console.print)
    scale = Scale(detector.card.spec, detector.backbone, device, settings.limits.latency_ms, table)
    plan = Plan(
        space=settings.space,
        inputs=inputs,
        strategy=STRATEGIES.create(settings.strategy),
        source=settings.strategy,
        limits=find_limits(settings.limits, by_hand, scale, console),
        batch=settings.proxy.eta ** (len(settings.proxy.rungs) - 1),
        seed=settings.proxy.seed,
    )
    with open_journal(folder, describe_search(settings, recipe, splits, detector)) as journal:
        if journal.notice:
            console.print(journal.notice)
        if journal.trials:
            console.print(f"going on after {len(journal.trials)} trials in {journal.path}")
        page = PageWriter(folder, plan, command=command, train=train)
        one = Search(
            journal,
            plan,
            ENGINES.create(settings.engine, proxy),
            scale,
            by_hand=by_hand,
            tell=console.print,
            watch=lambda: page.write_if_old(journal.trials),
        )
        try:
            one.run(seconds=60 * settings.minutes, began=began)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on") from None
        finally:
            with hold_interrupts():
                necks = write_best(folder, journal.trials, plan)
                page.write(journal.trials, is_running=False)
        return SearchResult(folder, journal.trials, tuple(necks))


def find_by_hand(space: Space, inputs: PyramidSpec, console: Console) -> dict[str, Candidate]:
    """Necks made by hand as points of the space, in the narrowest channels there are; those outside of it are told."""
    channels = min((number for number in space.channels if isinstance(number, int)), default=min(inputs.channels))
    found: dict[str, Candidate] = {}
    for name in BY_HAND:
        try:
            graph = POINTS[name](inputs, channels, None)
            candidate = recognize(space, inputs, graph)
        except ValueError as error:
            console.print(f"{name} is not tried, because it is not in the space: {error}")
            continue
        key = name_candidate(candidate, inputs)
        if same := next((other for other, one in found.items() if name_candidate(one, inputs) == key), ""):
            console.print(f"{name} is not tried, because it is the same graph as {same} here")
        else:
            found[name] = candidate
    return found


def find_limits(limits: Limits, by_hand: Mapping[str, Candidate], scale: Scale, console: Console) -> Limits:
    """What candidates may cost; if nothing is said, `DEAREST` times the operations of the dearest neck by hand.

    One drawn graph may have fifty times the operations of an FPN, and would take the time of as many others.
    """
    if not by_hand or any(limit is not None for limit in vars(limits).values()):
        return limits
    gflops = {name: scale.count_gflops(candidate) for name, candidate in by_hand.items()}
    dearest = max(gflops, key=lambda name: gflops[name])
    found = Limits(gflops=DEAREST * gflops[dearest])
    console.print(
        f"no limit was given: up to {found.gflops:.3g} GFLOPs are allowed, {DEAREST} times those with {dearest} "
        "(--max-latency, --max-gflops and --max-parameters set others)"
    )
    return found


def describe_search(settings: SearchSettings, recipe: Recipe, splits: Splits, detector: Detector) -> dict[str, object]:
    """What makes two searches the same one, in plain values; how long they take and where is left out."""
    spec = detector.card.spec
    assert spec is not None
    plain = to_plain(recipe)
    return {
        "space": settings.space.to_plain(),
        "data": {"train": fingerprint_data(splits.train), "val": fingerprint_data(splits.val)},
        "detector": {name: part for name, part in spec.to_plain().items() if name != "necks"},
        "weights": digest_weights(detector.backbone),
        "device": detector.device.type,
        "settings": {
            "strategy": settings.strategy,
            "limits": to_plain(settings.limits),
            **{name: plain[name] for name in ("optimizer", "schedule", "augmentation", "preprocessing")},
        },
        "proxy": to_plain(settings.proxy),
    }
