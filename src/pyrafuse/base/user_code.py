"""Code of users: what ``--import`` names, imported so that it registers its parts."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pyrafuse.base.errors import PyrafuseError


def absolute_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of modules and files as processes find them that begin in another folder."""
    return tuple(str(Path(name).resolve()) if name.endswith(".py") else name for name in names)


def import_user_code(name: str) -> None:
    """Import module ``name`` (the current folder is searched first) or the file ``name``.

    Raises:
        PyrafuseError: If there is no such module or file. An error inside it is the user's to see whole.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise PyrafuseError(f"--import: no such file: {path}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there, and misses one of its own
        raise PyrafuseError(
            f"--import: no module named {name!r} in {os.getcwd()} or among the installed packages"
        ) from error
