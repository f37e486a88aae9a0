"""The heads of SSD and M2Det: a convolution for classes and one for boxes on each level, which share nothing.

Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325, section 2; Zhao et al., "M2Det", arXiv:1811.04533,
section 4.1. map -> 3x3 -> classes and background of each anchor; map -> 3x3 -> deltas of each anchor
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import grid_of, rows_of
from pyrafuse.heads.registry import HEADS
from pyrafuse.layers.conv import ConvNormAct
from pyrafuse.ops.anchors import multibox_shapes, ssd_shapes


class MultiBoxHead(nn.Module):
    """Pyramid -> `DensePredictions` whose classes are softmax logits (B, A, K + 1), the last of the background.

    Args:
        features: The pyramid that comes in.
        num_classes: K, without the background.
        shapes: Width and height (S, 2) of each level's anchors, in pixels; levels may differ in S.
        steps: Pixels between neighbouring anchors of each level; the first is centred at half of them.
        separable: A depthwise convolution with norm and ReLU6, and a 1x1, in place of each convolution: SSDLite,
            arXiv:1801.04381, section 6.2.
        made_for: Side of the input in pixels that the anchors were published for, if they were.
        shares: The same shapes in sides of that input, for an assigner that compares these.

    Raises:
        ValueError: If shapes or steps are not one a level.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        num_classes: int,
        shapes: Sequence[Tensor],
        steps: Sequence[float],
        separable: bool = False,
        made_for: int | None = None,
        shares: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        if not len(features) == len(shapes) == len(steps):
            raise ValueError(
                f"this head has {len(shapes)} levels of anchors and {len(steps)} steps, and {len(features)} levels of "
                f"strides {features.strides} come in; give the neck or the head as many as the other has"
            )
        self.made_for = made_for
        self.shares = tuple(shares)
        self.strides = features.strides
        self.steps = tuple(float(step) for step in steps)
        self.num_classes = num_classes
        self.num_slots = tuple(len(of_level) for of_level in shapes)
        self.shapes: Tensor
        self.register_buffer("shapes", torch.cat(tuple(shapes)), persistent=False)
        pairs = tuple(zip(features.channels, self.num_slots, strict=True))
        self.classes = nn.ModuleList(_predictor(c, slots * (num_classes + 1), separable) for c, slots in pairs)
        self.deltas = nn.ModuleList(_predictor(c, slots * 4, separable) for c, slots in pairs)
        last = ".1" if separable else ""
        self.class_rows = {f"classes.{level}{last}": ClassRows(after=1) for level in range(len(pairs))}

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        return DensePredictions(
            classes=self._rows(self.classes, pyramid),
            deltas=self._rows(self.deltas, pyramid),
            quality=None,
            grid=grid_of(pyramid, self.strides, self.shapes.split(self.num_slots), offset=0.5, steps=self.steps),
        )

    def _rows(self, convs: nn.ModuleList, pyramid: Pyramid) -> Tensor:
        levels = zip(convs, pyramid, self.num_slots, strict=True)
        return torch.cat([rows_of([conv(x)], slots) for conv, x, slots in levels], dim=1)


def _predictor(in_channels: int, out_channels: int, separable: bool) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, 1 if separable else 3, padding=0 if separable else 1)
    assert conv.bias is not None
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    if not separable:
        return conv
    return nn.Sequential(ConvNormAct(in_channels, in_channels, 3, groups=in_channels, activation="relu6"), conv)


@dataclass(frozen=True)
class SSDForm:
    """SSD's published anchors of one input size.

    Attributes:
        ratios: Aspect ratios of each level, above 1.
        steps: Distance between anchors of each level, in pixels.
        coverage: Share of the input that the smallest and the largest anchors cover.
        sizes: Sizes of the boxes in pixels, one more than levels; if given, ``coverage`` is unused.
    """

    ratios: tuple[tuple[float, ...], ...]
    steps: tuple[float, ...]
    coverage: tuple[float, float] = (0.15, 0.9)
    sizes: tuple[float, ...] | None = None


SSD_FORMS: Mapping[int, SSDForm] = {
    300: SSDForm(((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)), (8, 16, 32, 64, 100, 300), (0.15, 0.9)),
    320: SSDForm(
        ((2, 3),) * 6, (16, 32, 64, 320 / 3, 160, 320), sizes=(64, 112, 160, 208, 256, 304, 320)
    ),
    512: SSDForm(
        ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)), (8, 16, 32, 64, 128, 256, 512), (0.1, 0.9)
    ),
}  # fmt: skip
"""By the side of the input in pixels; for COCO. The coverage for Pascal VOC begins at 0.05 more. 320: SSDLite."""


@HEADS.register("ssd", predictions="multibox")
def ssd_head(
    features: PyramidSpec,
    *,
    num_classes: int,
    size: int = 300,
    coverage: tuple[float, float] | None = None,
    sizes: Sequence[float] | None = None,
    ratios: Sequence[Sequence[float]] | None = None,
    steps: Sequence[float] | None = None,
    clip: bool = False,
    separable: bool = False,
) -> MultiBoxHead:
    """SSD's head; at 300, 512 and, in SSDLite, 320 px with the published anchors, which are for these sizes alone.

    On another number of levels than the published their sizes are spread evenly between the same ends.

    Args:
        features: The pyramid that comes in.
        num_classes: Number of classes, K.
        size: Side of the input in pixels, 300, 320 or 512; where ``sizes`` are given it is looked at by ``clip`` alone.
        coverage: Share of the input that the smallest and the largest anchors cover: COCO's by default; (0.2, 0.9) and
            (0.15, 0.9) are Pascal VOC's.
        sizes: Sizes of the anchors of each level in pixels, finest first, and one more, for any other input.
        ratios: Aspect ratios of each level, above 1; by default (2, 3), but (2,) for the finest and the two coarsest,
            if not SSDLite.
        steps: Pixels between neighbouring anchors of each level; by default the published ones at published strides
            without ``sizes``, else the strides.
        clip: Make no side of an anchor longer than ``size`` (torchvision).
        separable: Whether convolutions are separable, as in SSDLite.

    Raises:
        ValueError: If ``size`` is another one and there are no ``sizes``, or a number is not one a level.
    """
    form = SSD_FORMS.get(size)
    if sizes is not None:
        shapes = multibox_shapes(sizes, ratios=ratios or _ssd_ratios(len(features)))
        steps = features.strides if steps is None else steps
    elif form is not None:
        shapes = _published_shapes(form, size, len(features), ratios=ratios, coverage=coverage)
        steps = _published_steps(form.steps, features) if steps is None else steps
    else:
        known = ", ".join(map(str, SSD_FORMS))
        raise ValueError(f"SSD has published anchors for inputs of {known} px, not {size}; give the anchors' sizes")
    if clip:
        shapes = tuple(of_level.clamp(max=size) for of_level in shapes)
    return MultiBoxHead(
        features,
        num_classes=num_classes,
        shapes=shapes,
        steps=steps,
        separable=separable,
        made_for=size if sizes is None else None,
    )


def _published_shapes(
    form: SSDForm,
    size: int,
    num_levels: int,
    *,
    ratios: Sequence[Sequence[float]] | None,
    coverage: tuple[float, float] | None,
) -> tuple[Tensor, ...]:
    """Shapes (S, 2) of each level; on another number of levels the sizes are spread."""
    if form.sizes is not None:
        if coverage is not None:
            raise ValueError(f"at {size} px SSD's anchors have sizes of their own: leave out coverage={coverage}")
        sizes = form.sizes if num_levels == len(form.steps) else _spread(form.sizes, num_levels)
        return multibox_shapes(sizes, ratios=ratios or form.ratios[:1] * num_levels)
    if num_levels == len(form.steps):
        return ssd_shapes(size, ratios=ratios or form.ratios, coverage=coverage or form.coverage)
    sizes = [size * share for share in _spread(M2DET_FORMS[320].sizes, num_levels)]
    return multibox_shapes(sizes, ratios=ratios or _ssd_ratios(num_levels))


def _ssd_ratios(num_levels: int) -> Sequence[Sequence[float]]:
    return [(2,) if level in (0, num_levels - 2, num_levels - 1) else (2, 3) for level in range(num_levels)]


def _published_steps(steps: Sequence[float], features: PyramidSpec) -> Sequence[float]:
    """``steps``, which are those of strides that double from the first on; of other levels the strides."""
    doubled = tuple(round(steps[0]) * 2**level for level in range(len(steps)))
    return steps if features.strides == doubled else features.strides


@dataclass(frozen=True)
class M2DetForm:
    """M2Det's published anchors of one input size: steps in pixels, and sizes in sides of the input, one more."""

    steps: tuple[float, ...]
    sizes: tuple[float, ...]


M2DET_FORMS: Mapping[int, M2DetForm] = {
    320: M2DetForm((8, 16, 32, 64, 107, 320), (0.08, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)),
    512: M2DetForm((8, 16, 32, 64, 128, 256), (0.06, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)),
    704: M2DetForm((8, 16, 32, 64, 117, 176), (0.04, 0.11, 0.23, 0.39, 0.58, 0.8, 1.05)),
    800: M2DetForm((8, 16, 32, 62, 115, 160), (0.04, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)),
}
"""By the side of the input in pixels. The steps are not always the maps' own: 107 px where three cells span 320."""


@HEADS.register("m2det", paper="1811.04533", predictions="multibox")
def m2det_head(
    features: PyramidSpec,
    *,
    num_classes: int,
    size: int = 320,
    sizes: Sequence[float] | None = None,
    steps: Sequence[float] | None = None,
    ratios: Sequence[float] = (2, 3),
) -> MultiBoxHead:
    """M2Det's head; at 320, 512, 704 and 800 px on six levels with the published anchors.

    On another number of levels their sizes are spread evenly between the published ends, their steps are the strides.
    Anchors are cut to the side of the input, as in the released code, whose boxes are relative to what is left.

    Args:
        features: The pyramid that comes in.
        num_classes: Number of classes, K.
        size: Side of the input in pixels.
        sizes: Sizes of the anchors of each level, finest first, and one more, in sides of the input; of the published
            ones' form, (0.08, 0.15, 0.33, ...), where there are none for ``size``.
        steps: Pixels between neighbouring anchors of each level; by default the published ones, else the strides.
        ratios: Aspect ratios of all levels, above 1.

    Raises:
        ValueError: If there are no published anchors for ``size`` and no ``sizes``, or a number is not one a level.
    """
    shares, steps = m2det_anchors(features, size=size, sizes=sizes, steps=steps, ratios=ratios)
    shapes = [shape * size for shape in shares]
    return MultiBoxHead(features, num_classes=num_classes, shapes=shapes, steps=steps, made_for=size, shares=shares)


def m2det_anchors(
    features: PyramidSpec,
    *,
    size: int = 320,
    sizes: Sequence[float] | None = None,
    steps: Sequence[float] | None = None,
    ratios: Sequence[float] = (2, 3),
) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
    """Shapes (S, 2) of each level, in sides of the input, and steps in pixels; arguments are those of `m2det_head`."""
    form = M2DET_FORMS.get(size)
    if sizes is None and form is None:
        known = ", ".join(map(str, M2DET_FORMS))
        raise ValueError(f"M2Det has published anchors for inputs of {known} px, not {size}; give the anchors' sizes")
    if sizes is None and form is not None:
        sizes = form.sizes if len(form.steps) == len(features) else _spread(form.sizes, len(features))
    if steps is None:
        steps = features.strides if form is None else _published_steps(form.steps, features)
    shares = [round(size * share, 2) / size for share in sizes or ()]
    shapes = multibox_shapes(shares, ratios=[ratios] * (len(shares) - 1))
    return tuple(of_level.clamp(max=1) for of_level in shapes), tuple(steps)


def _spread(sizes: Sequence[float], num_levels: int) -> tuple[float, ...]:
    """The two smallest of ``sizes``, and evenly apart up to the largest what levels need: one more than these."""
    if num_levels == 1:
        return (sizes[0], sizes[-1])
    return (*sizes[:2], *torch.linspace(sizes[2], sizes[-1], num_levels - 1, device="cpu").tolist())
