"""Regions: the level of a box, its cells, and what the head says of them, worked by hand."""

import pytest
import torch
import torch.nn.functional as F

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.regions import RegionPredictions, Regions
from pyrafuse.heads.regions import RegionHead, choose_levels, pool_regions


def regions_of(boxes: torch.Tensor) -> Regions:
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool)
    return Regions(boxes=boxes, scores=valid.float(), valid=valid, is_object=~valid)


def test_a_box_twice_as_large_is_looked_at_one_level_up():
    sides = torch.tensor([1.0, 55.9, 56, 111.9, 112, 223.9, 224, 448, 5000])
    boxes = torch.stack((sides * 0, sides * 0, sides, sides), dim=1)
    assert choose_levels(boxes, num_levels=4, finest_scale=56).tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3]
    flat = torch.tensor([[0, 0, 448, 28.0], [10, 10, 10, 90], [0, 0, 0, 0]])  # 112 px by the geometric mean; none
    assert choose_levels(flat, num_levels=4, finest_scale=56).tolist() == [1, 0, 0]


def test_bins_are_means_of_their_cells():
    ramp = torch.arange(8.0).expand(8, 8)  # the value of a cell is its x, at 4 x + 2 px
    pyramid = (torch.stack((ramp, ramp.T))[None], torch.full((1, 2, 4, 4), 7.0))
    boxes = torch.tensor([[[4.0, 4, 20, 20], [8, 8, 24, 24], [0, 0, 0, 0]]])
    cells = pool_regions(pyramid, (4, 8), boxes, torch.tensor([[0, 1, 0]]), resolution=2)
    assert cells.shape == (1, 3, 2, 2, 2)
    # bins of 8 px from 4 px on: samples at 6, 10 and 14, 18 px
    torch.testing.assert_close(cells[0, 0, 0], torch.tensor([[1.5, 3.5], [1.5, 3.5]]))
    torch.testing.assert_close(cells[0, 0, 1], torch.tensor([[1.5, 1.5], [3.5, 3.5]]))
    assert (cells[0, 1] == 7).all()
    assert (cells[0, 2] == 0).all()


def test_two_samples_of_cells_that_stand_for_their_corners():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)  # the value of a cell is its x, at 4 x px
    pyramid = (ramp, torch.full((1, 1, 4, 4), 7.0))
    boxes = torch.tensor([[[4.0, 4, 20, 20], [8, 8, 24, 24], [4, 4, 5, 5]]])
    cells = pool_regions(
        pyramid, (4, 8), boxes, torch.tensor([[0, 1, 0]]), resolution=1, samples=2, aligned=False
    ).flatten()
    # samples at 8 and 16 px; a box has a cell at least, from 4 to 8 px: samples at 5 and 7 px
    assert cells.tolist() == [3, 7, 1.5]


def test_each_image_is_pooled_from_its_own_maps():
    x = torch.stack((torch.zeros(1, 4, 4), torch.ones(1, 4, 4)))
    boxes = torch.tensor([[4.0, 4, 12, 12]]).expand(2, 3, 4)
    cells = pool_regions((x,), (4,), boxes, torch.zeros(2, 3, dtype=torch.int64), resolution=1)
    assert cells.flatten(1).tolist() == [[0] * 3, [1] * 3]


def test_gradients_reach_the_level_that_was_looked_at_and_no_other():
    pyramid = tuple(torch.randn(1, 2, n, n, requires_grad=True) for n in (8, 4))
    pool_regions(pyramid, (4, 8), torch.tensor([[[0.0, 0, 16, 16]]]), torch.tensor([[1]])).sum().backward()
    assert (pyramid[0].grad == 0).all()
    assert (pyramid[1].grad[..., :2, :2] > 0).all()


@pytest.mark.parametrize("is_agnostic", [True, False])
def test_head(is_agnostic):
    spec = PyramidSpec((4,) * 5, (4, 8, 16, 32, 64))
    head = RegionHead(spec, num_classes=3, class_agnostic=is_agnostic, channels=8, resolution=2)
    assert head.strides == (4, 8, 16, 32)
    assert head.finest_scale == 56
    pyramid = tuple(torch.randn(2, 4, 64 // s, 64 // s) for s in spec.strides)
    said = head(pyramid, regions_of(torch.tensor([[[0.0, 0, 20, 20], [4, 4, 60, 60]]]).expand(2, 2, 4)))
    assert said.classes.shape == (2, 2, 4)
    assert said.deltas.shape == (2, 2, 1 if is_agnostic else 3, 4)
    assert said.levels.tolist() == [[0, 0], [0, 0]]
    assert [layer.in_features for layer in head.layers] == [16, 8]


@pytest.mark.parametrize("norm", ["batch_norm", "none"])
def test_convolutions_before_the_layers(norm):
    head = RegionHead(
        PyramidSpec((4,), (8,)), num_classes=2, channels=8, resolution=3, num_layers=1, num_convs=2, norm=norm
    ).eval()
    for name, value in (*head.named_parameters(), *head.named_buffers()):
        if value.is_floating_point():
            value.data.uniform_(0.5 if name.endswith("running_var") else -1, 1)
    x = cells = torch.randn(5, 4, 3, 3)
    for conv in ("convs.0", "convs.1"):
        state = head.state_dict()
        x = F.conv2d(x, state[f"{conv}.conv.weight"], state.get(f"{conv}.conv.bias"), padding=1)
        if norm != "none":
            mean, var, weight, bias = (
                state[f"{conv}.norm.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        x = x.relu()
    expected = head.classes(head.layers[0](x.flatten(1)).relu())
    torch.testing.assert_close(head.judge(cells)[0], expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="none or batch_norm, not True"):
        RegionHead(PyramidSpec((4,), (8,)), num_classes=2, num_convs=1, norm=True)


def test_only_coarse_levels_are_looked_at_where_there_are_no_others():
    head = RegionHead(PyramidSpec((4, 4), (64, 128)), num_classes=1, channels=8)
    assert head.strides == (64,)
    assert head.finest_scale == 14 * 64


def test_levels_of_different_channels_are_refused():
    with pytest.raises(ValueError, match=r"have \(4, 8\) channels; put a neck"):
        RegionHead(PyramidSpec((4, 8), (4, 8)), num_classes=1)


def test_deltas_of_a_class():
    deltas = torch.arange(24.0).view(1, 2, 3, 4)
    none = torch.zeros(1, 2)
    said = RegionPredictions(regions=regions_of(torch.zeros(1, 2, 4)), levels=none.long(), classes=none, deltas=deltas)
    assert said.deltas_of(torch.tensor([[2, 0]])).tolist() == [[[8, 9, 10, 11], [12, 13, 14, 15]]]
