"""What is watched in a step equals what is computed by hand, and watching changes nothing."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.asff import ASFF
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.registry import NeckChain
from pyrafuse.training.watching import NeckWatch

SPEC = PyramidSpec(channels=(4, 6), strides=(8, 16))


@pytest.fixture
def neck():
    torch.manual_seed(0)
    return ASFF(SPEC).eval()


@pytest.fixture
def pyramid():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, c, s, s, generator=generator) for c, s in zip(SPEC.channels, (6, 3), strict=True))


def weights_of(level, pyramid):
    """What goes into the fusion of an ASFF's level."""
    kept = []
    handle = level.weights.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    level(pyramid)
    handle.remove()
    return kept[0]


def loss_of(levels):
    return levels[0].pow(2).sum() + 3 * levels[1].sum()


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_norms_of_gradients_and_means_of_weights(neck, pyramid, scale):
    watch = NeckWatch()
    with watch.watching(neck):
        levels = neck(pyramid)
    loss = loss_of(levels)
    watch.follow(loss)
    (loss * scale).backward()
    fine, coarse = (x.detach() for x in levels)
    assert list(watch.gradients) == ["level/stride_8/gradient", "level/stride_16/gradient"]
    torch.testing.assert_close(watch.gradients["level/stride_8/gradient"], (2 * fine).norm())
    torch.testing.assert_close(watch.gradients["level/stride_16/gradient"], torch.tensor(3.0 * coarse.numel() ** 0.5))
    for level, output in zip(neck.levels, ("stride_8", "stride_16"), strict=True):
        weights = weights_of(level, pyramid)
        for source, name in enumerate(("stride_8", "stride_16")):
            torch.testing.assert_close(
                watch.weights[f"fusion/{output}/from_{name}"], weights[:, source].mean().detach()
            )
    assert len(watch.weights) == 4


def test_scalars_of_merges_are_watched(pyramid):
    neck = bifpn(SPEC, out_channels=4, num_levels=2, repeats=2).eval()
    neck.merges["P3_2"].fusion.edge_weights.data = torch.tensor([1.0, 3.0])
    watch = NeckWatch()
    with watch.watching(neck):
        neck(pyramid)
    assert watch.weights["fusion/P3_2/from_P3_1"] == pytest.approx(1 / 4.0001)
    assert watch.weights["fusion/P3_2/from_P4_1"] == pytest.approx(3 / 4.0001)
    assert len(watch.weights) == 8


def test_two_fusions_of_one_name_are_told_apart(pyramid):
    neck = NeckChain([ASFF(SPEC).eval(), ASFF(SPEC).eval()])
    watch = NeckWatch()
    with watch.watching(neck):
        neck(pyramid)
    assert {key.split("/")[1] for key in watch.weights} == {"stride_8", "stride_16", "stride_8_2", "stride_16_2"}


def test_processes_put_the_gradients_of_their_images_together(neck, pyramid, monkeypatch):
    """As if a second process had the same images: the mean loss pulls at each half as strongly as before, halved."""
    watch = NeckWatch()
    with watch.watching(neck):
        levels = neck(pyramid)
    loss_of(levels).backward()
    alone = watch.gradients
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.mul_(2))
    for name, value in watch.gradients.items():
        torch.testing.assert_close(value, alone[name] / 2**0.5)


def test_a_level_that_no_loss_reads(neck, pyramid):
    watch = NeckWatch()
    with watch.watching(neck):
        levels = neck(pyramid)
    levels[1].sum().backward()
    assert watch.gradients["level/stride_8/gradient"] == 0
    assert watch.gradients["level/stride_16/gradient"] > 0


def test_nothing_is_left_behind(neck, pyramid):
    watch = NeckWatch()
    expected = neck(pyramid)
    with watch.watching(neck):
        watched = neck(pyramid)
    for x, y in zip(watched, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    seen = dict(watch.weights)
    neck(tuple(2 * x for x in pyramid))
    assert watch.weights == seen
    assert not any(module._forward_hooks for module in neck.modules())


def test_a_step_forgets_the_one_before(neck, pyramid):
    watch = NeckWatch()
    with watch.watching(neck):
        levels = neck(pyramid)
    loss_of(levels).backward()
    assert watch.gradients
    with torch.no_grad(), watch.watching(neck):
        neck(pyramid)
    assert not watch.gradients
