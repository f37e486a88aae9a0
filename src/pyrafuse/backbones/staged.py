"""The form that most backbones share: a stem, then stages, each of which gives one map.

images -> stem -> stage -> stage -> ... -> the maps at the wanted strides
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec


def check_strides(strides: Sequence[int], offered: Sequence[int]) -> None:
    """Refuse strides that are not among the offered ones, or do not grow.

    Raises:
        PyrafuseError: Telling the offered ones.
    """
    if not strides or not set(strides) <= set(offered):
        choices = ", ".join(map(str, dict.fromkeys(offered)))
        raise PyrafuseError(f"this backbone has maps at strides {choices}; {tuple(strides)} were asked for")
    if any(fine >= coarse for fine, coarse in pairwise(strides)):
        raise PyrafuseError(f"strides must grow from the finest level to the coarsest, got {tuple(strides)}")


def check_frozen_stages(frozen_stages: int, num_stages: int) -> None:
    """Refuse a number of frozen stages that lies outside -1 to ``num_stages``."""
    if not -1 <= frozen_stages <= num_stages:
        raise PyrafuseError(
            f"frozen_stages must be -1 (none), 0 (the stem) or up to {num_stages} stages, got {frozen_stages}"
        )


def stop_norms(module: nn.Module) -> None:
    """Set all batch norms of ``module`` to evaluation mode."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


class StagedBackbone(Backbone):
    """A stem and stages in a row; stages behind the last wanted map are left out.

    Args:
        stem: Images -> what the first stage reads.
        stages: Each reads what the one before gave.
        channels: Channels of each stage's map.
        stage_strides: Stride of each stage's map, in pixels of the image.
        strides: Which maps to give, finest first; where several stages have one stride, the first of them.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages: they keep their weights, and
            their norms the statistics.
        norm_eval: Batch norms normalise by their stored statistics in training too.

    Attributes:
        taps: Which stage gives each map.

    Raises:
        PyrafuseError: If there is no map at one of ``strides``, they do not grow, or there is no stage
            ``frozen_stages``.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        *,
        channels: Sequence[int],
        stage_strides: Sequence[int],
        strides: Sequence[int],
        frozen_stages: int = -1,
        norm_eval: bool = False,
    ) -> None:
        super().__init__()
        check_strides(strides, stage_strides)
        check_frozen_stages(frozen_stages, len(stages))
        self.taps = tuple(list(stage_strides).index(stride) for stride in strides)
        self.features = PyramidSpec(channels=tuple(channels[tap] for tap in self.taps), strides=tuple(strides))
        self.stem = stem
        self.stages = nn.ModuleList(stages[: self.taps[-1] + 1])
        self._norm_eval = norm_eval
        self._num_frozen = frozen_stages + 1
        for part in self._frozen():
            part.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "StagedBackbone":
        """Set the mode of everything but the frozen parts and, with ``norm_eval``, the norms."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        if self._norm_eval:
            stop_norms(self)
        return self

    def forward(self, images: Tensor) -> Pyramid:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[tap] for tap in self.taps)

    def _frozen(self) -> Sequence[nn.Module]:
        return [self.stem, *self.stages][: self._num_frozen]
