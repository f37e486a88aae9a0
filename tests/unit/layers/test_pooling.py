import pytest
import torch
import torch.nn.functional as F

from pyrafuse.layers.pooling import adaptive_max_pool, max_of_windows


def test_windows_of_any_length():
    x = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6]).view(1, 1, 8, 1)
    found = max_of_windows(x, 2, torch.tensor([0, 1, 3]), torch.tensor([2, 2, 8]), longest=5)
    assert found.flatten().tolist() == [3, 1, 9]


@pytest.mark.parametrize(("size", "ratio"), [((4, 7), 1), ((2, 4), 2), ((1, 2), 4), ((3, 5), 2)])
def test_a_graph_pools_as_torch_does(size, ratio, monkeypatch):
    x = torch.randn(2, 3, 4, 7)
    monkeypatch.setattr("pyrafuse.layers.pooling.is_traced", lambda: True)
    assert torch.equal(adaptive_max_pool(x, size, ratio=ratio), F.adaptive_max_pool2d(x, size))
