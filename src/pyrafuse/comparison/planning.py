"""What is compared with what: variants of a recipe, data sets and seeds under one budget; its folder, and its runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import find_differences
from pyrafuse.base.writing import write_text
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.experiments.running import Run
from pyrafuse.necks.registry import NECKS
from pyrafuse.training.settings import Recipe, to_plain
from pyrafuse.training.starting import settle

PLAN_FILE = "comparison.yaml"
OWN_SETTINGS = {
    "run.epochs": "--epochs or --minutes sets it for all",
    "run.seed": "use --seeds",
    "run.output": "use --output",
    "run.resume": "the same command goes on by itself",
    "run.devices": "use --device and --parallel",
    "run.accelerator": "use --device",
    "run.nodes": "every run has one device",
    "data.path": "name the data sets themselves",
    "data.train": "it is the same for all",
    "data.val": "it is the same for all",
    "data.val_fraction": "it is the same for all",
    "data.missing": "it is the same for all",
    "data.exif": "it is the same for all",
    "data.boxes": "it is the same for all",
}
"""Settings that no variant may have for itself, and what to do instead."""


@dataclass(frozen=True)
class Variant:
    """One thing that is compared: a recipe, under a name that is fit for a folder."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Comparison:
    """Variants times data sets times seeds, each a training of the same number of steps.

    Attributes:
        variants: What is compared.
        data: Path of each data set, by a name that is fit for a folder.
        seeds: Seeds of weights, order and augmentation; the same for all variants, so that differences are paired.
        minutes: How long one training of the slowest variant may take; without it the recipes' epochs count.

    Raises:
        PyrafuseError: If anything is there twice or missing, or a variant changes what must be the same for all.
    """

    variants: tuple[Variant, ...]
    data: Mapping[str, str]
    seeds: tuple[int, ...]
    minutes: float | None = None

    def __post_init__(self) -> None:
        if not self.variants:
            raise PyrafuseError("nothing to compare: name necks (--necks asff,sum_fusion) or variants (--vary)")
        if not self.data:
            raise PyrafuseError("nothing to train on: name a data set, or shapes")
        if not self.seeds:
            raise PyrafuseError("no seeds: a run needs one, and a spread two or more (--seeds 0,1,2)")
        if repeated := _find_repeated(self.seeds):
            raise PyrafuseError(f"seed {repeated} is there twice: the same run again says nothing")
        if min(self.seeds) < 0:
            raise PyrafuseError(f"seeds must be 0 or more, got {min(self.seeds)}")
        if self.minutes is not None and not self.minutes > 0:
            raise PyrafuseError(f"minutes must be positive, got {self.minutes}")
        self._check_variants()

    def _check_variants(self) -> None:
        seen: list[Variant] = []
        for variant in self.variants:
            if not re.fullmatch(r"\w[\w.+-]*", variant.name):
                raise PyrafuseError(
                    f"a variant cannot be called {variant.name!r}: letters, digits and . _ + - make a folder's name"
                )
            for other in seen:
                if other.name == variant.name:
                    raise PyrafuseError(f"variant {variant.name!r} is there twice: give each its own name")
                if other.recipe == variant.recipe:
                    raise PyrafuseError(
                        f"variants {other.name!r} and {variant.name!r} are the same recipe: leave one out"
                    )
                refuse_own_settings(variant, other.recipe)
            seen.append(variant)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """Each variant's recipe, by its name."""
        return {variant.name: variant.recipe for variant in self.variants}

    def with_recipes(self, recipes: Mapping[str, Recipe]) -> "Comparison":
        """The same comparison of other recipes, by the names of their variants."""
        return replace(self, variants=tuple(Variant(name, recipe) for name, recipe in recipes.items()))

    def to_plain(self) -> dict[str, Any]:
        """The whole as values that YAML holds."""
        recipes = {name: to_plain(recipe) for name, recipe in self.recipes.items()}
        for recipe in recipes.values():
            for key in OWN_SETTINGS:
                group, name = key.split(".")
                if not (key == "run.epochs" and self.minutes is None) and group == "run":
                    del recipe[group][name]
            del recipe["data"]["path"]
        return {
            "data": dict(self.data), "seeds": list(self.seeds), "minutes": self.minutes, "variants": recipes,
        }  # fmt: skip


def refuse_own_settings(variant: Variant, base: Recipe) -> None:
    """Refuse a variant that has for itself what belongs to the whole comparison.

    Raises:
        PyrafuseError: If it differs so from ``base``, with what to do instead.
    """
    for key, remedy in OWN_SETTINGS.items():
        own, others = _get(variant.recipe, key), _get(base, key)
        if own != others:
            raise PyrafuseError(
                f"variant {variant.name!r} has {key} {own} where others have {others}, but it belongs to the whole "
                f"comparison: {remedy}"
            )


def name_data_sets(paths: Sequence[str]) -> dict[str, str]:
    """Path of each data set by a short name of its own.

    Raises:
        PyrafuseError: If a path is there twice.
    """
    if repeated := _find_repeated(paths):
        raise PyrafuseError(f"data set {repeated} is there twice")
    named: dict[str, str] = {}
    for path in paths:
        stem = Path(path).stem if Path(path).is_file() else Path(path.split(":")[0]).resolve().name
        stem = re.sub(r"[^\w.-]+", "_", stem) or "data"
        count = 1
        while (name := stem if count == 1 else f"{stem}-{count}") in named:
            count += 1
        named[name] = path
    return named


def read_data(comparison: Comparison) -> dict[str, Splits]:
    """Every data set, by its name.

    Raises:
        DataError: If one cannot be read.
    """
    data = comparison.variants[0].recipe.data
    return {
        name: read_splits(
            path,
            val_fraction=data.val_fraction,
            seed=comparison.seeds[0],
            train=data.train,
            val=data.val,
            rules=data.reading,
        )
        for name, path in comparison.data.items()
    }


def with_neck(recipe: Recipe, name: str) -> Recipe:
    """The recipe with another neck, all else equal.

    Args:
        recipe: Whose model has a neck, or several in a row.
        name: A registered neck: it takes the place of the last one, or, where it is in the row already, ends the row.
            Several joined by ``+`` are the whole row. Options of the neck that is replaced, such as its channels, go
            over to the new one if that has none of its own and takes them.

    Raises:
        UnknownNameError: If there is no such neck or model.
        PyrafuseError: If the model cannot be described.
    """
    settings = recipe.model
    row = tuple(neck["name"] for neck in settle(recipe)[0].model.spec["necks"])
    chosen = (*row[:-1], name)
    if "+" in name:
        chosen = tuple(name.split("+"))
    elif name in row:
        chosen = row[: row.index(name) + 1]
    for neck in chosen:
        NECKS.get(neck)
    if chosen == row:
        return recipe
    options = dict(settings.options)
    if by_neck := dict(options.get("necks", {})):
        last = chosen[-1]
        if row[-1] not in chosen and last not in by_neck:
            taken = NECKS.options(last)
            by_neck[last] = {key: value for key, value in by_neck.get(row[-1], {}).items() if key in taken}
        options["necks"] = {neck: value for neck, value in by_neck.items() if neck in chosen}
    return replace(recipe, model=replace(settings, neck=chosen, options=options))


@dataclass(frozen=True)
class Settled:
    """What a comparison's first call measures, and later calls keep.

    Attributes:
        epochs: Epochs of each data set; empty where they are not set yet.
        precision: Precision of the variants that leave it open (``run.precision: auto``); none where it is not set.
    """

    epochs: Mapping[str, int] = field(default_factory=dict)
    precision: str | None = None


def claim_folder(folder: Path, comparison: Comparison) -> Settled:
    """Make ``folder`` that of ``comparison``, or find that it is, and what an earlier call has settled.

    Raises:
        PyrafuseError: If the folder holds another comparison, or other things.
    """
    path = folder / PLAN_FILE
    wanted = comparison.to_plain()
    if path.is_file():
        try:
            stored = yaml.safe_load(path.read_text())
            settled = Settled(stored.pop("epochs", {}), stored.pop("precision", None))
        except (yaml.YAMLError, AttributeError, TypeError, UnicodeDecodeError) as error:
            raise PyrafuseError(f"{path} is damaged: choose another --output, or remove {folder}") from error
        if difference := next(find_differences(stored, wanted), ""):
            raise PyrafuseError(
                f"{folder} holds another comparison: {difference}. Choose another --output, or ask for what is there"
            )
        return settled
    if folder.exists() and (not folder.is_dir() or any(not each.name.startswith(".") for each in folder.iterdir())):
        raise PyrafuseError(f"{folder} is there already and holds no comparison: choose another --output")
    write_text(path, yaml.safe_dump(wanted, sort_keys=False))
    return Settled()


def keep(folder: Path, comparison: Comparison, settled: Settled) -> None:
    """Write down what was settled for ``comparison``, so that a later call does the same."""
    plain = {**comparison.to_plain(), "epochs": dict(settled.epochs)}
    if settled.precision is not None:
        plain["precision"] = settled.precision
    write_text(folder / PLAN_FILE, yaml.safe_dump(plain, sort_keys=False))


def plan_runs(comparison: Comparison, folder: Path, epochs: Mapping[str, int]) -> tuple[Run, ...]:
    """All runs, seed by seed, so that what an interrupted comparison leaves can be paired.

    Args:
        comparison: What is compared.
        folder: Folder of the whole comparison; each run has its own in it.
        epochs: Number of epochs for each data set.
    """
    return tuple(
        Run(
            data=name,
            variant=variant.name,
            recipe=replace(
                variant.recipe,
                data=replace(variant.recipe.data, path=path),
                run=replace(
                    variant.recipe.run,
                    epochs=epochs[name],
                    seed=seed,
                    output=str(folder / name / variant.name / f"seed-{seed}"),
                    devices="auto",
                    nodes=1,
                    resume=False,
                ),
            ),
            folder=folder / name / variant.name / f"seed-{seed}",
        )
        for seed in comparison.seeds
        for name, path in comparison.data.items()
        for variant in comparison.variants
    )


def _get(recipe: Recipe, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(recipe, group), name)


def _find_repeated(values: Sequence[Any]) -> Any:
    """The first of ``values`` that was there before, as text; empty for none."""
    return next((str(value) for i, value in enumerate(values) if value in values[:i]), "")
