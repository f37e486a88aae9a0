"""Faster R-CNN on COCO, Libra R-CNN and its parts one by one, and Cascade R-CNN, plain and on a recursive pyramid.

Ren et al., arXiv:1506.01497; Liu et al., "Path Aggregation Network", arXiv:1803.01534; Pang et al., arXiv:1904.02701;
Cai and Vasconcelos, arXiv:1712.00726; Qiao, Chen and Yuille, "DetectoRS", arXiv:2006.02334. None of these recipes has
been run to its end here: the published figures are those of mmdetection's checkpoints, on val 2017.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from pyrafuse.recipes.dense import ARGUMENTS, BACKBONE, HARDWARE, one_x
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import Recipe

_coco = partial(recipe, hardware=HARDWARE, arguments=ARGUMENTS)
_part = partial(_coco, paper="arXiv:1904.02701", published="a line of the paper's table; not repeated here")
_one_x = partial(one_x, lr=0.02)


@_coco(paper="arXiv:1506.01497", published="37.4 AP at 800 px")
def faster_rcnn_coco() -> Recipe:
    """Train Faster R-CNN on an FPN."""
    return _one_x("faster_rcnn")


@_coco(paper="arXiv:1803.01534", published="37.5 AP at 800 px")
def faster_rcnn_pafpn_coco() -> Recipe:
    """Train Faster R-CNN on PANet's pyramid."""
    return _with_neck(_one_x("faster_rcnn"), ("pafpn",))


@_coco(paper="arXiv:1904.02701", published="38.3 AP at 800 px; 38.6 in the paper's code")
def libra_rcnn_coco() -> Recipe:
    """Train Libra R-CNN: balanced sampling, pyramid and box loss."""
    return _one_x("libra_rcnn")


@_part()
def libra_sampling_coco() -> Recipe:
    """Train Faster R-CNN with Libra's balanced sampling alone."""
    return _one_x("faster_rcnn", stages={"sampler": {"positives": "instance_balanced", "negatives": "iou_balanced"}})


@_part()
def libra_pyramid_coco() -> Recipe:
    """Train Faster R-CNN with Libra's balanced pyramid alone."""
    return _with_neck(_one_x("faster_rcnn"), ("fpn", "bfp"))


@_part()
def libra_box_loss_coco() -> Recipe:
    """Train Faster R-CNN with Libra's balanced L1 alone."""
    return _one_x("faster_rcnn", criterion={"regions": {"box_loss": "balanced_l1"}})


@_coco(paper="arXiv:1712.00726", published="40.3 AP at 800 px")
def cascade_rcnn_coco() -> Recipe:
    """Train Cascade R-CNN: three looks at each region."""
    return _one_x("cascade_rcnn")


@_coco(paper="arXiv:2006.02334", published="44.8 AP at 800 px")
def cascade_rcnn_rfp_coco() -> Recipe:
    """Train Cascade R-CNN on a recursive feature pyramid of two rounds."""
    trunk: dict[str, Any] = {"name": "resnet50", **BACKBONE, "strides": [4, 8, 16, 32]}
    return _one_x("cascade_rcnn_rfp", backbone={"backbone": trunk})


def _with_neck(given: Recipe, neck: tuple[str, ...]) -> Recipe:
    return replace(given, model=replace(given.model, neck=neck))
