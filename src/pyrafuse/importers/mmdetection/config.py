"""The settings in mmdetection's files, read without running them: Python text or a mapping -> plain values.

Files of 2.x keep them as text under ``meta.config``, those of 3.x as text or mapping under ``meta.cfg`` or in the
``message_hub``. text -> syntax tree -> literals, ``dict(...)`` and names assigned before
"""

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyrafuse.base.pickled_names import to_plain
from pyrafuse.base.pickles import UnreadableError

Config = Mapping[str, Any]

LONGEST_TEXT = 1_000_000
"""Characters; mmdetection's longest settings have some ten thousands."""


class _UnknownValueError(Exception):
    """An expression that is not plain."""


def find_config(content: Any) -> Config | None:
    """The settings in ``content``, as read from a file; None where there are none that can be read."""
    for place in (("meta", "cfg"), ("meta", "config"), ("message_hub", "runtime_info", "cfg")):
        found = look_up(content, *place)
        if isinstance(found, str):
            found = parse_config(found)
        if isinstance(found, Mapping):
            found = found.get("_cfg_dict", found)  # a whole Config, whose values lie deeper
        if isinstance(found, Mapping) and isinstance(found.get("model"), Mapping):
            return found
    return None


def parse_config(text: str) -> dict[str, Any] | None:
    """The top-level values of a Python file of settings; nothing is run.

    Values that are not plain (calls other than ``dict``, names from elsewhere) are left out. None if it is no Python.
    """
    if len(text) > LONGEST_TEXT:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # of text that is read and not run
            tree = ast.parse(text)
        values: dict[str, Any] = {}
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if isinstance(target, ast.Name):
                    try:
                        values[target.id] = _evaluate(statement.value, values)
                    except _UnknownValueError:
                        values.pop(target.id, None)
        # names within names may unfold without bounds
        return to_plain(values, lambda _: None)
    except (SyntaxError, ValueError, RecursionError, MemoryError, UnreadableError):
        return None


def look_up(values: Any, *keys: str) -> Any:
    """The value behind ``keys`` in nested mappings, None where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def find_transforms(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Every step of a pipeline with a type, those within others included, in order."""
    if isinstance(pipeline, Mapping):
        if isinstance(pipeline.get("type"), str):
            yield pipeline
        pipeline = pipeline.get("transforms", ())
    if isinstance(pipeline, Sequence) and not isinstance(pipeline, str):
        for step in pipeline:
            yield from find_transforms(step)


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        values = [_evaluate(element, names) for element in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _evaluate(node.operand, names)
        if isinstance(value, int | float):
            return -value
    if isinstance(node, ast.Dict):
        return _join(zip(node.keys, node.values, strict=True), names)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return _join(((word.arg and ast.Constant(word.arg), word.value) for word in node.keywords), names)
    raise _UnknownValueError


def _join(entries: Iterable[tuple[Any, ast.expr]], names: Mapping[str, Any]) -> dict[Any, Any]:
    """A mapping of (key, value); a value without a key is itself a mapping, spread by ``**``."""
    pairs: dict[Any, Any] = {}
    for key, node in entries:
        value = _evaluate(node, names)
        entry = value if key is None else {_key(key, names): value}
        if not isinstance(entry, Mapping):
            raise _UnknownValueError
        pairs |= entry
    return pairs


def _key(node: ast.expr, names: Mapping[str, Any]) -> str | int | float | bool | None:
    key = _evaluate(node, names)
    if key is None or isinstance(key, str | int | float):
        return key
    raise _UnknownValueError
