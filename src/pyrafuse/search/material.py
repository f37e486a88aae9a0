"""What a search has at hand: for a strategy that trains something of its own before it proposes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyrafuse.base.card import Card
from pyrafuse.search.choices import Candidate
from pyrafuse.search.features import Features
from pyrafuse.search.settings import ProxySettings
from pyrafuse.training.settings import Recipe


@dataclass(frozen=True)
class Material:
    """What candidates are made of, learn from and are held to.

    Attributes:
        card: Card of the described detector, with its whole description.
        recipe: Recipe that the winners are trained by.
        features: Cached maps by the side of the network's input in pixels.
        settings: How the search judges candidates.
        device: Device to train on.
        folder: Folder of the search, which no other process writes to.
        head: What tells this search from others, in plain values.
        find_excess: What of a candidate's cost is too much, in words; empty if it may be tried.
        tell: Function that is called with each sentence for the user.
    """

    card: Card
    recipe: Recipe
    features: Mapping[int, Features]
    settings: ProxySettings
    device: torch.device
    folder: Path
    head: Mapping[str, Any]
    find_excess: Callable[[Candidate], str]
    tell: Callable[[str], None]
