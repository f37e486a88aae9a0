"""mmdetection's YOLOv3, through its checkpoint's keys: maps, detections and training losses; and how it is used."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.targets import Targets
from pyrafuse.importers.loading import build
from pyrafuse.importers.mmdetection.yolov3 import YOLOV3

NAME = "yolov3_d53_mstrain-608_273e_coco_20210518_115020-a2c3acb8.pth"
TERMS = {"loss_cls": "classification", "loss_conf": "objectness", "loss_xy": "center", "loss_wh": "size"}
SETTINGS = """
model = dict(
    bbox_head=dict(type='YOLOV3Head', anchor_generator=dict(
        base_sizes=[[(220, 125), (128, 222), (264, 266)], [(35, 87), (102, 96), (60, 170)], [(10, 15), (24, 36), (72, 42)]],
        strides=[32, 16, 8])),
    test_cfg=dict(nms_pre=500, min_bbox_size=0, score_thr=0.1, conf_thr=0.01, nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=50))
norm = dict(mean=[0, 0, 0], std=[255., 255., 255.], to_rgb=True)
test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(416, 416), transforms=[
    dict(type='Resize', keep_ratio=True), dict(type='Normalize', **norm), dict(type='Pad', size_divisor=32)])]
"""  # noqa: E501


@pytest.fixture(scope="module")
def meta(vectors):
    return vectors.json("mmdet/yolov3_d53.meta.json")


@pytest.fixture(scope="module")
def detector(vectors, meta):
    state = vectors.state(vectors.json("mmdet/yolov3_d53.manifest.json"), meta["gains"])
    return YOLOV3.build({"state_dict": state}, source=NAME, backbone={"norm_eval": True})


def zeros(vectors, *, num_classes: int = 80) -> dict[str, torch.Tensor]:
    state = {key: torch.zeros(shape) for key, shape in vectors.json("mmdet/yolov3_d53.manifest.json")}
    for level in range(3):
        for part in ("weight", "bias"):
            key = f"bbox_head.convs_pred.{level}.{part}"
            state[key] = state[key][: 3 * (5 + num_classes)]
    return state


@torch.no_grad()
def test_maps_and_detections(vectors, detector):
    detector.eval()
    arrays = vectors.npz("mmdet/yolov3_d53.npz")
    images = vectors.image("image(0,(1,3,320,416))")
    maps = detector.backbone(images)
    for level, x in enumerate(maps):
        assert vectors.error(arrays, f"backbone.{level}", x) < 1e-5
    predictions = detector.head(detector.neck(maps))
    rows = torch.cat((predictions.deltas, predictions.objectness[..., None], predictions.classes), dim=2)
    for theirs, (starts, (width, height)) in enumerate(
        zip(predictions.grid.starts.flip(0), predictions.grid.sizes.flip(0).tolist(), strict=True)
    ):
        of_level = rows[:, int(starts[0]) :][:, : 3 * height * width].view(1, 3, height * width, 85)
        output = of_level.transpose(2, 3).reshape(1, 255, height, width)
        assert vectors.error(arrays, f"head.pred.{theirs}", output) < 2e-5

    (found,) = detector.detect(images)
    boxes, scores, labels = (torch.from_numpy(arrays[f"det.{part}"]) for part in ("boxes", "scores", "labels"))
    is_same = (found.boxes[:, None] - boxes).abs().amax(dim=2) < 0.1
    is_same &= (found.scores[:, None] - scores).abs() < 1e-3
    is_same &= found.labels[:, None] == labels
    assert len(found) == len(boxes) == 100
    assert is_same.any(dim=0).sum() >= 99  # the hundredth may be another of nearly the same score
    assert is_same.any(dim=1).sum() >= 99


def test_training_losses(vectors, meta, detector):
    detector.train()
    detector.zero_grad()
    expected = meta["train"]["steps"][0]
    boxes, labels = ([torch.tensor(image[key]) for image in meta["gt"]] for key in ("boxes", "labels"))
    report = detector.criterion.by_level(detector(vectors.image(meta["train"]["input"])), Targets.pad(boxes, labels))
    for theirs, values in expected["losses"].items():  # coarsest level first
        ours = report.losses[TERMS[theirs]].flip(0).detach()
        torch.testing.assert_close(ours, torch.tensor(values), rtol=1e-4, atol=1e-4)
    torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    total = sum(p.grad.norm() ** 2 for p in detector.parameters() if p.grad is not None) ** 0.5
    assert total.item() == pytest.approx(sum(n**2 for n in expected["grad_norms"].values()) ** 0.5, rel=1e-2)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (NAME, 608),
        ("yolov3_d53_320_273e_coco-421362b6.pth", 320),
        ("yolov3_d53_mstrain-416_273e_coco-2b60fcd9.pth", 416),
        ("yolov3_d53_fp16_mstrain-608_273e_coco_20210517_213542-4bc34944.pth", 608),
        ("yolov3_d53_8xb8-amp-ms-608-273e_coco", 608),
    ],
)
def test_published_names(vectors, name, size):
    given = {"source": name} if name.endswith(".pth") else {"source": "model.pth", "published": name}
    detector = build({"state_dict": zeros(vectors), "meta": {"epoch": 273}}, **given)
    assert detector.card.model == "yolov3_plain"
    shown = detector.card.preprocessing
    assert (shown.size, shown.fit, shown.pad_multiple, shown.bgr) == ((size, size), "keep_ratio", 32, False)
    assert (shown.mean, shown.std, shown.interpolation) == ((0, 0, 0), (1, 1, 1), "opencv")
    test = detector.postprocess
    assert (test.score, test.nms_iou, test.max_pairs, test.max_detections) == (0.05, 0.45, 1000, 100)
    assert detector.names[0] == "person"


def test_settings_in_the_file(vectors):
    meta = {"config": SETTINGS, "CLASSES": ("cat", "dog")}
    detector = build({"state_dict": zeros(vectors, num_classes=2), "meta": meta}, source="model.pth")
    assert detector.names == ("cat", "dog")
    assert detector.card.preprocessing.size == (416, 416)
    shapes = detector.head.get_buffer("shapes")
    assert shapes[0].tolist() == [[10, 15], [24, 36], [72, 42]]
    test = detector.postprocess
    assert (test.score, test.nms_iou, test.max_pairs, test.max_detections) == (0.1, 0.6, 500, 50)
    assert detector.card.spec.decode.options["least_objectness"] == 0.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "neither settings in it nor its name tell its anchors"),
        ({"published": "retinanet_r50_fpn_1x_coco"}, "is no name that YOLOv3 on Darknet-53 was published under"),
        ({"meta": {"config": SETTINGS.replace("[32, 16, 8]", "[64, 32, 16]")}}, "known here is \\[32, 16, 8\\]"),
        ({"meta": {"config": SETTINGS.replace("(10, 15), ", "(10,), ")}}, "known are three levels"),
        ({"extra": "neck.detect4.conv1.conv.weight"}, "looks like mmdetection's YOLOv3 .*; extra: neck.detect4"),
    ],
)
def test_what_cannot_be_used_is_named(vectors, changes, said):
    state = zeros(vectors)
    source = "model.pth"
    if "extra" in changes:
        state[changes["extra"]] = torch.zeros(1)
        source = NAME
    with pytest.raises(CheckpointError, match=said):
        build({"state_dict": state, "meta": changes.get("meta", {})}, source=source, published=changes.get("published"))
