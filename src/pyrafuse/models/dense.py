"""How every dense detector is put together: a trunk, necks, a dense head and what its predictions become.

images -> backbone -> neck or necks -> head -> `DensePredictions` -> detections
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from pyrafuse.backbones.registry import create_backbone
from pyrafuse.base.errors import unknown_name
from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.dense import RowLoss
from pyrafuse.heads.registry import HEADS
from pyrafuse.losses.boxes import ciou_loss, diou_loss, eiou_loss, giou_loss, iou_loss, siou_loss
from pyrafuse.losses.regression import balanced_l1, l1, smooth_l1
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import create_neck, with_equal_channels
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.postprocess.dense import DensePostprocess, decode_dense

Options = Mapping[str, Any]
NO_OPTIONS: Options = MappingProxyType({})

DELTA_LOSSES: Mapping[str, RowLoss] = {"l1": l1, "smooth_l1": smooth_l1, "balanced_l1": balanced_l1}
BOX_LOSSES: Mapping[str, RowLoss] = {
    "iou": iou_loss,
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "eiou": eiou_loss,
    "siou": siou_loss,
}
Decode = Callable[..., Candidates]
"""(predictions, coder=) -> candidates."""
TESTED = {"score": 0.05, "max_per_level": 1000, "max_detections": 100, "multi_label": True, "clip": True}
"""Thresholds of the published figures, all but the suppression's."""


@dataclass(frozen=True)
class DenseParts:
    """What tells one dense detector from another.

    Attributes:
        head: Registered name.
        coder: Of its boxes.
        criterion: (the head's pyramid, the coder, options) -> criterion.
        decode: What makes candidates of its predictions.
        shares_levels: The head reads all levels with the same weights.
    """

    head: str
    coder: BoxCoder
    criterion: Callable[[PyramidSpec, BoxCoder, Options], nn.Module]
    decode: Decode = decode_dense
    shares_levels: bool = True


def dense_detector(
    num_classes: int,
    *,
    parts: DenseParts,
    backbone: str = "resnet50",
    neck: str | Sequence[str] = "fpn",
    backbone_options: Options = NO_OPTIONS,
    neck_options: Mapping[str, Options] = NO_OPTIONS,
    head_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = NO_OPTIONS,
) -> Detector[DensePredictions]:
    """A dense detector.

    Args:
        num_classes: K.
        parts: Which one.
        backbone: A registered backbone, or ``timm/NAME``.
        neck: A registered neck, or several in a row. Where a head that reads all levels with the same weights is
            given different channels, a `Projection` comes between.
        backbone_options: Keyword arguments of the backbone; ``weights`` among them.
        neck_options: Keyword arguments of each neck, by its name.
        head_options: Keyword arguments of the head.
        criterion_options: What the detector's criterion offers; see its model file.
        postprocess_options: Keyword arguments of `DensePostprocess`.
        defaults: What a variant gives in place of our own defaults: ``head``, ``criterion`` and ``postprocess``
            options, and those of the backbone and of each neck by its name, if it is there.
    """
    chain = [neck] if isinstance(neck, str) else list(neck)
    known = {name: defaults[name] for name in chain if name in defaults}
    merged = {name: {**known.get(name, {}), **neck_options.get(name, {})} for name in {**known, **neck_options}}
    trunk = create_backbone(backbone, **{**defaults.get(backbone, {}), **backbone_options})
    fusion = create_neck(chain, trunk.features, merged)
    if parts.shares_levels:
        fusion = with_equal_channels(fusion)
    head_options = {**defaults.get("head", {}), **head_options}
    head = HEADS.create(parts.head, fusion.features, num_classes=num_classes, **head_options)
    return Detector(
        trunk,
        fusion,
        head,
        decode=partial(parts.decode, coder=parts.coder),
        criterion=parts.criterion(fusion.features, parts.coder, {**defaults.get("criterion", {}), **criterion_options}),
        postprocess=DensePostprocess(**{**TESTED, **defaults.get("postprocess", {}), **postprocess_options}),
    )


def choose_box_loss(name: str, options: Options) -> tuple[RowLoss, bool]:
    """The loss of boxes called ``name`` with ``options``, and whether it compares decoded boxes.

    Raises:
        UnknownNameError: If there is none.
    """
    losses = {**DELTA_LOSSES, **BOX_LOSSES}
    if name not in losses:
        raise unknown_name("box loss", name, losses)
    return (partial(losses[name], **options) if options else losses[name]), name in BOX_LOSSES
