"""Conflicts of gradients, against maps worked by hand and against loops."""

import math
from dataclasses import astuple

import pytest
import torch

from pyrafuse.base.conflicts import Conflicts
from pyrafuse.explain.conflicts import find_conflicts, measure_conflicts, spread_positives


def maps(*rows):
    """Gradients (N, 1, C, 1, W) of one row of positions, from (W, C) lists for each output level."""
    return torch.tensor(rows, dtype=torch.float64).transpose(1, 2)[:, None, :, None]


# three positions, three output levels, two channels: an object at level 0 in the first two, none in the third
GRADIENTS = maps(
    [(3.0, 4.0), (1.0, 0.0), (1.0, 1.0)],
    [(-3.0, 0.0), (0.0, 2.0), (-1.0, -1.0)],
    [(0.0, -2.0), (1.0, 0.0), (0.0, 0.0)],
)
IS_POSITIVE = torch.tensor([[True, True, False], [False] * 3, [False] * 3])[:, None, None]


def test_equations_4_to_6_by_hand():
    """At the first position both background levels oppose (3, 4): by (-3, -2) under a sum, by less under weights."""
    unweighted = measure_conflicts(GRADIENTS, IS_POSITIVE)
    assert (unweighted.positions, unweighted.mixed, unweighted.conflicting) == (3, 2, 1)
    cosines = (-9 / 15, -8 / 10, 0, 1)
    assert unweighted.mean_cosine == pytest.approx(sum(cosines) / 4)
    assert (unweighted.judged, unweighted.positive_norm) == (1, 5)
    assert unweighted.background_norm == pytest.approx(math.hypot(3, 2))

    weights = torch.tensor([0.9, 0.1, 0.0], dtype=torch.float64)[:, None, None, None, None]
    judged = find_conflicts(GRADIENTS, IS_POSITIVE)
    weighted = measure_conflicts(weights * GRADIENTS, IS_POSITIVE, judged=judged)
    assert weighted.conflicting == 1
    assert weighted.positive_norm == pytest.approx(0.9 * 5)
    assert weighted.background_norm == pytest.approx(0.1 * 3)
    assert weighted.background_ratio == pytest.approx(0.3 / 4.5)
    # a weight of zero ends the conflict: equation 6 with the others' weights at zero
    alone = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)[:, None, None, None, None]
    resolved = measure_conflicts(alone * GRADIENTS, IS_POSITIVE, judged=judged)
    assert (resolved.conflicting, resolved.background_norm, resolved.positive_norm) == (0, 0, 5)
    assert resolved.cosine_count == 0
    assert math.isnan(resolved.mean_cosine)


def test_sums_of_batches_add_up():
    both = torch.cat((GRADIENTS, 2 * GRADIENTS), dim=1), torch.cat((IS_POSITIVE, ~IS_POSITIVE), dim=1)
    halves = measure_conflicts(GRADIENTS, IS_POSITIVE) + measure_conflicts(2 * GRADIENTS, ~IS_POSITIVE)
    assert astuple(measure_conflicts(*both)) == pytest.approx(astuple(halves))
    assert halves + Conflicts() == halves


def test_nothing_mixed_is_told_as_nothing():
    values = measure_conflicts(GRADIENTS, torch.ones_like(IS_POSITIVE)).to_dict()
    assert values["positions"] == 3
    assert values["mixed"] == values["conflicting"] == values["conflicting_share"] == 0
    assert values["mean_cosine"] is values["background_norm"] is values["conflicting_share_of_mixed"] is None


def test_against_loops():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(3, 2, 4, 5, 6, generator=generator, dtype=torch.float64)
    is_positive = torch.rand(3, 2, 5, 6, generator=generator) < 0.3
    got = measure_conflicts(gradients, is_positive)
    mixed, conflicting, cosines, positive_norm, background_norm = 0, 0, [], 0.0, 0.0
    for b in range(2):
        for i in range(5):
            for j in range(6):
                g, p = gradients[:, b, :, i, j], is_positive[:, b, i, j].tolist()
                pairs = [(n, m) for n in range(3) for m in range(3) if p[n] and not p[m]]
                mixed += bool(pairs)
                cosines += [torch.cosine_similarity(g[n], g[m], dim=0).item() for n, m in pairs]
                opposed = [(n, m) for n, m in pairs if g[n] @ g[m] < 0]
                if opposed:
                    conflicting += 1
                    positive_norm += g[sorted({n for n, _ in opposed})].sum(dim=0).norm().item()
                    background_norm += g[sorted({m for _, m in opposed})].sum(dim=0).norm().item()
    assert (got.positions, got.mixed, got.conflicting, got.judged) == (60, mixed, conflicting, conflicting)
    assert got.mean_cosine == pytest.approx(sum(cosines) / len(cosines))
    assert got.positive_norm == pytest.approx(positive_norm)
    assert got.background_norm == pytest.approx(background_norm)


def test_a_source_cell_meets_every_output_cell_that_shares_pixels_with_it():
    """Strides 8, 12 and 32 over sources of stride 16, ends not aligned."""
    generator = torch.Generator().manual_seed(0)
    sizes = {8: (9, 7), 12: (6, 5), 32: (3, 2)}
    positives = [torch.rand(2, *size, generator=generator) < 0.15 for size in sizes.values()]
    got = spread_positives(positives, tuple(sizes), (5, 4), 16)
    assert got.shape == (3, 2, 5, 4)
    for n, stride in enumerate(sizes):
        for b in range(2):
            for i in range(5):
                for j in range(4):
                    expected = any(
                        positives[n][b, y, x]
                        for y in range(sizes[stride][0])
                        for x in range(sizes[stride][1])
                        if i * 16 < (y + 1) * stride
                        and y * stride < (i + 1) * 16
                        and j * 16 < (x + 1) * stride
                        and x * stride < (j + 1) * 16
                    )
                    assert bool(got[n, b, i, j]) == expected
