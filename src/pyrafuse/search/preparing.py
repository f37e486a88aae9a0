"""What a search stands on: settings read, data found, the detector built, the maps of its backbone cached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError, check_between
from pyrafuse.base.parts import Part
from pyrafuse.base.typed_values import to_plain
from pyrafuse.core.devices import choose_device
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.search.by_hand import find_by_hand, find_limits, find_over_other_levels
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.engines.registry import ENGINES
from pyrafuse.search.features import Features, cache_features, fingerprint_data
from pyrafuse.search.frozen import digest_weights
from pyrafuse.search.latency import LatencyTable
from pyrafuse.search.material import Material
from pyrafuse.search.proxy import Proxy
from pyrafuse.search.running import Limits, Plan
from pyrafuse.search.settings import FullTrainings, ProxySettings
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy
from pyrafuse.search.weighing import Scale
from pyrafuse.training.preparing import create_detector
from pyrafuse.training.settings import Recipe
from pyrafuse.training.starting import settle


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and how.

    Attributes:
        recipe: Data, detector, and how the winners will be trained; its neck is replaced by the candidates.
        space: What may be chosen.
        strategy: Registered name of what proposes.
        strategy_options: Options of its own.
        engine: Registered name of what trains.
        engine_options: Options of its own.
        proxy: How candidates are judged; its seed is that of all proposals, too.
        limits: What a candidate may cost as part of the whole detector.
        minutes: Minutes of the whole search, those of earlier calls included.
        device: Device to train and to measure latency on.
        cache_gb: Size in GiB that cached maps may take.
        full: Trainings in full after the search; none by default.

    Raises:
        PyrafuseError: If a name is unknown, the engine has no such option, or minutes are not positive.
    """

    recipe: Recipe
    space: Space = field(default_factory=Space)
    strategy: str = "evolution"
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    engine: str = "local"
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    limits: Limits = field(default_factory=Limits)
    minutes: float = 20.0
    device: str = "auto"
    cache_gb: float = 10.0
    full: FullTrainings = field(default_factory=FullTrainings)

    def __post_init__(self) -> None:
        self.create_strategy()
        known = ENGINES.options(self.engine)
        if unknown := next((name for name in self.engine_options if name not in known), ""):
            raise PyrafuseError(
                f"the engine {self.engine} has no option {unknown}: leave it out, or give another engine"
            )
        check_between("minutes", self.minutes, 0)
        for name, limit in vars(self.limits).items():
            check_between(name, limit, 0)

    def create_strategy(self) -> Strategy:
        """The strategy that is asked for.

        Raises:
            PyrafuseError: If it does not take its options.
        """
        return STRATEGIES.build(Part(self.strategy, self.strategy_options))


@dataclass(frozen=True)
class Setup:
    """What a search stands on: read, built and cached.

    Attributes:
        recipe: The settled recipe.
        splits: The data.
        card: Card of the described detector, with its whole description.
        features: Cached maps by the side of the network's input in pixels.
        proxy: What judges candidates by short trainings.
        by_hand: Necks made by hand, by their names in the journal.
        scale: What weighs candidates.
        plan: How candidates are looked for.
    """

    recipe: Recipe
    splits: Splits
    card: Card
    features: Mapping[int, Features]
    proxy: Proxy
    by_hand: Mapping[str, Candidate]
    scale: Scale
    plan: Plan


def prepare(settings: SearchSettings, console: Console) -> Setup:
    """Read the data, build the detector, and cache the maps of its backbone.

    Raises:
        PyrafuseError: If the detector cannot be built, or its backbone cannot be frozen.
        DataError: If the data cannot be read, or nothing can be learnt from them.
    """
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
    by_hand = find_by_hand(settings.space, inputs, console)
    table = LatencyTable(device, tell=console.print)
    scale = Scale(detector.card.spec, detector.backbone, device, table=table)
    limits = find_limits(settings.limits, by_hand, scale, console)
    scale = replace(scale, limits=limits)
    by_hand |= find_over_other_levels(
        settings.space, inputs, by_hand, lambda candidate: find_excess(limits, scale, candidate), console
    )
    plan = Plan(
        space=settings.space,
        inputs=inputs,
        strategy=settings.create_strategy(),
        source=settings.strategy,
        limits=limits,
        batch=settings.proxy.eta ** (len(settings.proxy.rungs) - 1),
        seed=settings.proxy.seed,
    )
    proxy = Proxy(detector.card, recipe, features, splits.val, settings.proxy, device=device)
    return Setup(recipe, splits, detector.card, features, proxy, by_hand, scale, plan)


def describe_search(settings: SearchSettings, setup: Setup) -> dict[str, object]:
    """What makes two searches the same one, in plain values; how long they take and where is left out."""
    spec, plain, splits = setup.scale.spec, to_plain(setup.recipe), setup.splits
    return {
        "space": settings.space.to_plain(),
        "data": {"train": fingerprint_data(splits.train), "val": fingerprint_data(splits.val)},
        "detector": {name: part for name, part in spec.to_plain().items() if name != "necks"},
        "weights": digest_weights(setup.scale.backbone),
        "device": setup.scale.device.type,
        "settings": {
            "strategy": {"name": settings.strategy, **settings.strategy_options},
            "limits": to_plain(settings.limits),
            **{name: plain[name] for name in ("optimizer", "schedule", "augmentation", "preprocessing")},
        },
        "proxy": to_plain(settings.proxy),
    }


def gather_material(settings: SearchSettings, setup: Setup, folder: Path, *, tell: Callable[[str], None]) -> Material:
    """What a strategy has at hand in the search in ``folder``."""
    return Material(
        setup.card,
        setup.recipe,
        setup.features,
        settings.proxy,
        setup.scale.device,
        folder,
        describe_search(settings, setup),
        find_excess=lambda candidate: find_excess(setup.plan.limits, setup.scale, candidate),
        tell=tell,
    )


def find_excess(limits: Limits, scale: Scale, candidate: Candidate) -> str:
    """What of a candidate's cost is too much, or why it cannot be weighed; operations alone are counted, not timed."""
    try:
        needs_all = limits.latency_ms is not None or limits.parameters is not None
        return limits.find_excess(scale(candidate) if needs_all else {"gflops": scale.count_gflops(candidate)})
    except Exception as error:  # operators of users fail in their own ways
        return f"it cannot be weighed: {error or type(error).__name__}"
