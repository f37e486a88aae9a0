"""Assignments against mmdetection's: every index the same."""

import pytest
import torch

from pyrafuse.assigners.atss import ATSSAssigner
from pyrafuse.assigners.max_iou import ApproxMaxIoUAssigner, MaxIoUAssigner
from pyrafuse.core.predictions import DenseGrid, DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.coders import DistanceCoder


def objects_of(golden, name: str) -> torch.Tensor:
    """Theirs: 0 background, -1 ignored, k + 1 object k."""
    theirs = golden[f"{name}.gt_inds"].long()
    return (theirs - 1)[None]


def some_targets(golden, *, with_crowds: bool = False) -> Targets:
    boxes, labels = golden["gts"], golden["labels"]
    crowd = torch.zeros(len(boxes), dtype=torch.bool)
    if with_crowds:
        boxes = torch.cat((boxes, golden["ignore"]))
        labels = torch.cat((labels, torch.zeros(len(golden["ignore"]), dtype=torch.int64)))
        crowd = torch.arange(len(boxes)) >= len(crowd)
    return Targets.pad([boxes], [labels], crowd=[crowd])


@pytest.mark.parametrize(
    "name", ["retina", "rpn", "rcnn", "ssd", "ignore0.5", "ignore0.5_wrtgt", "negrange"], ids=lambda n: n
)
def test_max_iou(vectors, name, monkeypatch):
    golden = vectors("assigners")
    settings = golden.settings[f"maxiou_{name}"]
    negative = settings["neg_iou_thr"]
    assigner = MaxIoUAssigner(
        positive_iou=settings["pos_iou_thr"],
        negative_iou=tuple(negative) if isinstance(negative, list) else negative,
        least_best_iou=settings["min_pos_iou"],
        match_best=settings.get("match_low_quality", True),
        match_ties=settings.get("gt_max_assign_all", True),
        crowd_share=settings["ignore_iof_thr"] if settings["ignore_iof_thr"] > 0 else None,
        share_of_crowd=not settings.get("ignore_wrt_candidates", True),
    )
    targets = some_targets(golden, with_crowds="ignore0.5" in name)
    whole = assigner.assign(golden["retina_priors"], targets)
    assert torch.equal(whole.objects, objects_of(golden, f"maxiou_{name}"))
    torch.testing.assert_close(whole.overlaps[0], golden[f"maxiou_{name}.max_overlaps"])
    for most in (1, 10_000, 10_000_000):
        monkeypatch.setattr("pyrafuse.assigners.max_iou.MAX_CACHED_ELEMENTS", most)
        parts = assigner.assign(golden["retina_priors"], targets)
        assert torch.equal(parts.objects, whole.objects)
        assert torch.equal(parts.overlaps, whole.overlaps)


def test_approximate_max_iou(vectors):
    golden = vectors("assigners")
    found = ApproxMaxIoUAssigner().assign(golden["approx.squares"], some_targets(golden))
    assert torch.equal(found.objects, objects_of(golden, "approx"))
    torch.testing.assert_close(found.overlaps[0], golden["approx.max_overlaps"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("top_k", [9, 3])
@pytest.mark.parametrize("alpha", [None, 0.8, 0.5])
def test_atss(vectors, alpha, top_k):
    golden = vectors("assigners")
    anchors = golden["atss_priors"]
    counts = tuple(golden["atss_num_level"].tolist())
    levels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    grid = DenseGrid(anchors=anchors, strides=8.0 * 2**levels, levels=levels, counts=counts, sizes=())
    coder = DistanceCoder()
    predictions = DensePredictions(
        classes=golden["atss_scores"][None],
        deltas=coder.encode(anchors, golden["atss_bboxes"])[None],
        quality=None,
        grid=grid,
    )
    assigner = ATSSAssigner(top_k=top_k, alpha=alpha, coder=coder)
    found = assigner(predictions, some_targets(golden))
    name = f"atss_alpha{alpha}_topk{top_k}"
    assert torch.equal(found.objects, objects_of(golden, name))
    is_positive = found.objects[0] >= 0
    assert is_positive.any()
    theirs = golden[f"{name}.max_overlaps"]
    torch.testing.assert_close(found.overlaps[0][is_positive], theirs[is_positive], rtol=1e-5, atol=1e-6)
