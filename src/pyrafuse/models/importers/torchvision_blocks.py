"""torchvision's names of the parameters of single blocks.

arXiv:1706.05587. our block's key -> torchvision's
"""

import re


def name_aspp(key: str, *, num_rates: int = 3) -> str:
    """Of an `ASPP`: torchvision numbers its branches, the 1x1 first, the global mean last."""
    places = {"conv": 0, "norm": 1}
    if found := re.fullmatch(r"(branches\.(\d+)|whole|project)\.(conv|norm)\.(\w+)", key):
        part, branch, place, rest = found.groups()
        if part == "project":
            return f"project.{places[place]}.{rest}"
        if part == "whole":
            return f"convs.{num_rates + 1}.{places[place] + 1}.{rest}"  # a pooling layer comes first in its branch
        return f"convs.{branch}.{places[place]}.{rest}"
    raise LookupError(f"{key!r} is no key of an ASPP")
