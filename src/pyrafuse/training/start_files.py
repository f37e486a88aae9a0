"""Files of weights to start from: found, or refused with the nearest.

Free of torch, so that the answer comes at once.
"""

import os

from pyrafuse.backbones.published import TIMM, TORCHVISION, name_published
from pyrafuse.base.errors import CheckpointError, nearest
from pyrafuse.base.paths import find_checkpoint, looks_like_file
from pyrafuse.base.published_files import is_address
from pyrafuse.training.settings import AUTO_WEIGHTS, ModelSettings

PUBLISHED = ("pyrafuse/", "timm/", "torchvision/")
"""How the names of weights begin that come with this package, or are fetched."""


def is_published(text: str) -> bool:
    """Whether ``text`` names weights, and no file of them."""
    return text.startswith(PUBLISHED) and not os.path.exists(text)


def check_start_files(model: ModelSettings) -> None:
    """Refuse files to start from that are not there.

    Raises:
        CheckpointError: With the nearest one, or the words that were meant.
    """
    if model.start_from is not None:
        find_checkpoint(model.start_from)
    weights = model.backbone_weights
    if weights is None or weights == AUTO_WEIGHTS or is_published(weights) or os.path.isfile(weights):
        return
    if is_address(weights):
        find_checkpoint(weights)
        return
    if os.path.isdir(weights) or looks_like_file(weights):
        find_checkpoint(weights)
        raise CheckpointError(f"{weights} is a folder; name a file of weights in it")
    published = name_published(weights)
    hint = "give --weights FILE, torchvision/NAME or timm/NAME, or none"
    if published is not None:
        hint = f"--weights {published} gives ImageNet's"
    elif near := nearest(weights, [*TORCHVISION, *TIMM]):
        hint = f"did you mean --weights {name_published(near)}, which gives ImageNet's?"
    raise CheckpointError(f"no such file of weights: {weights}; {hint}")
