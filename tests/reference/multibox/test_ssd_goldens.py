"""SSD's maps, detections and losses, against what mmdetection computed."""

import json

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.targets import Targets
from pyrafuse.importers.mmdetection.ssd import SSD
from vectors import FOLDER, compare


@pytest.fixture(scope="module")
def original():
    """Comparing functions, and their settings and results."""
    folder = FOLDER / "mmdet"
    meta = json.loads((folder / "ssd300.meta.json").read_text())
    manifest = json.loads((folder / "ssd300.manifest.json").read_text())
    return compare, meta, np.load(folder / "ssd300.npz"), compare.apply_rules(manifest, meta["gains"])


@pytest.fixture(scope="module")
def state(original):
    return {key: torch.from_numpy(np.array(value)) for key, value in original[3].items()}


@pytest.fixture(scope="module")
def detector(state):
    assert SSD.recognizes({"meta": {}, "state_dict": state})
    return SSD.build({"meta": {}, "state_dict": state}, source="ssd300.pth")


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "S."])
def test_maps_and_detections(original, detector, prefix):
    compare, meta, golden, _ = original
    images = torch.from_numpy(compare.structured(0, 300, 300) if prefix else compare.image(0, (1, 3, 300, 300)))
    pyramid = detector.eval().neck(detector.backbone(images))
    predictions = detector.head(pyramid)
    grid = predictions.grid
    errors = [compare.check(golden, f"{prefix}neck.{i}", x.numpy())[1] for i, x in enumerate(pyramid)]
    for name, rows in (("cls", predictions.classes), ("reg", predictions.deltas)):
        for i, (size, of_level) in enumerate(zip(grid.sizes, rows.split(grid.counts, dim=1), strict=True)):
            maps = of_level.reshape(1, *size, -1).permute(0, 3, 1, 2)
            errors.append(compare.check(golden, f"{prefix}head.{name}.{i}", maps.numpy())[1])
    assert max(errors) < 1e-4
    (found,) = detector.detect(images)
    assert len(found) == len(golden[f"{prefix}det.scores"]) == meta["test_cfg"]["max_per_img"]
    arrays = found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()
    assert compare.check_dets(golden, f"{prefix}det", *arrays) == 0


def test_losses(original, detector):
    compare, meta, _, _ = original
    targets = Targets.pad(*([torch.tensor(image[key]) for image in meta["gt"]] for key in ("boxes", "labels")))
    detector.train().zero_grad()
    losses = detector.criterion(detector(torch.from_numpy(compare.image(1, (2, 3, 300, 300)))), targets)
    (step,) = meta["train"]["steps"]
    assert losses["classification"].item() == pytest.approx(sum(step["losses"]["loss_cls"]), rel=1e-4)
    assert losses["box"].item() == pytest.approx(sum(step["losses"]["loss_bbox"]), rel=1e-4)
    sum(losses.values()).backward()
    norm = sum(p.grad.norm() ** 2 for p in detector.parameters()) ** 0.5
    assert norm.item() == pytest.approx(sum(n**2 for n in step["grad_norms"].values()) ** 0.5, rel=1e-3)


def test_older_files(state, detector):
    """Before 2.14 the backbone normalised and extended its maps, and the head's convolutions were one level flatter."""
    older = {}
    for key, value in state.items():
        if key.startswith("neck.extra_layers."):
            _, _, level, place, _, kind = key.split(".")
            key = f"backbone.extra.{2 * int(level) + int(place)}.{kind}"
        older[key.replace("neck.l2_norm", "backbone.l2_norm").replace("s.0.0.", "s.0.")] = value
    for level in range(1, 6):
        older = {key.replace(f"_convs.{level}.0.", f"_convs.{level}."): value for key, value in older.items()}
    assert SSD.recognizes(older)
    read = SSD.build(older, source="old.pth")
    for name, value in read.state_dict().items():
        assert torch.equal(value, detector.state_dict()[name]), name


def test_what_the_card_says(detector):
    card = detector.card
    assert card.model == "ssd300"
    assert card.preprocessing.size == (300, 300)
    assert card.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert card.preprocessing.std == (1 / 255,) * 3
    assert (card.preprocessing.fit, card.preprocessing.bgr) == ("stretch", False)
    assert card.names[:2] == ("person", "bicycle")
    assert card.category_ids[-1] == 90


def test_whose_anchors(state):
    """Settings in the file come first, then its name, then the number of its classes."""
    few = {key: value[: 7 * len(value) // 81] if "cls_convs" in key else value for key, value in state.items()}
    text = "model = dict(bbox_head=dict(anchor_generator=dict(basesize_ratio_range=(0.2, 0.9))))"
    told = {"state_dict": few, "meta": {"config": text, "CLASSES": tuple("abcdef")}}
    voc = SSD.build(told, source="x.pth")
    assert voc.card.names == tuple("abcdef")
    assert voc.head.shapes[0].tolist() == [30, 30]
    untold = {"state_dict": few}
    with pytest.raises(CheckpointError, match=r"6 classes, and neither it nor the name 'x.pth' .* --as ssd300_coco"):
        SSD.build(untold, source="folder/x.pth")
    assert SSD.build(untold, source="ssd300_voc0712-1.pth").head.shapes[0].tolist() == [30, 30]
    assert SSD.build(untold, source="x.pth", published="ssd300_coco").head.shapes[0].tolist() == [21, 21]
