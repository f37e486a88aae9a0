"""Whole two-stage detectors against mmdetection's, through its checkpoints' keys: each step from maps to losses."""

import numpy as np
import pytest
import torch

from pyrafuse.core.regions import Regions
from pyrafuse.core.targets import Targets
from pyrafuse.heads.regions import choose_levels, pool_regions
from pyrafuse.importers.mmdetection.two_stage import TWO_STAGE, name_two_stage

EVERYTHING = {"number": 1_000_000}
LEARNING = {
    "backbone": {"frozen_stages": 1, "norm_eval": True},
    "stages": {"sampler": EVERYTHING},
    "criterion": {"proposals": {"sampler": {**EVERYTHING, "negatives_per_positive": None}}},
    "learning_proposals": {"max_per_level": 300, "max_regions": 150},
}
MODELS = {
    "faster-rcnn_r50_fpn": "faster_rcnn",
    "faster-rcnn_r50_pafpn": "faster_rcnn",
    "libra-faster-rcnn_r50_fpn": "libra_rcnn",
    "cascade-rcnn_r50-rfp": "cascade_rcnn_rfp",
}
TERMS = {
    "loss_rpn_cls": "proposal_classification",
    "loss_rpn_bbox": "proposal_box",
    "loss_cls": "classification",
    "loss_bbox": "box",
}
SIZE = (320, 416)


@pytest.fixture(
    scope="module",
    params=[n if n.startswith("libra") else pytest.param(n, marks=pytest.mark.slow) for n in MODELS],
)
def original(request, vectors):
    """Name, settings, arrays and ours with the original's parameters."""
    name = request.param
    if not (vectors.folder / "mmdet" / f"{name}.npz").is_file():
        pytest.skip("no golden vectors of this detector beside the repository")
    meta = vectors.json(f"mmdet/{name}.meta.json")
    state = vectors.state(vectors.json(f"mmdet/{name}.manifest.json"), meta["gains"])
    assert TWO_STAGE.recognizes({"state_dict": state})
    changes = LEARNING if "train" in meta else {}
    detector = TWO_STAGE.build({"state_dict": state}, source=name, published=name, **changes)
    assert detector.card.model == MODELS[name]
    return meta, vectors.npz(f"mmdet/{name}.npz"), detector


def image(vectors, prefix: str) -> torch.Tensor:
    """Noise; or weaker noise on flat patches of 32 pixels."""
    if not prefix:
        return vectors.image(f"image(0,(1,3,{SIZE[0]},{SIZE[1]}))")
    patches = vectors.fill.image(7, (1, 3, SIZE[0] // 32, SIZE[1] // 32)).repeat(32, 2).repeat(32, 3)
    return torch.from_numpy(np.float32(0.3) * vectors.fill.image(0, (1, 3, *SIZE)) + np.float32(1.5) * patches)


def count_missed(boxes, scores, others, other_scores, labels=None, other_labels=None) -> int:
    """Boxes without one of the others within 0.1 px and 1e-3 of its score, whatever the order."""
    fits = (boxes[:, None] - others[None]).abs().amax(dim=2) <= 0.1
    fits &= (scores[:, None] - other_scores).abs() <= 1e-3
    if labels is not None:
        fits &= labels[:, None] == other_labels
    return int((~fits.any(dim=1)).sum())


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", pytest.param("S.", marks=pytest.mark.slow)])
def test_steps_and_detections(original, vectors, prefix):
    _, golden, detector = original
    images = image(vectors, prefix)
    detector.eval()
    pyramid = detector.neck(detector.backbone(images))
    proposals = detector.head(pyramid)
    errors = {f"neck.{level}": x for level, x in enumerate(pyramid)}
    for theirs, rows in (("rpn_cls", proposals.classes), ("rpn_reg", proposals.deltas)):
        for level, of_level in enumerate(rows.split(proposals.grid.counts, dim=1)):
            height, width = proposals.grid.sizes[level]
            errors[f"{theirs}.{level}"] = of_level.reshape(1, height, width, -1).permute(0, 3, 1, 2)

    boxes = torch.from_numpy(golden[f"{prefix}rois"])[None, :, 1:]
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool)
    fixed = Regions(boxes=boxes, scores=valid.float(), valid=valid, is_object=~valid)
    first = detector.stages[0].head
    levels = choose_levels(boxes, num_levels=4, finest_scale=first.finest_scale)
    errors["roi_feats"] = pool_regions(pyramid[:4], first.strides, boxes, levels)[0]
    for number, stage in enumerate(detector.stages):
        said = stage.head(pyramid, fixed)
        suffix = "" if len(detector.stages) == 1 else f".{number}"
        errors[f"roi_cls{suffix}"] = said.classes[0]
        errors[f"roi_reg{suffix}"] = said.deltas[0].flatten(1)
    measured = {name: vectors.error(golden, prefix + name, value) for name, value in errors.items()}
    assert max(error for name, error in measured.items() if name.startswith("neck.")) < 1e-5, measured
    assert max(measured.values()) < 2e-5, measured

    regions = detector.propose(proposals, [SIZE])
    assert regions.valid.sum() == golden[f"{prefix}proposals.count"][0]
    theirs = [torch.from_numpy(golden[f"{prefix}proposals.{what}"]) for what in ("boxes", "scores")]
    assert count_missed(*theirs, regions.boxes[0], regions.scores[0]) == 0

    (found,) = detector.detect(images)
    boxes, scores, labels = (torch.from_numpy(golden[f"{prefix}det.{w}"]) for w in ("boxes", "scores", "labels"))
    assert len(found) == len(boxes)
    assert count_missed(boxes, scores, found.boxes, found.scores, labels, found.labels) <= 1


def test_training(original, vectors):
    meta, _, detector = original
    if "train" not in meta:
        pytest.skip("the original's training was not recorded")
    (step,) = meta["train"]["steps"]
    detector.train().zero_grad()
    boxes, labels = ([torch.tensor(i[key]) for i in meta["gt"]] for key in ("boxes", "labels"))
    targets = Targets.pad(boxes, labels)
    predictions = detector(vectors.image("image(1,(2,3,320,416))"), targets)
    report = detector.criterion.by_level(predictions, targets)
    for theirs, ours in TERMS.items():
        expected = torch.tensor(step["losses"][theirs])
        got = report.losses[ours].detach()
        torch.testing.assert_close(got if expected.ndim else got.sum(), expected, rtol=1e-4, atol=1e-7)
    torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    naming = name_two_stage(detector).naming
    norms = {naming(k): p.grad.norm().item() for k, p in detector.named_parameters() if p.grad is not None}
    assert norms.keys() == step["grad_norms"].keys()
    for key, expected in step["grad_norms"].items():
        if "refine.phi.conv.bias" not in key:  # softmax does not see it: nothing but rounding
            assert norms[key] == pytest.approx(expected, rel=1e-3, abs=1e-9), key
