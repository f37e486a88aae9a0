"""`pyrafuse train`."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from pyrafuse.base.errors import PyrafuseError, nearest
from pyrafuse.base.paths import check_data, find_checkpoint, looks_like_file
from pyrafuse.cli.shorthand import Shorthand, shorthand
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.recipes.small import small
from pyrafuse.recipes.tricks import TRICKS, switch, with_size, with_value
from pyrafuse.training.folders import check_folder
from pyrafuse.training.launching import check_nodes
from pyrafuse.training.settings import Recipe, to_plain
from pyrafuse.training.start_files import check_start_files, is_published

HELP = {
    "--data PATH": "data.path: a folder, a data.yaml, a COCO JSON file, or shapes; also as a bare word",
    "--recipe NAME": "one of `pyrafuse recipes`, or a YAML file; by default small. Other options change it",
    "--with A,B": f"switch tricks of the strong baseline on: {', '.join(TRICKS)}",
    "--without A,B": "switch them off",
    "--model NAME": "model.name: one of `pyrafuse models`, or a YAML file that describes a detector (pyrafuse models "
    "NAME --spec writes one); or FILE, a checkpoint of a detector to start from "
    "(model.start_from): it gives the architecture, the size and the colours as well",
    "--weights FILE": "a checkpoint of a detector, as --model FILE; or pretrained weights of the backbone "
    "(model.backbone_weights): FILE, torchvision/NAME or timm/NAME, which are fetched",
    "--as NAME": "model.published: the published name of a foreign FILE that does not tell how it is used",
    "--size N": "data.size",
    "--missing skip": "data.missing: leave out images that are listed and not there",
    "--exif FRAME": "data.exif: stored or upright, the frame of boxes in images that EXIF turns",
    "--boxes WORDS": "data.boxes: what the numbers of a box are, such as shares or corners",
    "--max-detections N": "run.max_detections: so many an image count in evaluations, 100 a class by default",
    "--epochs N": "run.epochs",
    "--batch N": "run.batch_size",
    "--lr X": "optimizer.lr, for a batch of optimizer.lr_batch images",
    "--device NAME": "cpu, gpu, or the numbers of GPUs: 0,1",
    "--seed N": "run.seed",
    "--output DIR": "run.output",
    "--resume": "run.resume: go on with the run in --output, by its own recipe",
}


OPEN_MODEL = {"name": None, "spec": {}, "backbone": None, "neck": None, "options": {}}
OPEN_DATA = {"size": None, "fit": None, "longest": None}
"""Settings that the checkpoint of a detector decides unless they are given."""


def read_device(text: str) -> list[str]:
    """The options that ``cpu``, ``gpu``, ``mps``, ``auto``, ``1`` or ``0,1`` stand for.

    Raises:
        PyrafuseError: If it is none of these.
    """
    if text in {"auto", "cpu", "mps"}:
        return [f"--run.accelerator={text}"]
    if text in {"gpu", "cuda"}:
        return ["--run.accelerator=gpu"]
    numbers = text.removeprefix("cuda:").split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise PyrafuseError(f"no device {text!r}; choose cpu, gpu, or the numbers of GPUs such as 0 or 0,1")
    return ["--run.accelerator=gpu", f"--run.devices=[{','.join(number.strip() for number in numbers)}]"]


def read_model(text: str) -> list[str]:
    """The option that a model's name, the file of a description, or a detector's file stands for."""
    is_detector = looks_like_file(text) and not text.endswith((".yaml", ".yml"))
    return [f"--model.start_from={text}" if is_detector else f"--model.name={text}"]


def read_weights(text: str) -> list[str]:
    """The option that weights stand for: those of a detector, or of a backbone alone.

    Raises:
        PyrafuseError: If it is a file that cannot be read.
    """
    if is_published(text) or not os.path.exists(text):  # whether it is there is told when it is needed
        return [f"--model.backbone_weights={text}"]
    from pyrafuse.training.starting import holds_start

    path = find_checkpoint(text)
    return [f"--model.start_from={path}" if holds_start(path) else f"--model.backbone_weights={path}"]


def read_recipe(text: str) -> list[str]:
    """The option that a recipe's name or file stands for.

    Raises:
        PyrafuseError: If it is neither.
    """
    if Path(text).suffix in {".yaml", ".yml"} or Path(text).is_file():
        return [f"--config={text}"]
    return [f"--config={json.dumps(to_plain(RECIPES.create(text)))}"]


def read_values(path: Path) -> dict[str, Any]:
    """The settings in a recipe's file; their values are not looked at.

    Raises:
        PyrafuseError: If it cannot be read, is no YAML of settings, or one of them is unknown.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise PyrafuseError(f"--recipe {path} is no YAML file: it is not text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PyrafuseError(f"{path} is no YAML: {getattr(error, 'problem', None) or error}{place}") from error
    if not isinstance(values, dict):
        raise PyrafuseError(f"{path} holds no settings of a recipe, such as `run: {{epochs: 30}}`")
    known = describe_defaults()
    groups = {key.partition(".")[0] for key in known}
    for key in _keys(values, free={name for name, value in known.items() if isinstance(value, dict)}):
        if key not in known and key not in groups:
            near = nearest(key, known)
            hint = f"did you mean {near}?" if near else "`pyrafuse train --help` lists all"
            raise PyrafuseError(f"{path}: there is no setting {key}; {hint}")
    return values


def _keys(values: Mapping[Any, Any], *, free: Collection[str], prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings in ``values``; what is within a ``free`` one is its own affair."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if any(key.startswith(f"{inner}.") for inner in free):
            continue
        if isinstance(value, dict) and value and key not in free:
            yield from _keys(value, free=free, prefix=f"{key}.")
        else:
            yield key


def put_recipe_first(words: Sequence[str]) -> list[str]:
    """Recipes before what changes them, tricks switched in them; a run that is resumed brings its own.

    What a dotted name tells of the model's options (``--model.options.head.rfb=true``) goes into the recipe,
    whose other options stay; ``--model.options`` puts new ones in the place of all. What a detector's file decides
    (``--model FILE``) is left open in the recipe.
    """
    words, tricks = _take_tricks(words)
    words, options = _take_options(words)
    recipes = [word for word in words if word.startswith("--config=")]
    changes = [word for word in words if not word.startswith("--config=")]
    resume = next((word for word in reversed(changes) if word.startswith("--run.resume")), "--run.resume=false")
    output = next((word.partition("=")[2] for word in reversed(changes) if word.startswith("--run.output=")), None)
    is_resumed = not resume.endswith(("=false", "=no"))
    if is_resumed and not output and not recipes:
        given = next((Path(word.partition("=")[2]) for word in changes if word.startswith("--data.path=")), None)
        folder = given.parent if given and given.is_file() else given
        is_run = folder is not None and (folder / "last.ckpt").is_file()
        hint = f"; did you mean --resume --output {folder}?" if is_run else ""
        raise PyrafuseError(f"--resume needs --output RUN_DIR: no run folder was given{hint}")
    if is_resumed and output and not recipes:
        own = Path(output) / "recipe.yaml"
        if not own.is_file():
            raise PyrafuseError(f"nothing to resume: {own} is not there; give the folder of a run as --output")
        recipes = [f"--config={own}"]
    for given in (word.removeprefix("--config=") for word in recipes):
        if not given.startswith("{") and Path(given).is_file():
            read_values(Path(given))
    starts = [word.partition("=")[2] for word in changes if word.startswith("--model.start_from=")]
    if len({*starts}) > 1:
        raise PyrafuseError(
            f"{' and '.join(dict.fromkeys(starts))} are two detectors to start from: give one; "
            "--model.backbone_weights FILE gives weights of the backbone alone"
        )
    has_start = bool(starts) and not is_resumed
    return [*_change_recipe(recipes, tricks, options, size=_size_in(changes), has_start=has_start), *changes]


def _size_in(words: Sequence[str]) -> int | None:
    """The size that ``words`` ask for; the parser refuses what is none."""
    given = [word.removeprefix("--data.size=") for word in words if word.startswith("--data.size=")]
    return int(given[-1]) if given and given[-1].isdecimal() else None


def _take_tricks(words: Sequence[str]) -> tuple[list[str], list[tuple[str, bool]]]:
    """The other words, and each trick that is named with whether it shall be on."""
    tricks, others = [], []
    for word in words:
        option, equals, names = word.partition("=")
        if option not in {"--with", "--without"}:
            others.append(word)
        elif not (equals and names):
            raise PyrafuseError(f"{option} needs a trick, or several with commas between: {', '.join(TRICKS)}")
        else:
            tricks.extend((name, option == "--with") for name in names.split(","))
    return others, tricks


def _take_options(words: Sequence[str]) -> tuple[list[str], list[tuple[list[str], Any]]]:
    """The other words, and path in the recipe and value of each of the model's options that has a dotted name."""
    options, others = [], []
    for word in words:
        name, equals, text = word.partition("=")
        if not name.startswith("--model.options."):
            others.append(word)
            continue
        if not equals:
            raise PyrafuseError(f"{name} needs a value")
        try:
            options.append((name[2:].split("."), yaml.safe_load(text)))
        except yaml.YAMLError as error:
            raise PyrafuseError(f"{name} {text}: the value is no YAML; put text with signs in quotes") from error
    return others, options


def _change_recipe(
    recipes: list[str],
    tricks: list[tuple[str, bool]],
    options: list[tuple[list[str], Any]],
    *,
    size: int | None,
    has_start: bool,
) -> list[str]:
    """The same recipes with ``size``, ``tricks`` and ``options`` set in the last one, left open for a start."""
    *before, last = recipes or [f"--config={json.dumps(to_plain(small()))}"]
    given = last.removeprefix("--config=")
    is_file = not given.startswith("{")
    if is_file and not Path(given).is_file() and not (tricks or options or has_start or size):
        return recipes  # the parser says so
    values = as_given = read_values(Path(given)) if is_file else json.loads(given)
    if size and (recipes or tricks or options):
        values = with_size(values, size)
    values = leave_open(values, has_start=has_start, is_file=is_file)
    if values == as_given and not (tricks or options):
        return recipes
    for name, is_on in tricks:
        values = switch(values, name, on=is_on)
    for path, value in options:
        values = with_value(values, path, value)
    return [*before, f"--config={json.dumps(values)}"]


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
    """Every option of `pyrafuse train` with its value in the recipe ``small``."""
    return dict(_flatten(small()))


def _flatten(settings: Any, prefix: str = "") -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            values |= _flatten(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = value
    return values


@shorthand(
    Shorthand(
        usage="[DATA] [--recipe NAME] [--epochs N] [--size N] [--output DIR] [options]",
        options={
            "--data": "--data.path",
            "--recipe": read_recipe,
            "--with": "--with",  # `put_recipe_first` takes them out
            "--without": "--without",
            "--model": read_model,
            "--weights": read_weights,
            "--as": "--model.published",
            "--size": "--data.size",
            "--missing": "--data.missing",
            "--exif": "--data.exif",
            "--boxes": "--data.boxes",
            "--max_detections": "--run.max_detections",
            "--epochs": "--run.epochs",
            "--batch": "--run.batch_size",
            "--lr": "--optimizer.lr",
            "--device": read_device,
            "--seed": "--run.seed",
            "--output": "--run.output",
            "--resume": "--run.resume",
        },
        help=HELP,
        positional="--data.path",
        complete=put_recipe_first,
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
    check_folder(recipe.run)
    check_nodes(recipe.run)
    if not recipe.run.resume:
        check_start_files(recipe.model)  # before torch is imported
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.training.run import train as run

    result = run(recipe, console=Terminal())
    print(result.evaluation.table())
    print(f"\nbest checkpoint  {result.best}\nreport           {result.folder / 'report.html'}")
    return 0
