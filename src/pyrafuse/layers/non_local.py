"""Non-local block: every cell adds what it finds at the cells that resemble it.

Wang et al., "Non-local Neural Networks", arXiv:1711.07971, section 3; as refinement of a pyramid in Libra R-CNN,
arXiv:1904.02701.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.core.tracing import is_traced
from pyrafuse.layers.conv import initialize_small


class NonLocal(nn.Module):
    """x (B, C, H, W) -> x + out(sum over all cells j of weight_ij * value(x_j)).

    ``embedded_gaussian`` weights are the softmax over j of query_i . key_j, without division by the square root of the
    channels, as in the paper; ``dot_product`` ones are query_i . key_j / (H * W).

    The output convolution starts near zero, not at it: the block starts as the identity and yet every parameter learns
    at once. The bias of the keys has no influence with the softmax; it is there for checkpoints that store one.

    Args:
        channels: Number of channels, C.
        reduction: Divides the channels of queries, keys and values; 2 in the paper, 1 in Libra R-CNN.
        mode: How weights come of queries and keys.

    Raises:
        ValueError: If the reduction is below 1 or above C, or the mode is another.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 2,
        mode: Literal["embedded_gaussian", "dot_product"] = "embedded_gaussian",
    ) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(f"a reduction of {channels} channels must lie in 1..{channels}, got {reduction}")
        if mode not in ("embedded_gaussian", "dot_product"):
            raise ValueError(f"unknown mode {mode!r} of a non-local block; choose from embedded_gaussian, dot_product")
        width = channels // reduction
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, width, 1)
        self.out = nn.Conv2d(width, channels, 1)
        initialize_small(self)
        self._is_softmax = mode == "embedded_gaussian"

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (self.query, self.key, self.value))
        if self._is_softmax and is_traced():  # ONNX's attention has a dimension of heads
            query, key, value = query[:, None], key[:, None], value[:, None]
            found = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
        elif self._is_softmax:
            found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        else:
            # keys and values first: the table of all pairs of cells is never made; divided before the sum, which fp16
            # could not hold, and both by the root: a key divided by all cells may vanish there
            root = key.shape[1] ** 0.5
            found = query @ ((key / root).transpose(1, 2) @ (value / root))
        return x + self.out(found.transpose(1, 2).unflatten(2, x.shape[2:]))
