"""Published classifier checkpoints -> the backbone's own parameters."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import Tensor, nn

from pyrafuse.backbones.fetching import find_timm_file, find_torchvision_file
from pyrafuse.backbones.published import BUNDLED
from pyrafuse.base.errors import CheckpointError, unknown_name
from pyrafuse.base.printable import list_names
from pyrafuse.core.state_dicts import Weights, find_weights
from pyrafuse.core.storage import read_tensors

Naming = Callable[[str], str]
"""Our key -> the published key."""


def read_published(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The parameters of a classifier or detector that is published by name, or lies in a file.

    Args:
        weights: A file; or ``pyrafuse/NAME``, which comes with this package; or ``timm/NAME`` or ``torchvision/NAME``,
            which are fetched. A file comes first. Of a file of mmdetection or mmpretrain (``backbone.`` in front of
            the keys) the backbone is taken, and a classifier's last layer.

    Raises:
        CheckpointError: If the file cannot be read safely, holds no parameters, or cannot be fetched.
        UnknownNameError: If there are no weights of that name.
    """
    library, _, name = os.fspath(weights).partition("/")
    is_named = library in _LIBRARIES and not os.path.exists(weights)
    state = _read_named(library, name) if is_named else read_state_dict(weights)
    if not any(key.startswith("backbone.") for key in state):
        return state
    prefixes = ("backbone.", "head.fc.")
    return {
        key.removeprefix("backbone.").removeprefix("head."): v for key, v in state.items() if key.startswith(prefixes)
    }


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The entries of `read_weights`."""
    return read_weights(path).entries


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read the parameters of a checkpoint, averaged ones first, without what wraps them, and what was chosen.

    Raises:
        CheckpointError: If the file cannot be read safely, or holds no parameters.
    """
    content = read_tensors(path)
    weights = find_weights(content)
    if not weights.entries:
        raise CheckpointError(f"{path} holds no state_dict: found {type(content).__name__}")
    check_entries(content, source=path)
    return weights


def unwrap_state(content: Any) -> dict[str, Tensor]:
    """The parameters in ``content``, as read from a file, as `find_weights` chooses them; empty if it holds none.

    Entries that are no tensors are left out; `check_entries` names them.
    """
    return find_weights(content).entries


def check_entries(content: Any, *, source: str | os.PathLike[str]) -> None:
    """Refuse a state dict with entries that are no tensors, but for counters and the state that a module adds itself.

    Args:
        content: Content of the file, as it was read.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: Naming the entries.
    """
    found = [
        f"{key} is of type {type(value).__name__}"
        for key, value in find_weights(content).others.items()
        if not _is_counter(key) and not key.endswith("_extra_state")
    ]
    if found:
        raise CheckpointError(
            f"{source} has entries among its parameters that are no tensors: {list_names(found)}; "
            "save a state_dict alone"
        )


def load_exactly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming = str,
    *,
    source: str | os.PathLike[str],
    model: str = "",
    layout: str = "",
    unused: Iterable[str] = (),
    aliases: Naming = str,
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """Load ``state`` into ``module``; every key must be there, fit, and be used.

    Args:
        module: What to fill.
        state: The values.
        naming: Our key -> the key in ``state``; by default they are the same.
        source: Where they are from, for messages.
        model: What ``module`` is called, for messages; its class by default.
        layout: What ``source`` is taken for, in words, where its content tells what ``module`` is.
        unused: Keys of the file that may be left out, as in `rename`.
        aliases: Other names of entries, as in `rename`.
        change: Change of values on the way, as in `rename`.

    Raises:
        CheckpointError: On the same faults as `rename`.
    """
    name = model or type(module).__name__
    complaint = f"{source} looks like {layout}, but does not fit" if layout else f"{source} does not fit {name}"
    values = rename(state, module, naming, complaint=complaint, unused=unused, aliases=aliases, change=change)
    module.load_state_dict(values, strict=False)  # rename has checked every key; only counters may be missing


def rename(
    state: Mapping[str, Tensor],
    module: nn.Module,
    naming: Naming,
    *,
    complaint: str,
    unused: Iterable[str] = (),
    aliases: Naming = str,
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The values of ``state`` under the keys of ``module``, each of them there, fitting and used.

    One value of theirs may serve several of our keys. Counters of batches (``num_batches_tracked``) may be missing or
    left over.

    Args:
        state: Values under their keys.
        module: Ours.
        naming: Our key -> their key.
        complaint: What the message of an error begins with.
        unused: Regular expressions of their keys that are left aside; each must match from the key's start.
        aliases: Their key -> the one of theirs that is in effect where a shared layer comes several times. A repeated
            key may be missing, and must have the shape of the one in effect.
        change: (our key, their value) -> our value, where the two differ in order or shape.

    Raises:
        CheckpointError: Naming the keys that are missing, extra or of another shape, as ``state`` names them.
    """
    own = module.state_dict()
    names = {ours: naming(ours) for ours in own}
    known, patterns = set(names.values()), [re.compile(pattern) for pattern in unused]
    missing = [key for key in dict.fromkeys(names.values()) if key not in state and not _is_counter(key)]
    extra = [
        key
        for key in state
        if aliases(key) not in known and not _is_counter(key) and not any(pattern.match(key) for pattern in patterns)
    ]
    misfits = [
        f"{key} is {tuple(value.shape)}, needs {tuple(state[aliases(key)].shape)}"
        for key, value in state.items()
        if key not in known and aliases(key) in state and value.shape != state[aliases(key)].shape
    ]
    renamed: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        if theirs not in state:
            continue
        value = state[theirs]
        try:
            value = value if change is None else change(ours, value)
            fits = value.shape == own[ours].shape
        except (IndexError, RuntimeError, ValueError):  # its shape leaves nothing to reorder
            fits = False
        renamed[ours] = value
        if not fits:
            misfits.append(f"{theirs} is {tuple(value.shape)}, needs {tuple(own[ours].shape)}")
    if missing or extra or misfits:
        findings = {"missing": missing, "extra": extra, "of another shape": misfits}
        raise CheckpointError(
            "; ".join((complaint, *(f"{what}: {list_names(keys)}" for what, keys in findings.items() if keys)))
        )
    return renamed


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def fetch_published(weights: str) -> None:
    """Fetch published weights into their cache, so that reading them needs no network.

    Args:
        weights: Published name of the weights, or their file, which needs no network.

    Raises:
        CheckpointError: If they cannot be fetched.
        UnknownNameError: If there are no weights of that name.
    """
    library, _, name = weights.partition("/")
    if library in _LIBRARIES and not os.path.exists(weights):
        _find(library, name)


def _find(library: str, name: str) -> Path | None:
    find, names = _LIBRARIES[library]
    if name.partition(".")[0] not in names():
        raise unknown_name(f"{library} model", name, names())
    return find(name)


def _read_named(library: str, name: str) -> dict[str, Tensor]:
    file = _find(library, name)
    return read_state_dict(file) if library != "timm" and file is not None else _read_of_timm(name, file)


def _read_of_timm(name: str, file: Path | None) -> dict[str, Tensor]:
    """The parameters in ``file`` under the names that the model of today has."""
    overlay = None if file is None else {"file": str(file)}
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot read the weights timm/{name}: {error}; give a file: --weights FILE") from error


_LIBRARIES: Mapping[str, tuple[Callable[[str], Path | None], Callable[[], Sequence[str]]]] = {
    "pyrafuse": (BUNDLED.__getitem__, lambda: tuple(BUNDLED)),
    "timm": (find_timm_file, timm.list_models),
    "torchvision": (find_torchvision_file, torchvision.models.list_models),
}
