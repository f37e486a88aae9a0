"""Counts and distribution of draws against mmdetection's samplers."""

import pytest
import torch

from pyrafuse.core.assignment import Assignment
from pyrafuse.samplers.sampling import InstanceBalancedPositives, IoUBalancedNegatives, draw_at_random

REPEATS = 60  # draws of 384: more than 20,000 rows in all


def repeated(golden) -> Assignment:
    objects = (golden["gt_inds"] - 1).expand(REPEATS, -1)
    return Assignment(objects=objects, overlaps=golden["max_overlaps"].expand(REPEATS, -1))


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("ioubal_libra_call1", IoUBalancedNegatives(floor=-1)),
        ("ioubal_libra_call2", IoUBalancedNegatives()),
        ("ioubal_floor0.1_f0.5_call1", IoUBalancedNegatives(floor=0.1, floor_fraction=0.5)),
        ("ioubal_floor0.1_f0.5_call2", IoUBalancedNegatives(floor=0.1, floor_fraction=0.5)),
        ("ioubal_floor0_f0.25_b5_call1", IoUBalancedNegatives(floor_fraction=0.25, num_bins=5)),
        ("ioubal_onebin_call1", IoUBalancedNegatives(num_bins=1, floor=-1)),
        ("ioubal_onebin_call2", IoUBalancedNegatives(num_bins=1)),
        ("random", draw_at_random),
    ],
)
def test_negatives(vectors, name, draw):
    golden = vectors("samplers")
    assignment = repeated(golden)
    number = torch.full((REPEATS,), 384)
    drawn = draw(assignment, assignment.is_negative, number, torch.Generator().manual_seed(0))
    assert (drawn & ~assignment.is_negative).sum() == 0
    assert drawn.sum(dim=1).tolist() == [384] * REPEATS
    assert set(golden[f"{name}.count"].tolist()) == {384}

    edges = golden["hist_edges"].float()
    bins = torch.bucketize(assignment.overlaps[0], edges[1:-1], right=True)
    ours = torch.zeros(20).index_add(0, bins, drawn.float().sum(dim=0))
    theirs = golden[f"{name}.hist"].float().sum(dim=0)
    # chi-square of two samples, in bins that both could fill
    total = ours + theirs
    shares = ours.sum() / total.sum(), theirs.sum() / total.sum()
    is_used = total >= 10
    expected = total[is_used, None] * torch.stack(shares)
    observed = torch.stack((ours, theirs), dim=1)[is_used]
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = int(is_used.sum()) - 1
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5, (statistic, freedom)


@pytest.mark.parametrize("number", [64, 128, 400])
def test_positives_of_each_object(vectors, number):
    golden = vectors("samplers")
    assignment = repeated(golden)
    drawn = InstanceBalancedPositives()(
        assignment, assignment.is_positive, torch.full((REPEATS,), number), torch.Generator().manual_seed(0)
    )
    available = golden["num_per_gt"]
    theirs = golden[f"instbal_{number}.count_per_gt"].double()
    ours = torch.stack([(drawn & (assignment.objects == k)).sum(dim=1) for k in range(len(available))], dim=1).double()
    assert set(ours.sum(dim=1).tolist()) == set(theirs.sum(dim=1).tolist())
    assert (ours <= available).all()
    expected = theirs.mean(dim=0)
    if number == 128:  # theirs fills up with rows it has drawn already; from the 170 that are left it is this
        first = available.clamp(max=round(128 / 6) + 1)
        expected = first + (128 - first.sum()) * (available - first) / (available - first).sum()
    torch.testing.assert_close(ours.mean(dim=0), expected.double(), rtol=0, atol=1.0)
