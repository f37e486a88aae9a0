"""Training and searching from Python: the options of the commands as keywords, read by the same parser.

It stands in the last row because recipes, short forms and their errors belong to the command line; `pyrafuse.train` is
looked up here when it is first used, so that importing pyrafuse stays fast.
"""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.terminal import Terminal
from pyrafuse.cli.arguments import Options
from pyrafuse.cli.search import make_settings, write_command, write_training
from pyrafuse.cli.search import search as cli_search
from pyrafuse.cli.train import make_recipe
from pyrafuse.cli.train import train as cli_train
from pyrafuse.training.settings import Recipe

if TYPE_CHECKING:
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
    taken = Options.of(cli_search)
    given = {"data": os.fspath(data)} | {name: value for name, value in options.items() if value is not None}
    pairs = [pair for name, value in given.items() for pair in taken.settle(name, _as_value(name, value))]
    values = {name: setting.default for name, setting in taken.settings.items()} | dict(pairs)
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


def _as_value(name: str, value: Any) -> Any:
    """Numbers of devices as the command's text; any other value as it is."""
    if name == "device":
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
