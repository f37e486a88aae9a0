"""No neck at all: for backbones whose maps are wanted as they are, or that hold a neck already.

pyramid -> the same pyramid
"""

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.necks.registry import NECKS


@NECKS.register("identity")
class IdentityNeck(Neck):
    """What comes in goes out.

    Args:
        inputs: Channels and strides of the input pyramid.
    """

    def __init__(self, inputs: PyramidSpec) -> None:
        super().__init__()
        self.features = inputs

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return pyramid
