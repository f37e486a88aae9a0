"""M2Det's pyramid: sizes as published, and what is shared."""

import pytest
import torch
from torch import nn

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.layers.padding import pad_to
from pyrafuse.necks.mlfpn import MLFPN, SFAM, TUM, FFMv1

INPUTS = PyramidSpec((4, 6), (8, 16))


def build(**options) -> MLFPN:
    return MLFPN(INPUTS, **{"num_levels": 2, "channels": 8, "shallow_channels": 4, "deep_channels": 4, **options})


class TestTUM:
    @pytest.mark.parametrize(
        ("cells", "expected"),
        [(40, (40, 20, 10, 5, 3, 1)), (64, (64, 32, 16, 8, 4, 2)), (88, (88, 44, 22, 11, 6, 4)), (1, (1,) * 6)],
    )
    @torch.no_grad()
    def test_sizes(self, cells, expected):
        out = TUM(3, 2, num_scales=6, smooth=True).eval()(torch.randn(1, 3, cells, 2 * cells))
        assert tuple(x.shape[2] for x in out) == expected
        assert all(x.shape[:2] == (1, 2) for x in out)

    def test_two_scales_are_a_halving(self):
        out = TUM(3, 2, num_scales=2, smooth=False).eval()(torch.randn(1, 3, 9, 6))
        assert [x.shape[2:] for x in out] == [(9, 6), (5, 3)]

    @torch.no_grad()
    def test_the_way_up_goes_on_unsmoothed(self):
        torch.manual_seed(0)
        tum = TUM(3, 2, num_scales=3, smooth=True).eval()
        x = torch.randn(1, 3, 12, 8)
        before = tum(x)
        nn.init.zeros_(tum.smooth[1].conv.weight)
        after = tum(x)
        assert torch.equal(after[0], before[0])
        assert not after[1].any()
        assert torch.equal(after[2], before[2])


@torch.no_grad()
def test_attention_is_one_for_all_scales_and_16_times_narrower():
    sfam = SFAM(32)
    assert {name: tuple(p.shape[:2]) for name, p in sfam.named_parameters() if p.dim() == 4} == {
        "reduce.weight": (2, 32),
        "expand.weight": (32, 2),
    }
    x = torch.randn(1, 32, 1, 1)
    small, large = sfam((x, x.expand(1, 32, 3, 4)))
    torch.testing.assert_close(large, small.expand(1, 32, 3, 4))
    nn.init.zeros_(sfam.expand.weight)
    nn.init.zeros_(sfam.expand.bias)
    assert torch.equal(sfam((x,))[0], x / 2)


@torch.no_grad()
def test_base_feature_takes_any_number_of_maps():
    base = FFMv1((4, 6, 2), shallow_channels=3, deep_channels=5).eval()
    out = base((torch.randn(2, 4, 7, 5), torch.randn(2, 6, 4, 3), torch.randn(2, 2, 2, 2)))
    assert out.shape == (2, 13, 7, 5) == (2, base.out_channels, 7, 5)


@torch.no_grad()
def test_norm_touches_the_largest_map_alone():
    torch.manual_seed(0)
    neck = build(attention=False).eval()
    pyramid = (torch.randn(1, 4, 20, 12), torch.randn(1, 6, 10, 6))
    before = neck(pyramid)
    nn.init.constant_(neck.norm.weight, 2.0)
    after = neck(pyramid)
    torch.testing.assert_close(after[0], 2 * before[0])
    for a, b in zip(after[1:], before[1:], strict=True):
        assert torch.equal(a, b)


def test_parts():
    neck = build(num_levels=3, num_scales=4)
    assert neck.features == PyramidSpec((24,) * 4, (8, 16, 32, 64))
    assert [tum.down[0].conv.in_channels for tum in neck.tums] == [4, 12, 12]
    assert build(attention=False).sfam is None
    assert neck.reduce.norm.momentum == 0.01
    assert neck.norm.momentum == 0.1


@pytest.mark.parametrize("options", [{"num_levels": 0}, {"num_scales": 1}, {"channels": 7}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="MLFPN needs 1 level, 2 scales and an even number of channels or more"):
        build(**options)


def test_padding_by_hand():
    x = torch.ones(1, 1, 1, 2)
    assert pad_to(x, 3)[0, 0].tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert pad_to(x, 1) is x
