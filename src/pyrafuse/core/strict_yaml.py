"""YAML that people write by hand: a key that stands twice is an error, not the last one's."""

from collections.abc import Hashable
from typing import Any

import yaml

from pyrafuse.core.errors import PyrafuseError

MERGE = "tag:yaml.org,2002:merge"


class StrictLoader(yaml.SafeLoader):
    """For `yaml.load`. Refuses a key that stands twice in a mapping, or is no single word; knows anchors and ``<<``."""

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
