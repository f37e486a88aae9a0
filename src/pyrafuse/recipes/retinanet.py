"""RetinaNet and its forms on COCO: with NAS-FPN, with Libra's balanced pyramid, with guided anchors.

Lin et al., arXiv:1708.02002; Ghiasi et al., arXiv:1904.07392; Pang et al., arXiv:1904.02701; Wang et al.,
arXiv:1901.03278. None of these recipes has been run to its end here: the published figures are those of mmdetection's
checkpoints, on val 2017.

Deviations: GA-RetinaNet was published on a ResNet in caffe style; here it starts from torchvision's. NAS-FPN was
trained on crops of images scaled by 0.8 to 1.2; here half of the images are cut to a patch of SSD's kind.
"""

from dataclasses import replace
from functools import partial

from pyrafuse.recipes.dense import ARGUMENTS, HARDWARE, one_x
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import DataSettings, OptimizerSettings, Recipe, RunSettings, ScheduleSettings

_coco = partial(recipe, hardware=HARDWARE, arguments=ARGUMENTS)


@_coco(paper="arXiv:1708.02002", published="36.5 AP at 800 px")
def retinanet_coco() -> Recipe:
    """Train RetinaNet: nine anchors a cell, focal loss."""
    return one_x("retinanet")


@_coco(paper="arXiv:1904.02701", published="37.6 AP at 800 px")
def libra_retinanet_coco() -> Recipe:
    """Train RetinaNet with a balanced pyramid and balanced L1."""
    return one_x("libra_retinanet", clip_norm=35.0)


@_coco(paper="arXiv:1901.03278", published="36.9 AP at 800 px")
def ga_retinanet_coco() -> Recipe:
    """Train RetinaNet with guided anchors and features adapted to them."""
    return one_x("ga_retinanet", clip_norm=35.0)


@recipe(paper="arXiv:1904.07392", published="40.5 AP at 640 px", hardware="8 GPUs x 8 images", arguments=ARGUMENTS)
def retinanet_nas_fpn_coco() -> Recipe:
    """Train RetinaNet with NAS-FPN's seven cells, stacked seven times, on squares of 640 px."""
    given = one_x("retinanet_nas_fpn", backbone={"frozen_stages": 1})
    return replace(
        given,
        data=DataSettings(path="coco", size=640, fit="letterbox"),
        augmentation=replace(given.augmentation, crop_probability=0.5, crop_min_scale=0.8),
        optimizer=OptimizerSettings(lr=0.08, lr_batch=64, weight_decay=1e-4, clip_norm=0.0),
        schedule=ScheduleSettings(
            kind="step", steps=(30, 40), burn_in_steps=1000, burn_in_power=1.0, burn_in_start=0.1
        ),
        run=RunSettings(epochs=50, batch_size=64, ema=0.0, precision="32", evaluate_every=2),
    )


@_coco(paper="arXiv:2107.02963", published="a study of the paper; its figures are not repeated here")
def retinanet_separate_thresholds_coco() -> Recipe:
    """Train RetinaNet whose classes take anchors from an IoU of 0.5 on, its boxes from 0.4 on."""
    criterion = {
        "assigner": {"positive_iou": 0.5, "negative_iou": 0.4},
        "box_assigner": {"name": "max_iou", "positive_iou": 0.4, "negative_iou": 0.4},
    }
    return one_x("retinanet", criterion=criterion)
