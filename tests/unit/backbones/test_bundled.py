"""The weights that come with the package: whole, said where they are from, and those of the original."""

import pytest
import torch
from safetensors.torch import load_file

from pyrafuse.backbones.published import BUNDLED, name_published
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.backbones.weights import read_published
from pyrafuse.base.errors import UnknownNameError
from pyrafuse.models.classifier import create_classifier


@pytest.mark.parametrize("name", BUNDLED)
def test_a_text_beside_the_file_names_origin_and_licence(name):
    text = BUNDLED[name].with_suffix(".txt").read_text()
    assert "Origin: " in text
    assert "Apache License 2.0" in text
    assert name_published(name) == f"pyrafuse/{name}"


@pytest.mark.parametrize("name", BUNDLED)
def test_they_fill_the_backbone_and_the_classifier(name):
    state = load_file(BUNDLED[name])
    assert BUNDLED[name].stat().st_size < 8e6
    assert {value.dtype for value in state.values() if value.ndim > 1} == {torch.float16}
    classifier = create_classifier(name, weights=f"pyrafuse/{name}")
    backbone = create_backbone(name, weights=f"pyrafuse/{name}", strides=(32,)).eval()
    assert all(value.isfinite().all() for value in classifier.state_dict().values())
    with torch.no_grad():
        (features,) = backbone(torch.full((1, 3, 64, 64), 0.5))
    assert features.std() > 0.05


def test_they_are_those_of_the_original(shared_dir):
    file = shared_dir / "data" / "weights" / "mobilenet_v2_imagenet.pth"
    if not file.is_file():
        pytest.skip("no ImageNet weights beside the repository")
    ours, theirs = read_published("pyrafuse/mobilenet_v2"), read_published(file)
    assert theirs.keys() - ours.keys() == {key for key in theirs if key.endswith("num_batches_tracked")}
    for key, value in ours.items():
        torch.testing.assert_close(value.float(), theirs[key], rtol=2**-11, atol=2**-25)


def test_a_name_that_does_not_come_with_the_package():
    with pytest.raises(UnknownNameError, match="unknown pyrafuse model 'resnet18'; choose from mobilenet_v2"):
        read_published("pyrafuse/resnet18")
