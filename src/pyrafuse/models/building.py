"""From a description to a detector: every part built in the order in which data flow, every default written down.

`DetectorSpec` -> backbone -> necks -> head -> what teaches and decodes -> `Detector`, and its whole `DetectorSpec`
"""

import os
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import Part
from pyrafuse.base.spec import DetectorSpec, TwoStageSpec
from pyrafuse.core.pyramid import Backbone, Neck, PyramidSpec
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.heads.registry import HEADS, PROPOSAL_HEADS
from pyrafuse.models import recursive_fpn  # noqa: F401  # a backbone that is made of other parts, by its name
from pyrafuse.models.detector import Card, Detector
from pyrafuse.models.two_stage import STAGES, TwoStageDetector
from pyrafuse.models.uninitialized import Bounded
from pyrafuse.necks.registry import NECKS
from pyrafuse.ops.registry import CODERS
from pyrafuse.postprocess.registry import DECODERS, PROPOSALS, SELECTIONS


def build(
    spec: DetectorSpec,
    *,
    backbone_weights: str | os.PathLike[str] | None = None,
    pretrained: bool = False,
    backbone: Backbone | None = None,
) -> Detector:
    """Build the detector that ``spec`` describes, with fresh weights; its card holds the whole description.

    Args:
        spec: May leave out what is a part's default.
        backbone_weights: Published checkpoint of the backbone.
        pretrained: Whether timm fetches the weights of a backbone of its own.
        backbone: What stands in for the described backbone, with the same maps; by default it is built.

    Raises:
        UnknownNameError: If there is no such part.
        PyrafuseError: If a part takes no such option, the parts do not fit together, or the detector would be larger
            than `Bounded` allows: the message names the part.
        CheckpointError: If the weights do not fit.
    """
    parts: dict[str, Any] = {}
    with Bounded():
        if backbone is None:
            backbone, parts["backbone"] = BACKBONES.make(spec.backbone, weights=backbone_weights, pretrained=pretrained)
        heads = PROPOSAL_HEADS if isinstance(spec, TwoStageSpec) else HEADS
        neck, parts["necks"] = _make_necks(spec, backbone.features, shares_levels=heads.entry(spec.head.name).facts)
        given: dict[str, Any] = {"features": neck.features, "num_classes": spec.num_classes}
        given["head"], parts["head"] = heads.make(spec.head, **given)
        given["coder"] = None
        if spec.coder is not None:
            given["coder"], parts["coder"] = CODERS.make(spec.coder)
        postprocess, parts["postprocess"] = SELECTIONS.make(spec.postprocess)
        if isinstance(spec, TwoStageSpec):
            detector = _build_two_stage(spec, parts, given, backbone=backbone, neck=neck, postprocess=postprocess)
        else:
            criterion, parts["criterion"] = CRITERIA.make(spec.criterion, **given)
            decode, parts["decode"] = DECODERS.make(spec.decode, **given)
            detector = Detector(
                backbone, neck, given["head"], decode=decode, criterion=criterion, postprocess=postprocess
            )  # fmt: skip
    detector.card = Card(spec=replace(spec, **parts))
    # weights lie in memory as the maps do, or each convolution would copy its own each time; deformable ones do so too
    # unless they lie as their samples do, channels first
    for part in detector.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return detector


def build_without_weights(spec: DetectorSpec) -> Detector:
    """The detector that ``spec`` describes, its weights without memory, to see what it is made of.

    Weights are there if a part looks at its own numbers as it is built.

    Raises:
        PyrafuseError: On the same faults as `build`.
    """
    try:
        with torch.device("meta"):
            return build(spec)
    except PyrafuseError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
    return build(spec)


def resolve(spec: DetectorSpec) -> DetectorSpec:
    """``spec`` with every option of every part.

    Raises:
        PyrafuseError: On the same faults as `build`.
    """
    return build_without_weights(spec).card.spec or spec


def rebuild(card: Card) -> Detector:
    """Build the detector that ``card`` describes, with fresh weights and the same card.

    Raises:
        PyrafuseError: If it describes none, and as `build`.
    """
    if card.spec is None:
        raise PyrafuseError("this card describes no detector: it was put together by hand")
    detector = build(card.spec)
    detector.card = replace(card, spec=detector.card.spec)
    return detector


def _make_necks(spec: DetectorSpec, inputs: PyramidSpec, *, shares_levels: Any) -> tuple[Neck, tuple[Any, ...]]:
    """The necks, and one that gives all levels the same channels behind them where the head needs that."""
    neck, row = NECKS.make(Part("chain", {"necks": spec.necks}), inputs)
    if shares_levels.get("shares_levels", False) and len(set(neck.features.channels)) > 1:
        return _make_necks(replace(spec, necks=(*spec.necks, Part("projection"))), inputs, shares_levels={})
    necks = row.options["necks"]
    assert isinstance(necks, tuple)
    return neck, necks


def _build_two_stage(
    spec: TwoStageSpec, parts: dict[str, Any], given: dict[str, Any], **built: Any
) -> TwoStageDetector:
    made = [STAGES.make(stage, **given) for stage in spec.stages]
    stages, parts["stages"] = [stage for stage, _ in made], tuple(resolved for _, resolved in made)
    propose, parts["proposals"] = PROPOSALS.make(spec.proposals, **given)
    propose_to_learn, parts["learning_proposals"] = PROPOSALS.make(spec.learning_proposals, **given)
    criterion, parts["criterion"] = CRITERIA.make(spec.criterion, **given, stages=stages)
    decode, parts["decode"] = DECODERS.make(spec.decode, **{**given, "coder": stages[-1].coder})
    return TwoStageDetector(
        head=given["head"],
        stages=stages,
        propose=propose,
        propose_to_learn=propose_to_learn,
        criterion=criterion,
        decode=decode,
        **built,
    )
