"""`pyrafuse train`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrafuse.base.errors import PyrafuseError, nearest
from pyrafuse.base.paths import check_data, find_checkpoint, looks_like_file
from pyrafuse.base.published_files import is_address, is_published_detector
from pyrafuse.base.typed_values import (
    create,
    flatten,
    kind_within,
    read_value,
    read_yaml_file,
    settings_of,
    to_plain,
    with_value,
)
from pyrafuse.base.views.cutting import read_views
from pyrafuse.cli.shorthand import Given, Shorthand, shorthand
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.recipes.small import small
from pyrafuse.recipes.tricks import TRICKS, switch, with_size
from pyrafuse.training.folders import check_folder
from pyrafuse.training.launching import go_on_after_restart, join_launcher
from pyrafuse.training.loggers.registry import check_loggers
from pyrafuse.training.settings import Recipe
from pyrafuse.training.start_files import check_start_files, is_published

HELP = {
    "--data PATH": "data.path: a folder, a data.yaml, a COCO JSON file, or shapes; also as a bare word",
    "--recipe NAME": "one of `pyrafuse recipes`, or a YAML file; by default small. Other options change it",
    "--with A,B": f"switch tricks of the strong baseline on: {', '.join(TRICKS)}",
    "--without A,B": "switch them off",
    "--model NAME": "model.name: one of `pyrafuse models`, or a YAML file that describes a detector (pyrafuse models "
    "NAME --spec writes one); or FILE, a checkpoint of a detector to start from, torchvision/NAME or an address "
    "(model.start_from): it gives the architecture, the size and the colours as well",
    "--weights FILE": "a checkpoint of a detector, as --model FILE; or pretrained weights of the backbone "
    "(model.backbone_weights): FILE, an address, torchvision/NAME or timm/NAME, which are fetched; none to train from "
    "nothing; by default auto, what is published for the backbone",
    "--as NAME": "model.published: the published name of a foreign FILE that does not tell how it is used",
    "--size N": "data.size",
    "--tile N": "data.tile: learn and validate on tiles of so many pixels a side, for small objects in large images",
    "--overlap X": "data.overlap: least share of a tile's side that it has in common with the next one",
    "--missing skip": "data.missing: leave out images that are listed and not there",
    "--exif FRAME": "data.exif: stored or upright, the frame of boxes in images that EXIF turns",
    "--boxes WORDS": "data.boxes: what the numbers of a box are, such as shares or corners",
    "--max-detections N": "run.max_detections: so many an image count in evaluations, 100 a class by default",
    "--epochs N": "run.epochs",
    "--batch N": "run.batch_size; auto is the recipe's, with accumulated gradients if memory does not hold it "
    "(run.fit_memory)",
    "--lr X": "optimizer.lr, for a batch of optimizer.lr_batch images",
    "--device NAME": "cpu, gpu, or the numbers of GPUs: 0,1",
    "--seed N": "run.seed",
    "--loggers A,B": "run.loggers: tensorboard, wandb, mlflow, trackio, or what --import registers; none for no one",
    "--output DIR": "run.output",
    "--advice": "run.advice: apply the advice that the data give; what is given by hand stays",
    "--resume": "run.resume: go on with the run in --output, by its own recipe",
}


SETTINGS = settings_of(Recipe)
OTHERS = {"recipe": str, "with": tuple[str, ...], "without": tuple[str, ...]}
"""What is given besides settings."""

OPEN_MODEL = {"name": None, "spec": {}, "backbone": None, "neck": None, "options": {}}
OPEN_DATA = {"size": None, "fit": None, "longest": None}
"""Settings that the checkpoint of a detector decides unless they are given."""


def read_device(text: str) -> list[Given]:
    """The settings that ``cpu``, ``gpu``, ``mps``, ``auto``, ``1`` or ``0,1`` stand for.

    Raises:
        PyrafuseError: If it is none of these.
    """
    if text in {"auto", "cpu", "mps"}:
        return [("run.accelerator", text)]
    if text in {"gpu", "cuda"}:
        return [("run.accelerator", "gpu")]
    numbers = [number.strip() for number in text.removeprefix("cuda:").split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise PyrafuseError(f"no device {text!r}; choose cpu, gpu, or the numbers of GPUs such as 0 or 0,1")
    return [("run.accelerator", "gpu"), ("run.devices", [int(number) for number in numbers])]


def read_batch(given: Any) -> list[Given]:
    """The setting that a number of images, or ``auto``, stands for."""
    return [("run.fit_memory", True) if given == "auto" else ("run.batch_size", given)]


def read_loggers(given: str | Sequence[str]) -> list[Given]:
    """The setting that names with commas between stand for, or ``none``.

    Raises:
        PyrafuseError: If ``none`` stands beside others.
    """
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]
    if "none" in names and len(names) > 1:
        raise PyrafuseError(f"--loggers {','.join(names)}: none stands alone; leave it out, or leave the others out")
    return [("run.loggers", () if names == ["none"] else tuple(names))]


def read_model(text: str) -> list[Given]:
    """The setting that a model's name, the file of a description, or a detector's file stands for."""
    is_detector = looks_like_file(text) and not text.endswith((".yaml", ".yml"))
    return [("model.start_from" if is_detector else "model.name", text)]


def read_weights(text: str) -> list[Given]:
    """The setting that weights stand for: those of a detector, or of a backbone alone, or ``none`` at all.

    Raises:
        PyrafuseError: If it is a file that cannot be read.
    """
    if text == "none":
        return [("model.backbone_weights", None)]
    if is_published_detector(text):
        return [("model.start_from", text)]
    if not is_address(text) and (is_published(text) or not os.path.exists(text)):
        return [("model.backbone_weights", text)]  # whether it is there is told when it is needed
    path = find_checkpoint(text)
    from pyrafuse.training.starting import holds_start

    setting = "model.start_from" if holds_start(path) else "model.backbone_weights"
    return [(setting, text if is_address(text) else str(path))]


def is_recipe_file(text: str) -> bool:
    """Whether a recipe is given by its file, and not by its name."""
    return Path(text).suffix in {".yaml", ".yml"} or Path(text).is_file()


def read_recipe_file(path: str) -> dict[str, Any]:
    """The settings in a recipe's file, as plain values that fit, nested.

    Raises:
        PyrafuseError: If it cannot be read, holds no settings, or one of them is unknown or does not fit.
    """
    content = read_yaml_file(path, option="--recipe")
    if not isinstance(content, dict):
        raise PyrafuseError(f"{path} holds no settings of a recipe, such as `run: {{epochs: 30}}`")
    values: dict[str, Any] = {}
    for name, value in flatten(content, SETTINGS):
        kind = kind_within(name, SETTINGS)
        if kind is None:
            near = nearest(name, SETTINGS)
            hint = f"did you mean {near}?" if near else "`pyrafuse train --help` lists all"
            raise PyrafuseError(f"{path}: there is no setting {name}; {hint}")
        values = with_value(values, name.split("."), to_plain(read_value(value, kind, f"{path}: {name}")))
    return values


def make_recipe(given: Sequence[Given]) -> Recipe:
    """The recipe that is asked for: a base, its tricks switched, then what changes it.

    Args:
        given: In any order: ``recipe`` (a name or a file; ``small`` without one), ``with`` and ``without`` (tricks),
            and settings. A setting within ``model.options`` leaves the rest of them. What a detector's file decides
            (``model.start_from``) is left open; a run that is resumed brings its own recipe.

    Raises:
        PyrafuseError: If there is no such recipe, file or trick, values do not go together, or one changes nothing.
    """
    recipes = [value for name, value in given if name == "recipe"]
    tricks = [(trick, name == "with") for name, value in given if name in ("with", "without") for trick in value]
    if empty := next((name for name, value in given if name in ("with", "without") and not value), ""):
        raise PyrafuseError(f"--{empty} needs a trick, or several with commas between: {', '.join(TRICKS)}")
    changes = [(name, value) for name, value in given if name not in OTHERS]
    last = dict(changes)
    if last.get("run.resume") and not recipes:
        recipes = [_find_own_recipe(last)]
    if changes.count(("model.backbone_weights", None)) and last.get("model.start_from"):
        raise PyrafuseError(
            f"--weights none trains from nothing, and {last['model.start_from']} brings weights: leave one of them out"
        )
    starts = dict.fromkeys(value for name, value in changes if name == "model.start_from" and value)
    if len(starts) > 1:
        raise PyrafuseError(
            f"{' and '.join(starts)} are two detectors to start from: give one; "
            "--model.backbone_weights FILE gives weights of the backbone alone"
        )
    default = to_plain(small())
    base: dict[str, Any] = {} if recipes else default
    for text in recipes:
        own = read_recipe_file(text) if is_recipe_file(text) else to_plain(RECIPES.create(text))
        base = _overlay(base, own)
    if size := last.get("data.size"):
        base = with_size(base, size)
    is_file = bool(recipes) and is_recipe_file(recipes[-1])
    base = leave_open(base, has_start=bool(starts) and not last.get("run.resume"), is_file=is_file)
    for name, is_on in tricks:
        base = switch(base, name, on=is_on)
    values = _overlay(default, base)
    for name, value in changes:
        values = with_value(values, name.split("."), value)
    if values["run"]["advice"]:
        of_files = (flatten(read_recipe_file(text), SETTINGS) for text in recipes if is_recipe_file(text))
        by_hand = dict.fromkeys(name for given in (changes, *of_files) for name, _ in given if name != "run.advice")
        values = with_value(values, ["run", "by_hand"], [*by_hand])
    recipe = create(Recipe, values)
    # refuses an overlap without tiles; a whole recipe in a file has one in any case
    read_views(tile=recipe.data.tile, overlap=recipe.data.overlap if "data.overlap" in last else None)
    return recipe


def _find_own_recipe(given: Mapping[str, Any]) -> str:
    """The file of the recipe that a resumed run brings."""
    output, data = given.get("run.output"), given.get("data.path")
    if not output:
        place = Path(data) if data else None
        folder = place.parent if place and place.is_file() else place
        is_run = folder is not None and (folder / "last.ckpt").is_file()
        hint = f"; did you mean --resume --output {folder}?" if is_run else ""
        raise PyrafuseError(f"--resume needs --output RUN_DIR: no run folder was given{hint}")
    own = Path(output) / "recipe.yaml"
    if not own.is_file():
        raise PyrafuseError(f"nothing to resume: {own} is not there; give the folder of a run as --output")
    return str(own)


def _overlay(values: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the settings of ``above`` in place of its own."""
    for name, value in flatten(above, SETTINGS):
        values = with_value(values, name.split("."), value)
    return dict(values)


def leave_open(values: Mapping[str, Any], *, has_start: bool, is_file: bool) -> dict[str, Any]:
    """The recipe in ``values`` without what the checkpoint of a detector decides.

    Args:
        values: Settings of a registered recipe, or those in a user's file.
        has_start: A checkpoint is given beside the recipe: model and preprocessing are the checkpoint's, not the
            recipe's. Size and fit stay as a user's file gives them.
        is_file: It is a user's file, which may name a checkpoint itself: what it does not give is that checkpoint's.
    """
    model, data = dict(values.get("model") or {}), dict(values.get("data") or {})
    if has_start:
        values = {name: value for name, value in values.items() if name != "preprocessing"}
        model = {**model, **OPEN_MODEL}
        if not is_file:
            data = with_size(values, None)["data"]
    elif is_file and model.get("start_from"):
        model = {**OPEN_MODEL, **model}
    else:
        return dict(values)
    data = {**OPEN_DATA, **data} if is_file else {**data, **OPEN_DATA}
    return {**values, "model": model, "data": data}


def describe_defaults() -> dict[str, Any]:
    """Every setting of a recipe with its value in ``small``."""
    recipe = small()
    return {name: getattr(getattr(recipe, name.split(".")[0]), name.split(".")[1]) for name in SETTINGS}


@shorthand(
    Shorthand(
        usage="[DATA] [--recipe NAME] [--epochs N] [--size N] [--output DIR] [options]",
        options={
            "data": "data.path",
            "config": "recipe",
            "model": read_model,
            "weights": read_weights,
            "as": "model.published",
            "size": "data.size",
            "tile": "data.tile",
            "overlap": "data.overlap",
            "missing": "data.missing",
            "exif": "data.exif",
            "boxes": "data.boxes",
            "max_detections": "run.max_detections",
            "epochs": "run.epochs",
            "batch": read_batch,
            "lr": "optimizer.lr",
            "device": read_device,
            "seed": "run.seed",
            "loggers": read_loggers,
            "output": "run.output",
            "resume": "run.resume",
            "advice": "run.advice",
        },
        help=HELP,
        positional="data.path",
        others=lambda: OTHERS,
        arrange=lambda given: [("recipe", make_recipe(given))],
        defaults=describe_defaults,
    )
)
def train(recipe: Recipe) -> int:
    """Train a detector by a recipe, on your images.

    Everything goes into one folder: best.ckpt, last.ckpt, recipe.yaml, metrics.csv, results.json, pictures
    of the curves, and report.html, a page with all of it.
    Ctrl-C stops; --resume goes on as if nothing had happened.
    """
    check_data(recipe.data.path)
    join_launcher(recipe.run)
    check_folder(go_on_after_restart(recipe.run))
    check_loggers(recipe.run.loggers)
    if not recipe.run.resume:
        check_start_files(recipe.model)  # before torch is imported
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.training.run import train as run

    result = run(recipe, console=Terminal())
    print(result.evaluation.table())
    print(f"\nbest checkpoint  {result.best}\nreport           {result.folder / 'report.html'}")
    print(f"next             pyrafuse predict {result.folder} IMAGES")
    return 0
