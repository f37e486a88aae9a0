"""Padded objects."""

from dataclasses import replace

import torch

from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.targets import Targets


def test_pad():
    targets = Targets.pad(
        [torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]), torch.zeros(0, 4), torch.tensor([[1, 1, 2, 2]])],
        [torch.tensor([3, 4]), torch.zeros(0), torch.tensor([5])],
        weights=[torch.tensor([0.25, 0.75]), torch.zeros(0), torch.tensor([1.0])],
        crowd=[torch.tensor([False, True]), torch.zeros(0), torch.tensor([False])],
    )
    assert targets.boxes.tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0] * 4] * 2, [[1, 1, 2, 2], [0] * 4]]
    assert targets.labels.tolist() == [[3, 4], [0, 0], [5, 0]]
    assert targets.weights.tolist() == [[0.25, 0.75], [0, 0], [1, 0]]
    assert targets.valid.tolist() == [[True, False], [False, False], [True, False]]
    assert targets.crowd.tolist() == [[False, True], [False, False], [False, False]]
    assert targets.boxes.dtype == torch.float32
    assert targets.labels.dtype == torch.int64


def test_empty():
    targets = Targets.empty(3)
    assert targets.boxes.shape == (3, 0, 4)
    assert targets.valid.shape == (3, 0)
    assert Targets.pad([], []).boxes.shape == (0, 0, 4)


def test_normalize():
    preprocessing = Preprocessing(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(preprocessing, images).flatten(), torch.tensor([0.0, 1.0, -3.2]))
    assert preprocessing.fill_color() == (0, 128, 255)
    assert replace(preprocessing, padding="black").fill_color() == (0, 0, 0)
