"""How far boxes are from boxes: one number a pair from overlap, distance and shape.

Boxes are (..., 4) xyxy in pixels, losses (...,) and finite for every pair of finite boxes, empty ones included.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from pyrafuse.losses.registry import LOSSES, of_boxes
from pyrafuse.ops.boxes import centers_and_sizes, enclosing_boxes

EPS = 1e-7


def _overlap(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection (...,) and the sum of both areas less it, in square pixels."""
    sides = torch.minimum(boxes[..., 2:], targets[..., 2:]) - torch.maximum(boxes[..., :2], targets[..., :2])
    # no clamp: its slope at the bound, where boxes touch, changed between versions of torch; here they are drawn closer
    sides = torch.where(sides >= 0, sides, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    return shared, _area(boxes) + _area(targets) - shared


def _area(boxes: Tensor) -> Tensor:
    # signed: the gradient of a box that was predicted inside out must lead back
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


@LOSSES.register("iou")
@of_boxes
def iou_loss(boxes: Tensor, targets: Tensor, *, mode: Literal["log", "linear", "square"] = "log") -> Tensor:
    """-ln IoU (UnitBox, arXiv:1608.01471), 1 - IoU, or 1 - IoU^2.

    Raises:
        ValueError: If ``mode`` is another one.
    """
    shared, union = _overlap(boxes, targets)
    iou = (shared / union.clamp(min=1e-6)).clamp(min=1e-6)
    if mode == "log":
        return -iou.log()
    if mode == "linear":
        return 1 - iou
    if mode == "square":
        return 1 - iou**2
    raise ValueError(f"an IoU loss is log, linear or square, not {mode!r}")


def bounded_iou_loss(boxes: Tensor, targets: Tensor, *, beta: float = 0.2, eps: float = 1e-3) -> Tensor:
    """Upper bound of the IoU, apart for x, y, width and height: losses (..., 4).

    Tychsen-Smith and Petersson, "Improving Object Localization with Fitness NMS and Bounded IoU Loss",
    arXiv:1711.00164, section 3.2; smooth below ``beta``.
    """
    centers, sizes = centers_and_sizes(boxes)
    wanted, sides = centers_and_sizes(targets.detach())
    away = 2 * (wanted - centers).abs()
    shift = 1 - ((sides - away) / (sides + away + eps)).clamp(min=0)
    stretch = 1 - torch.minimum(sides / (sizes + eps), sizes / (sides + eps))
    loss = torch.cat((shift, stretch), dim=-1)
    return torch.where(loss < beta, 0.5 * loss**2 / beta, loss - 0.5 * beta)


@LOSSES.register("giou")
@of_boxes
def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - IoU + the share of the enclosing box that neither covers (Rezatofighi et al., arXiv:1902.09630)."""
    shared, union = _overlap(boxes, targets)
    union = union.clamp(min=EPS)
    around = _area(enclosing_boxes(boxes, targets)).clamp(min=EPS)
    return 1 - shared / union + (around - union) / around


def _iou_and_distance(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and the squared distance of the centres in squared diagonals of the enclosing box."""
    shared, union = _overlap(boxes, targets)
    span = enclosing_boxes(boxes, targets)
    sides = (span[..., 2:] - span[..., :2]).clamp(min=0)
    away = (targets[..., :2] + targets[..., 2:] - boxes[..., :2] - boxes[..., 2:]).square().sum(-1) / 4
    return shared / (union + EPS), away / (sides.square().sum(-1) + EPS)


@LOSSES.register("diou")
@of_boxes
def diou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - IoU + the squared distance of the centres in diagonals (Zheng et al., arXiv:1911.08287, equation 7)."""
    iou, distance = _iou_and_distance(boxes, targets)
    return 1 - iou + distance


@LOSSES.register("ciou")
@of_boxes
def ciou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """`diou_loss` + how unlike the aspect ratios are (Zheng et al., arXiv:1911.08287, equations 8 to 11).

    The trade-off is a constant to the gradient and acts above an IoU of one half. Where both boxes are the same it is
    0/0, which spread NaN in other implementations; here it is 0.
    """
    iou, distance = _iou_and_distance(boxes, targets)
    sides, wanted = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    angle = torch.atan(wanted[..., 0] / (wanted[..., 1] + EPS)) - torch.atan(sides[..., 0] / (sides[..., 1] + EPS))
    unlike = 4 / math.pi**2 * angle**2
    with torch.no_grad():
        trade = unlike / (1 - iou + unlike).clamp(min=torch.finfo(iou.dtype).tiny)
        trade = trade.where(iou > 0.5, 0)
    return 1 - (iou - distance - trade * unlike).clamp(-1, 1)


@LOSSES.register("eiou")
@of_boxes
def eiou_loss(boxes: Tensor, targets: Tensor, *, smooth: float = 0.1) -> Tensor:
    """1 - an IoU that also goes below zero where boxes are apart; quadratic below ``smooth``.

    Peng and Yu, "A Systematic IoU-Related Method: Beyond Simplified Regression for Better Localization",
    IEEE Transactions on Image Processing 30 (2021), arXiv:2112.01793.
    """
    low, high = torch.minimum(boxes[..., :2], targets[..., :2]), torch.minimum(boxes[..., 2:], targets[..., 2:])
    inner = torch.maximum(boxes[..., :2], targets[..., :2])
    near, far = torch.minimum(inner, high), torch.maximum(inner, high)
    shared = (
        (high - low).prod(-1)
        + (near - low).prod(-1)
        - (inner[..., 0] - low[..., 0]) * (far[..., 1] - low[..., 1])
        - (far[..., 0] - low[..., 0]) * (inner[..., 1] - low[..., 1])
    )
    union = _area(boxes) + _area(targets) - shared + EPS
    loss = 1 - shared / union
    return torch.where(loss < smooth, 0.5 * loss**2 / smooth, loss - 0.5 * smooth)


@LOSSES.register("siou")
@of_boxes
def siou_loss(boxes: Tensor, targets: Tensor, *, negative_gamma: bool = True) -> Tensor:
    """1 - IoU + half of the costs of distance (by the angle of the way) and shape (Gevorgyan, arXiv:2205.12740).

    Args:
        boxes: Predicted boxes.
        targets: Target boxes.
        negative_gamma: The paper's sign in the exponent of the distance's cost; mmdetection's default is the other
            one, with which distance is rewarded.
    """
    shared, union = _overlap(boxes, targets)
    iou = shared / (union + EPS)
    span = enclosing_boxes(boxes, targets)
    span_sides = (span[..., 2:] - span[..., :2]).clamp(min=0) + EPS
    way = (targets[..., :2] + targets[..., 2:] - boxes[..., :2] - boxes[..., 2:]) / 2 + EPS
    length = way.square().sum(-1).sqrt()
    sine = way.abs() / length[..., None]
    sine = torch.where(sine[..., 1] <= math.sin(math.pi / 4), sine[..., 1], sine[..., 0])
    # cos(2 asin(s) - pi/2) = 2 s sqrt(1 - s^2), without the infinite slope of asin at 1
    angle = 2 * sine * (1 - sine**2).clamp(min=0).sqrt()
    gamma = angle - 2 if negative_gamma else 2 - angle
    distance = (1 - (gamma[..., None] * (way / span_sides) ** 2).exp()).sum(-1)
    sizes, sides = boxes[..., 2:] - boxes[..., :2] + EPS, targets[..., 2:] - targets[..., :2] + EPS
    unlike = (sizes - sides).abs() / torch.maximum(sizes, sides)
    shape = (1 - (-unlike).exp()).pow(4).sum(-1)
    return 1 - (iou - 0.5 * (distance + shape)).clamp(-1, 1)
