"""The folder of a run: chosen, refused where it holds another one, and held by one process alone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import hold_folder, is_held, refuse_held
from pyrafuse.base.paths import check_writable
from pyrafuse.training.launching import may_be_restarted
from pyrafuse.training.settings import Recipe, RunSettings

FOLDER_VARIABLE = "PYRAFUSE_RUN_FOLDER"
"""Tells the processes that the first one starts for further devices which folder it has chosen."""

LEFTOVERS_S = 30.0
"""Time for the processes that load to notice that their training was killed: until then they hold its folder."""


def is_first_process() -> bool:
    """Whether this process is the one of a training's processes that writes."""
    return os.environ.get("RANK", "0") == "0"


def check_folder(run: RunSettings) -> None:
    """Refuse a folder that the run must not have, before any work is done for it; nothing is written.

    Raises:
        PyrafuseError: If it cannot be written to, another process writes to it, it holds a run already or, for a run
            that is resumed, none.
    """
    if run.output is None:
        if run.resume:
            raise PyrafuseError("--resume needs --output RUN_DIR: no run folder was given")
        return
    folder = Path(run.output)
    check_writable(folder, is_folder=True)
    if not is_first_process():
        return
    end = time.monotonic() + LEFTOVERS_S
    while may_be_restarted() and is_held(folder) and time.monotonic() < end:
        time.sleep(0.5)
    refuse_held(folder)
    _check_content(folder, is_resumed=run.resume)


def _check_content(folder: Path, *, is_resumed: bool) -> None:
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    if is_resumed and not last.is_file():
        raise PyrafuseError(
            f"nothing to resume: {last} is not there; give the folder of a run as --output, or drop --resume"
        )
    if last.exists() and not is_resumed:
        raise PyrafuseError(f"{folder} holds a run already: choose another --output, or go on with --resume")
    if best.exists() and not last.exists():
        raise PyrafuseError(
            f"{folder} holds a best.ckpt, and no last.ckpt to go on from: choose another --output, or move {best} away"
        )


@contextmanager
def open_folder(recipe: Recipe) -> Iterator[Path]:
    """Create the run's folder where it is not there, and hold it until the block ends.

    Raises:
        PyrafuseError: On the same faults as `check_folder`, whatever happened since.
    """
    folder = _choose_folder(recipe)
    if not is_first_process():
        yield folder
        return
    with hold_folder(folder):
        _check_content(folder, is_resumed=recipe.run.resume)
        os.environ[FOLDER_VARIABLE] = str(folder)
        try:
            yield folder
        finally:
            del os.environ[FOLDER_VARIABLE]


def _choose_folder(recipe: Recipe) -> Path:
    if recipe.run.output is not None:
        return Path(recipe.run.output)
    if FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE])
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise PyrafuseError("several processes need one folder: give it as --output")
    stem = f"{recipe.model.name}-{Path(recipe.data.path.split(':')[0]).name or 'data'}"
    for number in range(1, 10_000):
        folder = Path("runs") / f"{stem}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise PyrafuseError(f"runs/ holds 9,999 runs of {stem}: give another folder as --output")
