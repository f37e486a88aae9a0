"""What of a detector trains in an epoch: a resumed training finds it by the epoch alone."""

from torch import nn

from pyrafuse.backbones.staged import stop_norms
from pyrafuse.models.detector import Detector
from pyrafuse.training.optimizing import base_lr
from pyrafuse.training.preparing import find_dropblocks
from pyrafuse.training.schedule import block_sizes
from pyrafuse.training.settings import DropBlockSettings, Recipe


def set_modes(detector: Detector, recipe: Recipe, *, epoch: int) -> None:
    """Set what trains in ``epoch`` (from 0), and what its DropBlocks drop."""
    detector.train()
    if base_lr(recipe) == 0:  # what has a learning rate of 0 stays as it was, and is evaluated so
        stop_norms(detector)
    elif recipe.optimizer.backbone_lr == 0 and recipe.model.brings_weights:
        stop_norms(detector.backbone)
    set_dropblocks(detector, recipe.dropblock, epoch=epoch)


def set_dropblocks(detector: nn.Module, settings: DropBlockSettings, *, epoch: int) -> None:
    """Set the squares that the neck's DropBlocks drop in ``epoch`` (from 0).

    Raises:
        PyrafuseError: If the neck has not as many DropBlocks as the phases have sizes.
    """
    blocks = find_dropblocks(detector, settings)
    for block, size in zip(blocks, block_sizes(settings, epoch=epoch) or (0,) * len(blocks), strict=True):
        block.block_size = size
        block.keep_prob = settings.keep_prob
