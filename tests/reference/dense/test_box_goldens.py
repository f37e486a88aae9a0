"""Anchors, coders and suppression against mmdetection's."""

import numpy as np
import pytest
import torch

from pyrafuse.base.boxes import clip_boxes
from pyrafuse.ops.anchors import anchor_shapes, lay_anchors, lay_points, octave_scales, ssd_shapes
from pyrafuse.ops.coders import DeltaCoder, DistanceCoder
from pyrafuse.ops.suppression import class_aware_nms, soft_nms
from vectors import FOLDER


def laid(config: dict, sizes: list) -> list[torch.Tensor]:
    strides = config["strides"]
    offset = config.get("center_offset", 0.0)
    if config["type"] == "SSDAnchorGenerator":
        offset = 0.5
        shapes = ssd_shapes(
            config["input_size"], ratios=config["ratios"], coverage=tuple(config["basesize_ratio_range"])
        )
    elif config["type"] == "YOLOAnchorGenerator":
        offset = 0.5
        shapes = [torch.tensor(rows, dtype=torch.float32) for rows in config["base_sizes"]]
    else:
        scales = config.get("scales") or octave_scales(config["octave_base_scale"], config["scales_per_octave"])
        shapes = [anchor_shapes(stride, scales=scales, ratios=config["ratios"]) for stride in strides]
    return [
        lay_anchors(shape, size, stride, offset=offset)
        for shape, size, stride in zip(shapes, sizes, strides, strict=True)
    ]


@pytest.mark.parametrize(
    "name", ["retina", "atss", "rpn", "yolof", "ga_square", "offset0.5", "yolov3", "ssd300", "ssd512"]
)
def test_anchors(vectors, name):
    golden = vectors("anchors")
    settings = golden.settings[name]
    for level, boxes in enumerate(laid(settings["cfg"], settings["sizes"])):
        torch.testing.assert_close(boxes, golden[f"{name}.grid.{level}"], rtol=1e-6, atol=3e-5)


def test_points(vectors):
    for level, (size, stride) in enumerate([((3, 4), 8), ((2, 2), 16)]):
        torch.testing.assert_close(lay_points(size, stride), vectors("anchors")[f"points.{level}"][:, :2])


@pytest.mark.parametrize(
    ("name", "coder"),
    [
        ("std1", DeltaCoder()),
        ("std0.1", DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))),
        ("ctrclamp32", DeltaCoder(center_clamp=32)),
    ],
)
def test_deltas(vectors, name, coder):
    golden = vectors("coders")
    anchors = golden["proposals"]
    encoded = coder.encode(anchors, golden["gts"])
    torch.testing.assert_close(encoded, golden[f"delta_{name}.encode"], rtol=1e-5, atol=2e-6)
    decoded = coder.decode(anchors, golden["deltas"])
    torch.testing.assert_close(decoded, golden[f"delta_{name}.decode_noshape"], rtol=1e-5, atol=1e-4)
    clipped = golden[f"delta_{name}.decode"]
    size = (int(clipped[:, 1::2].max()), int(clipped[:, 0::2].max()))
    torch.testing.assert_close(clip_boxes(decoded, size), clipped, rtol=1e-5, atol=1e-4)


def test_distances(vectors):
    golden = vectors("coders")
    points = golden["dist.points"].repeat(1, 2)
    free = DistanceCoder().encode(points, golden["gts"])
    bounded = DistanceCoder(largest=16).encode(points, golden["gts"])
    torch.testing.assert_close(free, golden["dist.encode_nomax"])
    torch.testing.assert_close(bounded, golden["dist.encode"])
    clipped = golden["dist.decode"]
    size = (int(clipped[:, 1::2].max()), int(clipped[:, 0::2].max()))
    decoded = clip_boxes(DistanceCoder().decode(points, golden["dist.pred"]), size)
    torch.testing.assert_close(decoded, clipped, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7])
def test_suppression(vectors, iou):
    golden = vectors("ops")
    boxes, scores = golden["nms.boxes"], golden["nms.scores"]
    kept = class_aware_nms(boxes, scores, golden["nms.labels"], iou=iou)
    assert torch.equal(kept, golden[f"batched_nms{iou}.keep"])
    torch.testing.assert_close(boxes[kept], golden[f"batched_nms{iou}.dets"][:, :4])
    plain = class_aware_nms(boxes, scores, torch.zeros_like(golden["nms.labels"]), iou=iou)
    assert torch.equal(plain, golden[f"nms{iou}.keep"])


def soften(boxes, scores, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The boxes of one class that are kept, best decayed score first, and these scores."""
    labels = torch.zeros_like(scores, dtype=torch.int64)
    final = soft_nms(boxes[None], scores[None], labels[None], num_labels=1, **options)[0]
    order = final.argsort(descending=True, stable=True)[: (final >= 0).sum()]
    return order, final[order]


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_suppression(vectors, method):
    golden = vectors("ops")
    kept, scores = soften(golden["nms.boxes"], golden["nms.scores"], method=method, least_score=0.05)
    assert torch.equal(kept, golden[f"soft_nms_{method}.keep"])
    torch.testing.assert_close(scores, golden[f"soft_nms_{method}.dets"][:, 4], rtol=1e-5, atol=1e-6)


def test_soft_suppression_of_m2det():
    arrays = np.load(FOLDER / "misc/m2det_loss_post.npz")
    rows = torch.from_numpy(arrays["softnms/in"])
    for name, options in (
        ("linear_out_thresh0.45", {"method": "linear"}),
        ("gauss_sigma0.5_out", {"method": "gaussian"}),
    ):
        grown = rows[:, :4] + torch.tensor([0, 0, 1, 1])  # a box holds its last pixel
        kept, scores = soften(grown, rows[:, 4], **options)
        golden = torch.from_numpy(arrays[f"softnms/{name}"])
        golden = golden[golden[:, 4].argsort(descending=True)]
        torch.testing.assert_close(scores, golden[:, 4], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rows[kept, :4], golden[:, :4])
