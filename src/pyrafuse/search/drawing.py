"""One graph by a row of questions, of which each offers only what a legal graph can still become of.

outer questions -> a stem, if there is one -> merges in their order -> which merge of each level goes out
"""

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.graph import TAKES_TWO, Graph, Merge, number_levels
from pyrafuse.necks.merging import CONVOLVING, Conv
from pyrafuse.search.choices import AS_INPUTS, EACH, NO_CONV, Answer, Candidate, Chooser, Space
from pyrafuse.search.closing import count_excess, count_merges, missing_levels
from pyrafuse.search.operators import FREE_DOWNS, FREE_UPS, PLACELESS_FUSIONS

Levels = tuple[int, ...]


@dataclass(frozen=True)
class Map:
    """A map that a merge can read: its name in the graph, its level and its channels."""

    name: str
    level: int
    channels: int


@dataclass
class Drawing:
    """One drawing as it goes on."""

    space: Space
    inputs: PyramidSpec
    choose: Chooser
    answers: dict[str, Answer] = field(default_factory=dict)

    def run(self) -> Candidate:
        """Ask everything, and build the graph."""
        space = self.space
        size = self._ask("size", space.sizes)
        self._channels = self._ask("channels", self._legal_channels())
        fusions = [name for name in space.fusions_of(2) if self._possible(self._most(name))]
        if not fusions:
            raise self._nothing_fits()
        self._fusion = self._ask_shared("fusion", fusions)
        self._up, self._down = self._ask_shared("up", space.ups), self._ask_shared("down", space.downs)
        self._conv = self._ask_shared("conv", tuple(space.convs))
        self._project = self._ask_shared("project", tuple(space.projects))
        most = self._most(self._fusion)
        possible = self._possible(most)
        reads = self._pick("reads", [reads for reads, _ in possible], "C")
        outputs = self._pick("outputs", [outputs for chosen, outputs in possible if chosen == reads], "P")
        ways = self._ways(reads, outputs, most)
        stack = self._ask("stack", [n for n in space.stacks if any(n == stack for stack, _ in ways)])
        has_stem = bool(self._ask("stem", [has_stem for has_stem in (False, True) if (stack, has_stem) in ways]))
        stem: list[Merge] = []
        outside = {f"C{level}": self._arriving[level] for level in reads}
        if has_stem:
            stem, outside = self._draw_stem(reads, outputs)
        least = self._least(reads, outputs, has_stem, most)
        assert least is not None
        number = self._ask("merges", range(least, space.max_merges + 1))
        merges, ends = self._draw_merges(int(number), outside, reads, outputs, most)
        graph = Graph(
            merges=tuple(merges),
            outputs=ends,
            stem=tuple(stem),
            stack=int(stack),
            ignored=tuple(f"C{level}" for level in self._arriving if level not in reads),
            **({} if self._channels == AS_INPUTS else {"channels": int(self._channels)}),
        )
        return Candidate(graph, int(size), self.answers)

    # the outer part

    @cached_property
    def _arriving(self) -> dict[int, Map]:
        numbers = number_levels(self.inputs.strides)
        return {n: Map(f"C{n}", n, channels) for n, channels in zip(numbers, self.inputs.channels, strict=True)}

    @cached_property
    def _outer(self) -> list[tuple[Levels, Levels]]:
        """Which maps are read and which levels go out: all pairs that the maps allow."""
        finest = min(self._arriving)
        reads = dict.fromkeys(tuple(n for n in levels if n in self._arriving) for levels in self.space.reads)
        outputs = [levels for levels in self.space.outputs if self.inputs.strides[0] >> max(0, finest - levels[0])]
        return [(read, levels) for read in reads if read for levels in outputs]

    def _possible(self, most: int) -> list[tuple[Levels, Levels]]:
        """Those pairs for which there are graphs."""
        return [outer for outer in self._outer if self._ways(*outer, most)]

    def _ways(self, reads: Levels, outputs: Levels, most: int) -> list[tuple[int, bool]]:
        """Stacks, each with and without a stem, for which there are graphs. More runs than one need a stem."""
        with_stem = [has_stem for has_stem in (False, True) if self._least(reads, outputs, has_stem, most)]
        return [(stack, has_stem) for stack in self.space.stacks for has_stem in with_stem if has_stem or stack == 1]

    def _least(self, reads: Levels, outputs: Levels, has_stem: bool, most: int) -> int | None:
        known = frozenset((*self._arriving, *(_created(reads, outputs) if has_stem else ())))
        return count_merges(
            len({*reads, *outputs} if has_stem else reads),
            outputs=frozenset(outputs),
            known=known,
            most=most,
            limit=self.space.max_merges,
        )

    def _most(self, fusion: Answer) -> int:
        takes_more = self.space.fusions_of(3) if fusion == EACH else fusion not in TAKES_TWO
        return self.space.max_inputs if takes_more else 2

    def _nothing_fits(self) -> PyrafuseError:
        come = ", ".join(f"C{n}" for n in self._arriving)
        return PyrafuseError(
            f"the space has no graph for the maps {come}: at most {self.space.max_merges} merges make none of its sets "
            "of outputs; raise max_merges, or add other sets to `outputs` or `reads`"
        )

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

    def _ask_shared(self, question: str, options: Sequence[str]) -> str:
        """What holds for all merges, or `EACH`."""
        return str(self._ask(question, options if len(options) == 1 else (EACH, *options)))

    def _ask_own(self, place: str, kind: str, shared: str, options: Sequence[str]) -> str:
        """What a merge does: what all do, where that is legal here; else it is asked."""
        return shared if shared in options else str(self._ask(f"{place}.{kind}", options))

    # merges

    def _channels_at(self, level: int) -> int:
        if self._channels != AS_INPUTS:
            return int(self._channels)
        return self._arriving[min(self._arriving, key=lambda n: (abs(n - level), n))].channels

    def _draw_stem(self, reads: Levels, outputs: Levels) -> tuple[list[Merge], dict[str, Map]]:
        """One map a level: what comes in there, maybe convolved; where nothing does, it is made of the next level's."""
        stem: list[Merge] = []
        at: dict[int, Map] = {}

        def add(place: str, name: str, level: int, source: Map, conv: str) -> Map:
            merge = self._fill(place, name, level, [source], "sum", conv)
            stem.append(merge)
            return Map(name, level, self._channels_at(level))

        for level in reads:
            conv = str(self._ask(f"C{level}.conv", (NO_CONV, *self.space.real_convs)))
            came = self._arriving[level]
            at[level] = came if conv == NO_CONV else add(f"C{level}", f"S{level}", level, came, conv)
        for level in _created(reads, outputs):
            source = at[max((n for n in at if n < level), default=min(at))]
            conv = str(self._ask(f"C{level}.before", (NO_CONV, *self.space.real_convs)))
            if conv != NO_CONV:
                source = add(f"C{level}.before", f"E{level}", source.level, source, conv)
            at[level] = add(f"C{level}", f"S{level}", level, source, NO_CONV)
        return stem, {f"C{level}": at[level] for level in sorted(at) if level in {*reads, *outputs}}

    def _draw_merges(
        self, number: int, outside: dict[str, Map], reads: Levels, outputs: Levels, most: int
    ) -> tuple[list[Merge], tuple[str, ...]]:
        maps: dict[Answer, Map] = {**outside}
        merges: list[Merge] = []
        made: dict[Answer, int] = {}  # the level of each merge
        unread: set[Answer] = set(outside)
        wanted = set(outputs)
        known = {*self._arriving, *(one.level for one in outside.values())}
        span = range(min(*reads, *outputs), max(*reads, *outputs) + 1)

        def excess(level: int, without: Answer | None = None) -> float:
            left = [made.get(one) for one in unread if one != without]
            return count_excess(
                [*left, level],
                outputs=wanted,
                made={*made.values(), level},
                known={*known, level},
                rest=number - rank,
                most=most,
            )

        def can_be_at(level: int) -> bool:
            if level not in known and level not in (min(known) - 1, max(known) + 1):
                return False
            levels = [*(made.get(one) for one in unread), level]
            surplus = len(levels) - len({one for one in levels if one in wanted}) - (level not in wanted)
            return excess(level) <= min(most, surplus)

        for rank in range(1, number + 1):
            level = int(self._ask(f"{rank}.level", filter(can_be_at, span)))
            too_many = excess(level)
            count = int(self._ask(f"{rank}.inputs", range(max(1, int(too_many)), min(most, len(maps)) + 1)))
            sources: list[Map] = []
            taken: set[Answer] = set()
            for place in range(1, count + 1):
                options = [one for one in maps if one not in taken]
                slots = count - place
                if excess(level) > slots:  # every input that is left must make it fewer
                    options = [one for one in options if one in unread and excess(level, one) <= slots]
                read = self._ask(f"{rank}.input{place}", options)
                taken.add(read)
                unread.discard(read)
                sources.append(maps[read])
            letter = string.ascii_lowercase[(nth := list(made.values()).count(level)) % 26] * (nth // 26 + 1)
            merge = self._draw_merge(str(rank), f"P{level}{letter}", level, sources)
            merges.append(merge)
            maps[rank] = Map(merge.name, level, self._channels_at(level))
            made[rank] = level
            unread.add(rank)
            known.add(level)
        ends = []
        for level in outputs:
            here = [one for one, at in made.items() if at == level]
            must = [one for one in here if one in unread]
            ends.append(maps[self._ask(f"P{level}", must or here)].name)
        return merges, tuple(ends)

    def _draw_merge(self, place: str, name: str, level: int, sources: Sequence[Map]) -> Merge:
        space, fusion = self.space, "sum"
        if len(sources) > 1:
            fusion = self._ask_own(place, "fusion", self._fusion, space.fusions_of(len(sources)))
        convs = space.real_convs if fusion == "concat" else tuple(space.convs)
        conv = self._ask_own(place, "conv", self._conv, convs)
        return self._fill(place, name, level, sources, fusion, conv)

    def _fill(self, place: str, name: str, level: int, sources: Sequence[Map], fusion: str, conv: str) -> Merge:
        """The merge with everything else that it needs, which is asked only where it makes a difference."""
        space = self.space
        form = None if conv == NO_CONV else space.convs[conv]
        values: dict[str, Answer | Conv] = {}
        goes_up = any(source.level > level for source in sources)
        goes_down = any(source.level < level for source in sources)
        if goes_up:
            values["up"] = self._ask_own(place, "up", self._up, space.ups)
        if goes_down:
            values["down"] = self._ask_own(place, "down", self._down, space.downs)
        down = values.get("down", "")
        channels = self._channels_at(level)
        is_own = False
        may_be_own = form is not None and (fusion == "concat" or len(sources) == 1)
        if may_be_own and any(source.channels != channels for source in sources):
            fits = bool(self._projects_for(source.channels for source in sources))
            widths = [width for width in space.widths if width == "common" or fits] or ["common"]
            is_own = self._ask(f"{place}.width", widths) == "own"
            values |= {} if is_own else {"width": channels}
        projects = not is_own and any(
            source.channels != channels and not (source.level < level and down in CONVOLVING) for source in sources
        )
        reads_form = fusion not in PLACELESS_FUSIONS or (goes_down and down not in FREE_DOWNS)
        reads_form |= goes_up and values["up"] not in FREE_UPS
        if projects or reads_form:
            widths_of = [source.channels for source in sources] if is_own else [channels]
            options = self._projects_for(widths_of)
            values["project"] = space.projects[self._ask_own(place, "project", self._project, options)]
        if fusion not in PLACELESS_FUSIONS:
            values["weight_channels"] = self._ask(f"{place}.weight_channels", space.weight_channels)
        if self._channels == AS_INPUTS:
            values["channels"] = channels
        names = tuple(source.name for source in sources)
        return Merge(name, level, names, fusion=fusion, conv=form, **values)  # pyright: ignore[reportArgumentType]

    def _projects_for(self, channels: Iterable[int]) -> tuple[str, ...]:
        """Those forms whose norm takes so many channels."""
        are_even = all(number % 32 == 0 for number in channels)
        return tuple(name for name, form in self.space.projects.items() if are_even or form.norm != "group_norm")


def _created(reads: Levels, outputs: Levels) -> list[int]:
    """Levels that a stem makes, in an order in which each has its source; see `missing_levels`."""
    missing = missing_levels({*outputs} - {*reads}, set(), {*reads}) if {*outputs} - {*reads} else set()
    coarser, finer = [n for n in missing if n > min(reads)], [n for n in missing if n < min(reads)]
    return [*sorted(coarser), *sorted(finer, reverse=True)]
