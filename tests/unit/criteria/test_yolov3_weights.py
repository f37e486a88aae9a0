"""The weights of the YOLOv3 criterion's terms, and what its classes learn."""

from dataclasses import replace

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.yolov3 import YOLOv3Criterion
from pyrafuse.heads.yolov3 import YOLOv3Head


def test_each_weight_acts_on_its_own_term():
    torch.manual_seed(0)
    head = YOLOv3Head(PyramidSpec((4, 4, 4), (8, 16, 32)), num_classes=2, adaption=False)
    predictions = head(tuple(torch.randn(1, 4, side, side) for side in (8, 4, 2)))
    targets = Targets.pad([torch.tensor([[4.0, 4.0, 30.0, 28.0]])], [torch.tensor([1])])
    plain = YOLOv3Criterion()(predictions, targets)
    weighed = YOLOv3Criterion(class_weight=2.0, objectness_weight=3.0, box_weight=5.0)(predictions, targets)
    factors = {"anchor": 1.0, "iou": 5.0, "l1": 1.0, "classification": 2.0, "objectness": 3.0}
    assert set(plain) == set(factors)
    for name, factor in factors.items():
        assert plain[name] > 0
        torch.testing.assert_close(weighed[name], factor * plain[name])


@pytest.mark.parametrize(("num_classes", "wanted"), [(1, (1.0,)), (2, (1 / 3, 2 / 3)), (4, (0.25, 0.75, 0.25, 0.25))])
def test_smoothed_classes_are_learnt(num_classes, wanted):
    """The loss is least where the scores of a matched row are the targets."""
    torch.manual_seed(0)
    head = YOLOv3Head(PyramidSpec((4,), (8,)), num_classes=num_classes, adaption=False)
    predictions = head((torch.randn(1, 4, 8, 8),))
    label = min(1, num_classes - 1)
    targets = Targets.pad([torch.tensor([[4.0, 4.0, 30.0, 28.0]])], [torch.tensor([label])])
    criterion = YOLOv3Criterion(label_smoothing=True)

    def loss_of(scores):
        logits = torch.tensor(scores).logit(eps=1e-6).expand_as(predictions.classes).clone().requires_grad_()
        loss = criterion(replace(predictions, classes=logits), targets)["classification"]
        return loss, torch.autograd.grad(loss, logits)[0]

    least, gradient = loss_of(wanted)
    assert gradient.abs().max() < 1e-5
    assert least < loss_of([0.5] * num_classes)[0]
    assert max(wanted) == wanted[label]
