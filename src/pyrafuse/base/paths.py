"""Whether what a command is pointed at is there; free of torch, so that a wrong path is told at once."""

import glob
import os
from contextlib import suppress
from pathlib import Path

from pyrafuse.base.errors import CheckpointError, DataError, PyrafuseError, nearest
from pyrafuse.base.folders import check_file
from pyrafuse.base.members import find_member, is_remote
from pyrafuse.base.printable import printable
from pyrafuse.base.published_files import find_published

SUFFIXES = frozenset({".ckpt", ".pth", ".pt", ".bin", ".safetensors", ".onnx", ".xml"})
"""Suffixes of checkpoints and of exported detectors."""

RUN_CHECKPOINTS = ("best.ckpt", "last.ckpt")
"""What a training leaves in its folder; the first one is preferred."""


def looks_like_file(text: str) -> bool:
    """Whether ``text`` is meant as a file or folder, there or not, and not as a registered name."""
    path = Path(text)
    is_run = any((path / name).is_file() for name in RUN_CHECKPOINTS)
    return path.suffix.lower() in SUFFIXES or len(path.parts) > 1 or path.is_file() or is_run


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """``path``, the best checkpoint in the folder of a run, or the file of a published detector or address, fetched.

    Raises:
        CheckpointError: If there is no such file, with the nearest one, or it cannot be fetched.
        UnknownNameError: If no detector is published by that name.
    """
    path = find_published(os.fspath(path)) or Path(path)
    if path.is_dir():
        found = next((path / name for name in RUN_CHECKPOINTS if (path / name).is_file()), None)
        if found is None:
            inside = _checkpoints_in(path)
            hint = f"name a file in it, {inside[0]} say" if inside else "there is no checkpoint in it"
            raise CheckpointError(f"{path} is a folder without {' or '.join(RUN_CHECKPOINTS)}; {hint}")
        path = found
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}; {_suggest(path)}")
    if not path.stat().st_size:
        raise CheckpointError(f"{path} is empty; copy it anew, or name another file")
    return path


def _suggest(path: Path) -> str:
    """What to type instead of ``path``, which is not there: the nearest name, the newest run's, or what lies beside."""
    runs = (
        sorted(Path("runs").glob(f"*/{path.name}"), key=lambda p: p.stat().st_mtime) if path.suffix == ".ckpt" else []
    )
    inside = _checkpoints_in(path.parent)
    near = nearest(path.name, (p.name for p in inside))
    if near and (not runs or path.parent in (run.parent for run in runs)):
        return f"did you mean {path.parent / near}?"
    if runs:
        return f"did you mean {runs[-1]}?"
    if inside:
        return f"beside it lie {', '.join(p.name for p in inside[:5])}"
    return "a training leaves best.ckpt in its folder"


def _checkpoints_in(folder: Path) -> list[Path]:
    """Sorted by name; none if there is no such folder, or it may not be read."""
    with suppress(OSError):
        return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("."))
    return []


def expand_user(path: str | os.PathLike[str]) -> Path:
    """``path`` with the folder of the user that it begins with: ``~/photos``.

    Raises:
        DataError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        name = printable(Path(path).parts[0], limit=60)
        raise DataError(f"there is no user {name}; write the path from / on, or put ./ before it") from error


def check_data(path: str) -> None:
    """Refuse a data set that is not there; ``shapes`` is generated, and an address is tried later.

    Raises:
        DataError: With the nearest name beside it.
    """
    if path == "shapes" or path.startswith("shapes:") or is_remote(path):
        return
    if not path.strip():
        raise DataError("the data set's path is empty; for the current folder give '.'")
    place = expand_user(path)
    if place.exists():
        check_file(place)
        return
    folder = place.absolute().parent
    if not folder.is_dir():
        raise DataError(f"no such data set: {place}; there is no folder {folder} either")
    near = nearest(place.name, (entry.name for entry in folder.iterdir()))
    raise DataError(f"no such data set: {place}" + (f"; did you mean {folder / near}?" if near else f" in {folder}"))


def check_source(text: str) -> None:
    """Refuse what a detector cannot look at because it is not there; cameras and URLs are tried later.

    Raises:
        DataError: With the nearest name.
    """
    if not text.strip():
        raise DataError("the source is empty text; for the current folder give '.'")
    path = expand_user(text)
    if "://" in text or path.exists() or find_member(path) or text.isdecimal():
        return
    if glob.has_magic(text):
        if next(glob.iglob(str(path), recursive=True), None) is None:
            raise DataError(f"no file matches {str(path)!r}")
        return
    parent = next(folder for folder in (path.parent, *path.parent.parents) if folder.is_dir())
    missing = path.relative_to(parent).parts[0] if parent != Path() else path.parts[0]
    near = nearest(missing, (entry.name for entry in parent.iterdir()))
    hint = f"; did you mean {parent / near}?" if near else f"; {parent.absolute()} holds no {missing!r}"
    raise DataError(f"no such file or folder: {path}{hint}")


FIGURE_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".pdf": "pdf", ".svg": "svg", ".webp": "webp"}
"""Format that a figure is written in, by the suffix of its file."""


def check_figure(path: str | os.PathLike[str]) -> None:
    """Refuse a file that no figure could be written to, before any work is done for it.

    Raises:
        PyrafuseError: If its suffix names no format, or `check_writable` refuses it.
    """
    if Path(path).suffix.lower() not in FIGURE_FORMATS:
        raise PyrafuseError(f"cannot save a figure as {path}: choose a suffix from {', '.join(FIGURE_FORMATS)}")
    check_writable(path)


def check_page(path: str | os.PathLike[str], option: str) -> None:
    """Refuse a file that no page could be written to, before any work is done for it.

    Args:
        path: Path of the file.
        option: What gave it, such as ``--page``.

    Raises:
        PyrafuseError: If its suffix is not one of a page, or `check_writable` refuses it.
    """
    if Path(path).suffix.lower() not in {".html", ".htm"}:
        raise PyrafuseError(f"{option} {path} is no page; give it the suffix .html")
    check_writable(path)


def check_writable(path: str | os.PathLike[str], *, is_folder: bool = False) -> None:
    """Refuse a place for results that nothing could be written to, before any work is done for it.

    Args:
        path: Path of a file, or of a folder; neither need be there.
        is_folder: Which.

    Raises:
        PyrafuseError: If something of the other kind lies there or above it, or the file system refuses.
    """
    path = Path(path)
    if not is_folder and path.is_dir():
        raise PyrafuseError(f"cannot write {path}: it is a folder; name a file in it")
    folder = path if is_folder else path.parent
    above = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not above.is_dir():
        raise PyrafuseError(f"cannot write {path}: {above} is a file, and no folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PyrafuseError(f"cannot write {path}: {above} may not be written to; choose another place")
