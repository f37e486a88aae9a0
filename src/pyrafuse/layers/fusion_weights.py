"""Where a neck's weights of its sources pass through, so that they can be watched without a second pass.

logits -> softmax or another normalisation -> `FusionWeights` -> weighted sum; a forward hook on it sees every pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusionWeights(nn.Module):
    """Hands the weights of one fusion on as they are, and knows what they weigh.

    It has no parameters: a neck that lets its weights pass through one keeps its checkpoints.

    Args:
        output: What is fused, ``stride_8`` say; a part of a logged name.
        sources: What it is fused of, one name a weight.

    Raises:
        ValueError: If there is no source, or two are called the same.
    """

    def __init__(self, output: str, sources: Sequence[str]) -> None:
        super().__init__()
        if not sources or len(set(sources)) < len(sources):
            raise ValueError(f"the sources of {output} must be one or more of different names, got {tuple(sources)}")
        self.output = output
        self.sources = tuple(sources)

    def forward(self, weights: Tensor) -> Tensor:
        """Weights (S,), or (B, S, H, W) where every position has its own, as they came."""
        return weights

    def mean(self, weights: Tensor) -> Tensor:
        """(S,) float32: the mean weight of each source over images and positions, out of the gradient's way."""
        weights = weights.detach().to(torch.promote_types(weights.dtype, torch.float32))
        return weights if weights.ndim == 1 else weights.mean(dim=[d for d in range(weights.ndim) if d != 1])
