"""Image classifiers: a backbone, and what its authors put on top of it for ImageNet.

images -> backbone -> coarsest map -> (norm and activation) -> mean over positions -> linear -> logits
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from timm.data import resolve_data_config  # type: ignore[attr-defined]
from torch import Tensor, nn

from pyrafuse.backbones.darknet import name_darknet53
from pyrafuse.backbones.dpn import FORMS, PreActivation, name_dpn
from pyrafuse.backbones.mobilenet import name_mobilenet_v2
from pyrafuse.backbones.mobilenet_v3 import naming_mobilenet_v3
from pyrafuse.backbones.registry import create_backbone
from pyrafuse.backbones.resnet import name_resnet, read_resnet
from pyrafuse.backbones.timm_pyramid import create_timm_model
from pyrafuse.backbones.vgg import name_vgg16
from pyrafuse.backbones.weights import Naming, load_exactly, read_published
from pyrafuse.base.errors import PyrafuseError, unknown_name
from pyrafuse.data.augment.cropping import CenterCrop

RESNETS = tuple(f"{prefix}resnet{depth}" for depth in (18, 34, 50, 101, 152) for prefix in ("", "eca_"))
RESNEXTS = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
MOBILENETS = ("mobilenet_v2", "eca_mobilenet_v2")

_DPN_STD = 1 / (0.0167 * 255)
DPN_CROP = CenterCrop(
    interpolation="bicubic", mean=(124 / 255, 117 / 255, 104 / 255), std=(_DPN_STD, _DPN_STD, _DPN_STD)
)
"""What the authors trained dual path networks with."""

_DPN_CROPS = {  # of timm's own trainings
    "dpn48b": CenterCrop(interpolation="bicubic"),
    "dpn68b": CenterCrop(resize_px=235, interpolation="bicubic"),
}


class Classifier(nn.Module):
    """Images (B, 3, H, W), normalised -> logits (B, K).

    Args:
        trunk: Images -> pyramid.
        head: Pyramid -> logits.
        preprocessing: What the images must have gone through.
        num_classes: Number of classes, K.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, *, preprocessing: CenterCrop, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.preprocessing = preprocessing
        self.num_classes = num_classes

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


class LinearHead(nn.Module):
    """Pyramid -> logits: the coarsest map's mean over positions, drop-out, a linear layer.

    Args:
        channels: Channels of the coarsest map.
        num_classes: Number of classes, K.
        dropout: Share of the values.
        widened: A linear layer to a third more channels, and its activation, come first (MobileNetV3).
    """

    def __init__(self, channels: int, num_classes: int, *, dropout: float = 0.0, widened: bool = False) -> None:
        super().__init__()
        width = channels * 4 // 3 if widened else channels
        self.widen = nn.Sequential(nn.Linear(channels, width), nn.Hardswish()) if widened else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        return self.fc(self.dropout(self.widen(pyramid[-1].mean((2, 3)))))


class DPNHead(nn.Module):
    """Pyramid -> logits: the norm and activation that the last stage has left out, the mean, a 1x1 convolution."""

    def __init__(self, channels: int, num_classes: int, *, activation: str) -> None:
        super().__init__()
        self.closing = PreActivation(channels, activation=activation)
        self.fc = nn.Conv2d(channels, num_classes, 1)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        return self.fc(self.closing(pyramid[-1]).mean((2, 3), keepdim=True)).flatten(1)


class VGGHead(nn.Module):
    """Pyramid -> logits: the coarsest map's mean in 7x7 fields, three linear layers."""

    def __init__(self, channels: int, num_classes: int, *, width: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.fc6 = nn.Linear(49 * channels, width)
        self.fc7 = nn.Linear(width, width)
        self.fc8 = nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        x = self.pool(pyramid[-1]).flatten(1)
        for layer in (self.fc6, self.fc7):
            x = self.dropout(layer(x).relu())
        return self.fc8(x)


@dataclass(frozen=True)
class Family:
    """What turns a backbone into its authors' classifier.

    Attributes:
        head: (channels, number of classes) -> head.
        naming: The backbone's key -> the published key.
        head_names: The head's modules -> the published ones.
        preprocessing: What the authors evaluated with.
        read: File or name -> published parameters.
        trunk_options: The backbone's, besides the one map, where they are not its defaults.
    """

    head: Callable[[int, int], nn.Module]
    naming: Naming
    head_names: Mapping[str, str]
    preprocessing: CenterCrop = field(default_factory=CenterCrop)
    read: Callable[[str | os.PathLike[str]], dict[str, Tensor]] = read_published
    trunk_options: Mapping[str, Any] = field(default_factory=dict)

    def name(self, key: str) -> str:
        """The published key of a classifier's key."""
        part, _, rest = key.partition(".")
        if part == "trunk":
            return self.naming(rest)
        module = next(ours for ours in self.head_names if rest.startswith(f"{ours}."))
        return self.head_names[module] + rest.removeprefix(module)


CLASSIFIERS: Mapping[str, Family] = {
    **dict.fromkeys((*RESNETS, *RESNEXTS), Family(LinearHead, name_resnet, {"fc": "fc"}, read=read_resnet)),
    **dict.fromkeys(
        MOBILENETS,
        Family(
            partial(LinearHead, dropout=0.2),
            name_mobilenet_v2,
            {"fc": "classifier.1"},
            trunk_options={"classifier_conv": True},
        ),
    ),
    "mobilenet_v3_large": Family(
        partial(LinearHead, dropout=0.2, widened=True),
        naming_mobilenet_v3(),
        {"widen.0": "classifier.0", "fc": "classifier.3"},
    ),
    **{
        name: Family(
            partial(DPNHead, activation=form.activation),
            name_dpn,
            {"closing.norm": "features.conv5_bn_ac.bn", "fc": "classifier"},
            preprocessing=_DPN_CROPS.get(name, DPN_CROP),
        )
        for name, form in FORMS.items()
    },
    "darknet53": Family(
        LinearHead,
        name_darknet53,
        {"fc": "head.fc"},
        preprocessing=CenterCrop(size_px=256, resize_px=288, interpolation="bicubic"),
        trunk_options={"slope": 0.01},
    ),
    "vgg16": Family(
        VGGHead,
        lambda key: f"features.{name_vgg16(key)}",
        {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"},
        trunk_options={"reduced": False},
    ),
}


def create_classifier(
    name: str, *, num_classes: int = 1000, weights: str | os.PathLike[str] | None = None, **options: Any
) -> Classifier:
    """Build a classifier with ImageNet's head, in evaluation mode.

    Args:
        name: One of `list_classifiers`, or ``timm/NAME`` for any model of timm.
        num_classes: Number of classes, K.
        weights: Published checkpoint: a file, ``torchvision/NAME`` or ``timm/NAME``.
        options: Keyword arguments of the backbone's constructor, ``frozen_stages`` say, or ``slope`` for another
            training of Darknet-53; of `timm.create_model` for one of timm, ``pretrained`` say.

    Raises:
        UnknownNameError: If there is no such classifier.
        PyrafuseError: If ``num_classes`` is not positive, or the backbone takes no such option.
        CheckpointError: If ``weights`` cannot be read or do not fit; missing, extra and misshapen keys are named.
    """
    if num_classes < 1:
        raise PyrafuseError(f"a classifier needs at least one class, got num_classes={num_classes}")
    if name.startswith("timm/"):
        return _create_timm_classifier(name.removeprefix("timm/"), num_classes, weights, options)
    if name not in CLASSIFIERS:
        raise unknown_name("classifier", name, list_classifiers())
    family = CLASSIFIERS[name]
    try:
        trunk = create_backbone(name, strides=(32,), **{**family.trunk_options, **options})
    except TypeError as error:  # the signature is the schema: its complaint names the option
        raise PyrafuseError(f"cannot build {name}: {error}") from error
    head = family.head(trunk.features.channels[-1], num_classes)
    classifier = Classifier(trunk, head, preprocessing=family.preprocessing, num_classes=num_classes)
    if weights is not None:
        load_exactly(classifier, family.read(weights), source=weights, naming=family.name, model=name)
    return classifier.eval()


def list_classifiers() -> tuple[str, ...]:
    """Names of all classifiers; any model of timm is one besides."""
    return tuple(sorted(CLASSIFIERS))


def _create_timm_classifier(
    name: str, num_classes: int, weights: str | os.PathLike[str] | None, options: Mapping[str, Any]
) -> Classifier:
    model = create_timm_model(name, weights=weights, num_classes=num_classes, **options)
    config = resolve_data_config(model=model)
    size = config["input_size"][-1]
    crop = CenterCrop(
        size_px=size,
        resize_px=int(size / config["crop_pct"]),
        interpolation="bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return Classifier(model, nn.Identity(), preprocessing=crop, num_classes=num_classes).eval()
