"""Necks made by hand as points of a space: what a search begins with, and what its budget follows from."""

import re
from collections.abc import Callable, Mapping

from rich.console import Console

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.points import POINTS, create_point
from pyrafuse.search.recognizing import recognize
from pyrafuse.search.running import Limits, name_candidate
from pyrafuse.search.weighing import Scale

BY_HAND = ("fpn", "pafpn", "bifpn", "nas_fpn", "asff")
"""Necks of `POINTS` that are tried first."""


def find_by_hand(space: Space, inputs: PyramidSpec, console: Console) -> dict[str, Candidate]:
    """Necks made by hand, each over its own levels, in all channels of the space, as ``fpn-48``.

    Those that are outside of the space are told.
    """
    found: dict[str, Candidate] = {}
    said = set[str]()
    for width in _list_widths(space, inputs):
        for name in BY_HAND:
            try:
                candidate = recognize(space, inputs, POINTS[name](inputs, width, None))
            except ValueError as error:
                reason = f"{name} is not tried: {error}"
            else:
                same = _find_same(candidate, found, inputs)
                if not same:
                    found[f"{name}-{width}"] = candidate
                    continue
                reason = f"{name} is not tried: it is the same graph as {same.rpartition('-')[0]} here"
            if reason not in said:
                console.print(reason)
                said.add(reason)
    return found


def find_over_other_levels(
    space: Space,
    inputs: PyramidSpec,
    known: Mapping[str, Candidate],
    find_excess: Callable[[Candidate], str],
    console: Console,
) -> dict[str, Candidate]:
    """Necks made by hand over all sets of levels of the space, as ``fpn-48-p2-p5``: each in the most channels allowed.

    Args:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        known: What is found already, and is not found again.
        find_excess: What of a candidate's cost is too much, in words; empty where nothing is.
        console: Console for necks that are outside of the space or too expensive.
    """
    found: dict[str, Candidate] = {}
    for levels in space.outputs:
        for name in BY_HAND:
            reason = ""
            for width in reversed(_list_widths(space, inputs)):
                try:
                    candidate = recognize(space, inputs, create_point(name, inputs, width, levels))
                except ValueError as error:
                    reason = str(error)
                    break
                if _find_same(candidate, {**known, **found}, inputs):
                    break
                reason = find_excess(candidate)
                if not reason:
                    found[f"{name}-{width}-p{levels[0]}-p{levels[-1]}"] = candidate
                    break
            if reason:
                console.print(f"{name} over P{levels[0]} to P{levels[-1]} is not tried: {reason}")
    return found


def name_by_hand(source: str) -> str:
    """``fpn`` of ``fpn-48`` and of ``fpn-48-p2-p5``; empty for what was not made by hand."""
    found = re.fullmatch(r"(\w+)-\d+(-p\d+-p\d+)?", source)
    return found[1] if found and found[1] in BY_HAND else ""


def _list_widths(space: Space, inputs: PyramidSpec) -> list[int]:
    """Channels of the space, the fewest first."""
    return sorted(number for number in space.channels if isinstance(number, int)) or [min(inputs.channels)]


def _find_same(candidate: Candidate, known: Mapping[str, Candidate], inputs: PyramidSpec) -> str:
    """Name of the known candidate that computes the same; empty if there is none."""
    key = name_candidate(candidate, inputs)
    return next((name for name, one in known.items() if name_candidate(one, inputs) == key), "")


def find_limits(limits: Limits, by_hand: Mapping[str, Candidate], scale: Scale, console: Console) -> Limits:
    """What candidates may cost; if nothing is said, the operations of the dearest neck made by hand.

    One drawn graph may have fifty times the operations of an FPN, and would take the time of as many others.
    """
    if not by_hand or any(limit is not None for limit in vars(limits).values()):
        return limits
    gflops = {name: scale.count_gflops(candidate) for name, candidate in by_hand.items()}
    dearest = max(gflops, key=lambda name: gflops[name])
    console.print(
        f"no limit was given: up to {gflops[dearest]:.3g} GFLOPs are allowed, those with {dearest} "
        "(--max-latency, --max-gflops and --max-parameters set others)"
    )
    return Limits(gflops=gflops[dearest])
