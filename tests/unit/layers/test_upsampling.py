"""Upsampling that looks at the maps: CARAFE and FaPN's alignment, against loops and plain upsampling."""

import pytest
import torch
from torch import nn

from pyrafuse.layers.alignment import AlignedUpsampling
from pyrafuse.layers.carafe import CARAFE, reassemble
from pyrafuse.layers.conv import cut_to, initialize, upsample_to


def reassemble_by_loops(x, weights):
    batch, channels, height, width = x.shape
    side, scale = round(weights.shape[1] ** 0.5), round(weights.shape[2] ** 0.5)
    out = x.new_zeros(batch, channels, height * scale, width * scale)
    for row in range(height * scale):
        for column in range(width * scale):
            i, j = row // scale, column // scale
            cell = row % scale * scale + column % scale
            for tap in range(side**2):
                y, z = i + tap // side - side // 2, j + tap % side - side // 2
                if 0 <= y < height and 0 <= z < width:
                    out[:, :, row, column] += weights[:, tap, cell, i, j, None] * x[:, :, y, z]
    return out


class TestCARAFE:
    @pytest.mark.parametrize(("side", "scale"), [(3, 2), (5, 2), (5, 4)])
    def test_reassembly_against_loops(self, side, scale):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 3, 4, 3, generator=generator, dtype=torch.float64)
        weights = torch.randn(2, side**2, scale**2, 4, 3, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(reassemble(x, weights), reassemble_by_loops(x, weights))

    @torch.no_grad()
    def test_weights_of_each_cell_sum_to_one_and_come_from_the_map(self):
        torch.manual_seed(0)
        carafe = CARAFE(4, 2, kernel_size=3)
        nn.init.normal_(carafe.encode.weight)
        x = torch.ones(1, 4, 5, 6)
        inner = carafe(x)[..., 2:-2, 2:-2]
        torch.testing.assert_close(inner, torch.ones_like(inner))  # at the border some weights meet zeros
        x = torch.randn(1, 4, 5, 6)
        weights = carafe.encode(carafe.compress(x)).view(1, 9, 4, 5, 6).softmax(dim=1)
        torch.testing.assert_close(carafe(x), reassemble_by_loops(x, weights))

    @torch.no_grad()
    def test_starts_as_the_mean_of_the_cells_around(self):
        torch.manual_seed(0)
        carafe = CARAFE(4, 2)
        initialize(carafe)  # as the neck that holds it does
        x = torch.randn(1, 4, 6, 7)
        mean = nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
        assert (carafe(x) - upsample_to(mean, (12, 14))).abs().max() < 0.01

    def test_keeps_no_map_of_every_tap_for_the_gradient(self):
        kept = []
        x = torch.randn(1, 64, 16, 16, requires_grad=True)
        weights = torch.rand(1, 25, 4, 16, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            out = reassemble(x, weights)
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
        assert sum(storages.values()) < 2 * (x.nbytes + weights.nbytes) < 2.5 * out.nbytes


class TestAlignment:
    def create(self, *, gain):
        aligned = AlignedUpsampling(3, 2)
        nn.init.zeros_(aligned.conv.weight)
        aligned.conv.weight.data[:, :, 1, 1] = gain * torch.eye(3)
        return aligned

    @torch.no_grad()
    def test_without_offsets_it_is_plain_upsampling(self):
        # a fresh one has no offsets, and gives every sample half its weight
        x, guide = torch.randn(2, 3, 4, 5), torch.randn(2, 2, 7, 10)
        torch.testing.assert_close(self.create(gain=2)(x, guide), upsample_to(x, (7, 10)).relu())

    @torch.no_grad()
    def test_offsets_move_what_is_upsampled(self):
        aligned = self.create(gain=1)
        aligned.offset.bias[18:] = 100.0  # every sample has its whole weight
        aligned.offset.bias[2 * 4 + 1] = 2.0  # the middle tap of the only group looks two cells to the right
        x = torch.rand(1, 3, 2, 4)
        moved = aligned(x, torch.zeros(1, 2, 4, 8))
        plain = upsample_to(x, (4, 8))
        torch.testing.assert_close(moved[..., :-2], plain[..., 2:])
        assert (moved[..., -2:] == 0).all()  # past the border

    @torch.no_grad()
    def test_offsets_follow_the_guide(self):
        aligned = self.create(gain=2)
        aligned.offset.weight[9, 1, 1, 1] = 1.0  # the second channel of the guide moves the middle tap
        x, guide = torch.rand(1, 3, 2, 4), torch.zeros(1, 2, 4, 8)
        still = aligned(x, guide)
        guide[:, 1, :, 1] = 1.0
        moved = aligned(x, guide)
        torch.testing.assert_close(moved[..., 1], still[..., 2])
        torch.testing.assert_close(moved[..., 2:], still[..., 2:])


def test_cutting_leaves_the_upper_left_or_repeats():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert cut_to(x, (2, 2)).tolist() == [[[[0, 1], [3, 4]]]]
    assert cut_to(x, (1, 6)).tolist() == [[[[0, 0, 1, 1, 2, 2]]]]
