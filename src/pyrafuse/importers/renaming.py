"""Other people's parameter names: rules from our keys to theirs, and loading through them.

our key -> naming -> their key -> their value -> our parameter
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from pyrafuse.backbones.weights import Naming, rename, unwrap_state
from pyrafuse.base.errors import CheckpointError

__all__ = ["Naming", "by_modules", "by_parts", "by_patterns", "has_keys", "load_renamed", "read_shape", "unwrap_state"]


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


def has_keys(state: Iterable[str], *patterns: str) -> bool:
    """Whether each of the regular expressions ``patterns`` matches some key from its start.

    What a file is, is told by whole groups of keys: one that lacks a single key is still recognised, and told so.
    """
    return all(any(re.match(pattern, key) for key in state) for pattern in patterns)


def read_shape(
    state: Mapping[str, Tensor], key: str, *, source: str | os.PathLike[str], layout: str, ndim: int = 4, least: int = 1
) -> tuple[int, ...]:
    """Shape of a parameter that a detector's sizes are told by.

    Args:
        state: Their state dict.
        key: Of it.
        source: Of the file, for messages.
        layout: As in `load_renamed`.
        ndim: Dimensions that the parameter has; 4 is a convolution's weight.
        least: Of its first dimension.

    Raises:
        CheckpointError: If the key is missing, or of another number of dimensions, or a dimension is smaller.
    """
    complaint = f"{source} looks like {layout}, but does not fit"
    if key not in state:
        raise CheckpointError(f"{complaint}; missing: {key}")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or shape[0] < least or min(shape) < 1:
        raise CheckpointError(
            f"{complaint}; of another shape: {key} is {shape}, needs {ndim} dimensions, the first at least {least}"
        )
    return shape


def load_renamed(
    module: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming,
    *,
    source: str | os.PathLike[str],
    layout: str,
    unused: Sequence[str] = (),
    aliases: Naming = str,
    change: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """Load ``state`` into ``module`` under our names.

    Args:
        module: Ours.
        state: Their state dict.
        naming: Our key -> their key.
        source: Of the file, for messages.
        layout: What the file is taken for, in words, for messages.
        unused: As `rename` has it.
        aliases: Likewise.
        change: Likewise.

    Raises:
        CheckpointError: As `rename` does.
    """
    complaint = f"{source} looks like {layout}, but does not fit"
    values = rename(state, module, naming, complaint=complaint, unused=unused, aliases=aliases, change=change)
    module.load_state_dict(values, strict=False)  # rename has checked every key; only counters may be missing
