"""M2Det's modules and its whole neck, against what the authors' code computed."""

import re

import pytest
import torch
from torch import nn

from pyrafuse.backbones.registry import create_backbone
from pyrafuse.backbones.vgg import name_vgg16
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.m2det import (
    aliases_mlfpn,
    naming_ffm1,
    naming_ffm2,
    naming_mlfpn,
    naming_sfam,
    naming_tum,
)
from pyrafuse.importers.renaming import load_renamed
from pyrafuse.necks.mlfpn import MLFPN, SFAM, TUM, FFMv1
from pyrafuse.ops.suppression import class_aware_nms

RTOL = 3e-6
TUMS = [
    *(
        f"tum_p8_s16_40x40_{which}_{form}_n{n}"
        for which in ("first", "next")
        for form in ("smooth", "raw")
        for n in (3, 4, 6)
    ),
    "tum_p128_s256_40x40_first_smooth_n6",
    "tum_p128_s256_40x40_next_smooth_n6",
]


@pytest.fixture(scope="module")
def index(vectors):
    return vectors.json("misc/index_m2det.json")


@pytest.fixture(scope="module")
def golden(vectors):
    return vectors.npz("misc/m2det_modules.npz")


@pytest.mark.parametrize("size", ["small", "full"])
@torch.no_grad()
def test_ffm1(vectors, index, golden, size):
    case = index[f"ffm1_{size}"]
    args = case["args"]
    module = FFMv1(
        (args["shallow_in"], args["deep_in"]), shallow_channels=args["shallow_out"], deep_channels=args["deep_out"]
    ).eval()
    state = vectors.state(vectors.json(f"misc/manifest_m2det_ffm1_{size}.json"))
    load_renamed(module, state, naming_ffm1(), source=size, layout="FFMv1")
    out = module(tuple(vectors.image(case["inputs"][name]) for name in ("shallow", "deep")))
    assert vectors.error(golden, f"ffm1_{size}/out", out) < RTOL


class Given(nn.Module):
    """Stands for a part of the neck and gives what that part would."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value = value

    def forward(self, _):
        return self.value


@pytest.mark.parametrize("size", ["small", "full"])
@torch.no_grad()
def test_ffm2(vectors, index, golden, size):
    """What the second TUM is given, of a base feature and a first pyramid that the index names."""
    args, inputs = index[f"ffm2_{size}"]["args"], index[f"ffm2_{size}"]["inputs"]
    base, largest = (vectors.image(inputs[part]) for part in ("base", "prev"))
    shallow = args["in_"] // 3
    neck = MLFPN(
        PyramidSpec((2, 2), (8, 16)),
        num_levels=2,
        num_scales=2,
        channels=2 * args["out"],
        shallow_channels=shallow,
        deep_channels=args["in_"] - shallow,
    ).eval()
    state = vectors.state(vectors.json(f"misc/manifest_m2det_ffm2_{size}.json"))
    load_renamed(neck.reduce, state, naming_ffm2(), source=size, layout="FFMv2")
    neck.base, neck.tums[0] = Given(base), Given((largest, largest[..., ::2, ::2]))
    seen = []
    neck.tums[1].register_forward_pre_hook(lambda _, arguments: seen.extend(arguments))
    neck((base, base))
    (out,) = seen
    assert vectors.error(golden, f"ffm2_{size}/out", out) < RTOL


@pytest.mark.parametrize("name", TUMS)
@torch.no_grad()
def test_tum(vectors, index, golden, name):
    args, inputs = index[name]["args"], index[name]["inputs"]
    side = 0 if args["first_level"] else args["side_channel"]
    module = TUM(
        args["input_planes"] + side, 2 * args["input_planes"], num_scales=args["scales"], smooth=args["is_smooth"]
    ).eval()
    manifest = vectors.json(f"misc/manifest_m2det_{name}.json")
    load_renamed(module, vectors.state(manifest), naming_tum(args["scales"]), source=name, layout="TUM")
    maps = [vectors.image(inputs[part]) for part in ("x", "y") if inputs[part]]
    out = module(torch.cat(maps, dim=1))
    assert len(out) == args["scales"]
    for i, x in enumerate(reversed(out)):
        assert vectors.error(golden, f"{name}/{i}", x) < RTOL


@pytest.mark.parametrize("name", ["sfam_p16_l4_n3", "sfam_p32_l3_n6", "sfam_p256_l8_n6"])
@torch.no_grad()
def test_sfam(vectors, index, golden, name):
    case = index[name]
    planes, levels, scales = (case["args"][key] for key in ("planes", "num_levels", "num_scales"))
    sizes = re.findall(r"\((\d+), (\d+)\)", case["inputs"])
    batch = re.search(r"N=(\d+)", case["inputs"])[1]
    module = SFAM(planes * levels)
    state = vectors.state(vectors.json(f"misc/manifest_m2det_{name}.json"))
    aliases = aliases_mlfpn(levels, scales)
    load_renamed(module, state, naming_sfam(scales), source=name, layout="SFAM", aliases=aliases)

    def source(level: int, scale: int) -> torch.Tensor:
        height, width = sizes[scale]
        return vectors.image(f"image({100 * level + scales - 1 - scale},({batch},{planes},{height},{width}))")

    maps = tuple(torch.cat([source(level, scale) for level in range(levels)], dim=1) for scale in range(scales))
    for i, (before, after) in enumerate(zip(maps, module(maps), strict=True)):
        assert vectors.error(golden, f"{name}/cat/{i}", before) == 0
        assert vectors.error(golden, f"{name}/out/{i}", after) < RTOL


@torch.no_grad()
def test_whole_neck_with_and_without_attention(vectors):
    golden, name = vectors.npz("misc/m2det_forward.npz"), "m2det320_vgg_sfam"
    manifest = [
        entry for entry in vectors.json(f"misc/manifest_{name}.json") if not entry[0].startswith(("loc.", "conf."))
    ]
    state = vectors.state(manifest, [(r"^base\.", 1.0), ("", 0.7)])
    trunk = create_backbone("vgg16").eval()
    load_renamed(trunk, state, lambda key: f"base.{name_vgg16(key)}", source=name, layout="VGG", unused=("(?!base)",))
    neck = MLFPN(trunk.features).eval()
    aliases = aliases_mlfpn(8, 6)
    load_renamed(neck, state, naming_mlfpn(8, 6), source=name, layout="M2Det", unused=(r"base\.",), aliases=aliases)
    maps = trunk(vectors.image("image(0,(1,3,320,320))"))

    largest, *smaller = neck(maps)
    assert vectors.error(golden, f"{name}/Norm", largest) < 1e-5
    for i, x in enumerate(smaller, 1):
        assert vectors.error(golden, f"{name}/sfam/{i}", x) < 1e-5

    neck.sfam = None  # the other checkpoint has the same values otherwise
    largest, *smaller = neck(maps)
    assert [tuple(x.shape) for x in (largest, *smaller)] == [(1, 2048, n, n) for n in (40, 20, 10, 5, 3, 1)]
    assert vectors.error(golden, "m2det320_vgg/Norm", largest) < 1e-5
    for i, x in enumerate(reversed(smaller)):
        for level in (1, 2, 8):
            part = x[:, 256 * (level - 1) : 256 * level]
            assert vectors.error(golden, f"m2det320_vgg/unet{level}/{i}", part) < 1e-5


def test_hard_suppression(vectors):
    golden = vectors.npz("misc/m2det_loss_post.npz")
    rows = torch.from_numpy(golden["softnms/in"])
    boxes = rows[:, :4] + torch.tensor([0.0, 0, 1, 1])  # theirs hold their last pixel
    expected = golden["hardnms/keep_thresh0.45"].tolist()
    alone = torch.zeros(len(rows), dtype=torch.int64)
    assert class_aware_nms(boxes, rows[:, 4], alone, iou=0.45).tolist() == expected
    # the same again under a second label, each a little less likely than its double
    labels = torch.cat((alone, alone + 1))
    kept = class_aware_nms(boxes.repeat(2, 1), torch.cat((rows[:, 4], rows[:, 4] - 1e-6)), labels, iou=0.45)
    assert kept.tolist() == [i for first in expected for i in (first, first + len(rows))]
