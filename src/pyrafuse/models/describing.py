"""From names to descriptions: a model or a head, and changes to it.

name, edits, YAML -> `DetectorSpec`, sparse as it was said
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

import yaml

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import NAME, Part, read_part
from pyrafuse.base.registry import Registry
from pyrafuse.base.spec import DetectorSpec, Presets, TwoStageSpec, read_spec
from pyrafuse.base.typed_values import read_yaml_file
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.heads.registry import HEADS, PROPOSAL_HEADS
from pyrafuse.models.building import resolve
from pyrafuse.models.registry import MODELS
from pyrafuse.models.two_stage import STAGES
from pyrafuse.necks.registry import NECKS, read_necks

SUFFIXES = (".yaml", ".yml")
OF_PREDICTIONS = ("coder", "criterion", "decode", "postprocess")
"""What follows from the kind of a head's predictions."""


def describe(model: str | DetectorSpec | None = None, **changes: Any) -> DetectorSpec:
    """The description of a detector.

    Args:
        model: Registered name, a description, or the YAML file of one. Without it ``head`` is needed, or the name is a
            head's: the detector is then the plainest one whose head predicts the same kind of thing, with that head.
        changes: What is otherwise; see `DetectorSpec.with_parts`. A neck may be a graph: its file, its text, a `Graph`
            or a mapping. A head that predicts another kind of thing brings its criterion and its decoder.

    Raises:
        UnknownNameError: If there is no such model or head.
        PyrafuseError: If neither a model nor a head is given, or a change is none.
    """
    if isinstance(model, str) and model not in MODELS.names() and model in HEADS.names():
        model, changes = None, {"head": model, **changes}
    if model is None:
        if "head" not in changes:
            raise PyrafuseError(
                f"a detector is named by its model or its head: give one of {', '.join(MODELS.names())}, or "
                f"head= one of {', '.join(HEADS.names())}"
            )
        model = _model_of(predictions_of(read_part(changes["head"]).name))
    if isinstance(model, DetectorSpec):
        return change(model, **changes)
    spec = read_file(model) if is_description(model) else MODELS.get(model)()
    return change(spec, presets=presets_of(model), **changes)


def presets_of(model: str | None) -> Presets:
    """What parts begin with that are put in the place of a registered model's own; nothing for any other."""
    return MODELS.entry(model).facts.get("presets", {}) if model in MODELS.names() else {}


def change(
    spec: DetectorSpec, *, presets: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
) -> DetectorSpec:
    """``spec`` with ``changes``, as `describe` takes them.

    What was worked out from a part that changes, anchors for the strides of its maps say, is worked out anew.

    Args:
        spec: Sparse or whole.
        presets: Options that parts begin with, by their name or a pattern of it.
        changes: Changes, as `describe` takes them.
    """
    if "neck" in changes:
        changes["neck"] = read_necks(changes["neck"])
    if head := changes.get("head"):
        spec = _for_head(spec, head)
    given = _presets_for(changes, presets or {})
    return _without_derived(spec, changes).with_parts(presets=given, **changes)


def read_file(path: str) -> DetectorSpec:
    """The description in a YAML file, as `pyrafuse models NAME --spec` writes it.

    Raises:
        PyrafuseError: If it cannot be read, or describes no detector.
    """
    values = read_yaml_file(path)
    try:
        return read_spec(values)
    except PyrafuseError as error:
        raise PyrafuseError(f"{path}: {error}") from error


def write_yaml(spec: DetectorSpec) -> str:
    """``spec`` as YAML that `read_file` reads back to an equal one."""
    return yaml.dump(spec.to_plain(), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines, graphs say, stand as they are."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


def predictions_of(head: str) -> str:
    """The kind of predictions that a head gives.

    Raises:
        UnknownNameError: If there is no such head.
        PyrafuseError: If it names no kind.
    """
    kind = HEADS.entry(head).facts.get("predictions")
    if kind is None:
        known = ", ".join(sorted(_models_by_kind()))
        raise PyrafuseError(
            f"the head {head} does not say what it predicts: register it with predictions= one of {known}"
        )
    return kind


def is_description(name: str) -> bool:
    """Whether ``name`` is the file of a description, and no registered name."""
    return name.endswith(SUFFIXES)


def _models_by_kind() -> dict[str, str]:
    """The plainest model of each kind of predictions."""
    kinds = {name: MODELS.entry(name).facts.get("predictions") for name in MODELS.names()}
    return {kind: name for name, kind in kinds.items() if kind is not None}


def _model_of(kind: str) -> str:
    models = _models_by_kind()
    if kind not in models:
        raise PyrafuseError(f"nothing is known of the predictions {kind!r}; choose from {', '.join(sorted(models))}")
    return models[kind]


def _for_head(spec: DetectorSpec, head: Any) -> DetectorSpec:
    """``spec`` with what learns and decodes for ``head``, where that predicts another kind of thing."""
    if isinstance(head, Mapping) and "name" not in head:
        return spec
    name = read_part(head).name
    if name == spec.head.name or spec.head.name not in HEADS.names():
        return spec
    kind = predictions_of(name)
    if kind == predictions_of(spec.head.name):
        return spec
    other = MODELS.get(_model_of(kind))()
    return spec.with_parts(head=other.head, **{field: getattr(other, field) for field in OF_PREDICTIONS})


def _presets_for(changes: Mapping[str, Any], presets: Presets) -> Presets:
    """The presets of the backbone and the necks that ``changes`` name, as far as these have such options."""
    found = {}
    for registry, field in ((BACKBONES, "backbone"), (NECKS, "neck")):
        given = changes.get(field)
        for one in given if isinstance(given, tuple) else (given,):
            if one is None or (isinstance(one, Mapping) and NAME not in one):
                continue
            name = read_part(one).name
            for options in [options for pattern, options in presets.items() if fnmatch(name, pattern)][:1]:
                known = registry.options(name)
                found[name] = {key: value for key, value in options.items() if key in known}
    return found


def _without_derived(spec: DetectorSpec, changes: Mapping[str, Any]) -> DetectorSpec:
    """``spec`` without options that were worked out from parts which ``changes`` replace.

    An option was worked out if it is what would be worked out again; any other was chosen, and stays.
    """
    if {"backbone", "neck", "necks"} & set(changes):
        fields = {"head": HEADS, "criterion": CRITERIA}
    elif "head" in changes:
        fields = {"criterion": CRITERIA}
    else:
        return spec
    if isinstance(spec, TwoStageSpec):
        fields = {**fields, "head": PROPOSAL_HEADS, "stages": STAGES}
    bare = replace(spec, **{name: _forget(getattr(spec, name), registry) for name, registry in fields.items()})
    if bare == spec:
        return spec
    with suppress(PyrafuseError):  # what cannot be built was worked out by nothing
        fresh = resolve(bare)
        worked_out = {
            name: _forget(getattr(spec, name), registry, getattr(fresh, name)) for name, registry in fields.items()
        }
        return replace(spec, **worked_out)
    return spec


def _forget(given: Any, registry: Registry[Any], fresh: Any = None) -> Any:
    """A part, or a row of parts, without the options that are worked out; with ``fresh``, as far as they equal its."""
    if isinstance(given, tuple):
        return tuple(_forget(one, registry, fresh and fresh[i]) for i, one in enumerate(given))
    entry = registry.entry(given.name)
    options = {}
    for name, value in given.options.items():
        new = fresh and fresh.options.get(name)
        if name in entry.derived and (fresh is None or value == new):
            continue
        is_part = name in entry.parts and isinstance(value, Part)
        options[name] = _forget(value, entry.parts[name], new) if is_part else value
    return Part(given.name, options)
