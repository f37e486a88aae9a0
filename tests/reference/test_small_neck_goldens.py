"""BFP, SSD's extra levels, YOLOv3's pyramid and the dilated encoder, against what mmdetection computed."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.mmdetection.necks import name_bfp, name_ssd_extra, naming_yolov3_neck
from pyrafuse.importers.renaming import Naming, by_modules, by_patterns, load_renamed
from pyrafuse.necks.bfp import BFP
from pyrafuse.necks.dilated_encoder import DilatedEncoder
from pyrafuse.necks.ssd_extra import SSDExtraLevels
from pyrafuse.necks.yolo_fpn import YOLOFPN

RTOL = 3e-6

name_ssd_extra_depthwise = by_patterns(
    [
        (r"^extra_levels\.(\d+)\.reduce\.", r"extra_layers.\1.0."),
        (r"^extra_levels\.(\d+)\.down\.", r"extra_layers.\1.1.depthwise_conv."),
        (r"^extra_levels\.(\d+)\.expand\.", r"extra_layers.\1.1.pointwise_conv."),
        (r"\.norm\.", ".bn."),
    ]
)
"""Of separable `SSDExtraLevels`."""


def naming_dilated_encoder(num_blocks: int = 4) -> Naming:
    """Of a `DilatedEncoder` of one level."""
    names = ("lateral_conv", "lateral_norm", "fpn_conv", "fpn_norm")
    pairs = [(f"levels.0.{i}", theirs) for i, theirs in enumerate(names)]
    for block in range(num_blocks):
        ours, theirs = f"levels.0.{block + len(names)}", f"dilated_encoder_blocks.{block}"
        pairs += [(f"{ours}.{part}", f"{theirs}.conv{i}") for i, part in enumerate(("reduce", "look", "expand"), 1)]
    return by_modules(pairs, then=by_patterns([(r"^norm\.", "bn.")]))


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
