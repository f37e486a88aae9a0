"""Two branches that become one convolution, and what blocks of them compute."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrafuse.layers.rep_conv import RepConv, RepCSP, RepELAN, merge_branches, merged
from pyrafuse.models.factory import create_model


def unlike(module):
    """``module`` in evaluation mode, its norms unlike fresh ones."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight, part.bias, part.running_mean, part.running_var):
                values.data = 0.5 + torch.rand_like(values)
    return module.eval()


@torch.no_grad()
def test_merged_is_one_convolution_with_the_same_output():
    block = unlike(RepConv(5, 7, activation="silu").double())
    x = torch.randn(2, 5, 6, 9, dtype=torch.float64)
    before = block(x)
    block.merge()
    assert [type(part) for part in block.modules() if list(part.parameters(recurse=False))] == [nn.Conv2d]
    torch.testing.assert_close(block(x), before, rtol=1e-12, atol=1e-12)
    block.merge()  # once more changes nothing
    torch.testing.assert_close(block(x), before, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("create", [RepELAN, RepCSP])
def test_blocks_by_their_formulas_and_merged(create):
    block = unlike(create(5, 6, depth=2, activation="relu"))
    x = torch.randn(2, 5, 6, 9)
    if create is RepCSP:
        expected = block.long[0](x)
        for unit in block.long[1:]:
            expected = (unit.conv(expected) + unit.point(expected)).relu()
        expected = block.short(x) + expected
    else:
        found, y = [block.short(x)], block.long(x)
        for rep, conv in block.units:
            y = y + conv((rep.conv(y) + rep.point(y)).relu())
            found.append(y)
        expected = block.join(torch.cat(found, dim=1))
    torch.testing.assert_close(block(x), expected)
    twin = merged(block)
    assert twin is not block
    assert sum(isinstance(part, nn.Conv2d) for part in block.modules()) == 2 + sum(
        isinstance(part, nn.Conv2d) for part in twin.modules()
    )
    torch.testing.assert_close(twin(x), block(x), rtol=1e-4, atol=1e-5)


def test_nothing_to_merge_is_no_copy():
    conv = nn.Conv2d(1, 1, 1)
    assert merged(conv) is conv


@torch.no_grad()
@pytest.mark.parametrize("neck", ["rep_gfpn", "ccfm", "gather_distribute"])
def test_an_optimised_detector_has_no_branches_and_predicts_the_same(neck):
    torch.manual_seed(0)
    backbone, options = {"name": "resnet18", "width": 8}, {"out_channels": 8, "depth": 1}
    detector = create_model("fcos", num_classes=2, backbone=backbone, neck=neck, necks={neck: options})
    unlike(detector)
    before = deepcopy(detector.state_dict())
    fast = detector.optimized()
    assert all(part.point is None for part in fast.modules() if isinstance(part, RepConv))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.neck.modules())
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    images = torch.randn(1, 3, 64, 96)
    for ours, theirs in zip(fast.pyramid(images), detector.pyramid(images), strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_branches_learn():
    block = RepConv(3, 3, activation="none")
    x = torch.randn(2, 3, 4, 4)
    inner = F.conv2d(x, block.conv.conv.weight, padding=1), F.conv2d(x, block.point.conv.weight)
    expected = sum(
        (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), keepdim=True, correction=0) + 1e-5) ** 0.5
        for y in inner
    )
    torch.testing.assert_close(block.train()(x), expected, rtol=1e-4, atol=1e-5)
    merge_branches(nn.Sequential(block))
    assert block.point is None
