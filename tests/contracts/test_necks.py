"""What every neck promises, alone and in chains: the spec, gradients everywhere, any size, any channels."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.base.parts import Part
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.layers.fusion_weights import find_fusions
from pyrafuse.necks.asff_graph import asff_graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.registry import NECKS, create_neck

CHAINS = (*((name,) for name in NECKS.names()), ("yolo_fpn", "asff"), ("asff", "asff"))
INPUTS = {
    "three even": PyramidSpec((8, 12, 16), (8, 16, 32)),
    "two": PyramidSpec((5, 7), (4, 16)),
    "four": PyramidSpec((6, 6, 10, 4), (4, 8, 16, 32)),
    "five": PyramidSpec((3, 4, 5, 6, 7), (8, 16, 32, 64, 128)),
}
OPTIONS = {
    "afpn": {"out_channels": 8, "reduction": 1, "depth": 1},
    "ccfm": {"out_channels": 8, "depth": 1},
    "gather_distribute": {"out_channels": 8, "depth": 1, "num_attentions": 1},
    "rep_gfpn": {"out_channels": 8, "depth": 1},
    "dilated_encoder": {"out_channels": 16},
    "mlfpn": {"num_levels": 2, "channels": 32, "shallow_channels": 4, "deep_channels": 4},
    "ssd_extra": {"out_channels": (32, 24, 32, 16)},
    "yolo_fpn": {"width": 1 / 16},
    "dyhead": {"num_blocks": 1},
    "fapn": {"out_channels": 8},
    "fpn": {"out_channels": 8},
    "fpn_carafe": {"out_channels": 8},
    "pafpn": {"out_channels": 8},
    "nas_fpn": {"out_channels": 8, "stack": 1},
    "bifpn": {"out_channels": 8, "repeats": 1},
}


@pytest.fixture(params=CHAINS, ids="+".join)
def chain(request):
    return request.param


@pytest.fixture(params=INPUTS.values(), ids=INPUTS)
def inputs(request):
    return request.param


def create(chain, inputs):
    torch.manual_seed(0)
    return create_neck([Part(name, OPTIONS.get(name, {})) for name in chain], inputs)


@pytest.fixture
def neck(chain, inputs):
    return create(chain, inputs)


def pyramid_of(spec: PyramidSpec, height: int, width: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(batch, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(spec.channels, spec.strides, strict=True)
    )


@pytest.mark.parametrize("size", [(128, 128), (97, 131), (40, 8)])
@torch.no_grad()
def test_shapes_equal_the_spec(neck, inputs, size):
    pyramid = pyramid_of(inputs, *size)
    out = neck.eval()(pyramid)
    sizes = {stride: x.shape[2:] for x, stride in zip(pyramid, inputs.strides, strict=True)}
    for x, channels, stride in zip(out, neck.features.channels, neck.features.strides, strict=True):
        assert x.shape[:2] == (2, channels)
        assert x.shape[2:] == sizes.get(stride, x.shape[2:])  # levels past the inputs' are the neck's own
        assert x.isfinite().all()


def test_gradients(neck, inputs):
    pyramid = tuple(x.requires_grad_() for x in pyramid_of(inputs, 97, 131))
    out = neck.train()(pyramid)
    sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in out).backward()
    for x in pyramid:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() > 0
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_same_answer_twice_and_for_each_image_alone(neck, inputs):
    pyramid = pyramid_of(inputs, 64, 96)
    neck.eval()
    first, second = neck(pyramid), neck(pyramid)
    alone = neck(tuple(x[1:] for x in pyramid))
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        assert (a[1:] - c).abs().max() < 1e-5 * a.abs().max()


@torch.no_grad()
def test_inputs_are_left_alone(neck, inputs):
    pyramid = pyramid_of(inputs, 64, 64)
    before = [x.clone() for x in pyramid]
    neck.train()(pyramid)
    assert all(torch.equal(x, y) for x, y in zip(pyramid, before, strict=True))


@torch.no_grad()
def test_half_precision(neck, inputs):
    pyramid = pyramid_of(inputs, 64, 64)
    exact = neck.eval()(pyramid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = neck(pyramid)
    for a, b in zip(exact, rough, strict=True):
        assert (a - b.float()).norm() < 0.05 * a.norm()


@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eval", "train"])
@torch.no_grad()
def test_compiles_whole(chain, training):
    inputs = INPUTS["three even"]
    neck = create(chain, inputs).train(training)
    pyramid = pyramid_of(inputs, 97, 131)
    torch._dynamo.reset()
    compiled = torch.compile(neck, fullgraph=True, backend="eager")
    for a, b in zip(neck(pyramid), compiled(pyramid), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # a kernel may be another


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bifpn", "asff"])
@torch.no_grad()
def test_compiles_to_kernels(name):
    inputs = INPUTS["three even"]
    neck = create((name,), inputs).eval()
    pyramid = pyramid_of(inputs, 97, 131)
    torch._dynamo.reset()
    compiled = torch.compile(neck, fullgraph=True)
    for a, b in zip(neck(pyramid), compiled(pyramid), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * a.abs().max().item())


@torch.no_grad()
def test_export(chain):
    inputs = INPUTS["three even"]
    neck = create(chain, inputs).eval()
    pyramid = pyramid_of(inputs, 97, 131)
    exported = torch.export.export(neck, (pyramid,)).module()(pyramid)
    for a, b in zip(neck(pyramid), exported, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def specs():
    """One to five levels of any strides and channels."""
    strides = st.lists(st.sampled_from((2, 4, 8, 16, 32, 64, 128)), min_size=1, max_size=5, unique=True).map(sorted)
    return strides.flatmap(
        lambda strides: st.lists(st.integers(1, 9), min_size=len(strides), max_size=len(strides)).map(
            lambda channels: PyramidSpec(tuple(channels), tuple(strides))
        )
    )


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=specs(), height=st.integers(1, 140), width=st.integers(1, 140))
@torch.no_grad()
def test_any_pyramid(chain, spec, height, width):
    neck = create(chain, spec).eval()
    pyramid = pyramid_of(spec, height, width)
    out = neck(pyramid)
    sizes = {stride: x.shape[2:] for x, stride in zip(pyramid, spec.strides, strict=True)}
    if chain == ("mlfpn",):
        sizes.pop(neck.features.strides[-1], None)  # M2Det's smallest map is two cells less than the one before
    for x, channels, stride in zip(out, neck.features.channels, neck.features.strides, strict=True):
        assert x.shape == (2, channels, *sizes.get(stride, x.shape[2:]))
        assert x.isfinite().all()


WEIGHED = {
    "asff": ("asff", {}),
    "asff as a graph": (None, {}),
    "bifpn": ("bifpn", {"out_channels": 8, "repeats": 2}),
    "bifpn, softmax": ("bifpn", {"out_channels": 8, "repeats": 1, "fusion": "softmax"}),
    "qufpn": ("bifpn", {"out_channels": 8, "repeats": 1, "form": "qufpn"}),
}


class TestFusionWeights:
    @pytest.mark.parametrize("kind", WEIGHED)
    @torch.no_grad()
    def test_are_normalised_and_recompute_what_is_fused(self, kind):
        inputs = INPUTS["four"]
        name, options = WEIGHED[kind]
        neck = GraphNeck(inputs, asff_graph(inputs)) if name is None else create_neck(name, inputs, **options)
        for parameter in (p for n, p in neck.named_parameters() if n.endswith("edge_weights")):
            parameter.copy_(torch.rand_like(parameter) + 0.1)
        seen = []
        for fusion in find_fusions(neck).values():
            fusion.register_forward_hook(lambda module, given, fused: seen.append((module, *given, fused)))
        neck.eval()(pyramid_of(inputs, 97, 131))
        assert len(seen) == len(find_fusions(neck)) > 0
        for module, weights, maps, fused in seen:
            dim = 0 if weights.ndim == 1 else 1
            assert weights.shape[dim] == len(maps) == len(module.sources)
            total = weights.sum(dim)
            torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-3, atol=1e-3)  # 0.0001 in BiFPN's divisor
            weighed = [x * (weights[i] if dim == 0 else weights[:, i, None]) for i, x in enumerate(maps)]
            torch.testing.assert_close(fused, torch.stack(weighed).sum(dim=0))
            assert abs(fused.shape[-2] - 97 / module.stride) <= 1
            assert abs(fused.shape[-1] - 131 / module.stride) <= 1

    @torch.no_grad()
    def test_equal_levels_fuse_to_themselves(self):
        inputs = PyramidSpec((4, 4), (8, 16))
        level = create_neck("asff", inputs).levels[0]
        x = torch.randn(1, 4, 3, 5).repeat_interleave(2, 2).repeat_interleave(2, 3)
        seen = []
        level.weights.register_forward_hook(lambda _module, _given, fused: seen.append(fused))
        level((x, x[..., ::2, ::2]))
        torch.testing.assert_close(seen[0], x)


class TestComplaints:
    def test_name(self):
        with pytest.raises(UnknownNameError, match="unknown neck 'asf'; did you mean 'asff'"):
            create_neck("asf", INPUTS["two"])

    def test_options_for_another_neck(self):
        with pytest.raises(PyrafuseError, match="the neck yolo_fpn takes no option 'asff'; choose from"):
            create_neck("yolo_fpn", INPUTS["two"], asff={})

    def test_no_neck(self):
        with pytest.raises(PyrafuseError, match="a neck is needed; choose from afpn, asff"):
            create_neck([], INPUTS["two"])

    def test_numbers_of_levels(self):
        with pytest.raises(ValueError, match=r"2 levels come in, and out_channels are \(1, 2, 3\)"):
            create_neck("asff", INPUTS["two"], out_channels=(1, 2, 3))
        with pytest.raises(ValueError, match="2 levels come in; channels"):
            create_neck("yolo_fpn", INPUTS["two"], widen=(True,))

    @pytest.mark.parametrize(
        ("channels", "strides"), [((), ()), ((1, 2), (8,)), ((1, 0), (8, 16)), ((1, 2), (16, 8)), ((1, 2), (8, 8))]
    )
    def test_impossible_pyramids(self, channels, strides):
        with pytest.raises(ValueError, match="stride"):
            PyramidSpec(channels, strides)
