"""Whole dense detectors against mmdetection's, through its checkpoints' keys: maps, detections, training losses."""

import json

import numpy as np
import pytest
import torch

from pyrafuse.core.targets import Targets
from pyrafuse.importers.mmdetection.dense import DENSE
from vectors import FOLDER, compare, fill

TRAINED = {"frozen_stages": 1, "norm_eval": True}
EVERYTHING = {"shape_sampler": {"number": 1_000_000}, "inverted_locations": True}
MODELS = {
    "retinanet_r50_fpn": {"backbone": TRAINED},
    "atss_r50_fpn": {"backbone": TRAINED},
    "ddod_r50_fpn": {"backbone": TRAINED},
    "fcos_r50-caffe_fpn_gn": {"backbone": TRAINED},
    "libra-retinanet_r50_fpn": {"backbone": TRAINED},
    "ga-retinanet_r50-caffe_fpn": {"backbone": TRAINED, "criterion": EVERYTHING},
    "retinanet_r50_nasfpn": {"backbone": {"frozen_stages": 1}},
}
TERMS = {
    "loss_cls": "classification",
    "loss_bbox": "box",
    "loss_centerness": "quality",
    "loss_iou": "quality",
    "loss_shape": "shape",
    "loss_loc": "location",
}
ROWS = {
    "cls": "classes",
    "reg": "deltas",
    "centerness": "quality",
    "iou": "quality",
    "shape": "shapes",
    "loc": "locations",
}
QUICK = ("ddod_r50_fpn", "ga-retinanet_r50-caffe_fpn")  # between them they use nearly every part


class Original:
    """One of the originals: its parameters, settings and what it computed."""

    def __init__(self, folder, name: str) -> None:
        self.name = name
        self.meta = json.loads((folder / f"{name}.meta.json").read_text())
        self._manifest = json.loads((folder / f"{name}.manifest.json").read_text())
        self.arrays = np.load(folder / f"{name}.npz")

    def state(self) -> dict[str, torch.Tensor]:
        values = compare.apply_rules(self._manifest, self.meta["gains"])
        return {key: torch.from_numpy(np.array(value)) for key, value in values.items()}

    def image(self, seed: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(fill.image(seed, shape))

    def error(self, name: str, value: torch.Tensor) -> float:
        """Largest difference from an entry, by the entry's largest magnitude."""
        stored = self.arrays[name if name in self.arrays else f"{name}.sub"]
        return compare.check(self.arrays, name, value.numpy())[0] / float(np.abs(stored).max())

    def targets(self) -> Targets:
        boxes, labels = ([torch.tensor(image[key]) for image in self.meta["gt"]] for key in ("boxes", "labels"))
        return Targets.pad(boxes, labels)


@pytest.fixture(
    scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def pair(request):
    """An original, and ours with its parameters."""
    original = Original(FOLDER / "mmdet", request.param)
    state = original.state()
    assert DENSE.recognizes({"state_dict": state})
    name = request.param.replace("nasfpn", "nasfpn_crop640")  # as it was published
    changes = MODELS[request.param]
    return original, DENSE.build({"state_dict": state}, source=request.param, published=name, **changes)


def as_maps(rows: torch.Tensor, sizes, counts) -> list[torch.Tensor]:
    """Rows (B, A, D) -> maps (B, S * D, H, W)."""
    maps = []
    for (height, width), of_level in zip(sizes, rows.split(counts, dim=1), strict=True):
        per_cell = of_level.reshape(len(rows), height, width, -1)
        maps.append(per_cell.permute(0, 3, 1, 2))
    return maps


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", pytest.param("S.", marks=pytest.mark.slow)])
def test_maps_and_detections(pair, prefix):
    original, detector = pair
    detector.eval()
    images = original.image(0, 1, 3, 320, 416)
    if prefix:
        images = torch.from_numpy(compare.structured(0, 320, 416))
    pyramid = detector.neck(detector.backbone(images))
    predictions = detector.head(pyramid)
    grid, guides = predictions.grid, predictions.guides
    worst = {}
    for level, x in enumerate(pyramid):
        assert original.error(f"{prefix}neck.{level}", x) < 1e-5, level
    for theirs, ours in ROWS.items():
        if (
            f"{prefix}head.{theirs}.0.shape" not in original.arrays
            and f"{prefix}head.{theirs}.0" not in original.arrays
        ):
            continue
        rows = getattr(guides if ours in ("shapes", "locations") else predictions, ours)
        rows = rows if rows.ndim == 3 else rows[..., None]
        if guides is not None and theirs in ("cls", "reg"):
            # the original leaves out these cells here already
            rows = rows * (guides.locations.sigmoid() >= guides.least_location)[..., None]
        for level, x in enumerate(as_maps(rows, grid.sizes, grid.counts)):
            name = f"{prefix}head.{theirs}.{level}"
            worst[name] = compare.check(original.arrays, name, x.numpy())[1]
    # FCOS's distances are after exp, which spreads differences
    assert max(v for k, v in worst.items() if original.name[:4] != "fcos" or "reg" not in k) < 1e-4
    assert max(worst.values()) < 2e-3

    (found,) = detector.detect(images)
    missed = compare.check_dets(
        original.arrays, f"{prefix}det", found.boxes.numpy(), found.scores.numpy(), found.labels.numpy()
    )
    assert len(found) == len(original.arrays[f"{prefix}det.scores"])
    assert missed <= 1


def test_training_losses(pair):
    original, detector = pair
    detector.train()
    for step in original.meta["train"]["steps"]:
        detector.zero_grad()
        predictions = detector(original.image(1, 2, 3, 320, 416))
        report = detector.criterion.by_level(predictions, original.targets())
        for theirs, expected in step["losses"].items():
            got = report.losses[TERMS[theirs]]
            got = got if isinstance(expected, list) else got.sum()
            torch.testing.assert_close(got.detach(), torch.tensor(expected), rtol=2e-4, atol=1e-5)
    torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    total = sum(p.grad.norm() ** 2 for p in detector.parameters() if p.grad is not None) ** 0.5
    step = original.meta["train"]["steps"][0]
    if len(original.meta["train"]["steps"]) == 1:  # DDOD's later steps have other level weights
        expected = sum(norm**2 for norm in step["grad_norms"].values()) ** 0.5
        assert total.item() == pytest.approx(expected, rel=1e-2 if "nasfpn" in original.name else 1e-3)
