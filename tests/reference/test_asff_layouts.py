"""All five official layouts against plain functions over their own keys, written from the paper's words.

The functions are first held by the stored vectors; then they answer for what no vector is stored of: the layouts, sizes
and numbers of classes besides.
"""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from pyrafuse.importers.asff import ASFF, LAYOUTS, asff_naming
from pyrafuse.postprocess.yolov3 import decode_yolov3

FIRST = (((116, 90), (156, 198), (121, 240)), ((30, 61), (62, 45), (42, 119)), ((10, 13), (16, 30), (33, 23)))
LIGHT = (((116, 90), (156, 198), (373, 326)), *FIRST[1:])


class Official:
    """(B, 3, H, W) -> rows (B, A, 5 + K) of cx, cy, w, h, objectness and classes, from a state dict alone."""

    def __init__(self, state: Mapping[str, Tensor], *, training: bool = False) -> None:
        self.state = state
        self.training = training
        self.is_light = "module_list.0.0.weight" in state
        self.is_fused = any(".stride_level_" in key for key in state)

    def conv(self, x: Tensor, key: str, **options: Any) -> Tensor:
        return F.conv2d(x, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"), **options)

    def norm(self, x: Tensor, key: str) -> Tensor:
        mean, variance = (None if self.training else self.state[f"{key}.running_{part}"] for part in ("mean", "var"))
        weight, bias = self.state[f"{key}.weight"], self.state[f"{key}.bias"]
        return F.batch_norm(x, mean, variance, weight, bias, training=self.training, eps=1e-5)

    def block(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        padding = self.state[f"{key}.conv.weight"].shape[-1] // 2
        x = self.norm(self.conv(x, f"{key}.conv", stride=stride, padding=padding), f"{key}.batch_norm")
        return F.relu6(x) if self.is_light else F.leaky_relu(x, 0.1)

    def listed(self, x: Tensor, *places: int | tuple[int]) -> Tensor:
        """Through the modules at ``places`` of the list; a place in brackets holds a 1x1 and a 3x3 convolution."""
        for place in places:
            keys = [f"{place[0]}.module_list.0.{i}" for i in (0, 1)] if isinstance(place, tuple) else [str(place)]
            for key in keys:
                x = self.block(x, f"module_list.{key}")
        return x

    def darknet(self, x: Tensor) -> list[Tensor]:
        x = self.listed(x, 0)
        maps = []
        for place, depth in zip((1, 3, 5, 7, 9), (1, 2, 8, 8, 4), strict=True):
            x = self.block(x, f"module_list.{place}", stride=2)
            for i in range(depth):
                key = f"module_list.{place + 1}.module_list.{i}"
                x = x + self.block(self.block(x, f"{key}.0"), f"{key}.1")
            maps.append(x)
        return maps[2:]

    def mobilenet(self, x: Tensor) -> list[Tensor]:
        def step(x: Tensor, conv: str, norm: str, *, stride: int = 1, depthwise: bool = False) -> Tensor:
            padding = self.state[f"{conv}.weight"].shape[-1] // 2
            groups = x.shape[1] if depthwise else 1
            return self.norm(self.conv(x, conv, stride=stride, padding=padding, groups=groups), norm)

        x = F.relu6(step(x, "module_list.0.0", "module_list.0.1", stride=2))
        maps = []
        for i in range(1, 18):
            key, stride, y = f"module_list.{i}.conv", 2 if i in (2, 4, 7, 14) else 1, x
            first = 0 if i == 1 else 1  # the first does not expand
            if first:
                y = F.relu6(step(y, f"{key}.0.0", f"{key}.0.1"))
            y = F.relu6(step(y, f"{key}.{first}.0", f"{key}.{first}.1", stride=stride, depthwise=True))
            y = step(y, f"{key}.{first + 1}", f"{key}.{first + 2}")
            x = x + y if x.shape == y.shape else y
            maps.append(x)
        return [maps[5], maps[12], F.relu6(step(x, "module_list.18.0", "module_list.18.1"))]

    def __call__(self, images: Tensor) -> Tensor:
        fine, middle, coarse = self.mobilenet(images) if self.is_light else self.darknet(images)
        i = 19 if self.is_light else 11
        x = self.listed(coarse, (i,), i + 1)
        x = torch.cat([x, *(F.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13))], dim=1)
        maps, ends = [self.listed(x, i + 3, i + 4, i + 6)], [i + 6]
        for lateral in (middle, fine):
            i = ends[-1] + (1 if self.is_light or self.is_fused else 3)  # the baseline has its heads in between
            above = F.interpolate(self.listed(maps[-1], i), scale_factor=2, mode="nearest")
            maps.append(self.listed(torch.cat((above, lateral), dim=1), i + 2, i + 3, (i + 5,), i + 6))
            ends.append(i + 6)
        heads = [f"level_{level}_header" for level in range(3)]
        if self.is_fused:
            if not self.is_light:
                maps[2] = self.listed(maps[2], ends[2] + 1)
            maps = [self.fuse(maps, level) for level in range(3)]
        elif self.is_light:
            maps = [self.block(x, f"level_{level}_conv") for level, x in enumerate(maps)]
        else:
            maps = [self.listed(x, end + 1) for x, end in zip(maps, ends, strict=True)]
            heads = [f"module_list.{end + 2}" for end in ends]
        anchors = LIGHT if self.is_light else FIRST
        return torch.cat([self.head(maps[n], heads[n], anchors[n], 32 >> n) for n in range(3)], dim=1)

    def fuse(self, maps: list[Tensor], level: int) -> Tensor:
        """ASFF at ``level``; levels count from the coarsest."""
        key = f"level_{level}_{'conv' if self.is_light else 'fusion'}"
        resized = []
        for source, x in enumerate(maps):
            if source > level:
                x = F.max_pool2d(x, 3, 2, 1) if source - level == 2 else x
                x = self.block(x, f"{key}.stride_level_{source}", stride=2)
            elif source < level:
                if f"{key}.compress_level_{source}.conv.weight" in self.state:
                    x = self.block(x, f"{key}.compress_level_{source}")
                x = F.interpolate(x, scale_factor=2 ** (level - source), mode="nearest")
            resized.append(x)
        votes = torch.cat([self.block(x, f"{key}.weight_level_{n}") for n, x in enumerate(resized)], dim=1)
        weights = self.conv(votes, f"{key}.weight_levels").softmax(dim=1)
        fused = torch.stack([x * weights[:, n, None] for n, x in enumerate(resized)]).sum(dim=0)
        return self.block(fused, f"{key}.expand")

    def head(self, x: Tensor, key: str, anchors: tuple[tuple[int, int], ...], stride: int) -> Tensor:
        guide = self.conv(x, f"{key}.guide_wh")
        adaption = f"{key}.Feature_adaption"
        if f"{adaption}.rfb.branch_0.0.weight" in self.state:
            branches = []
            for branch, further in enumerate(((), ((1, 1),), ((1, 1), (2, 2)), ((2, 1), (3, 3)))):
                y = self.conv(x, f"{adaption}.rfb.branch_{branch}.0")
                for place, (padding, dilation) in enumerate(further, start=1):
                    y = self.conv(y, f"{adaption}.rfb.branch_{branch}.{place}", padding=padding, dilation=dilation)
                branches.append(y)
            x = torch.cat(branches, dim=1)
        if f"{adaption}.dconv.weight" in self.state:
            offset = self.conv(guide.detach(), f"{adaption}.conv_offset", groups=4)
            weight, bias = self.state[f"{adaption}.dconv.weight"], self.state[f"{adaption}.dconv.bias"]
            x = deform_conv2d(x, offset, weight, bias, padding=(1, 1))
        output, guide = (y.unflatten(1, (4, -1)).movedim(2, -1) for y in (self.conv(x, f"{key}.conv"), guide))
        height, width = guide.shape[2:4]
        shapes = guide.exp() * guide.new_tensor([*anchors, (4 * stride, 4 * stride)])[:, None, None]
        cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1).view(height, width, 2)
        centers = (output[..., :2].sigmoid() + cells) * stride
        rows = torch.cat((centers, output[..., 2:4].exp() * shapes, output[..., 4:].sigmoid()), dim=-1)
        return rows.flatten(1, 3)


@pytest.mark.parametrize("model", ["mobile_asff", pytest.param("asff", marks=pytest.mark.slow)])
def test_the_functions_are_the_original(goldens, model):
    official = Official({key: value.double() for key, value in goldens.state(model).items()})
    with torch.no_grad():
        rows = official(goldens.image(0, 2, 3, 320, 320).double())
    goldens.compare.check_pred(goldens.load(f"eval_{model}_320.npz"), rows.numpy(), rtol=2e-6, atol=2e-6)


def state_of(goldens, model: str, num_classes: int) -> dict[str, Tensor]:
    shapes = dict(goldens.read_json(f"manifest_{model}.json"))
    shapes = {key: [4 * (5 + num_classes), *s[1:]] if s[:1] == [340] else s for key, s in shapes.items()}
    return goldens.fill_in(shapes, "mobile" if "mobile" in model else "darknet")


@pytest.mark.parametrize(
    ("model", "num_classes", "said"),
    [
        ("baseline", 80, "YOLOv3 baseline on Darknet-53"),
        ("asff", 3, "YOLOv3 with ASFF on Darknet-53"),
        ("asff_rfb", 20, "YOLOv3 with ASFF on Darknet-53, RFB (ASFF*)"),
        ("mobile", 81, "YOLOv3 on MobileNetV2"),
        ("mobile_asff", 1, "YOLOv3 with ASFF on MobileNetV2"),
    ],
)
def test_predictions_and_gradients(goldens, model, num_classes, said):
    state = state_of(goldens, model, num_classes)
    detector = ASFF.build(state, source=model).double()
    assert detector.card.origin == f"official ASFF checkpoint: {said}, {num_classes} classes"
    state = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
    leaves = {key: state[key].requires_grad_() for key in state if key.endswith((".weight", ".bias"))}
    images = goldens.image(7, 2, 3, 96, 96).double()
    with torch.no_grad():
        expected, got = Official(state)(images), rows_of(detector.eval()(images))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

    detector.train()
    expected, got = Official(state, training=True)(images), rows_of(detector(images))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

    direction = goldens.image(9, *expected.shape).double() / expected.detach().abs().mean(dim=(0, 1))
    named = dict(detector.named_parameters())
    own = torch.autograd.grad((got * direction).sum(), list(named.values()))
    theirs = torch.autograd.grad((expected * direction).sum(), list(leaves.values()))
    norms = {key: float(gradient.norm()) for key, gradient in zip(leaves, theirs, strict=True)}
    naming = asff_naming(LAYOUTS[model.startswith("mobile"), "asff" in model])
    found = {naming(name): float(gradient.norm()) for name, gradient in zip(named, own, strict=True)}
    assert found.keys() == norms.keys()
    least = 1e-6 * max(norms.values())  # mathematically zero in places
    assert all(abs(found[key] - norm) < 1e-8 * norm for key, norm in norms.items() if norm > least)


def rows_of(predictions) -> Tensor:
    boxes = decode_yolov3(predictions).boxes
    centers, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    return torch.cat(
        (centers, sizes, predictions.objectness.sigmoid()[..., None], predictions.classes.sigmoid()), dim=-1
    )
