"""An optimised detector is the same detector, of every kind: same outputs, nothing shared, fit for prediction alone."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.models.factory import create_model

KEEP_NORMS = {
    "efficientdet_d0",  # a norm for each level behind convolutions that levels share
    "retinanet_nas_fpn",
    "m2det",  # a norm of joined maps
    "cascade_rcnn_rfp",  # weights that are standardised at each pass
}
FOLD_ALL = ("yolov3", "yolov3_asff_small", "ssd300", "ssdlite320", "ga_retinanet", "ddod", "faster_rcnn")


def tell_norms_apart(detector: nn.Module) -> None:
    """Give every batch norm statistics and weights of its own, as training does."""
    generator = torch.Generator().manual_seed(1)
    for part in detector.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            for x, scale, shift in ((part.running_mean, 0.1, 0), (part.running_var, 0.2, 1), (part.weight, 0.1, 1)):
                x.data = shift + scale * torch.rand(x.shape, generator=generator)


def count_norms(detector: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in detector.modules())


@pytest.mark.parametrize("name", [*FOLD_ALL, *sorted(KEEP_NORMS), "timm"])
def test_outputs_agree_and_the_detector_stays_as_it_was(name, small_options):
    torch.manual_seed(0)
    small = {"backbone": "timm/mobilenetv3_small_100"} if name == "timm" else small_options(name)
    detector = create_model("yolov3_asff_small" if name == "timm" else name, num_classes=3, **small)
    tell_norms_apart(detector)
    detector.train()
    before = {key: value.clone() for key, value in detector.state_dict().items()}

    fast = detector.optimized()

    assert detector.training
    assert detector.state_dict().keys() == before.keys()
    assert all(value.equal(before[key]) for key, value in detector.state_dict().items())
    places = {value.data_ptr() for value in detector.state_dict().values()} - {0}
    assert places.isdisjoint(value.data_ptr() for value in fast.state_dict().values())

    assert (count_norms(fast) == 0) == (name not in KEEP_NORMS)

    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    detector.eval()
    with torch.no_grad():
        ours, theirs = fast.decode(images), detector.decode(images)
        pyramids = zip(fast.pyramid(images), detector.pyramid(images), strict=True)
    for x, y in ((ours.scores, theirs.scores), (ours.boxes, theirs.boxes), *pyramids):
        assert (x - y).abs().max() <= 1e-4 * y.abs().max().clamp(min=1)


def test_bf16_is_near_and_gives_float32():
    torch.manual_seed(0)
    detector = create_model("yolov3_small", num_classes=2, backbone={"width": 0.25}).eval()
    fast = detector.optimized(precision="bf16")
    assert {part.weight.dtype for part in fast.modules() if isinstance(part, nn.Conv2d)} == {torch.bfloat16}
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = fast.decode(images).scores, detector.decode(images).scores
    assert ours.dtype == torch.float32
    assert 0 < (ours - theirs).abs().max() < 0.02


def test_a_copy_of_it_predicts_the_same():
    fast = create_model("yolov3_small", num_classes=2, backbone={"width": 0.25}).optimized()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = fast.decode(images).scores
        assert torch.equal(deepcopy(fast).decode(images).scores, before)


def test_an_unknown_precision_is_refused():
    with pytest.raises(PyrafuseError, match=r"unknown precision 'fp8'; choose from bf16, fp32"):
        create_model("yolov3_small", num_classes=2, backbone={"width": 0.25}).optimized(precision="fp8")  # pyright: ignore[reportArgumentType]


def test_it_is_neither_trained_nor_saved(tmp_path):
    fast = create_model("yolov3_small", num_classes=2, backbone={"width": 0.25}).optimized()
    with pytest.raises(PyrafuseError, match=r"cannot be trained: train the one"):
        fast.train()
    with pytest.raises(PyrafuseError, match=r"cannot be saved: save the one"):
        fast.save(tmp_path / "fast.ckpt")
    assert not fast.eval().training
