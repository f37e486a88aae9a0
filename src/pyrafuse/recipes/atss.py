"""ATSS on COCO, DDOD on top of it and of FCOS, and the studies that lead from one to the other.

Zhang et al., arXiv:1912.02424; Chen et al., "Disentangle Your Dense Object Detector", arXiv:2107.02963. None of these
recipes has been run to its end here: the published figures are those of mmdetection's checkpoints, on val 2017, and
DDOD's paper's for FCOS.

The weights of levels are told by those of the finest level and of the coarsest; others by
``--model.options.criterion.level_weights.schedule [1,3]``. DDOD's own follow the positives instead.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from pyrafuse.recipes.dense import ARGUMENTS, HARDWARE, one_x
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import Recipe

_coco = partial(recipe, hardware=HARDWARE, arguments=ARGUMENTS)
_study = partial(_coco, paper="arXiv:2107.02963", published="a study of the paper; its figures are not repeated here")


@_coco(paper="arXiv:1912.02424", published="39.4 AP at 800 px")
def atss_coco() -> Recipe:
    """Train ATSS: each object finds its own threshold."""
    return one_x("atss")


@_coco(paper="arXiv:2107.02963", published="41.7 AP at 800 px")
def ddod_coco() -> Recipe:
    """Train DDOD: each branch with its own rows and its own sampling, levels weighed by their positives."""
    return one_x("ddod")


@_coco(paper="arXiv:2107.02963", published="41.6 AP at 800 px, in the paper")
def ddod_fcos_coco() -> Recipe:
    """Train DDOD on FCOS: its assigners, level weights and deformable convolutions where there are no anchors."""
    given = one_x("ddod_fcos", clip_norm=35.0)
    return replace(given, schedule=replace(given.schedule, burn_in_start=1 / 3))


@_study()
def atss_level_weights_rising_coco() -> Recipe:
    """Train ATSS with levels weighed evenly from 1, the finest, to 2: the best in the paper."""
    return _with_schedule(1.0, 2.0)


@_study()
def atss_level_weights_falling_coco() -> Recipe:
    """Train ATSS with levels weighed evenly from 3, the finest, to 1: the worst in the paper."""
    return _with_schedule(3.0, 1.0)


@_study()
def atss_separate_assigners_coco() -> Recipe:
    """Train ATSS with DDOD's two cost-aware assigners, and nothing else of it."""
    return one_x("atss", criterion={"assigner": {"alpha": 0.8}, "box_assigner": {"name": "atss", "alpha": 0.5}})


def _with_schedule(first: float, last: float) -> Recipe:
    criterion: dict[str, Any] = {"level_weights": {"name": "scheduled", "schedule": [first, last]}}
    return one_x("atss", criterion=criterion)
