"""Other people's parameter names: rules from our keys to theirs, and loading through them.

our key -> naming -> their key -> their value -> our parameter; what is missing, extra or of another shape is named as
the file names it
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pyrafuse.backbones.weights import WRAPPERS
from pyrafuse.core.errors import CheckpointError

Naming = Callable[[str], str]
"""Our key -> their key."""

SHOWN_KEYS = 8


def by_modules(pairs: Iterable[tuple[str, str]], *, then: Naming | None = None) -> Naming:
    """Name by pairs of (our module, their module); the deepest of our modules that holds the key decides.

    Args:
        pairs: Dotted module names; an empty one is the whole model.
        then: Names the rest of the key, after the module and its dot.

    The naming raises `LookupError` for a key of ours that lies in none of the modules.
    """
    modules = dict(pairs)

    def name(key: str) -> str:
        parts = key.split(".")
        for length in range(len(parts), -1, -1):
            ours, rest = ".".join(parts[:length]), ".".join(parts[length:])
            if ours in modules:
                rest = then(rest) if then and rest else rest
                return ".".join(part for part in (modules[ours], rest) if part)
        raise LookupError(f"no rule names their key of {key!r}; rules are for {', '.join(modules) or 'nothing'}")

    return name


def by_patterns(rules: Iterable[tuple[str, str]]) -> Naming:
    r"""Name by regular expressions over our key, applied one after the other as `re.sub` does.

    Args:
        rules: (pattern, replacement), such as ``(r"^laterals\.(\d+)\.conv\.", r"lateral_convs.\1.conv.")``.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]

    def name(key: str) -> str:
        for pattern, replacement in compiled:
            key = pattern.sub(replacement, key)
        return key

    return name


def by_parts(parts: Mapping[str, tuple[str, Naming]]) -> Naming:
    """Name by the namings of a model's parts: ``{"neck": ("neck", name_fpn), "head": ("bbox_head", name_head)}``.

    Each key of ours is named by the longest of our prefixes that it lies under; the rest of it by that part's naming.
    """
    namings = {ours: by_modules([(ours, theirs)], then=naming) for ours, (theirs, naming) in parts.items()}

    def name(key: str) -> str:
        holders = [ours for ours in namings if not ours or key == ours or key.startswith(f"{ours}.")]
        if not holders:
            raise LookupError(f"no rule names their key of {key!r}; rules are for {', '.join(namings)}")
        return namings[max(holders, key=len)](key)

    return name


def rename(
    state: Mapping[str, Tensor],
    module: nn.Module,
    naming: Naming,
    *,
    source: str | os.PathLike[str],
    layout: str,
    unused: Sequence[str] = (),
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """The values of ``state`` under the keys of ``module``, each of them there, fitting and used.

    One value of theirs may serve several of our keys. Counters of batches (``num_batches_tracked``) may be missing or
    left over.

    Args:
        state: Their state dict.
        module: Ours.
        naming: Our key -> their key.
        source: Of the file, for messages.
        layout: What the file is taken for, in words, for messages.
        unused: Regular expressions of their keys that we have no use for; each must match from the key's start.
        change: (our key, their value) -> our value, where the two differ in order or shape.

    Raises:
        CheckpointError: Naming the keys that are missing, extra or of another shape, as the file names them.
    """
    own = module.state_dict()
    names = {ours: naming(ours) for ours in own}
    known = set(names.values())
    missing = [key for key in dict.fromkeys(names.values()) if key not in state and not _is_counter(key)]
    extra = [
        key
        for key in state
        if key not in known and not _is_counter(key) and not any(re.match(pattern, key) for pattern in unused)
    ]
    misfits: list[str] = []
    renamed: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        if theirs not in state:
            continue
        value = state[theirs] if change is None else change(ours, state[theirs])
        renamed[ours] = value
        if value.shape != own[ours].shape:
            misfits.append(f"{theirs} is {tuple(value.shape)}, needs {tuple(own[ours].shape)}")
    if missing or extra or misfits:
        complaints = {"missing": missing, "extra": extra, "of another shape": misfits}
        detail = "; ".join(f"{what}: {_first(keys)}" for what, keys in complaints.items() if keys)
        raise CheckpointError(f"{source} looks like {layout}, but does not fit; {detail}")
    return renamed


def load_renamed(
    module: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming,
    *,
    source: str | os.PathLike[str],
    layout: str,
    unused: Sequence[str] = (),
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """Load ``state`` into ``module`` under our names; arguments and errors are those of `rename`."""
    values = rename(state, module, naming, source=source, layout=layout, unused=unused, change=change)
    module.load_state_dict(values, strict=False)  # rename has checked every key; only counters may be missing


def unwrap_state(content: Any) -> dict[str, Tensor]:
    """The parameters in ``content``, as read from a file: unwrapped, without ``module.``; empty if it holds none."""
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if not isinstance(content, Mapping):
        return {}
    return {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _first(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"{', '.join(keys[:SHOWN_KEYS])}{more}"
