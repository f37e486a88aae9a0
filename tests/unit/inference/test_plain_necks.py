"""Every graph and its plain form: the same numbers, and no more memory for being a graph."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.inference.measuring import measure_peak_memory_mb
from pyrafuse.inference.plain_necks import PLAIN_FORMS
from pyrafuse.necks.registry import NECKS

SPECS = {
    "one": PyramidSpec((6,), (8,)),
    "three": PyramidSpec((4, 6, 8), (8, 16, 32)),
    "three alike": PyramidSpec((6, 6, 6), (4, 8, 16)),
    "five": PyramidSpec((4, 6, 8, 6, 4), (8, 16, 32, 64, 128)),
}
OPTIONS = ({}, {"bifpn": {"repeats": 1}, "nas_fpn": {"stack": 1}})


def create_both(name, spec, **options):
    torch.manual_seed(0)
    create, create_plain = PLAIN_FORMS[name]
    graph = create(spec, **({} if name == "asff" else {"out_channels": 6, **options}))
    with torch.no_grad():
        for key, value in graph.state_dict().items():
            if value.is_floating_point() and value.ndim == 1:  # biases, norms, weights of inputs: not as they start
                value.copy_(torch.rand_like(value) + (0.5 if key.endswith("running_var") else -0.3))
    return graph.eval(), create_plain(graph).eval()


def pyramid_of(spec, height, width):
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(2, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(spec.channels, spec.strides, strict=True)
    )


@pytest.mark.parametrize("options", OPTIONS, ids=["repeated", "once"])
@pytest.mark.parametrize("size", [(96, 160), (97, 31), (5, 70)], ids=str)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("name", PLAIN_FORMS)
@torch.no_grad()
def test_numbers(name, spec, size, options):
    graph, plain = create_both(name, spec, **options.get(name, {}))
    pyramid = pyramid_of(spec, *size)
    for a, b in zip(graph(pyramid), plain(pyramid), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert graph.features == plain.features


@pytest.mark.parametrize("name", PLAIN_FORMS)
def test_memory(name):
    """Tensors alive at a time are counted, so the figures are the same on every machine."""
    spec = SPECS["three"]
    graph, plain = create_both(name, spec)
    pyramid = pyramid_of(spec, 416, 416)
    assert measure_peak_memory_mb(graph, pyramid) <= 1.1 * measure_peak_memory_mb(plain, pyramid)


def test_the_plain_forms_are_of_graphs():
    spec = SPECS["three"]
    graphs = {name for name in NECKS.names() if hasattr(NECKS.create(name, spec), "graph")}
    assert {"fpn", "pafpn", "nas_fpn", "bifpn", "asff"} <= set(PLAIN_FORMS) <= graphs | {"asff"}
