"""The weights of the YOLOv3 criterion's terms."""

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
