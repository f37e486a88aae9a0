"""Darknet-53 takes its weights from everybody's files: the values, in the order in which the layers run."""

import pytest
import timm
import torch

from pyrafuse.backbones.darknet import Darknet53
from pyrafuse.base.errors import CheckpointError


@pytest.fixture(params=["official", "mmdetection", "mmdetection's classifier", "timm"])
def theirs(request, vectors):
    """Keys and values as they are published."""
    if request.param == "timm":
        return timm.create_model("darknet53").state_dict()
    file = "asff/manifest_asff_rfb.json" if request.param == "official" else "mmdet/yolov3_d53.manifest.json"
    shapes = vectors.json(file)
    if "classifier" in request.param:
        shapes = [(key.removeprefix("backbone."), shape) for key, shape in shapes if key.startswith("backbone.")]
        shapes.append(("fc.weight", [10, 1024]))
    number = iter(range(1, 1 << 30))
    return {key: torch.full(shape, float(next(number))) for key, shape in shapes}


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 16)])
def test_weights_of_others(theirs, strides, tmp_path):
    torch.save(theirs, tmp_path / "darknet53.pth")
    ours = Darknet53(strides=strides, weights=tmp_path / "darknet53.pth").state_dict()
    got = [value for key, value in ours.items() if not key.endswith("num_batches_tracked")]
    expected = [value for key, value in theirs.items() if not key.endswith("num_batches_tracked")]
    assert len(got) == (260 if 32 in strides else 215)
    assert all(torch.equal(mine, other) for mine, other in zip(got, expected[: len(got)], strict=True))


def test_our_own_file_serves_fewer_stages(tmp_path):
    whole = Darknet53(width=0.25)
    torch.save(whole.state_dict(), tmp_path / "own.pth")
    part = Darknet53(width=0.25, strides=(8,), weights=tmp_path / "own.pth").state_dict()
    assert len(part) < len(whole.state_dict())
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in part.items())


def test_what_is_missing_is_named_as_the_file_names_it(vectors, tmp_path):
    state = {key: torch.zeros(shape) for key, shape in vectors.json("asff/manifest_baseline.json")}
    del state["module_list.10.module_list.3.1.batch_norm.bias"]
    state["module_list.10.module_list.4.0.conv.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        Darknet53(weights=tmp_path / "a.pth")
    assert str(caught.value).endswith(
        "missing: module_list.10.module_list.3.1.batch_norm.bias; extra: module_list.10.module_list.4.0.conv.weight"
    )
