"""An encoder layer over cells, against loops and by what it must not depend on."""

import math

import torch
from torch import nn

from pyrafuse.layers.attention import EncoderLayer, encode_positions


def test_positions_by_hand():
    found = encode_positions(2, 3, 8, device=torch.device("cpu"))
    assert found.shape == (6, 8)
    for row in range(2):
        for column in range(3):
            angles = [place * rate for place in (column, row) for rate in (1, 0.01)]
            expected = [f(angle) for pair in (angles[:2], angles[2:]) for f in (math.sin, math.cos) for angle in pair]
            torch.testing.assert_close(found[3 * row + column], torch.tensor(expected))
    assert encode_positions(2, 3, 5, device=torch.device("cpu")).shape == (6, 5)


@torch.no_grad()
def test_layer_by_loops():
    torch.manual_seed(0)
    layer = EncoderLayer(4, expansion=2)
    assert layer._num_heads == 4
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 4, 2, 3)
    cells = [x[0, :, i, j] for i in range(2) for j in range(3)]
    placed = [cell + place for cell, place in zip(cells, encode_positions(2, 3, 4, device=x.device), strict=True)]
    queries, keys = zip(*((layer.query_key(cell)[:4], layer.query_key(cell)[4:]) for cell in placed), strict=True)
    for number, cell in enumerate(cells):
        found = torch.zeros(4)
        for head in range(4):  # of one channel each, so that no root divides
            weights = torch.stack([queries[number][head] * key[head] for key in keys]).softmax(dim=0)
            found[head] = sum(w * layer.value(other)[head] for w, other in zip(weights, cells, strict=True))
        expected = layer.norm(cell + layer.out(found))
        expected = layer.mix_norm(expected + layer.mix(expected))
        torch.testing.assert_close(layer(x)[0, :, number // 3, number % 3], expected, rtol=1e-4, atol=1e-5)
