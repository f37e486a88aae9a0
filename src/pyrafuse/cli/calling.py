"""Training, evaluating, exporting and searching from Python: options of the commands as keywords, by the same parser.

It stands in the last row because recipes, short forms and their errors belong to the command line; `pyrafuse.train` is
looked up here when it is first used, so that importing pyrafuse stays fast.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.terminal import Terminal
from pyrafuse.cli.arguments import Options
from pyrafuse.cli.diff import compare_detectors
from pyrafuse.cli.diff import diff as cli_diff
from pyrafuse.cli.evaluate import evaluate as cli_evaluate
from pyrafuse.cli.evaluate import measure
from pyrafuse.cli.export import export as cli_export
from pyrafuse.cli.export import write_file
from pyrafuse.cli.search import make_settings, write_command, write_training
from pyrafuse.cli.search import search as cli_search
from pyrafuse.cli.train import make_recipe
from pyrafuse.cli.train import train as cli_train
from pyrafuse.training.settings import Recipe

if TYPE_CHECKING:
    from pyrafuse.evaluation.difference import Difference
    from pyrafuse.evaluation.result import EvaluationResult
    from pyrafuse.export.exporting import Exported
    from pyrafuse.models.detector import Detector
    from pyrafuse.search.choices import Space
    from pyrafuse.search.searching import SearchResult
    from pyrafuse.training.run import TrainingResult


def train(
    data: "Recipe | str | os.PathLike[str] | None" = None, /, *, progress: bool = True, **options: Any
) -> "TrainingResult":
    """Train a detector, as `pyrafuse train` does: ``train("my_data/", epochs=5, size=320, batch=8)``.

    Args:
        data: A data set as the command takes it, or a whole `Recipe`, which takes no options beside it. None for what
            a recipe or a run that goes on names itself.
        progress: Whether to tell on standard error how it goes.
        options: Options of `pyrafuse train` by their names: ``recipe``, ``model``, ``weights``, ``size``, ``epochs``,
            ``batch``, ``lr``, ``device``, ``seed``, ``output``, ``resume`` ...; ``with_`` stands for ``--with``, and
            ``**{"optimizer.name": "adamw"}`` gives an option with a dot.

    Returns:
        Folder, checkpoints and best evaluation of the run.

    Raises:
        PyrafuseError: If an option is unknown, with ours in its place, or has no such value; and as the training.
    """
    if isinstance(data, Recipe):
        if options:
            raise PyrafuseError(
                f"a Recipe is whole, and {', '.join(options)} would change it: use dataclasses.replace, or give the "
                "data set instead and recipe=NAME"
            )
        recipe = data
    else:
        given = {} if data is None else {"data": os.fspath(data)}
        given |= {name: value for name, value in options.items() if value is not None}
        taken = Options.of(cli_train)
        recipe = make_recipe(
            [pair for name, value in given.items() for pair in taken.settle(name.rstrip("_"), _as_value(name, value))]
        )
    from pyrafuse.training.run import train as run  # of torch: not for a mistyped option

    return run(recipe, console=Terminal(quiet=not progress))


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    /,
    *,
    progress: bool = True,
    **options: Any,
) -> "EvaluationResult":
    """Measure a detector in a file, as `pyrafuse evaluate` does: ``evaluate("best.ckpt", "my_data/", split="test")``.

    A detector in memory has `Detector.evaluate`.

    Args:
        model: A checkpoint, the folder of a run, an exported file, or the name or address of a published detector. With
            ``results``, the data: ``evaluate("my_data/", results="detections.json")``.
        data: A data set as the command takes it; by default what a checkpoint was trained on.
        progress: Whether to tell on standard error how it goes.
        options: Options of `pyrafuse evaluate` by their names: ``split``, ``size``, ``score``, ``device`` ... Without
            ``output`` only ``page`` and ``confusion`` are written, where they are given.

    Raises:
        PyrafuseError: If an option is unknown, or has no such value; and as the evaluation.
    """
    values = _read_options(cli_evaluate, options)
    values |= {"model": os.fspath(model), "data": None if data is None else os.fspath(data)}
    if options.get("output") is None:
        values["output"] = None
    return measure(**values, console=Terminal(quiet=not progress)).result


def diff(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    data: str | os.PathLike[str],
    /,
    *,
    progress: bool = True,
    **options: Any,
) -> "Difference":
    """Tell what one detector finds and another does not, as `pyrafuse diff` does: ``diff("a.ckpt", "b.onnx", "data")``.

    Args:
        first: A: a checkpoint, the folder of a run, an exported file, or COCO results, .json.
        second: B, of the same kinds.
        data: A data set as the command takes it.
        progress: Whether to tell on standard error how it goes.
        options: Options of `pyrafuse diff` by their names: ``split``, ``score``, ``tile``, ``limit`` ... Without
            ``page`` nothing is written.

    Raises:
        PyrafuseError: If an option is unknown, or has no such value; and as the comparison.
    """
    values = _read_options(cli_diff, options)
    values |= {"first": os.fspath(first), "second": os.fspath(second), "data": os.fspath(data)}
    if options.get("page") is None:
        values["page"] = None
    return compare_detectors(**values, console=Terminal(quiet=not progress))[0]


def export(
    model: "Detector[Any] | str | os.PathLike[str]",
    file: str | os.PathLike[str],
    /,
    *,
    progress: bool = True,
    **options: Any,
) -> "Exported":
    """Write a detector as one file that runs elsewhere, as `pyrafuse export` does: ``export(detector, "a.onnx")``.

    Args:
        model: A detector, or the file of one as the command takes it.
        file: Path of the file; its suffix tells the format.
        progress: Whether to tell on standard error how it goes.
        options: Options of `pyrafuse export` by their names: ``format``, ``input``, ``precision``, ``check`` ...

    Returns:
        Path, format, interface, and how far the file's answers agree with the detector's.

    Raises:
        PyrafuseError: If an option is unknown, or has no such value; and as the export.
    """
    if "list" in options:
        raise PyrafuseError("list is for the command line: pyrafuse export --list")
    is_file = isinstance(model, str | os.PathLike)
    values = _read_options(cli_export, {**options, "model": model if is_file else None, "file": file})
    values |= {"model": values["model"] if is_file else model}
    del values["list"]
    console = Terminal(quiet=not progress)
    return write_file(**values, tell=lambda what: console.print(f"{what} ..."), console=console)


def search_necks(
    data: str | os.PathLike[str], /, *, space: "Space | None" = None, progress: bool = True, **options: Any
) -> "SearchResult":
    """Search a neck, as `pyrafuse search` does: ``search_necks("my_data/", minutes=20, max_latency="30ms")``.

    Args:
        data: A data set as the command takes it.
        space: What may be chosen, operators that you have registered in `FUSIONS`, `UP` and `DOWN` too; by default
            what ``sizes``, ``channels`` and ``max_merges`` say.
        progress: Whether to tell on standard error how it goes.
        options: Options of `pyrafuse search` by their names: ``backbone``, ``minutes``, ``strategy``, ``output`` ...

    Returns:
        Folder, trials and files of the best necks.

    Raises:
        PyrafuseError: If an option is unknown, or has no such value; and as the search.
    """
    values = _read_options(cli_search, {**options, "data": data})
    settings = make_settings(**{name: value for name, value in values.items() if name != "output"})
    from pyrafuse.search.searching import search as run  # of torch: not for a mistyped option

    if space is not None:
        settings = replace(settings, space=space)
    return run(
        settings,
        values["output"],
        command=write_command(values),
        train=write_training(values),
        console=Terminal(quiet=not progress),
    )


def _read_options(command: Callable[..., int], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of ``command`` with its value: as it is given by the names of options, or by default."""
    taken = Options.of(command)
    pairs = [
        pair
        for name, value in given.items()
        if value is not None
        for pair in taken.settle(name.rstrip("_"), _as_value(name, value))
    ]
    return {name: setting.default for name, setting in taken.settings.items()} | dict(pairs)


def _as_value(name: str, value: Any) -> Any:
    """Numbers of devices as the command's text; any other value as it is."""
    if name == "device":
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
