"""FCOS on COCO.

Tian et al., arXiv:1904.01355. This recipe has not been run to its end here: the published figure is that of
mmdetection's checkpoint, on val 2017.

Deviations: published on a ResNet in caffe style, here it starts from torchvision's; biases were trained at twice the
rate and without decay, and the warm-up kept to a third of the rate.
"""

from dataclasses import replace

from pyrafuse.recipes.dense import ARGUMENTS, one_x
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import Recipe


@recipe(paper="arXiv:1904.01355", published="36.6 AP at 800 px", hardware="4 GPUs x 4 images", arguments=ARGUMENTS)
def fcos_coco() -> Recipe:
    """Train FCOS: no anchors, a point a cell, centerness."""
    given = one_x("fcos", clip_norm=35.0)
    return replace(given, schedule=replace(given.schedule, burn_in_start=1 / 3))
