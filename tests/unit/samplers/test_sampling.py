"""How many rows are drawn, from where, and how evenly."""

import pytest
import torch

from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.samplers.sampling import (
    InstanceBalancedPositives,
    IoUBalancedNegatives,
    Sampler,
    draw_at_random,
    keep_all,
)


def assignment_of(objects, overlaps=None) -> Assignment:
    objects = torch.tensor(objects)
    overlaps = torch.zeros(objects.shape) if overlaps is None else torch.tensor(overlaps)
    return Assignment(objects=objects, overlaps=overlaps)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MANY = assignment_of([[0] * 30 + [1] * 10 + [BACKGROUND] * 50 + [IGNORED] * 10, [BACKGROUND] * 99 + [2]])


def counts(drawn: Assignment) -> list[list[int]]:
    return [drawn.is_positive.sum(1).tolist(), drawn.is_negative.sum(1).tolist()]


def test_all_are_kept():
    assert keep_all(MANY) is MANY


def test_numbers():
    assert counts(Sampler(number=20)(MANY, seeded())) == [[10, 1], [10, 19]]
    assert counts(Sampler(number=20, positive_fraction=0.25)(MANY, seeded())) == [[5, 1], [15, 19]]
    assert counts(Sampler(number=1000)(MANY, seeded())) == [[40, 1], [50, 99]]
    assert counts(Sampler(number=40, negatives_per_positive=1.5)(MANY, seeded())) == [[20, 1], [20, 1]]
    assert counts(Sampler(number=20, negatives_per_positive=0)(MANY, seeded())) == [[10, 1], [0, 0]]


def test_what_is_drawn_keeps_its_object_and_the_rest_is_ignored():
    drawn = Sampler(number=20)(MANY, seeded())
    changed = drawn.objects != MANY.objects
    assert (drawn.objects[changed] == IGNORED).all()
    assert torch.equal(drawn.overlaps, MANY.overlaps)


def test_the_generator_decides():
    first, second, third = (Sampler(number=20)(MANY, seeded(s)).objects for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_every_candidate_is_as_likely():
    candidates = (torch.arange(40) % 2 == 0).expand(4000, -1)
    drawn = draw_at_random(MANY, candidates, torch.full((4000,), 5), seeded())
    assert (drawn.sum(1) == 5).all()
    hits = drawn.sum(0)[::2].double()
    assert ((hits - 1000) ** 2 / 1000).sum() < 19 + 4 * 38**0.5
    assert drawn.sum(0)[1::2].sum() == 0


class TestBalancedNegatives:
    # 90 rows that overlap nothing, then 6, 3 and 1 in the three bins up to 0.6
    overlaps = [0.0] * 90 + [0.1] * 6 + [0.3] * 3 + [0.5, 0.6]
    assignment = assignment_of([[BACKGROUND] * 100 + [0]], [overlaps])

    def draw(self, number: int, **options):
        drawn = IoUBalancedNegatives(**options)(
            self.assignment, self.assignment.is_negative, torch.tensor([number]), seeded()
        )[0]
        return [drawn[part].sum().item() for part in (slice(0, 90), slice(90, 96), slice(96, 99), slice(99, 100))]

    def test_as_many_from_each_bin(self):
        assert self.draw(3) == [0, 1, 1, 1]
        none, low, middle, high = self.draw(6)
        assert (none, high) == (0, 1)
        assert low + middle == 5
        assert min(low, middle) >= 2

    def test_what_overlaps_nothing_fills_up(self):
        assert self.draw(15) == [5, 6, 3, 1]

    def test_without_a_floor_it_lies_in_the_lowest_bin(self):
        none, low, middle, high = self.draw(12, floor=-1)
        assert (middle, high) == (3, 1)
        assert none + low == 8

    def test_a_floor(self):
        assert self.draw(4, floor=0.2) == [0, 0, 3, 1]
        none, low, *hard = self.draw(10, floor=0.2)
        assert hard == [3, 1]
        assert none + low == 6

    def test_a_share_from_below_the_floor(self):
        assert self.draw(10, floor_fraction=0.7)[0] == 7

    def test_all_where_there_are_no_more(self):
        assert self.draw(100) == [90, 6, 3, 1]
        assert self.draw(500) == [90, 6, 3, 1]


class TestBalancedPositives:
    def draw(self, number: int) -> list[int]:
        drawn = InstanceBalancedPositives()(MANY, MANY.is_positive, torch.full((2,), number), seeded())
        assert not (drawn & ~MANY.is_positive).any()
        return [(drawn[0] & (MANY.objects[0] == k)).sum().item() for k in (0, 1)]

    def test_as_many_for_each_object(self):
        first, second = self.draw(12)
        assert first + second == 12
        assert 5 <= first <= 7

    def test_a_large_object_fills_up(self):
        assert self.draw(36)[1] == 10 or self.draw(36)[0] >= 26
        assert sum(self.draw(36)) == 36

    def test_all_where_there_are_no_more(self):
        assert self.draw(100) == [30, 10]


def test_no_objects_at_all():
    nothing = assignment_of([[BACKGROUND] * 5])
    sampler = Sampler(number=4, positives=InstanceBalancedPositives(), negatives=IoUBalancedNegatives())
    assert counts(sampler(nothing, seeded())) == [[0], [4]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sampler(number=0), "number 0 must be positive"),
        (lambda: Sampler(positive_fraction=2), "positive_fraction 2"),
        (lambda: IoUBalancedNegatives(num_bins=0), "num_bins 0"),
    ],
)
def test_complaints(call, message):
    with pytest.raises(ValueError, match=message):
        call()
