"""SSD's extra levels: sizes as published, and maps too small for the convolutions."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.ssd_extra import SSDExtraLevels

INPUTS = PyramidSpec((4, 6), (8, 16))
SSD300 = {"out_channels": (8, 4, 4, 4)}
SSD512 = {
    "out_channels": (8, 4, 4, 4, 4),
    "strides": (2, 2, 2, 2, 1),
    "paddings": (1, 1, 1, 1, 1),
    "last_kernel_size": 4,
}


@pytest.mark.parametrize(
    ("options", "cells", "expected"),
    [
        (SSD300, 38, (38, 19, 10, 5, 3, 1)),
        (SSD512, 64, (64, 32, 16, 8, 4, 2, 1)),
        (SSD300, 2, (2, 1, 1, 1, 1, 1)),
        (SSD512, 1, (1, 1, 1, 1, 1, 1, 1)),
    ],
)
def test_sizes(options, cells, expected):
    neck = SSDExtraLevels(INPUTS, **options)
    out = neck((torch.randn(1, 4, cells, cells), torch.randn(1, 6, -(-cells // 2), -(-cells // 2))))
    assert tuple(x.shape[-1] for x in out) == expected
    assert neck.features.channels == (4, 6, *options["out_channels"])
    assert neck.features.strides == tuple(8 * 2**i for i in range(len(expected)))


def test_only_the_finest_is_normalised():
    neck = SSDExtraLevels(INPUTS, out_channels=(2,), strides=(2,), paddings=(1,), l2_norm_scale=10)
    fine, coarse = torch.randn(2, 4, 6, 5), torch.randn(2, 6, 3, 3)
    out = neck((fine, coarse))
    torch.testing.assert_close(out[0].norm(dim=1), torch.full((2, 6, 5), 10.0))
    assert torch.equal(out[1], coarse)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"each extra level needs channels, a stride and a padding: .*strides \(2,\)"):
        SSDExtraLevels(INPUTS, strides=(2,))
    with pytest.raises(ValueError, match=r"2 channels or more, got out_channels \(1, 2, 2, 2\)"):
        SSDExtraLevels(INPUTS, out_channels=(1, 2, 2, 2))
