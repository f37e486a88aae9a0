"""VGG-16 whose fully connected layers became convolutions: the trunk of SSD and M2Det.

Simonyan and Zisserman, arXiv:1409.1556, with the reduced layers of Liu et al., "SSD", arXiv:1512.02325, section 3.
images -> five groups of 3x3 convolutions between pools -> (dilated fc6, fc7) -> maps
"""

import os
from collections.abc import Sequence

from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.staged import StagedBackbone
from pyrafuse.backbones.weights import load_exactly, read_published
from pyrafuse.layers.conv import initialize

WIDTHS = (64, 128, 256, 512, 512)
NUM_CONVS = (2, 2, 3, 3, 3)
FC_CHANNELS = 1024
POSITIONS = (4, 9, 16, 23, 34)
"""Where each stage begins, and the last one ends, in the published list of layers."""
FC_POSITION = 31
"""Where fc6 lies in it."""


@BACKBONES.register("vgg16", paper="1409.1556")
def vgg16(
    *,
    strides: Sequence[int] = (8, 16),
    reduced: bool = True,
    frozen_stages: int = -1,
    weights: str | os.PathLike[str] | None = None,
) -> StagedBackbone:
    """VGG-16 without norms, with biases; maps are taken after the ReLU that ends a group: conv4_3, fc7.

    All pools round up, so that any size works; M2Det rounds up the third alone, and differs where a side is no multiple
    of 16.

    Args:
        strides: Which maps to give, of 2, 4, 8 (conv4_3) and 16 (fc7; conv5_3 and 32, its pool, if not ``reduced``).
        reduced: Go on through fc6 and fc7. Without them the convolutions are those of the classifier, whose pools round
            down.
        frozen_stages: -1 freezes nothing, 0 the first group of convolutions, n the first n + 1.
        weights: Published checkpoint with reduced fc6 and fc7, in SSD's, M2Det's or mmdetection's keys; or a whole
            VGG-16 of torchvision (a file, or ``torchvision/vgg16``), whose fc6 and fc7 are thinned out as SSD does.

    Raises:
        PyrafuseError: If there is no such map or stage.
        CheckpointError: If ``weights`` do not fit.
    """
    groups = [_group(*group) for group in zip((3, *WIDTHS), WIDTHS, NUM_CONVS, strict=False)]
    stages = [nn.Sequential(nn.MaxPool2d(2, ceil_mode=reduced), *group) for group in groups[1:]]
    if reduced:
        stages[-1].extend(_reduced_layers())
    else:
        stages.append(nn.Sequential(nn.MaxPool2d(2)))
    backbone = StagedBackbone(
        nn.Sequential(*groups[0]),
        stages,
        channels=(*WIDTHS[1:4], FC_CHANNELS) if reduced else (*WIDTHS[1:], WIDTHS[-1]),
        stage_strides=(2, 4, 8, 16, 32)[: len(stages)],
        strides=strides,
        frozen_stages=frozen_stages,
    )
    initialize(backbone, slope=0)
    if weights is not None:
        end = POSITIONS[min(len(backbone.stages), 4)]
        left_out = range(end if reduced else min(end, FC_POSITION), POSITIONS[-1])
        unused = [rf"{position}\." for position in left_out]
        load_exactly(backbone, read_vgg16(weights), source=weights, naming=name_vgg16, unused=unused, model="vgg16")
    return backbone


def name_vgg16(key: str) -> str:
    """The published key (SSD's, without ``features.``) of a VGG-16's key: its layers are numbered through."""
    part, _, rest = key.partition(".")
    stage, position, kind = rest.split(".") if part == "stages" else ("-1", *rest.split("."))
    start = 0 if part == "stem" else POSITIONS[int(stage)]
    return f"{start + int(position)}.{kind}"


def read_vgg16(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A published VGG-16 in SSD's keys; every fourth unit of a whole one's fc6 and fc7 is taken, every third tap."""
    published = read_published(weights)
    state = {key.removeprefix("features."): v for key, v in published.items() if not key.startswith("classifier.")}
    if (fc6 := published.get("classifier.0.weight")) is not None and fc6.shape == (4096, 512 * 7 * 7):
        state["31.weight"] = fc6.view(4096, 512, 7, 7)[::4, :, ::3, ::3]
        state["31.bias"] = published["classifier.0.bias"][::4]
        state["33.weight"] = published["classifier.3.weight"][::4, ::4, None, None]
        state["33.bias"] = published["classifier.3.bias"][::4]
    return state


def _reduced_layers() -> list[nn.Module]:
    return [
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(WIDTHS[-1], FC_CHANNELS, 3, padding=6, dilation=6),
        nn.ReLU(inplace=True),
        nn.Conv2d(FC_CHANNELS, FC_CHANNELS, 1),
        nn.ReLU(inplace=True),
    ]


def _group(before: int, width: int, num_convs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (before, *[width] * (num_convs - 1)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
    return layers
