"""How a pretrained backbone saw its images: torchvision's, Caffe's and timm's weights differ."""

import pytest
import torch

from pyrafuse.backbones.inputs import find_input
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ONE = (1 / 255, 1 / 255, 1 / 255)


@pytest.mark.parametrize(
    ("weights", "colours", "bgr", "interpolation"),
    [
        ("pyrafuse/mobilenet_v2", IMAGENET, False, "antialias"),
        ("torchvision/resnet50", IMAGENET, False, "antialias"),
        ("torchvision/vgg16", IMAGENET, False, "antialias"),
        ("downloads/mobilenet_v2-7ebf99e0.pth", IMAGENET, False, "antialias"),
        ("vgg16_features-amdegroot-88682ab5.pth", ((0.48235, 0.45882, 0.40784), ONE), False, "antialias"),
        ("timm/resnet50", IMAGENET, False, "bicubic"),
        ("timm/resnet50.tv_in1k", IMAGENET, False, "antialias"),
        ("timm/tf_efficientnet_b0.ap_in1k", HALF, False, "bicubic"),
        ("timm/mixer_b16_224", HALF, False, "bicubic"),
        ("resnet50_msra-5891d200.pth", ((123.675 / 255, 116.28 / 255, 103.53 / 255), ONE), True, "opencv"),
        ("resnet101_caffe-3ad79236.pth", ((122.7717 / 255, 115.9465 / 255, 102.9801 / 255), ONE), True, "opencv"),
        ("vgg16_caffe-292e1171.pth", ((123.675 / 255, 116.28 / 255, 103.53 / 255), ONE), False, "opencv"),
        ("vgg16_reducedfc.pth", ((123 / 255, 117 / 255, 104 / 255), ONE), False, "opencv"),
        ("darknet53-a628ea1b.pth", ((0, 0, 0), (1, 1, 1)), False, "opencv"),
    ],
)
def test_published_weights(weights, colours, bgr, interpolation):
    mean, std = colours
    assert find_input(weights) == Preprocessing(mean=mean, std=std, bgr=bgr, interpolation=interpolation)


def test_a_file_is_known_by_the_backbone_that_it_fills(tmp_path):
    file = tmp_path / "mine.pth"
    file.touch()
    assert find_input(file) is None
    assert find_input(file, backbone="resnet50") is None
    assert find_input(file, backbone="timm/tf_efficientnet_b0.ap_in1k") == find_input("timm/tf_efficientnet_b0.ap_in1k")
    assert find_input(file, style="caffe") == find_input("resnet50_msra-5891d200.pth")
    assert find_input("torchvision/resnet50", style="caffe") == Preprocessing()


@pytest.mark.parametrize("name", ["timm/nothing", "torchvision/nothing", "resnet50_caffeine.pth"])
def test_unknown_weights_are_left_to_whoever_reads_them(name):
    assert find_input(name) is None


def test_a_file_in_a_folder_called_like_a_library_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "resnet50").touch()
    assert find_input("timm/resnet50") is None


def test_caffes_numbers_act_in_its_own_order():
    """(blue, green, red) - (103.53, 116.28, 123.675), in 0..255."""
    image = torch.tensor([[[[200.0]], [[100.0]], [[50.0]]]])
    given = find_input("resnet50_msra-5891d200.pth")
    assert given is not None
    expected = torch.tensor([50 - 103.53, 100 - 116.28, 200 - 123.675])
    torch.testing.assert_close(normalize(given, image).flatten(), expected, atol=1e-3, rtol=0)
