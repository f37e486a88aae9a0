"""One graph by a row of questions, of which each offers only what a legal graph can still become of.

outer questions -> a stem, if there is one -> merges in their order -> which merge of each level goes out
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import TAKES_TWO, Graph, Merge, number_levels
from pyrafuse.necks.merging import ALIGNING
from pyrafuse.search.choices import AS_INPUTS, EACH, NO_CONV, Answer, Candidate, Chooser, Space
from pyrafuse.search.closing import Closing, count_merges, missing_levels
from pyrafuse.search.operators import PLACELESS_FUSIONS, read_of_project

Levels = tuple[int, ...]
PLAIN = Conv(1)


@dataclass(frozen=True)
class Map:
    """A map that a merge can read: its name in the graph, its level and its channels."""

    name: str
    level: int
    channels: int


@dataclass
class Drawing:
    """One drawing as it goes on.

    Attributes:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        choose: Answers the questions.
        answers: Those so far, of questions that had more than one option.
    """

    space: Space
    inputs: PyramidSpec
    choose: Chooser
    answers: dict[str, Answer] = field(default_factory=dict)
    _shared: dict[str, str] = field(default_factory=dict)
    _channels: Answer = AS_INPUTS

    def run(self) -> Candidate:
        """Ask everything, and build the graph.

        Raises:
            PyrafuseError: If the space has no graph for such maps.
        """
        space = self.space
        size = int(self._ask("size", space.sizes))
        self._channels = self._ask("channels", self._legal_channels())
        fusions = [name for name in space.fusions_of(2) if self._possible[self._most(name)]]
        if not fusions:
            raise self._nothing_fits()
        self._ask_shared("fusion", fusions)
        self._ask_shared("up", space.ups)
        self._ask_shared("down", space.downs)
        self._ask_shared("conv", tuple(space.convs))
        self._ask_shared("project", tuple(space.projects))
        most = self._most(self._shared["fusion"])
        reads = self._pick("reads", [reads for reads, _ in self._possible[most]], "C")
        outputs = self._pick("outputs", [outputs for chosen, outputs in self._possible[most] if chosen == reads], "P")
        ways = self._ways(reads, outputs, most)
        stack = int(self._ask("stack", dict.fromkeys(stack for stack, _ in ways)))
        has_stem = bool(self._ask("stem", [has_stem for times, has_stem in ways if times == stack]))
        stem, outside = self._draw_stem(reads, outputs) if has_stem else ([], {n: self._arriving[n] for n in reads})
        least = self._least(reads, outputs, has_stem, most) or 1
        closing = Closing(
            outputs={*outputs},
            span=range(min(*reads, *outputs), max(*reads, *outputs) + 1),
            known={*self._arriving, *outside},
            unread={f"C{level}": None for level in outside},
            rest=int(self._ask("merges", range(least, space.max_merges + 1))),
            most=most,
        )
        merges = self._draw_merges(closing, {f"C{level}": one for level, one in outside.items()})
        ends = [merges[int(self._ask(f"P{level}", closing.legal_ends(level))) - 1].name for level in outputs]
        ignored = tuple(f"C{level}" for level in self._arriving if level not in reads)
        channels = Graph.channels if self._channels == AS_INPUTS else int(self._channels)
        graph = Graph(tuple(merges), tuple(ends), channels, tuple(stem), stack, ignored)
        return Candidate(graph, size, self.answers)

    # the outer part

    @cached_property
    def _arriving(self) -> dict[int, Map]:
        numbers = number_levels(self.inputs.strides)
        return {n: Map(f"C{n}", n, channels) for n, channels in zip(numbers, self.inputs.channels, strict=True)}

    @cached_property
    def _possible(self) -> dict[int, list[tuple[Levels, Levels]]]:
        """Which maps are read and which levels go out: all pairs for which there are graphs, by the most inputs."""
        finest = min(self._arriving)
        reads = dict.fromkeys(tuple(n for n in levels if n in self._arriving) for levels in self.space.reads)
        outputs = [levels for levels in self.space.outputs if self.inputs.strides[0] >> max(0, finest - levels[0])]
        pairs = [(read, levels) for read in reads if read for levels in outputs]
        return {most: [one for one in pairs if self._ways(*one, most)] for most in {2, self.space.max_inputs}}

    def _ways(self, reads: Levels, outputs: Levels, most: int) -> list[tuple[int, bool]]:
        """Stacks, each with and without a stem, for which there are graphs. More runs than one need a stem."""
        with_stem = [has_stem for has_stem in (False, True) if self._least(reads, outputs, has_stem, most)]
        return [(stack, has_stem) for stack in self.space.stacks for has_stem in with_stem if has_stem or stack == 1]

    def _least(self, reads: Levels, outputs: Levels, has_stem: bool, most: int) -> int | None:
        """The least number of merges, if there is one."""
        known = frozenset((*self._arriving, *(_created(reads, outputs) if has_stem else ())))
        return count_merges(
            len({*reads, *outputs} if has_stem else reads),
            outputs=frozenset(outputs),
            known=known,
            most=most,
            limit=self.space.max_merges,
        )

    def _most(self, fusion: str) -> int:
        takes_more = self.space.fusions_of(3) if fusion == EACH else fusion not in TAKES_TWO
        return self.space.max_inputs if takes_more else 2

    def _legal_channels(self) -> Sequence[Answer]:
        forms = (*self.space.convs.values(), *self.space.projects.values())
        is_grouped = any(form is not None and form.norm == "group_norm" for form in forms)
        if not is_grouped or all(channels % 32 == 0 for channels in self.inputs.channels):
            return self.space.channels
        fixed = [channels for channels in self.space.channels if channels != AS_INPUTS]
        if not fixed:
            raise PyrafuseError(
                f"group_norm needs multiples of 32 channels, and the maps have {self.inputs.channels}: "
                f"give the space's `channels` a number beside {AS_INPUTS!r}"
            )
        return fixed

    def _nothing_fits(self) -> PyrafuseError:
        come = ", ".join(f"C{n}" for n in self._arriving)
        return PyrafuseError(
            f"the space has no graph for the maps {come}: at most {self.space.max_merges} merges make none of its sets "
            "of outputs; raise max_merges, or add other sets to `outputs` or `reads`"
        )

    # questions

    def _ask(self, question: str, options: Iterable[Answer]) -> Answer:
        options = tuple(options)
        chosen = options[self.choose(question, options)]
        if len(options) > 1:
            self.answers[question] = chosen
        return chosen

    def _pick(self, question: str, sets: Sequence[Levels], letter: str) -> Levels:
        by_name = {" ".join(f"{letter}{n}" for n in levels): levels for levels in sets}
        return by_name[str(self._ask(question, by_name))]

    def _ask_shared(self, kind: str, options: Sequence[str]) -> None:
        """Ask what holds for all merges, or `EACH`."""
        self._shared[kind] = str(self._ask(kind, options if len(options) == 1 else (EACH, *options)))

    def _ask_own(self, place: str, kind: str, options: Sequence[str]) -> str:
        """What a merge does: what all do, where that is legal here; else it is asked."""
        shared = self._shared[kind]
        return shared if shared in options else str(self._ask(f"{place}.{kind}", options))

    # merges

    def _channels_at(self, level: int) -> int:
        if self._channels != AS_INPUTS:
            return int(self._channels)
        return self._arriving[min(self._arriving, key=lambda n: (abs(n - level), n))].channels

    def _draw_stem(self, reads: Levels, outputs: Levels) -> tuple[list[Merge], dict[int, Map]]:
        """One map a level: what comes in there, maybe convolved; where nothing does, it is made of the next level's."""
        stem: list[Merge] = []
        at: dict[int, Map] = {}
        convs = (NO_CONV, *self.space.real_convs)

        def add(place: str, name: str, level: int, source: Map, conv: Answer) -> Map:
            stem.append(self._fill(place, name, level, [source], Merge.fusion, str(conv)))
            return Map(name, level, self._channels_at(level))

        for level in reads:
            place, at[level] = f"C{level}", self._arriving[level]
            if (conv := self._ask(f"{place}.conv", convs)) != NO_CONV:
                at[level] = add(place, f"S{level}", level, at[level], conv)
        for level in _created(reads, outputs):
            place, source = f"C{level}", at[max((n for n in at if n < level), default=min(at))]
            if (conv := self._ask(f"{place}.before", convs)) != NO_CONV:
                source = add(f"{place}.before", f"E{level}", source.level, source, conv)
            at[level] = add(place, f"S{level}", level, source, NO_CONV)
        return stem, {level: at[level] for level in sorted(at) if level in {*reads, *outputs}}

    def _draw_merges(self, closing: Closing, outside: Mapping[str, Map]) -> list[Merge]:
        maps: dict[Answer, Map] = {**outside}
        merges: list[Merge] = []
        for rank in range(1, closing.rest + 1):
            level = int(self._ask(f"{rank}.level", closing.legal_levels()))
            counts = range(closing.begin(level), min(closing.most, len(maps)) + 1)
            count = int(self._ask(f"{rank}.inputs", counts))
            taken: list[Answer] = []
            for place in range(1, count + 1):
                untaken = [one for one in maps if one not in taken]
                taken.append(self._ask(f"{rank}.input{place}", closing.legal_inputs(untaken, count - place)))
                closing.read(taken[-1])
            letter = string.ascii_lowercase[(nth := [*closing.made.values()].count(level)) % 26] * (nth // 26 + 1)
            closing.end(rank)
            merges.append(self._draw_merge(rank, f"P{level}{letter}", level, [maps[one] for one in taken]))
            maps[rank] = Map(merges[-1].name, level, self._channels_at(level))
        return merges

    def _draw_merge(self, rank: int, name: str, level: int, sources: Sequence[Map]) -> Merge:
        place, fusion = str(rank), "sum"
        if len(sources) > 1:
            fusion = self._ask_own(place, "fusion", self.space.fusions_of(len(sources)))
        convs = self.space.real_convs if fusion == "concat" else tuple(self.space.convs)
        return self._fill(place, name, level, sources, fusion, self._ask_own(place, "conv", convs))

    def _fill(self, place: str, name: str, level: int, sources: Sequence[Map], fusion: str, conv: str) -> Merge:
        """The merge with everything else that it needs, which is asked only where it makes a difference."""
        space, channels = self.space, self._channels_at(level)
        levels, before = [source.level for source in sources], [source.channels for source in sources]
        up, down = Merge.up, Merge.down
        if max(levels) > level:
            up = self._ask_own(place, "up", [one for one in space.ups if one not in ALIGNING or levels[0] == level])
        if min(levels) < level:
            down = self._ask_own(place, "down", space.downs)
        may_be_own = conv != NO_CONV and (fusion == "concat" or len(sources) == 1) and {*before} != {channels}
        is_own = may_be_own and self._ask(f"{place}.width", self._legal_widths(before)) == "own"
        widths = before if is_own else [channels] * len(before)
        weight_channels: Answer = Merge.weight_channels
        if fusion not in PLACELESS_FUSIONS:
            weight_channels = self._ask(f"{place}.weight_channels", space.weight_channels)
        project = PLAIN
        if read_of_project(level, fusion, down, levels=levels, before=before, widths=widths) != "nothing":
            project = space.projects[self._ask_own(place, "project", self._projects_for(widths))]
        return Merge(
            name,
            level,
            tuple(source.name for source in sources),
            fusion=fusion,
            up=up,
            down=down,
            project=project,
            conv=None if conv == NO_CONV else space.convs[conv],
            channels=channels if self._channels == AS_INPUTS else None,
            width=channels if may_be_own and not is_own else None,
            weight_channels=int(weight_channels),
        )

    def _legal_widths(self, channels: Iterable[int]) -> Sequence[str]:
        if self._projects_for(channels):
            return self.space.widths
        return [width for width in self.space.widths if width == "common"] or ["common"]

    def _projects_for(self, channels: Iterable[int]) -> tuple[str, ...]:
        """Those forms whose norm takes so many channels."""
        are_even = all(number % 32 == 0 for number in channels)
        return tuple(name for name, form in self.space.projects.items() if are_even or form.norm != "group_norm")


def _created(reads: Levels, outputs: Levels) -> list[int]:
    """Levels that a stem makes, in an order in which each has its source."""
    others = {*outputs} - {*reads}
    missing = missing_levels(others, set(), {*reads}) if others else set()
    coarser, finer = [n for n in missing if n > min(reads)], [n for n in missing if n < min(reads)]
    return [*sorted(coarser), *sorted(finer, reverse=True)]
