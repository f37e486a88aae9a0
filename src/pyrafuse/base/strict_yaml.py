"""YAML within bounds; in what people write by hand a key that stands twice is an error, not the last one's."""

from collections.abc import Hashable
from typing import Any

import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import printable

MERGE = "tag:yaml.org,2002:merge"

MOST_VALUES = 1_000_000
"""What a text may unfold to: anchors within anchors grow without bounds."""

MOST_LETTERS = 4_000_000
"""Longest text: 100,000 names of classes take 2,000,000."""


class BoundedLoader(yaml.SafeLoader):
    """For `yaml.load` of what other tools wrote: nothing unfolds without bounds, and every failure is a YAMLError."""

    def __init__(self, stream: str) -> None:
        if len(stream) > MOST_LETTERS:
            raise PyrafuseError(
                f"{len(stream):,} letters, more than the {MOST_LETTERS:,} of YAML that are read; shorten it"
            )
        super().__init__(stream)

    def get_single_node(self) -> yaml.Node | None:
        """The whole text.

        Raises:
            PyrafuseError: If its anchors unfold to more than `MOST_VALUES`, or into themselves; or if it is nested too
                deeply.
        """
        try:
            node = super().get_single_node()
            if node is not None:
                _count(node, {})
        except RecursionError as error:
            raise PyrafuseError("values are nested too deeply; write fewer brackets in brackets") from error
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Build a value.

        Raises:
            yaml.constructor.ConstructorError: If it is not what its tag says, as a date that no calendar has.
        """
        try:
            return super().construct_object(node, deep=deep)
        except PyrafuseError:
            raise
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            value = f"{printable(node.value, limit=60)!r} " if isinstance(node, yaml.ScalarNode) else "this "
            raise yaml.constructor.ConstructorError(None, None, f"{value}is no {kind}", node.start_mark) from error


class StrictLoader(BoundedLoader):
    """Refuses, besides, a key that stands twice in a mapping, or is no single word; knows anchors and ``<<``."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; what it merges in gives way to its own keys.

        Raises:
            PyrafuseError: With the line of the key at fault.
        """
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise PyrafuseError(f"line {line}: a key must be a name, not a list or mapping")
            if key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise PyrafuseError(f"line {line}: there are two of {key}; rename one")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _count(node: yaml.Node, counted: dict[int, int | None]) -> int:
    """How many values ``node`` unfolds to."""
    if id(node) in counted:
        count = counted[id(node)]
        if count is None:
            raise PyrafuseError(f"line {node.start_mark.line + 1}: an anchor within itself; write the values out")
        return count
    counted[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    count = 1 + sum(
        _count(part, counted) for parts in inner for part in (parts if isinstance(parts, tuple) else (parts,))
    )
    if count > MOST_VALUES:
        raise PyrafuseError(f"line {node.start_mark.line + 1}: anchors that unfold to more than {MOST_VALUES:,} values")
    counted[id(node)] = count
    return count
