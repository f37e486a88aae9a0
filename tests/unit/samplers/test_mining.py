"""The hardest negatives, worked by hand."""

import pytest
import torch

from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.samplers.mining import mine_hardest

B, N = BACKGROUND, IGNORED


def mine(objects: list, losses: list, **options) -> list:
    assignment = Assignment(torch.tensor(objects), torch.zeros(len(objects), len(objects[0])))
    return mine_hardest(assignment, torch.tensor(losses), **options).objects.tolist()


def test_each_image_has_its_own():
    found = mine(
        [[0, B, B, B, B, B], [1, 0, B, B, B, B], [B] * 6],
        [[9.0, 0.1, 0.4, 0.2, 0.5, 0.3], [0.0, 0.0, 1.0, 2.0, 3.0, 4.0], [5.0] * 6],
    )
    assert found == [[0, N, B, N, B, B], [1, 0, B, B, B, B], [N] * 6]


@pytest.mark.parametrize(("ratio", "number"), [(0.0, 0), (1.0, 1), (2.5, 2), (9.0, 4)])
def test_so_many_for_each_positive(ratio, number):
    (found,) = mine([[0, B, B, B, B]], [[0.0, 1.0, 2.0, 3.0, 4.0]], negatives_per_positive=ratio)
    assert found == [0] + [N] * (4 - number) + [B] * number


def test_ignored_rows_stay_so():
    assert mine([[N, 0, B, B]], [[99.0, 1.0, 2.0, 3.0]], negatives_per_positive=1) == [[N, 0, N, B]]


def test_no_loss_at_all_is_still_a_negative():
    assert mine([[0, B, B, B]], [[0.0, 0.0, 0.0, 0.0]]) == [[0, B, B, B]]
