"""Necks made by hand as points of a space: what a search begins with, and what its budget follows from."""

from collections.abc import Mapping

from rich.console import Console

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.points import POINTS
from pyrafuse.search.recognizing import recognize
from pyrafuse.search.running import Limits, name_candidate
from pyrafuse.search.weighing import Scale

BY_HAND = ("fpn", "pafpn", "bifpn", "nas_fpn", "asff")
"""Necks of `POINTS` that are tried first."""


def find_by_hand(space: Space, inputs: PyramidSpec, console: Console) -> dict[str, Candidate]:
    """Necks made by hand in all channels of the space, as ``fpn-48``; those that are outside of it are told."""
    widths = [number for number in space.channels if isinstance(number, int)] or [min(inputs.channels)]
    found: dict[str, Candidate] = {}
    said = set[str]()
    for width in sorted(widths):
        for name in BY_HAND:
            try:
                candidate = recognize(space, inputs, POINTS[name](inputs, width, None))
            except ValueError as error:
                reason = f"{name} is not tried, because it is not in the space: {error}"
            else:
                key = name_candidate(candidate, inputs)
                same = next((other for other, one in found.items() if name_candidate(one, inputs) == key), "")
                if not same:
                    found[f"{name}-{width}"] = candidate
                    continue
                reason = f"{name} is not tried, because it is the same graph as {same.rpartition('-')[0]} here"
            if reason not in said:
                console.print(reason)
                said.add(reason)
    return found


def name_by_hand(source: str) -> str:
    """``fpn`` of ``fpn-48``; empty for what was not made by hand."""
    name, _, width = source.rpartition("-")
    return name if name in BY_HAND and width.isdigit() else ""


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
