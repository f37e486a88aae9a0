"""SSD's, M2Det's and EfficientDet's recipes build the published detectors."""

import json

import pytest
import torch

from pyrafuse.models.factory import create_model
from pyrafuse.recipes.registry import RECIPES, SOURCES
from vectors import FOLDER

SIZES = {
    "ssd300_coco": 300,
    "ssd300_voc": 300,
    "ssd512_coco": 512,
    "ssdlite320_coco": 320,
    "m2det320_vgg_coco": 320,
    "m2det320_resnet101_coco": 320,
    "m2det512_vgg_coco": 512,
    "m2det512_resnet101_coco": 512,
    "m2det800_vgg_coco": 800,
    "efficientdet_d0_coco": 512,
    "efficientdet_d1_coco": 640,
    "efficientdet_d2_coco": 768,
    "efficientdet_d3_coco": 896,
}


def build(name: str):
    settings = RECIPES.create(name).model
    backbone = {} if settings.backbone is None else {"backbone": settings.backbone}
    with torch.device("meta"):
        return create_model(settings.name, **backbone, **settings.options)


@pytest.mark.parametrize("name", SIZES)
def test_anchors_are_for_the_recipe_s_size(name):
    recipe, detector = RECIPES.create(name), build(name)
    assert recipe.data.size == SIZES[name]
    assert detector.card.spec.head.options.get("size", SIZES[name]) == SIZES[name]
    assert f"at {SIZES[name]} px" in SOURCES[name].published


@pytest.mark.parametrize(
    ("name", "index", "entry"),
    [
        ("ssd300_coco", "mmdet/ssd300.meta.json", ("num_params",)),
        ("m2det512_vgg_coco", "misc/index_m2det.json", ("m2det320_vgg_sfam", "unique_params")),
        ("efficientdet_d0_coco", "misc/index_effdet.json", ("efficientdet_d0", "params")),
    ],
)
def test_parameters(name, index, entry):
    theirs = json.loads((FOLDER / index).read_text())
    for key in entry:
        theirs = theirs[key]
    ten_classes_more = 9 * 10 * (64 + 1) if "efficientdet" in name else 0
    assert sum(p.numel() for p in build(name).parameters()) == theirs - ten_classes_more
