"""How far numbers are from numbers, element by element."""

import math

import torch
from torch import Tensor

from pyrafuse.losses.registry import LOSSES


@LOSSES.register("l1")
def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute difference."""
    return (prediction - target).abs()


@LOSSES.register("smooth_l1")
def smooth_l1(prediction: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Absolute difference, quadratic below ``beta`` (Fast R-CNN, arXiv:1504.08083, section 2.3).

    Raises:
        ValueError: If ``beta`` is not positive.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}; for none there is l1")
    difference = (prediction - target).abs()
    return torch.where(difference < beta, 0.5 * difference**2 / beta, difference - 0.5 * beta)


@LOSSES.register("balanced_l1")
def balanced_l1(
    prediction: Tensor, target: Tensor, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0
) -> Tensor:
    """L1 loss whose inlier gradient is promoted so that easy samples still count.

    Pang et al., "Libra R-CNN", arXiv:1904.02701, section 3.3.

    Args:
        prediction: Encoded box deltas, of any shape.
        target: Targets of the same shape.
        alpha: Strength of the inlier gradient; smaller promotes more.
        gamma: Upper bound of the gradient.
        beta: Difference up to which a sample is an inlier; 1 in the paper.

    Raises:
        ValueError: If ``alpha``, ``beta`` or ``gamma`` is not positive.
    """
    if min(alpha, beta, gamma) <= 0:
        raise ValueError(f"alpha {alpha}, beta {beta} and gamma {gamma} must be positive")
    difference = (prediction - target).abs()
    b = math.exp(gamma / alpha) - 1  # makes both gradients meet at beta
    inlier = alpha / b * (b * difference + 1) * (b * difference / beta + 1).log() - alpha * difference
    return torch.where(difference < beta, inlier, gamma * difference + gamma / b - alpha * beta)
