"""`pyrafuse compare`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.paths import check_data, check_writable
from pyrafuse.base.typed_values import flatten, kind_within, read_yaml_file
from pyrafuse.cli.arguments import Options
from pyrafuse.cli.shorthand import Given, Meaning, Shorthand, shorthand
from pyrafuse.cli.train import OTHERS, SETTINGS, make_recipe, read_model, read_weights, train
from pyrafuse.training.start_files import check_start_files

if TYPE_CHECKING:
    from pyrafuse.comparison.planning import Variant

SHORT: dict[str, Meaning] = {
    "model": read_model,
    "weights": read_weights,
    "as": "model.published",
    "size": "data.size",
    "missing": "data.missing",
    "exif": "data.exif",
    "boxes": "data.boxes",
    "max_detections": "run.max_detections",
    "epochs": "run.epochs",
    "batch": "run.batch_size",
    "lr": "optimizer.lr",
}
SHARED: dict[str, Any] = {
    **{name: setting.kind for name, setting in SETTINGS.items()},
    "with": OTHERS["with"],
    "without": OTHERS["without"],
}
"""Options of `pyrafuse train` that all variants may have, with their types."""

SYNTAX = 'write "NAME: KEY=VALUE KEY=VALUE", for example --vary "wide: model.neck=[yolo_fpn,asff] optimizer.lr=0.002"'


def gather_shared(given: Sequence[Given]) -> list[Given]:
    """The options of `pyrafuse train` as one value, that of ``shared``."""
    shared = tuple(pair for pair in given if _is_shared(pair[0]))
    return [*(pair for pair in given if not _is_shared(pair[0])), ("shared", shared)]


def _is_shared(name: str) -> bool:
    return name in SHARED or kind_within(name, SETTINGS) is not None


@shorthand(
    Shorthand(
        usage="DATA [DATA ...] [--necks A,B] [--vary 'NAME: KEY=VALUE'] [--seeds 0,1,2] [options of pyrafuse train]",
        options=SHORT,
        help={
            "--vary TEXT": f"a variant; may be repeated: {SYNTAX}",
            "--model NAME": "model.name of all variants; or FILE, a checkpoint of a detector that all start from",
            "--weights FILE": "a checkpoint of a detector, as --model FILE; or weights of the backbone; for all",
            "--as NAME": "model.published of all variants",
            "--size N": "data.size of all variants",
            "--missing skip": "data.missing of all variants: leave out images that are listed and not there",
            "--exif FRAME": "data.exif of all variants: stored or upright",
            "--max-detections N": "run.max_detections of all variants: so many an image count in evaluations",
            "--boxes WORDS": "data.boxes of all variants: what the numbers of a box are, such as shares or corners",
            "--epochs N": "run.epochs of all variants",
            "--batch N": "run.batch_size of all variants",
            "--lr X": "optimizer.lr of all variants",
            "--with A,B": "tricks that all variants have, as in pyrafuse train",
            "--without A,B": "tricks that none has",
            "--KEY VALUE": "any other option of pyrafuse train, for all variants: --optimizer.name sgd",
        },
        positional="data",
        others=lambda: SHARED,
        arrange=gather_shared,
        hidden=frozenset({"shared"}),
    )
)
def compare(
    *,
    data: Sequence[str],
    necks: tuple[str, ...] = (),
    vary: Sequence[str] = (),
    variants: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    recipe: str = "small",
    shared: Sequence[Given] = (),
    minutes: float | None = None,
    device: str = "auto",
    parallel: int | None = None,
    output: Path = Path("runs/comparison"),
) -> int:
    """Compare necks, or any variants of a recipe, fairly: the same data, seeds and number of steps for all.

    Ends with a table of AP (mean and spread over seeds), parameters, GFLOPs and latency, and says which differences lie
    within the spread: comparison.md, comparison.json and comparison.png. The same command goes on where it stopped. The
    status is 1 if a run failed; the others are finished all the same.

    Args:
        data: Data sets as `pyrafuse train` takes them; bare words.
        necks: Each in the place of the model's last neck; A+B for a whole row. In short for --vary "A: model.neck=...".
        vary: Variants by name, each with its own options of `pyrafuse train`.
        variants: YAML file of variants: NAME: {KEY: VALUE}.
        seeds: Each variant is trained once with each.
        recipe: What all variants start from: one of `pyrafuse recipes`, or a YAML file.
        shared: Options of `pyrafuse train` for all variants, with their values.
        minutes: Instead of --epochs: how long one run of the slowest variant may train; all take as many steps.
        device: auto, cpu, mps, gpu, or numbers of GPUs such as 0,1. Each GPU trains one run at a time.
        parallel: Runs at a time; by default one a GPU, one on the processor.
        output: Folder for everything; new, or that of the same comparison.
    """
    for path in data:
        check_data(path)
    check_writable(output, is_folder=True)
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.cli.main import IMPORTS
    from pyrafuse.comparison.comparing import compare as run
    from pyrafuse.comparison.planning import Comparison, Variant, name_data_sets, refuse_own_settings, with_neck
    from pyrafuse.experiments.running import find_slots

    check_shared(shared, minutes=minutes)
    base = make_recipe([("recipe", recipe), *shared])
    check_start_files(base.model)
    found = [Variant(name, with_neck(base, name)) for name in necks]
    if variants is not None:
        found += read_variants(variants, recipe, shared)
    found += [read_variant(text, recipe, shared) for text in vary]
    for variant in found:
        refuse_own_settings(variant, base)
    comparison = Comparison(tuple(found), name_data_sets(data), seeds, minutes)
    slots = find_slots(device, parallel=parallel, workers=base.data.workers)
    result = run(comparison, output, slots=slots, imports=IMPORTS.get(), console=Terminal())
    print(result.report.markdown())
    print(f"written to {result.folder}: comparison.md, comparison.json, comparison.png")
    return int(bool(result.report.failures))


def check_shared(shared: Sequence[Given], *, minutes: float | None) -> None:
    """Refuse options for all variants that the comparison sets itself.

    Raises:
        PyrafuseError: If there is one, with what to use instead.
    """
    from pyrafuse.comparison.planning import OWN_SETTINGS

    for key, _ in shared:
        if key == "run.epochs" and minutes is not None:
            raise PyrafuseError("--minutes and --epochs are two budgets: give one of them")
        if (key in OWN_SETTINGS and key.partition(".")[0] == "run" and key != "run.epochs") or key == "data.path":
            raise PyrafuseError(f"--{key} is set by the comparison: {OWN_SETTINGS[key]}")


def read_variant(text: str, recipe: str, shared: Sequence[Given]) -> "Variant":
    """A variant from ``NAME: KEY=VALUE KEY=VALUE``.

    Args:
        text: Text as it was typed.
        recipe: Name or file of what all variants start from.
        shared: Options of all variants.

    Raises:
        PyrafuseError: If ``text`` is not of that form, or an option is unknown.
    """
    name, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"\s*[\w.+-]+\s*", name):
        raise PyrafuseError(f"--vary {text!r} names no variant: {SYNTAX}")
    words = re.split(r"\s+(?=[\w.-]+=)", rest.strip()) if rest.strip() else []
    for word in words:
        if not re.match(r"[\w.-]+=", word):
            raise PyrafuseError(f"--vary {text!r}: {word!r} is no KEY=VALUE; {SYNTAX}")
    pairs = [(key.replace("-", "_"), value) for key, _, value in (word.partition("=") for word in words)]
    return _create_variant(name.strip(), pairs, recipe, shared, is_typed=True)


def read_variants(path: Path, recipe: str, shared: Sequence[Given]) -> "list[Variant]":
    """The variants of a YAML file, ``NAME: {model.neck: [yolo_fpn, asff]}``; groups may be nested as in a recipe.

    Raises:
        PyrafuseError: If the file cannot be read, has a name twice, or an option is unknown.
    """
    content = read_yaml_file(path, option="--variants")
    if not isinstance(content, Mapping) or not all(isinstance(v, Mapping) or v is None for v in content.values()):
        raise PyrafuseError(f"--variants {path} must hold a line NAME: {{KEY: VALUE}} for each variant")
    return [
        _create_variant(str(name), [*flatten(given or {}, SETTINGS)], recipe, shared) for name, given in content.items()
    ]


def _create_variant(
    name: str, pairs: Sequence[Given], recipe: str, shared: Sequence[Given], *, is_typed: bool = False
) -> "Variant":
    from pyrafuse.comparison.planning import Variant

    options = Options.of(train)
    try:
        own = [given for key, value in pairs for given in options.settle(key, value, is_typed=is_typed)]
        return Variant(name, make_recipe([("recipe", recipe), *shared, *own]))
    except PyrafuseError as error:
        raise PyrafuseError(f"variant {name!r}: {error}") from error
