"""Other people's parameter names: rules from our keys to theirs.

our key -> naming -> their key -> their value -> our parameter
"""

import re
from collections.abc import Iterable, Mapping

from pyrafuse.backbones.weights import Naming
from pyrafuse.backbones.weights import load_exactly as load_renamed

__all__ = ["Naming", "by_modules", "by_parts", "by_patterns", "has_keys", "load_renamed"]


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

    Whole groups of keys identify a file: one that lacks a single key is still recognised, and reported.
    """
    return all(any(re.match(pattern, key) for key in state) for pattern in patterns)
