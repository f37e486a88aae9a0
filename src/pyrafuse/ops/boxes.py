"""Overlap of boxes; all xyxy in pixels unless a name says otherwise."""

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Area (...,) of boxes (..., 4); inverted boxes have none."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def paired_iou(boxes: Tensor, others: Tensor, *, eps: float = 1e-16) -> Tensor:
    """IoU (...,) of each box (..., 4) with the other (..., 4) in the same place; ``eps`` keeps 0/0 finite."""
    sides = (torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])).clamp(
        min=0
    )
    intersection = sides[..., 0] * sides[..., 1]
    return intersection / (box_area(boxes) + box_area(others) - intersection + eps)


def pairwise_intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """Shared area (..., N, M) in square pixels of boxes (..., N, 4) and others (..., M, 4)."""
    # one side at a time: a (..., N, M, 2) intermediate would double the traffic of the hottest loop of assignment
    width = torch.minimum(boxes[..., :, None, 2], others[..., None, :, 2])
    width = width.sub_(torch.maximum(boxes[..., :, None, 0], others[..., None, :, 0])).clamp_(min=0)
    height = torch.minimum(boxes[..., :, None, 3], others[..., None, :, 3])
    height = height.sub_(torch.maximum(boxes[..., :, None, 1], others[..., None, :, 1])).clamp_(min=0)
    return width.mul_(height)


def pairwise_iou(boxes: Tensor, others: Tensor, *, eps: float = 1e-16) -> Tensor:
    """IoU (..., N, M) of boxes (..., N, 4) and others (..., M, 4)."""
    intersection = pairwise_intersection(boxes, others)
    union = box_area(boxes)[..., :, None] + box_area(others)[..., None, :] - intersection
    return intersection.div_(union.add_(eps))


def shape_iou(sizes: Tensor, others: Tensor, *, eps: float = 1e-16) -> Tensor:
    """IoU (...,) of two shapes (..., 2), width and height, laid over the same centre; broadcasts."""
    shared = torch.minimum(sizes, others)
    intersection = shared[..., 0] * shared[..., 1]
    union = sizes[..., 0] * sizes[..., 1] + others[..., 0] * others[..., 1] - intersection
    return intersection / (union + eps)


def centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (..., 2) and sizes (..., 2) of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def clip_in_batch(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, ..., 4) cut at the borders of images of ``sizes`` (B, 2), height and width in pixels."""
    limits = sizes.flip(-1).repeat(1, 2).view(-1, *[1] * (boxes.ndim - 2), 4)
    return boxes.clamp(min=0).minimum(limits.to(boxes))


def has_area(boxes: Tensor) -> Tensor:
    """Whether boxes (..., 4) have any width and height."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def take(boxes: Tensor, rows: Tensor) -> Tensor:
    """Boxes (B, A, 4) at rows (B, N) of each image -> (B, N, 4)."""
    return boxes.gather(1, rows[..., None].expand(-1, -1, boxes.shape[2]))


def enclosing_boxes(boxes: Tensor, others: Tensor) -> Tensor:
    """The smallest box (..., 4) around each box (..., 4) and the other (..., 4) in the same place."""
    low = torch.minimum(boxes[..., :2], others[..., :2])
    return torch.cat((low, torch.maximum(boxes[..., 2:], others[..., 2:])), dim=-1)


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Least distance (...,) in pixels of each point (..., 2) to the sides of its box (..., 4); negative outside."""
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1).amin(dim=-1)


def centerness(points: Tensor, boxes: Tensor) -> Tensor:
    """How central each point (..., 2) lies in its box (..., 4): 1 in the middle, 0 on a side and outside.

    Tian et al., "FCOS", arXiv:1904.01355, section 3.2.
    """
    near = torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1).clamp(min=0)
    x, y = near[..., 0::2], near[..., 1::2]
    ratio = (x.amin(-1) / x.amax(-1).clamp(min=1e-12)) * (y.amin(-1) / y.amax(-1).clamp(min=1e-12))
    return ratio.sqrt()
