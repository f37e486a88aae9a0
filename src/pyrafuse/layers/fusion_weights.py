"""Where a neck's maps are weighed and added, so that weights can be watched and drawn without a second pass.

logits -> softmax or another normalisation -> `FusionWeights`: weighted sum of maps; a hook on it sees every pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusionWeights(nn.Module):
    """The weighted sum of one fusion: w1 x1 + w2 x2 + ..., and the names of what is weighed.

    It has no parameters: a neck that has one keeps its checkpoints. Training logs the weights of every such module in a
    neck, and ``explain`` shows them.

    Args:
        output: Name of what is fused, such as ``stride_8`` or ``P4``; a part of a logged name.
        sources: Names of what it is fused of, one a weight.
        stride: Pixels of the network's input a cell of what is fused.

    Raises:
        ValueError: If there is no source, two are called the same, or the stride is not positive.
    """

    def __init__(self, output: str, sources: Sequence[str], *, stride: int) -> None:
        super().__init__()
        if not sources or len(set(sources)) < len(sources):
            raise ValueError(f"the sources of {output} must be one or more of different names, got {tuple(sources)}")
        if stride < 1:
            raise ValueError(f"the stride of {output} must be 1 pixel or more, got {stride}")
        self.output = output
        self.sources = tuple(sources)
        self.stride = stride

    def forward(self, weights: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The weighted sum (B, C, H, W) of S ``maps`` of that shape.

        Args:
            weights: (S,), or (B, S, H, W) where every position has its own.
            maps: Finest source first, or in the order of ``sources``.
        """
        each = spread_weights(weights)
        total = maps[0] * each[0]
        for x, weight in zip(maps[1:], each[1:], strict=True):
            total = total + x * weight
        return total

    def mean(self, weights: Tensor) -> Tensor:
        """(S,) float32: the mean weight of each source over images and positions, out of the gradient's way."""
        weights = weights.detach().to(torch.promote_types(weights.dtype, torch.float32))
        return weights if weights.ndim == 1 else weights.mean(dim=[d for d in range(weights.ndim) if d != 1])


def spread_weights(weights: Tensor) -> tuple[Tensor, ...]:
    """S weights, each of a shape that spreads over its map: () of (S,), and (B, 1, H, W) of (B, S, H, W)."""
    return weights.unbind() if weights.ndim == 1 else weights.split(1, dim=1)


def find_fusions(neck: nn.Module) -> dict[str, FusionWeights]:
    """All fusions of ``neck`` by their output's name; a name that is taken is numbered: ``stride_8_2``."""
    found: dict[str, FusionWeights] = {}
    for module in neck.modules():
        if isinstance(module, FusionWeights):
            name, rank = module.output, 2
            while name in found:
                name, rank = f"{module.output}_{rank}", rank + 1
            found[name] = module
    return found
