"""The answers that a given graph is drawn by: a chooser that reads them off the graph."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, Step, number_levels, plan_graph
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.choices import AS_INPUTS, EACH, NO_CONV, Answer, Candidate, Space
from pyrafuse.search.operators import PLACELESS_FUSIONS, describe_conv, read_of_project
from pyrafuse.search.space import draw

SHARED = ("fusion", "up", "down", "conv", "project")
"""What is asked of the whole graph before it is asked of each merge."""


def recognize(space: Space, inputs: PyramidSpec, graph: Graph, size: int | None = None) -> Candidate:
    """The candidate whose graph computes the same as ``graph``, merge by merge in the same order.

    Args:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        graph: One written by hand, say.
        size: Side of the network's input in pixels; by default the first of the space.

    Raises:
        PyrafuseError: If the graph has faults, or the space does not hold it; the message says what it lacks.
    """
    plan_graph(graph, inputs)
    size = space.sizes[0] if size is None else size
    if graph.stack == 1 and graph.stem:  # what runs once may be a stem here, or merges like others
        with suppress(PyrafuseError):
            return _read(space, inputs, graph, size, has_stem=True)
    return _read(space, inputs, graph, size, has_stem=graph.stack > 1)


def _read(space: Space, inputs: PyramidSpec, graph: Graph, size: int, *, has_stem: bool) -> Candidate:
    given: dict[str, Answer] = {**dict.fromkeys(SHARED, EACH), "size": size, "stem": has_stem}
    reading = _Reading(space, inputs, graph, given)
    draw(space, inputs, reading)
    for kind in SHARED:  # once more: what all merges do alike is said once; a stem asks for its own convolutions
        asked = re.compile(rf"\d+\.{kind}" if kind == "conv" else rf".+\.{kind}")
        own = {answer for question, answer in reading.given.items() if asked.fullmatch(question)}
        given[kind] = own.pop() if len(own) == 1 else EACH
    candidate = draw(space, inputs, _Reading(space, inputs, graph, given))
    if fingerprint(candidate.graph, inputs) != fingerprint(graph, inputs):
        raise _difference(graph, candidate.graph, inputs)
    return candidate


class _Reading:
    """A chooser that answers as ``graph`` is, and keeps what it has answered.

    Args:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        graph: Without faults.
        given: What does not stand in the graph, or is to be answered so.
    """

    def __init__(self, space: Space, inputs: PyramidSpec, graph: Graph, given: Mapping[str, Answer]) -> None:
        self.given: dict[str, Answer] = {}
        self._space, self._graph = space, graph
        self._steps = _plan_once(graph, inputs)
        self._level_of = {f"C{level}": level for level in number_levels(inputs.strides)}
        self._read = [name for name in self._level_of if name not in graph.ignored]
        self._level_of |= {name: step.merge.level for name, step in self._steps.items()}
        self._merges = graph.merges if given["stem"] else (*graph.stem, *graph.merges)
        self._places: dict[str, str] = {str(rank): merge.name for rank, merge in enumerate(self._merges, 1)}
        self._answers: dict[str, Answer] = {
            "channels": self._channels(),
            "reads": " ".join(self._read),
            "outputs": " ".join(f"P{self._level_of[name]}" for name in graph.outputs),
            "stack": graph.stack,
            "merges": len(self._merges),
            **given,
        }
        self._refs: dict[str, Answer] = {name: name for name in self._read}
        if given["stem"]:
            self._read_stem()
        self._refs |= {merge.name: rank for rank, merge in enumerate(self._merges, 1)}
        self._answers |= {f"P{self._level_of[name]}": self._refs[name] for name in graph.outputs if name in self._refs}

    def __call__(self, question: str, options: Sequence[Answer]) -> int:
        if question in SHARED and len(options) == 1:
            return 0
        answer = self._answers[question] if question in self._answers else self._answer(question, options)
        if answer not in options:
            place, _, kind = question.rpartition(".")
            what = f"merge {self._places[place]}: its {kind}" if place in self._places else f"its {question}"
            raise PyrafuseError(
                f"the space does not hold this graph: {what} is {answer!r}, and the choices there are "
                f"{', '.join(map(str, options))}"
            )
        self.given[question] = answer
        return options.index(answer)

    def _answer(self, question: str, options: Sequence[Answer]) -> Answer:
        """What is asked of one merge."""
        place, _, kind = question.rpartition(".")
        if place not in self._places:
            return NO_CONV  # a map that the stem takes as it comes
        step = self._steps[self._places[place]]
        merge = step.merge
        if kind == "inputs":
            return len(merge.inputs)
        if kind.startswith("input"):
            name = merge.inputs[int(kind.removeprefix("input")) - 1]
            return self._refs.get(name, name)
        if kind == "conv":
            return self._name_conv(merge.conv, options)
        if kind == "project":
            return self._name_project(step, options)
        if kind == "width":
            return "own" if step.widths == step.before else "common"
        return getattr(merge, kind)

    def _name_conv(self, form: Conv | None, options: Sequence[Answer]) -> Answer:
        if form is None:
            return NO_CONV
        others = ((name, self._space.convs.get(str(name))) for name in options)
        same = [name for name, other in others if other is not None and describe_conv(other) == describe_conv(form)]
        return same[0] if same else _show(form)

    def _name_project(self, step: Step, options: Sequence[Answer]) -> Answer:
        form = step.merge.project
        read = describe_conv if _read_of_project(step) == "form" else (lambda one: one.activation)
        same = [name for name in options if read(self._space.projects[str(name)]) == read(form)]
        return same[0] if same else _show(form)

    def _channels(self) -> Answer:
        channels = {step.channels for step in self._steps.values()}
        return channels.pop() if len(channels) == 1 else AS_INPUTS

    def _read_stem(self) -> None:
        """Which map of each level the stacked merges read from outside, and how the stem makes it."""
        stem = {merge.name: merge for merge in self._graph.stem}
        inner = {merge.name for merge in self._merges}
        outside: dict[int, str] = {}
        for merge in self._merges:
            for name in merge.inputs:
                if name not in inner and outside.setdefault(self._level_of[name], name) != name:
                    raise PyrafuseError(
                        f"the space does not hold this graph: its stacked merges read both "
                        f"{outside[self._level_of[name]]} and {name} from outside, at one level"
                    )
        self._refs = {name: f"C{level}" for level, name in outside.items()}
        wanted = list(outside.items())
        while wanted:
            level, name = wanted.pop()
            if name not in stem:
                continue
            merge, place = stem[name], f"C{level}"
            self._places[place] = name
            (source, *others) = merge.inputs
            if others or merge.fusion != Merge.fusion:
                raise PyrafuseError(
                    f"the space does not hold this graph: merge {name} of its stem fuses {len(merge.inputs)} maps"
                )
            if place in self._read:
                continue
            at = self._level_of[source]
            self._answers[f"{place}.before"] = NO_CONV
            made = outside.setdefault(at, source)
            if source != made and source in stem:
                self._places[f"{place}.before"] = source
                self._answers[f"{place}.before"] = self._name_conv(stem[source].conv, tuple(self._space.convs))
            elif source not in self._refs:
                wanted.append((at, source))


def _plan_once(graph: Graph, inputs: PyramidSpec) -> dict[str, Step]:
    """The steps of one run, by their merges' names."""
    return {step.merge.name: step for step in plan_graph(replace(graph, stack=1), inputs).steps}


def _read_of_project(step: Step) -> str:
    merge, levels, before, widths = step.merge, step.levels, step.before, step.widths
    return read_of_project(merge.level, merge.fusion, merge.down, levels=levels, before=before, widths=widths)


def _difference(given: Graph, drawn: Graph, inputs: PyramidSpec) -> PyrafuseError:
    """The first difference between the merges of two graphs that have the same answers."""
    ours, theirs = (list(_plan_once(graph, inputs).values())[-len(given.merges) :] for graph in (given, drawn))
    for step, other in zip(ours, theirs, strict=True):
        uses, can_be = _list_uses(step), _list_uses(other)
        for kind, value in uses.items():
            if value != can_be.get(kind):
                return PyrafuseError(
                    f"the space does not hold this graph: {kind} of merge {step.merge.name} is {value}, and only "
                    f"{can_be.get(kind)} can be drawn there"
                )
    return PyrafuseError("the space does not hold this graph: its stem is another than any that can be drawn")


def _list_uses(step: Step) -> dict[str, str]:
    """What a merge makes use of."""
    merge = step.merge
    uses = {
        "fusion": merge.fusion,
        "up": merge.up if max(step.levels) > merge.level else "",
        "down": merge.down if min(step.levels) < merge.level else "",
        "conv": "none" if merge.conv is None else _show(merge.conv),
        "project": _show(merge.project) if _read_of_project(step) == "form" else merge.project.activation,
        "weight_channels": "" if merge.fusion in PLACELESS_FUSIONS else str(merge.weight_channels),
        "channels": str(step.channels),
        "width": ", ".join(map(str, step.widths)),
    }
    return uses if _read_of_project(step) != "nothing" else {**uses, "project": ""}


def _show(form: Conv) -> str:
    """A convolution as a graph's text has it."""
    own = {one.name: getattr(form, one.name) for one in fields(form) if getattr(form, one.name) != one.default}
    return "{" + ", ".join(f"{key}: {value}" for key, value in own.items()) + "}"
