"""Blocks and small necks, against what mmdetection, mmcv and torchvision computed."""

import pytest

from pyrafuse.layers.deformable import DeformableConv2d

RTOL = 3e-6


@pytest.mark.parametrize("form", ["s1", "s2", "d2", "g2", "dg2"])
@pytest.mark.parametrize("version", ["DCN", "DCNv2"])
def test_deformable_convolution(vectors, version, form):
    golden, case = vectors.npz("mmdet/ops.npz"), vectors.json("mmdet/ops.json")[f"{version}_{form}"]
    shapes = dict(case["manifest"])
    arguments = dict(case["args"])
    arguments["deformable_groups"] = arguments.pop("deform_groups", 1)
    block = DeformableConv2d(8, 12, bias="bias" in shapes, modulated=version == "DCNv2", **arguments)
    state = vectors.state(case["manifest"])
    block.load_state_dict({key.replace("conv_offset", "offset"): value for key, value in state.items()})
    x = vectors.image(case["input"]).requires_grad_()

    name = f"{version}_{form}"
    assert vectors.error(golden, f"{name}.offset", block.offset(x)) < RTOL
    out = block(x)
    assert vectors.error(golden, f"{name}.out", out) < RTOL
    out.sum().backward()
    assert block.offset.weight.grad is not None
    gradients = {"grad_x": x.grad, "grad_w": block.weight.grad, "grad_off_w": block.offset.weight.grad}
    for what, gradient in gradients.items():
        assert vectors.error(golden, f"{name}.{what}", gradient) < 1e-5
