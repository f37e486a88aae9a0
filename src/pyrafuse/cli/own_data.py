"""The data that a checkpoint was trained on, as its recipe names them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrafuse.base.errors import DataError, PyrafuseError

if TYPE_CHECKING:
    from pyrafuse.data.reading.problems import Reading


def say_nothing_of_data(model: Path) -> DataError:
    """The error for a file that names no data."""
    return DataError(f"{model} does not say what it was trained on; give the data: pyrafuse evaluate {model} DATA")


def read_recipe(model: Path) -> dict[str, dict[str, Any]]:
    """The recipe that a checkpoint was trained with, as far as it concerns the data.

    Raises:
        DataError: If the checkpoint does not tell.
    """
    from pyrafuse.base.card import CARD_KEY
    from pyrafuse.core.storage import read_tensors

    content = read_tensors(model)
    try:
        recipe = content[CARD_KEY]["recipe"]
        data, run = {**recipe["data"]}, {**recipe["run"]}
        run["seed"] = int(run["seed"])
        if not {"path", "val_fraction", "train", "val"} <= data.keys():
            raise KeyError("data")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise say_nothing_of_data(model) from error
    return {"data": data, "run": run}


def read_tiles(model: Path) -> tuple[int, float] | None:
    """Side in pixels and overlap of the tiles that a checkpoint was trained on; None where it names none."""
    from pyrafuse.runtime.loading import is_exported

    if is_exported(model):
        return None
    try:
        data = read_recipe(model)["data"]
    except PyrafuseError:  # it has no recipe, or cannot be read, which its loading tells
        return None
    return None if data.get("tile") is None else (data["tile"], data.get("overlap", 0.2))


def read_own_data(model: Path, recipe: dict[str, dict[str, Any]], split: str, **given: Any) -> "Reading":
    """The split of the data that a checkpoint was trained on, drawn and read as it was then but for what is ``given``.

    Raises:
        DataError: If they are gone.
    """
    from pyrafuse.data.formats.layout import read_split, read_splits
    from pyrafuse.data.reading.problems import Reading
    from pyrafuse.data.reading.rules import ReadingRules

    was, seed = recipe["data"], recipe["run"]["seed"]
    path, fraction, train, val = (was[key] for key in ("path", "val_fraction", "train", "val"))
    rules = ReadingRules.from_values(was, **given)
    try:
        if split not in {"train", "val"}:
            return read_split(path, split, rules=rules)
        splits = read_splits(path, val_fraction=fraction, seed=seed, train=train, val=val, rules=rules)
    except DataError as error:
        raise DataError(f"{error} (it was trained there; give other data: pyrafuse evaluate {model} DATA)") from error
    return Reading(splits.train if split == "train" else splits.val, splits.problems)
