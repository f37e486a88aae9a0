"""Feature adaption: a deformable convolution whose sampling follows the guided anchor shapes.

Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, as used in arXiv:1911.09516.
"""

from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from pyrafuse.layers.rfb import RFB


class FeatureAdaption(nn.Module):
    """x (B, C, H, W) and guides (B, 2G, H, W) -> (B, C, H, W), sampled where the G guided shapes say.

    Each of the G deformable groups reads the shape of one guided anchor. No gradient returns to the guides from here:
    they learn from the anchor loss.

    Args:
        channels: C, a multiple of ``num_guides``.
        num_guides: G, shapes a cell.
        rfb: Put a receptive field block before the deformable convolution (ASFF*).
    """

    def __init__(self, channels: int, num_guides: int, *, rfb: bool = False) -> None:
        super().__init__()
        if channels % num_guides:
            raise ValueError(
                f"{channels} channels do not split into {num_guides} deformable groups, one a guided anchor"
            )
        self.rfb = RFB(channels) if rfb else nn.Identity()
        self.offset = nn.Conv2d(2 * num_guides, 2 * 9 * num_guides, 1, groups=num_guides)
        self.conv = DeformConv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, guides: Tensor) -> Tensor:
        # torchvision's kernel takes no half precision on every device, and the offsets need the bits
        x = self.rfb(x).to(self.conv.weight.dtype)
        return self.conv(x, self.offset(guides.detach()).to(x.dtype))
