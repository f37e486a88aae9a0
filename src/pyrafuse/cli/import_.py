"""`pyrafuse import`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.paths import check_writable, find_checkpoint
from pyrafuse.base.printable import list_names
from pyrafuse.cli.shorthand import Shorthand, shorthand

if TYPE_CHECKING:
    from pyrafuse.models.detector import Detector


@shorthand(
    Shorthand(
        usage="FILE -o OUT [--as NAME] [--names A,B,C] [--force]   or   --list",
        options={"f": "force", "as": "published"},
        help={"-o OUT": "--output OUT", "-f": "--force", "--as NAME": "--published NAME"},
        positional="file",
    )
)
def import_checkpoint(
    *,
    file: Path | None = None,
    output: Path | None = None,
    published: str | None = None,
    names: str | None = None,
    force: bool = False,
    list: bool = False,  # noqa: A002  # the option's name
) -> int:
    """Turn another project's checkpoint into one of ours, which holds its classes and its preprocessing.

    Keys and shapes identify the file. Nothing in it is executed.

    Args:
        file: The checkpoint to read; also as a bare word.
        output: Path of the checkpoint to write.
        published: The name under which the model was published, for files that cannot tell how they are used; also as
            ``--as``.
        names: Names of the classes, with commas between, or a file with one a line; for files that cannot tell.
        force: Whether a file at the output's place is replaced.
        list: Whether to list what can be imported, and do nothing.
    """
    if list:
        from pyrafuse.importers.origins import ORIGINS

        for origin in ORIGINS:
            print("\n  ".join((origin.name, *origin.layouts)))
        return 0
    if file is None or output is None:
        raise PyrafuseError(_tell_missing(file))
    file = find_checkpoint(file)
    _check_output(file, output, is_forced=force)
    check_writable(output)
    from pyrafuse.core.state_dicts import find_weights
    from pyrafuse.core.storage import read_tensors
    from pyrafuse.importers.loading import build
    from pyrafuse.models.checkpoint import is_own, save

    content = read_tensors(file)
    if is_own(content):
        raise PyrafuseError(f"{file} is a checkpoint of pyrafuse already: use it as it is")
    notes = find_weights(content).notes
    detector = build(content, source=file, published=published)
    if names is not None:
        detector.card = rename_classes(detector, read_names(names))
    save(detector, output)
    print(describe(detector, file=file, output=output, notes=notes))
    return 0


def _tell_missing(file: Path | None) -> str:
    given = "FILE" if file is None else file
    return f"import needs FILE and -o OUT: pyrafuse import {given} -o OUT.ckpt (--list prints what can be imported)"


def read_names(text: str) -> tuple[str, ...]:
    """The names of classes in ``text``, parted by commas, or in the file of that name, one a line.

    Raises:
        PyrafuseError: If one is empty or comes twice.
    """
    path = Path(text)
    lines = path.read_text(encoding="utf-8").rstrip().splitlines() if path.is_file() else text.split(",")
    names = tuple(line.strip() for line in lines)
    if not all(names):
        raise PyrafuseError(f"--names: name {names.index('') + 1} of {text!r} is empty")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PyrafuseError(f"--names: {', '.join(twice)} comes more than once in {text!r}")
    return names


def rename_classes(detector: "Detector", names: tuple[str, ...]):  # noqa: ANN201  # a Card, which needs torch
    """The detector's card with ``names``; the data's own ids stay.

    Raises:
        PyrafuseError: If they are not one a class.
    """
    from dataclasses import replace

    count = len(detector.card.category_ids)
    if len(names) != count:
        raise PyrafuseError(f"--names: the checkpoint has {count} classes, and {len(names)} names are given")
    return replace(detector.card, names=names)


def describe(detector: "Detector", *, file: Path, output: Path, notes: Sequence[str] = ()) -> str:
    """What was found, how large it is, which weights were chosen (``notes``), and how it is used next."""
    card = detector.card
    parameters = sum(p.numel() for p in detector.parameters()) / 1e6
    height, width = card.preprocessing.size
    are_told = card.names != tuple(map(str, range(len(card.names))))
    shown = list_names(card.names, most=3)
    classes = shown if are_told else "the file does not name them; --names A,B,C does"
    return "\n".join(
        (
            f"found      {card.origin}",
            f"           {parameters:.1f} M parameters, input {width} x {height} px ({card.preprocessing.fit})",
            f"classes    {len(card.names)}: {classes}",
            *(f"weights    {note}" for note in notes),
            f"read       {file} ({file.stat().st_size / 2**20:.1f} MiB)",
            f"written    {output} ({output.stat().st_size / 2**20:.1f} MiB)",
            "",
            f"pyrafuse predict {output} images/",
            f"pyrafuse evaluate {output} DATA",
        )
    )


def _check_output(file: Path, output: Path, *, is_forced: bool) -> None:
    if output.is_dir():
        raise PyrafuseError(f"{output} is a folder; name a file in it, {output / file.with_suffix('.ckpt').name} say")
    if output.exists() and file.exists() and os.path.samefile(output, file):
        raise PyrafuseError(f"{output} is the file that is read; choose another output")
    if output.exists() and not is_forced:
        raise PyrafuseError(f"{output} exists; choose another output, or replace it with --force")
