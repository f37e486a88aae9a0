"""mmdetection's YOLOv3 on MobileNetV2: outputs beside a forward pass written out by its keys, and how it is used."""

import pytest
import torch
import torch.nn.functional as F

from pyrafuse.backbones.registry import create_backbone
from pyrafuse.base.errors import CheckpointError, UnknownNameError
from pyrafuse.importers.loading import build

NAME = "yolov3_mobilenetv2_320_300e_coco_20210719_215349-d18dff72.pth"
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of the first block: table 2 of arXiv:1801.04381."""
LARGE = [
    [[10, 13], [16, 30], [33, 23]],
    [[30, 61], [62, 45], [59, 119]],
    [[116, 90], [156, 198], [373, 326]],
]
SMALL = [
    [[10, 15], [24, 36], [72, 42]],
    [[35, 87], [102, 96], [60, 170]],
    [[220, 125], [128, 222], [264, 266]],
]
SETTINGS = """
model = dict(
    backbone=dict(type='MobileNetV2', out_indices=(2, 4, 6), act_cfg=dict(type='LeakyReLU', negative_slope=0.1)),
    bbox_head=dict(type='YOLOV3Head', anchor_generator=dict(
        base_sizes=[[(116, 90), (156, 198), (373, 326)], [(30, 61), (62, 45), (59, 119)], [(10, 13), (16, 30), (33, 23)]],
        strides=[32, 16, 8])),
    test_cfg=dict(nms_pre=1000, score_thr=0.05, conf_thr=0.005, nms=dict(type='nms', iou_threshold=0.45)))
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(416, 416), transforms=[
    dict(type='Resize', keep_ratio=True), dict(type='Normalize', **norm), dict(type='Pad', size_divisor=32)])]
"""  # noqa: E501


class Theirs:
    """Their forward pass; a parameter comes into being, under its key, where it is first asked for."""

    def __init__(self, *, num_classes: int) -> None:
        self.num_classes = num_classes
        self.state: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def value(self, key: str, *shape: int, low: float, high: float) -> torch.Tensor:
        if key not in self.state:
            self.state[key] = torch.rand(shape, generator=self.generator) * (high - low) + low
        return self.state[key]

    def conv(self, x, name, channels, size=1, *, stride=1, groups=1, is_linear=False):
        fan_in = x.shape[1] // groups * size**2
        bound = (6 / fan_in) ** 0.5
        kernel = (channels, x.shape[1] // groups, size, size)
        x = F.conv2d(
            x, self.value(f"{name}.conv.weight", *kernel, low=-bound, high=bound), None, stride, size // 2, 1, groups
        )
        mean = self.value(f"{name}.bn.running_mean", channels, low=-0.1, high=0.1)
        variance = self.value(f"{name}.bn.running_var", channels, low=0.5, high=1.5)
        weight = self.value(f"{name}.bn.weight", channels, low=0.5, high=1.0)
        x = F.batch_norm(x, mean, variance, weight, self.value(f"{name}.bn.bias", channels, low=-0.1, high=0.1))
        return x if is_linear else F.leaky_relu(x, 0.1)

    def backbone(self, x):
        x, maps = self.conv(x, "backbone.conv1", 32, 3, stride=2), []
        for stage, (expansion, channels, blocks, stride) in enumerate(STAGES, 1):
            for block in range(blocks):
                name, before = f"backbone.layer{stage}.{block}", x
                wide = expansion * x.shape[1]
                x = x if expansion == 1 else self.conv(x, f"{name}.expand_conv", wide)
                x = self.conv(x, f"{name}.depthwise_conv", wide, 3, stride=1 if block else stride, groups=wide)
                x = self.conv(x, f"{name}.linear_conv", channels, is_linear=True)
                x = x + before if block else x
            maps += [x] if stage in (3, 5, 7) else []
        self.conv(x, "backbone.conv2", 1280)  # it is in the files, and nothing comes of it
        return maps

    @torch.no_grad()
    def __call__(self, images):
        """Maps of the head, coarsest first."""
        maps, above, outputs = self.backbone(images), None, []
        for level, x in enumerate(reversed(maps)):
            if above is not None:
                x = torch.cat((F.interpolate(self.conv(above, f"neck.conv{level}", 96), scale_factor=2), x), dim=1)
            for i, (channels, size) in enumerate([(96, 1), (192, 3), (96, 1), (192, 3), (96, 1)], 1):
                x = self.conv(x, f"neck.detect{level + 1}.conv{i}", channels, size)
            above = x
            x = self.conv(x, f"bbox_head.convs_bridge.{level}", 96, 3)
            name, channels = f"bbox_head.convs_pred.{level}", 3 * (5 + self.num_classes)
            weight = self.value(f"{name}.weight", channels, 96, 1, 1, low=-0.1, high=0.1)
            outputs.append(F.conv2d(x, weight, self.value(f"{name}.bias", channels, low=-1, high=1)))
        return outputs


@pytest.fixture(scope="module")
def theirs():
    published = Theirs(num_classes=7)
    published(torch.zeros(1, 3, 32, 32))
    return published


@pytest.fixture(scope="module")
def zeros():
    published = Theirs(num_classes=80)
    published(torch.zeros(1, 3, 32, 32))
    return {key: torch.zeros_like(value) for key, value in published.state.items()}


@pytest.mark.parametrize("size", [(64, 96), (160, 128)])
@torch.no_grad()
def test_outputs(theirs, size):
    detector = build({"state_dict": theirs.state}, source=NAME).eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    found = detector(images)
    rows = torch.cat((found.deltas, found.objectness[..., None], found.classes), dim=2)
    expected = theirs(images)
    assert [tuple(m.shape[2:]) for m in expected] == [(size[0] // s, size[1] // s) for s in (32, 16, 8)]
    as_rows = [m.unflatten(1, (3, -1)).flatten(3).transpose(2, 3).flatten(1, 2) for m in expected]
    torch.testing.assert_close(rows, torch.cat(as_rows, dim=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "anchors"),
    [
        (NAME, 320, SMALL),
        ("yolov3_mobilenetv2_8xb24-320-300e_coco", 320, SMALL),
        ("yolov3_mobilenetv2_mstrain-416_300e_coco_20210718_010823-f68a07b3.pth", 416, LARGE),
        ("yolov3_mobilenetv2_8xb24-ms-416-300e_coco", 416, LARGE),
    ],
)
def test_published_names(zeros, name, size, anchors):
    given = {"source": name} if name.endswith(".pth") else {"source": "model.pth", "published": name}
    detector = build({"state_dict": zeros, "meta": {"epoch": 30}}, **given)
    shown = detector.card.preprocessing
    assert (shown.size, shown.fit, shown.pad_multiple, shown.bgr) == ((size, size), "keep_ratio", 32, False)
    assert shown.mean == pytest.approx((0.485, 0.456, 0.406))
    assert shown.std == pytest.approx((0.229, 0.224, 0.225))
    assert detector.head.get_buffer("shapes").tolist() == anchors
    assert detector.names[0] == "person"
    assert "YOLOv3 on MobileNetV2, 80 classes" in detector.card.origin


@pytest.mark.parametrize(
    ("setting", "activation"),
    [
        (", act_cfg=dict(type='LeakyReLU', negative_slope=0.1)", torch.nn.LeakyReLU),
        (", act_cfg=dict(type='ReLU')", torch.nn.ReLU),
        ("", torch.nn.ReLU6),
    ],
)
def test_settings_in_the_file(zeros, setting, activation):
    config = SETTINGS.replace(", act_cfg=dict(type='LeakyReLU', negative_slope=0.1)", setting)
    detector = build({"state_dict": zeros, "meta": {"config": config}}, source=NAME)
    assert detector.card.preprocessing.size == (416, 416)
    assert detector.head.get_buffer("shapes").tolist() == LARGE
    known = {torch.nn.LeakyReLU, torch.nn.ReLU, torch.nn.ReLU6}
    assert {type(part) for part in detector.backbone.modules()} & known == {activation}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "model.pth"}, "YOLOv3 on MobileNetV2, but neither settings .* yolov3_mobilenetv2_320_300e_coco"),
        ({"source": "yolov3_d53_320_273e_coco-421362b6.pth"}, "YOLOv3 on MobileNetV2, but neither settings"),
        ({"published": "yolov3_d53_320_273e_coco"}, "no name that YOLOv3 on MobileNetV2 was published under"),
        ({"config": ("(2, 4, 6)", "(3, 4, 6)")}, r"backbone.out_indices = .*; known here is \[2, 4, 6\]"),
        ({"config": ("(2, 4, 6)", "(1, 2, 4, 6)")}, r"backbone.out_indices = .*; known here is \[2, 4, 6\]"),
        ({"config": ("negative_slope=0.1", "negative_slope=0.2")}, r"backbone.act_cfg = .*0\.2.*; known here are"),
        ({"config": ("dict(type='LeakyReLU', negative_slope=0.1)", "None")}, "backbone.act_cfg = None; known here"),
        ({"config": ("LeakyReLU", "GELU")}, "backbone.act_cfg = .*GELU.*; known here are ReLU6"),
        ({"extra": "backbone.conv3.conv.weight"}, r"on MobileNetV2, but does not fit; extra: backbone\.conv3"),
    ],
)
def test_what_cannot_be_used_is_named(zeros, changes, said):
    state = {**zeros, changes["extra"]: torch.zeros(1)} if "extra" in changes else zeros
    meta = {"config": SETTINGS.replace(*changes["config"])} if "config" in changes else {}
    with pytest.raises(CheckpointError, match=said):
        build(
            {"state_dict": state, "meta": meta},
            source=changes.get("source", NAME),
            published=changes.get("published"),
        )


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 16)])
@torch.no_grad()
def test_the_backbone_alone(theirs, tmp_path, strides):
    torch.save({"state_dict": theirs.state}, tmp_path / "a.pth")
    options = {"weights": tmp_path / "a.pth", "activation": "leaky_relu"}
    maps = create_backbone("mobilenet_v2", strides=strides, **options).eval()(torch.ones(1, 3, 64, 64))
    torch.testing.assert_close(maps[strides.index(16)], theirs.backbone(torch.ones(1, 3, 64, 64))[1])
    with pytest.raises(CheckpointError, match=r"missing: layer1\.0\.eca\.conv\.weight"):
        create_backbone("eca_mobilenet_v2", weights=tmp_path / "a.pth")


def test_an_unknown_activation():
    with pytest.raises(UnknownNameError, match="unknown activation 'leaky'; did you mean 'leaky_relu'"):
        create_backbone("mobilenet_v2", activation="leaky")
