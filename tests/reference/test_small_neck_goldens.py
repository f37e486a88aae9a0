"""BFP, SSD's extra levels, YOLOv3's pyramid and the dilated encoder, against what mmdetection computed."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.mmdetection_blocks import (
    name_bfp,
    name_ssd_extra,
    name_ssd_extra_depthwise,
    naming_dilated_encoder,
    naming_yolov3_neck,
)
from pyrafuse.importers.renaming import load_renamed
from pyrafuse.necks.bfp import BFP
from pyrafuse.necks.dilated_encoder import DilatedEncoder
from pyrafuse.necks.ssd_extra import SSDExtraLevels
from pyrafuse.necks.yolo_fpn import YOLOFPN

RTOL = 3e-6


@pytest.fixture(scope="module")
def check(vectors):
    index, golden = vectors.json("mmdet/necks.json"), vectors.npz("mmdet/necks_other.npz")

    @torch.no_grad()
    def compare(neck, naming, name, *, coarsest_first=False):
        case = index[name]
        load_renamed(neck, vectors.state(case["manifest"], case["gains"]), naming, source=name, layout=name)
        out = neck.eval()(tuple(vectors.image(text) for text in case["inputs"]))
        for i, x in enumerate(reversed(out) if coarsest_first else out):
            assert vectors.error(golden, f"{name}.{i}", x) < RTOL

    return compare


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("refinement", ["none", "conv", "non_local"])
def test_bfp(check, level, refinement):
    inputs = PyramidSpec((8,) * 5, (4, 8, 16, 32, 64))
    neck = BFP(inputs, level=level, refinement=refinement)
    check(neck, name_bfp, f"bfp_{'None' if refinement == 'none' else refinement}_level{level}")


def test_ssd(check):
    neck = SSDExtraLevels(PyramidSpec((8, 16), (8, 16)), out_channels=(8, 8, 8, 8))
    check(neck, name_ssd_extra, "ssdneck")


def test_separable_ssd(check):
    neck = SSDExtraLevels(
        PyramidSpec((8, 16), (8, 16)),
        out_channels=(8,) * 4,
        strides=(2,) * 4,
        paddings=(1,) * 4,
        l2_norm_scale=None,
        depthwise=True,
        norm=True,
        activation="relu6",
    )
    check(neck, name_ssd_extra_depthwise, "ssdneck_depthwise_bn")


def test_yolov3(check):
    inputs = PyramidSpec((8, 16, 32), (8, 16, 32))
    neck = YOLOFPN(inputs, channels=(4, 8, 16), widen=(False,) * 3, spp=False)
    check(neck, naming_yolov3_neck(), "yolov3neck", coarsest_first=True)


def test_dilated_encoder(check):
    check(DilatedEncoder(PyramidSpec((32,), (32,)), out_channels=16), naming_dilated_encoder(), "dilated_encoder")
