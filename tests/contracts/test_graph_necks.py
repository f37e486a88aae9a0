"""What the graph necks promise beyond the others: any pyramid whatever, further levels, export."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.registry import NECKS

VARIANTS = {
    "fpn": ("fpn", {"num_levels": 6}),
    "fpn, convolved": ("fpn", {"num_levels": 6, "extra": "input", "norm": "batch_norm"}),
    "fapn": ("fapn", {"num_levels": 6, "extra": "output"}),
    "pafpn": ("pafpn", {"num_levels": 6, "extra": "output", "relu_before_extra": True}),
    "nas_fpn": ("nas_fpn", {"stack": 1}),
    "bifpn": ("bifpn", {"repeats": 1, "num_levels": 6}),
    "bifpn, as TensorFlow": ("bifpn", {"repeats": 1, "same_padding": True, "redundant_bias": True}),
    "pan": ("bifpn", {"repeats": 1, "form": "pan", "fusion": "sum"}),
    "qufpn": ("bifpn", {"repeats": 1, "form": "qufpn", "fusion": "softmax"}),
}
THREE = PyramidSpec((4, 6, 8), (8, 16, 32))


@pytest.fixture(params=VARIANTS, scope="module")
def variant(request):
    return VARIANTS[request.param]


def create(variant, spec):
    torch.manual_seed(0)
    name, options = variant
    return NECKS.create(name, spec, out_channels=6, **options)


def pyramid_of(spec, height, width):
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(2, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(spec.channels, spec.strides, strict=True)
    )


specs = st.integers(1, 5).flatmap(
    lambda count: st.builds(
        lambda channels, first: PyramidSpec(tuple(channels), tuple(first * 2**i for i in range(count))),
        st.lists(st.integers(1, 9), min_size=count, max_size=count),
        st.sampled_from((2, 4, 8)),
    )
)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(spec=specs, height=st.integers(1, 90), width=st.integers(1, 90))
@torch.no_grad()
def test_any_pyramid(variant, spec, height, width):
    neck = create(variant, spec).eval()
    pyramid = pyramid_of(spec, height, width)
    out = neck(pyramid)
    assert len(out) == len(neck.features) >= len(spec)
    for before, after, stride in zip(pyramid, out, neck.features.strides, strict=False):
        assert after.shape == (2, 6, *before.shape[2:])
        assert stride in spec.strides
    for finer, coarser in zip(out[len(spec) - 1 :], out[len(spec) :], strict=False):
        for a, b in zip(finer.shape[2:], coarser.shape[2:], strict=True):
            assert b in (max(a // 2, 1), -(-a // 2))
    assert neck.features.strides == tuple(spec.strides[0] * 2**i for i in range(len(out)))
    assert all(x.isfinite().all() for x in out)


@pytest.mark.parametrize("size", [(97, 131), (64, 96)])
def test_gradients_of_all_variants(variant, size):
    neck = create(variant, THREE)
    pyramid = tuple(x.requires_grad_() for x in pyramid_of(THREE, *size))
    sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in neck(pyramid)).backward()
    for name, tensor in (*neck.named_parameters(), *((f"C{i}", x) for i, x in enumerate(pyramid))):
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_throughout(variant, dtype):
    neck = create(variant, THREE).eval()
    pyramid = pyramid_of(THREE, 64, 96)
    exact = neck(pyramid)
    rough = neck.to(dtype)(tuple(x.to(dtype) for x in pyramid))
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == dtype
        assert (a - b.float()).norm() < 0.05 * a.norm()


@torch.no_grad()
def test_export(variant):
    neck = create(variant, THREE).eval()
    pyramid = pyramid_of(THREE, 97, 131)
    exported = torch.export.export(neck, (pyramid,)).module()(pyramid)
    for a, b in zip(neck(pyramid), exported, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
