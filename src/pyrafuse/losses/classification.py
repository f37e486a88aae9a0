"""How wrong class scores are; logits are (..., K), labels int64 with a negative one for background."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrafuse.losses.registry import LOSSES


def focal(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid cross entropy that well-classified elements hardly take part in (Lin et al., arXiv:1708.02002, sec. 3).

    Args:
        logits: Logits of any shape.
        targets: 0 or 1, of the same shape.
        alpha: Weight of ones; zeros weigh 1 - alpha.
        gamma: How much the well-classified are played down.
    """
    score = logits.sigmoid()
    wrong = torch.where(targets > 0.5, 1 - score, score)
    weight = torch.where(targets > 0.5, alpha, 1 - alpha)
    return weight * wrong**gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


@LOSSES.register("focal")
def focal_of_labels(logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """`focal` summed over the K classes of each row (...,); a row with a negative label belongs to no class.

    Equal to a one-hot target, without making it: every class is taken for wrong, and the one that is right put right.
    """
    losses = (1 - alpha) * logits.sigmoid() ** gamma * F.softplus(logits)
    own = logits.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    score = own.sigmoid()
    right = alpha * (1 - score) ** gamma * F.softplus(-own)
    wrong = (1 - alpha) * score**gamma * F.softplus(own)
    return losses.sum(-1) + (right - wrong).where(labels >= 0, 0)


def quality_focal(
    logits: Tensor, labels: Tensor, quality: Tensor, *, beta: float = 2.0, activated: bool = False
) -> Tensor:
    """Cross entropy with the IoU as the label of the right class, by the distance from it: a loss (...,) a row.

    Li et al., "Generalized Focal Loss", arXiv:2006.04388, section 3.

    Args:
        logits: (..., K) class logits.
        labels: (...,) int64, negative for background.
        quality: (...,) in 0..1, wanted of the right class; what it says of background is not read.
        beta: How much the well-classified are played down.
        activated: ``logits`` are scores in 0..1 already.
    """
    if activated:
        scores, cross_entropy = logits, F.binary_cross_entropy
    else:
        scores, cross_entropy = logits.sigmoid(), F.binary_cross_entropy_with_logits
    losses = scores**beta * cross_entropy(logits, torch.zeros_like(logits), reduction="none")
    column = labels.clamp(min=0)[..., None]
    own, score = logits.gather(-1, column).squeeze(-1), scores.gather(-1, column).squeeze(-1)
    right = (quality - score).abs() ** beta * cross_entropy(own, quality.to(own.dtype), reduction="none")
    is_class = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, column, (labels >= 0)[..., None])
    return losses.masked_fill(is_class, 0).sum(-1) + right.where(labels >= 0, 0)


def distribution_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy (...,) with the two whole numbers around ``target`` (...,), each by how near it is.

    Li et al., "Generalized Focal Loss", arXiv:2006.04388, equation 6.

    Args:
        logits: (..., N) of the values 0 to N-1.
        target: In 0..N-1, below N-1.
    """
    below = target.floor().clamp(0, logits.shape[-1] - 2)
    share = target - below
    logs = -logits.log_softmax(-1).gather(-1, torch.stack((below, below + 1), dim=-1).long())
    return logs[..., 0] * (1 - share) + logs[..., 1] * share


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid cross entropy of each element; ``targets`` may lie anywhere in 0..1."""
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")


def smoothed_targets(num_classes: int) -> tuple[float, float]:
    """Targets of the true class and of each other class under label smoothing: 1 - 1/K and 1/K.

    Liu et al., arXiv:1911.09516, whose code has this form. With two classes it would make both targets 0.5, and with
    one the target of the true class 0. So two classes have the targets of three, 2/3 and 1/3, and one class has 1.
    """
    other = 1 / max(num_classes, 3) if num_classes > 1 else 0.0
    return 1 - other, other


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross entropy (...,) of logits (..., K) whose last class may be the background."""
    return -logits.log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)


@LOSSES.register("softmax")
def softmax_of_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """`cross_entropy` (...,) of logits (..., K + 1), the last of the background, where a negative label is that."""
    return cross_entropy(logits, labels.where(labels >= 0, logits.shape[-1] - 1))


@LOSSES.register("objectness")
def objectness_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (B, A) of one logit a row (B, A, 1): is there an object, whatever its label (B, A)?"""
    return binary_cross_entropy(logits[..., 0], labels >= 0)
