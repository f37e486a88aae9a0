"""MobileNetV3-Large as a pyramid, on torchvision's layers and with its checkpoints.

Howard et al., "Searching for MobileNetV3", arXiv:1905.02244, table 1; the maps of SSDLite are those of section 6.3.
images -> stem -> four stages of inverted residuals, some with squeeze and excitation -> maps
"""

import os
from collections.abc import Sequence
from itertools import chain

from torch import nn
from torchvision.models import mobilenet_v3_large as create_layers

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.staged import StagedBackbone
from pyrafuse.backbones.weights import Naming, load_exactly, read_published
from pyrafuse.base.errors import PyrafuseError

STRIDES = (4, 8, 16, 32)
LEAST_WIDTH = 0.1
PARTS = (("0", "1"), ("2", "3"), ("4", "5", "6"), ("7", "8", "9", "10", "11", "12"), ("13", "14", "15", "16"))
"""Published layers of the stem and of each stage."""
EXPANDED_PARTS = (
    *PARTS[:3],
    (*PARTS[3], "13.block.0"),
    ("13.block.1", "13.block.2", "13.block.3", *PARTS[4][1:]),
)
"""The same with the residual between strides 16 and 32 cut behind its expansion."""


@BACKBONES.register("mobilenet_v3_large", paper="1905.02244")
def mobilenet_v3_large(
    *,
    width: float = 1.0,
    expanded: bool = False,
    reduced_tail: bool = False,
    strides: Sequence[int] = (8, 16, 32),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> StagedBackbone:
    """MobileNetV3-Large; the coarsest map is the 960 channels of its last convolution.

    Args:
        width: Width multiplier, torchvision's ``width_mult``.
        expanded: Take the map at stride 16 where it is widest, at 672 channels, after the expansion of the residual
            that goes on to stride 32: SSDLite's.
        reduced_tail: Halve the channels at stride 32, as the authors do for detectors.
        strides: Which maps to give, of 4, 8, 16 and 32; layers behind the last are left out.
        frozen_stages: -1 freezes nothing, 0 the layers up to stride 2, n the n stages behind these too.
        norm_eval: Batch norms normalise by their stored statistics in training too.
        weights: Checkpoint of torchvision's ``mobilenet_v3_large``; a file or ``torchvision/mobilenet_v3_large``.

    Raises:
        PyrafuseError: If there is no map at one of ``strides``, they do not grow, there is no such stage, or ``width``
            leaves nothing to expand.
        CheckpointError: If ``weights`` do not fit.
    """
    if not width >= LEAST_WIDTH:
        raise PyrafuseError(f"mobilenet_v3_large has a width of {LEAST_WIDTH} or more, got width={width}")
    layers = create_layers(weights=None, width_mult=width, reduced_tail=reduced_tail).features
    parts = EXPANDED_PARTS if expanded else PARTS
    stem, *stages = (nn.Sequential(*map(layers.get_submodule, names)) for names in parts)
    backbone = StagedBackbone(
        stem,
        stages,
        channels=[_out_channels(stage) for stage in stages],
        stage_strides=STRIDES,
        strides=strides,
        frozen_stages=frozen_stages,
        norm_eval=norm_eval,
    )
    if weights is not None:
        left_out = chain(*parts[len(backbone.stages) + 1 :])
        unused = [r"classifier\.", *(rf"features\.{name}\." for name in left_out)]
        naming = naming_mobilenet_v3(expanded=expanded)
        load_exactly(backbone, read_published(weights), source=weights, naming=naming, unused=unused)
    return backbone


def naming_mobilenet_v3(*, expanded: bool = False) -> Naming:
    """The published key (torchvision's) of each key of a ``mobilenet_v3_large``."""
    stem, *stages = EXPANDED_PARTS if expanded else PARTS

    def name(key: str) -> str:
        part, *rest = key.split(".")
        names = stem if part == "stem" else stages[int(rest.pop(0))]
        return ".".join(("features", names[int(rest[0])], *rest[1:]))

    return name


def _out_channels(stage: nn.Module) -> int:
    """Of its last convolution, which may stand behind squeeze and excitation."""
    return [part.out_channels for part in stage.modules() if isinstance(part, nn.Conv2d)][-1]
