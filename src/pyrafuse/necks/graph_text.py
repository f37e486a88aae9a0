"""Graphs as a few lines of YAML.

    channels: 64
    defaults: {fusion: fast_normalized, conv: {separable: true, before: silu, norm: batch_norm}}
    merges:
      T4: [C4, C5]                                    # inputs; the level is the number in the name
      P3: [C3, T4]
      P4: {inputs: [C4, T4, P3], fusion: sum}
      P5: [C5, P4]
    outputs: [P3, P4, P5]

The keys are the fields of `Graph`, `Merge` and `Conv`; ``defaults`` are of every merge outside of the stem.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from pyrafuse.base.errors import PyrafuseError, unknown_name
from pyrafuse.base.folders import check_file
from pyrafuse.base.strict_yaml import StrictLoader
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge

SUFFIXES = (".yaml", ".yml")
GivenNeck = str | Graph | Mapping[str, Any]
"""A registered name, a graph's file or text, a `Graph`, or what the YAML of one holds."""


def is_graph(name: str) -> bool:
    """Whether ``name`` is a graph's file or text, and not a registered name."""
    return is_graph_file(name) or "merges:" in name


def is_graph_file(name: str) -> bool:
    """Whether ``name`` is a graph's file: one line that ends in one of `SUFFIXES`."""
    return name.endswith(SUFFIXES) and "\n" not in name


def read_graph(name: str) -> Graph:
    """Read the graph in the file or text ``name``.

    Raises:
        PyrafuseError: If there is no such file, it is no YAML, a key is unknown, twice there or missing, or a value is
            of a wrong kind; the message names the merge.
    """
    source = name if is_graph_file(name) else "the graph"
    return _create_graph(_parse(read_text(name), source), source)


def read_text(name: str) -> str:
    """The text of the graph ``name``: the file's, or ``name`` itself.

    Raises:
        PyrafuseError: If there is no such file.
    """
    if not is_graph_file(name):
        return name
    check_file(name)
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PyrafuseError(f"cannot read the graph {os.fspath(name)}: {error}") from error


def list_necks(given: GivenNeck | Sequence[GivenNeck]) -> list[str]:
    """Names of one neck or of several in a row; a `Graph` or a mapping is named by its text.

    Raises:
        PyrafuseError: If one of them is none of these, or no text can be made of it.
    """
    if isinstance(given, str | Graph | Mapping) or not isinstance(given, Sequence):
        return [_name_neck(given)]
    return [_name_neck(one) for one in given]


def _name_neck(given: Any) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, Graph):
        return write_graph(given)
    if not isinstance(given, Mapping):
        raise PyrafuseError(f"a neck is a registered name, a graph, or a list of these; got {given!r}")
    try:
        return yaml.safe_dump(dict(given), sort_keys=False)
    except yaml.YAMLError as error:
        raise PyrafuseError(f"a graph's mapping holds plain values alone, as YAML does: {error}") from error


def embed_graphs(given: GivenNeck | Sequence[GivenNeck]) -> str | list[str]:
    """Necks' names with each graph, or its file, replaced by its text, so that a checkpoint is all there is.

    Raises:
        PyrafuseError: On the same faults as `list_necks` and `read_text` do.
    """
    names = [read_text(name) for name in list_necks(given)]
    return names[0] if isinstance(given, str | Graph | Mapping) else names


def write_graph(graph: Graph) -> str:
    """``graph`` as YAML that `read_graph` reads back to an equal one; what most merges share is said once.

    Raises:
        PyrafuseError: If two merges have one name.
    """
    for merges in (graph.stem, graph.merges):
        names = [merge.name for merge in merges]
        if twice := [name for name in names if names.count(name) > 1]:
            raise PyrafuseError(f"there are two of {twice[0]}: call the later merge otherwise")
    values = _differences(graph)
    for merge in (*values.get("stem", ()), *values["merges"]):
        if "project" in merge:  # where it says nothing else, it is 1x1
            size = merge["project"].pop("kernel_size", Conv.kernel_size)
            merge["project"].update({} if size == 1 else {"kernel_size": size})
    defaults = _most_frequent(values["merges"])
    content: dict[str, Any] = {"defaults": defaults} if defaults else {}
    for part in ("channels", "stack", "stem", "merges", "outputs", "ignored"):
        if part not in values:
            continue
        if part in ("stem", "merges"):
            shared = defaults if part == "merges" else {}
            content[part] = {merge["name"]: _shorten(merge, shared) for merge in values[part]}
        else:
            content[part] = values[part]
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)


def _most_frequent(merges: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values that more than half of the merges share, by field."""
    shared = {}
    for key in ("fusion", "up", "down", "conv", "project", "width"):
        given = [merge[key] for merge in merges if key in merge]
        best = max(given, key=given.count, default=None)
        if best is not None and 2 * given.count(best) > len(merges):
            shared[key] = best
    return shared


def _shorten(merge: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """A merge's fields without its name and the defaults, and its inputs alone where these tell all the rest."""
    number = re.search(r"\d+", merge["name"])
    plain = {field.name: field.default for field in fields(Merge)}
    rest = {"inputs": merge["inputs"]}
    if number is None or int(number.group()) != merge["level"]:
        rest["level"] = merge["level"]
    own = {key: value for key, value in merge.items() if key not in ("name", "level", "inputs")}
    rest |= {key: value for key, value in own.items() if defaults.get(key) != value}
    rest |= {key: None if key == "project" else plain[key] for key in defaults if key not in merge}
    return rest["inputs"] if list(rest) == ["inputs"] else rest


class _Dumper(yaml.SafeDumper):
    """Writes the same mapping twice, where another would refer to the first."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's own signature
        return True


def _differences(value: Any) -> Any:
    """Plain values of a dataclass' fields, without those that are at their default."""
    if not is_dataclass(value) or isinstance(value, type):
        return [_differences(v) for v in value] if isinstance(value, tuple) else value
    found = {}
    for field in fields(value):
        own = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if own != default:
            found[field.name] = _differences(own)
    return found


def _parse(text: str, source: str) -> Mapping[str, Any]:
    try:
        content = yaml.load(text, Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise PyrafuseError(f"{source} is no YAML{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise PyrafuseError(f"{source} is no YAML: {error}") from error
    except PyrafuseError as error:
        raise PyrafuseError(f"{source}: {error}") from error
    if not isinstance(content, Mapping):
        raise PyrafuseError(f"{source} is no graph: keys `merges` and `outputs` are needed")
    return content


def _create_graph(content: Mapping[str, Any], source: str) -> Graph:
    values = dict(content)
    defaults = values.pop("defaults", {})
    _check_keys(values, Graph, f"{source}: key", also=("defaults",))
    if not isinstance(defaults, Mapping):
        raise PyrafuseError(f"{source}: `defaults` must be a mapping such as fusion: softmax, got {defaults!r}")
    for part, shared in (("stem", {}), ("merges", defaults)):
        merges = values.get(part, {})
        if not isinstance(merges, Mapping):
            raise PyrafuseError(f"{source}: `{part}` must be names with their inputs, such as P4: [C4, C5]")
        values[part] = tuple(_create_merge(str(name), given, shared, source) for name, given in merges.items())
    try:
        return Graph(**{"outputs": (), **values})
    except PyrafuseError as error:
        raise PyrafuseError(f"{source}: {error}") from error


def _create_merge(name: str, given: Any, defaults: Mapping[str, Any], source: str) -> Merge:
    place = f"{source}: merge {name}"
    values = {"inputs": (), **defaults, **(given if isinstance(given, Mapping) else {"inputs": given})}
    _check_keys(values, Merge, f"key of {place}", without=("name",))
    if "level" not in values:
        number = re.search(r"\d+", name)
        if number is None:
            raise PyrafuseError(f"{place}: no number in its name tells the level; add `level`")
        values["level"] = int(number.group())
    for key in ("conv", "project"):
        if values.get(key) is not None:
            base = {} if key == "conv" else {"kernel_size": 1}
            values[key] = _create_conv(values[key], base, f"{place}: {key}")
    if values.get("project", 0) is None:
        del values["project"]  # the default, which needs no word
    try:
        return Merge(name=name, **values)
    except PyrafuseError as error:
        raise PyrafuseError(f"{source}: {error}") from error


def _create_conv(given: Any, base: Mapping[str, Any], place: str) -> Conv:
    if not isinstance(given, Mapping):
        raise PyrafuseError(f"{place} must be a mapping such as {{kernel_size: 3, norm: batch_norm}}, got {given!r}")
    _check_keys(given, Conv, f"key of {place}")
    values = {**base, **given}
    for key in ("eps", "momentum"):
        if isinstance(values.get(key), str):  # YAML 1.1 takes 1e-3, which has no point, for a word
            with suppress(ValueError):
                values[key] = float(values[key])
    try:
        return Conv(**values)
    except ValueError as error:
        raise PyrafuseError(f"{place}: {error}") from error


def _check_keys(
    values: Mapping[str, Any], kind: type, what: str, *, also: Iterable[str] = (), without: Iterable[str] = ()
) -> None:
    known = ({field.name for field in fields(kind)} | set(also)) - set(without)
    for key in values:
        if key not in known:
            raise unknown_name(what, str(key), known)
