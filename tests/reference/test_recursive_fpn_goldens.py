"""The recursive pyramid, against what mmdetection computed: small, and on the ResNet-50 of a published detector."""

import pytest
import torch

from pyrafuse.backbones.registry import create_backbone
from pyrafuse.importers.mmdetection.blocks import naming_recursive_fpn
from pyrafuse.importers.renaming import load_renamed
from pyrafuse.models.recursive_fpn import RecursiveFPN

SMALL = {
    "backbone": {"strides": (4, 8, 16, 32), "width": 8},
    "neck": {"num_levels": 5, "out_channels": 16},
}


def load(model: RecursiveFPN, state: dict[str, torch.Tensor]) -> RecursiveFPN:
    unused = (r"(backbone|neck\.rfp_modules\.\d)\.fc\.", r"rpn_head\.", r"roi_head\.")
    load_renamed(model, state, naming_recursive_fpn(model), source="manifest", layout="RFP", unused=unused)
    return model.eval()


@pytest.mark.parametrize("form", ["plain", "aws"])
@torch.no_grad()
def test_small(vectors, form):
    golden, case = vectors.npz("mmdet/rfp_sac.npz"), vectors.json("mmdet/rfp_sac.json")[form]
    model = load(
        create_backbone("recursive_fpn", **SMALL, standardized=form == "aws"),
        vectors.state(case["manifest"], case["gains"]),
    )
    images = vectors.image(case["input"])
    for i, x in enumerate(model.trunk(images), 1):  # the first entry is the image
        assert vectors.error(golden, f"{form}.backbone.{i}", x) < 1e-5
    assert vectors.error(golden, f"{form}.aspp", model.aspp(vectors.image(case["aspp_input"]))) < 3e-6
    for i, x in enumerate(model(images)):
        assert vectors.error(golden, f"{form}.neck.{i}", x) < 1e-5


@torch.no_grad()
def test_resnet50(vectors):
    name = "mmdet/cascade-rcnn_r50-rfp"
    golden, gains = vectors.npz(f"{name}.npz"), vectors.json(f"{name}.meta.json")["gains"]
    model = load(create_backbone("recursive_fpn"), vectors.state(vectors.json(f"{name}.manifest.json"), gains))
    for i, x in enumerate(model(vectors.image("image(0,(1,3,320,416))"))):
        assert vectors.error(golden, f"neck.{i}", x) < 1e-5
