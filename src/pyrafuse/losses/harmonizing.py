"""Losses weighed by how rare a sample's gradient is: neither the many easy ones nor the outliers rule.

Li, Liu and Wang, "Gradient Harmonized Single-stage Detector", arXiv:1811.05181.
gradient norm of each element -> how many lie in its bin -> weight = elements / population of the bin

In a training of several processes the bins hold the elements of all of them, so that the mean of their gradients is
that of one process. mmdetection counts the elements of each process alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.core.over_processes import num_processes, sum_over_processes


class _GradientDensity(nn.Module):
    """Weights of elements by the population of their gradient norm's bin.

    Where ``momentum`` > 0 it is a moving one, which only training moves.
    """

    population: Tensor

    def __init__(self, *, num_bins: int, momentum: float) -> None:
        super().__init__()
        if num_bins < 1 or not 0 <= momentum < 1:
            raise ValueError(f"bins must be positive and momentum in 0..1, got {num_bins} and {momentum}")
        self.num_bins = num_bins
        self.momentum = momentum
        self.register_buffer("population", torch.zeros(num_bins))

    @torch.no_grad()
    def forward(self, norms: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of elements with gradient ``norms``, of those that ``counts`` (bool), and the number of these.

        The number is the mean over the processes of a training.
        """
        edges = torch.arange(1, self.num_bins, device=norms.device, dtype=torch.float32) / self.num_bins
        bins = torch.bucketize(norms.float(), edges, right=True)
        present = norms.new_zeros(self.num_bins).index_add(0, bins.flatten(), counts.flatten().to(norms.dtype))
        present = sum_over_processes(present)
        is_used = present > 0
        population = present
        if self.momentum:
            moved = self.momentum * self.population + (1 - self.momentum) * present
            population = moved.where(is_used, self.population)
            if self.training:
                self.population = population
        total = present.sum().clamp(min=1)
        weights = (total / population.clamp(min=torch.finfo(norms.dtype).tiny)).where(is_used, 0)
        return (weights / is_used.sum().clamp(min=1))[bins].where(counts, 0), total / num_processes()


class HarmonizedClassification(nn.Module):
    """GHM-C: sigmoid cross entropy; called with logits, targets (0 or 1) and which elements count, gives the mean.

    Args:
        num_bins: Number of bins for the gradient norm.
        momentum: Momentum of the bins' populations from call to call.
    """

    def __init__(self, *, num_bins: int = 30, momentum: float = 0.75) -> None:
        super().__init__()
        self.density = _GradientDensity(num_bins=num_bins, momentum=momentum)

    def forward(self, logits: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        targets = targets.to(logits.dtype)
        weights, total = self.density((logits.detach().sigmoid() - targets).abs(), counts)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (losses * weights).sum() / total


class HarmonizedRegression(nn.Module):
    """GHM-R: the smooth root of squares; called with deltas, targets and which elements count, gives the mean.

    Args:
        mu: Difference around which the loss turns from quadratic to linear.
        num_bins: Number of bins for the gradient norm.
        momentum: Momentum of the bins' populations from call to call.
    """

    def __init__(self, *, mu: float = 0.02, num_bins: int = 10, momentum: float = 0.7) -> None:
        super().__init__()
        self.mu = mu
        self.density = _GradientDensity(num_bins=num_bins, momentum=momentum)

    def forward(self, deltas: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        difference = deltas - targets
        root = (difference**2 + self.mu**2).sqrt()
        weights, total = self.density((difference / root).detach().abs(), counts)
        return ((root - self.mu) * weights).sum() / total
