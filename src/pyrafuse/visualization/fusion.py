"""Which pyramid level a detector listens to, and where: heat maps of fusion weights over the image.

Figure 3 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection" (ASFF), arXiv:1911.09516.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from pyrafuse.base.captions import place_captions
from pyrafuse.base.detections import Detections
from pyrafuse.visualization.figures import LEVEL_COLORS, plain
from pyrafuse.visualization.maps import MapPage, draw_detections, draw_map

MAX_BARS = 12
"""So many detections, the best ones, have their attribution drawn and are numbered; the other numbers are of all."""

_SIDE, _LABELS = 3.4, 1.5  # inches
_NUMBER = (0.075, 0.13)  # inches: width of a digit with its margin, height


def plot_fusion(
    image: Tensor,
    detections: Detections,
    weights: Sequence[NDArray[np.floating[Any]]] | None,
    fused: Sequence[NDArray[np.floating[Any]]] | None,
    strides: Sequence[int],
    *,
    sources: Sequence[int] | None = None,
    meaning: str = "weight of the source level",
    attributions: NDArray[np.floating[Any]] | None = None,
    attribution_strides: Sequence[int] = (),
) -> Figure:
    """Detections coloured by pyramid level, and below, a row an output level, the weights that fused it.

    Args:
        image: (3, H, W) uint8 RGB that the maps cover: the network's input, or the image itself where the input was
            stretched from it.
        detections: Boxes in pixels of ``image``, best first.
        weights: For each output level, finest first, (S, h, w) in 0..1: the weight of each source level at each
            position. None for a neck without such weights.
        fused: For each output level (h, w), the strength of the fused features; each drawn on a scale of its own.
        strides: Pixels a cell of each output level, finest first; names the levels.
        sources: Pixels a cell of each source level, by default those of the output levels.
        meaning: What the weights are, for the colour bar.
        attributions: (N, T), shares of the detections' scores, a bar each for the best.
        attribution_strides: Pixels a cell of the T levels that the shares are of.

    Raises:
        ValueError: If weights, fused maps, attributions and strides disagree in number or shape.
    """
    sources = strides if sources is None else sources
    _check(weights, fused, strides, sources)
    has_bars = attributions is not None and len(detections) > 0
    pixels = image.cpu().permute(1, 2, 0).numpy()
    page = MapPage(
        pixels,
        rows=len(weights) if weights else int(fused is not None),
        columns=len(sources) + int(fused is not None) if weights else len(strides),
        has_bar=bool(weights),
        side_width=_SIDE if has_bars else 0.0,
    )
    top = page.add_top()
    draw_detections(top, pixels, detections, strides)
    if attributions is not None and has_bars:
        if attributions.shape != (len(detections), len(attribution_strides)):
            raise ValueError(
                f"attributions must be ({len(detections)} detections, {len(attribution_strides)} levels), got shape "
                f"{attributions.shape}"
            )
        _draw_attributions(page.add_side(_LABELS), top, detections[:MAX_BARS], attributions, attribution_strides)
        if len(detections) > MAX_BARS:
            top.set_title(f"{len(detections)} detections, the best {MAX_BARS} numbered", fontsize=10, fontweight="bold")
    for level, level_weights in enumerate(weights or ()):
        for source, weight in enumerate(level_weights):
            axes = page.add_map(level, source)
            picture = draw_map(axes, pixels, weight, limits=(0, 1))
            axes.set_title(f"from stride {sources[source]}, mean {weight.mean():.2f}", fontsize=8)
            if not level and not source:
                bar = page.figure.colorbar(picture, cax=page.add_bar())
                bar.set_label(meaning, fontsize=9)
                bar.ax.tick_params(labelsize=8)
        page.label_row(level, f"stride {strides[level]}")
    for level, strength in enumerate(fused or ()):
        axes = page.add_map(level, len(sources)) if weights else page.add_map(0, level)
        draw_map(axes, pixels, strength)
        axes.set_title(f"fused at stride {strides[level]}, own scale", fontsize=8)
    return page.figure


def _draw_attributions(
    axes: Axes,
    top: Axes,
    detections: Detections,
    attributions: NDArray[np.floating[Any]],
    strides: Sequence[int],
) -> None:
    """A bar a detection, as long as its shares together, and its number at its box in ``top``."""
    rows = range(len(detections))
    begin = np.zeros(len(detections))
    for source, stride in enumerate(strides):
        lengths = attributions[: len(detections), source]
        color = LEVEL_COLORS[source % len(LEVEL_COLORS)]
        axes.barh(rows, lengths, left=begin, color=color, height=0.75, label=f"stride {stride}")
        begin = begin + lengths
    labels = detections.labels.tolist()
    names = [
        plain(f"{row + 1} {detections.name_of(label)} {score:.2f}")
        for row, label, score in zip(rows, labels, detections.scores.tolist(), strict=True)
    ]
    axes.set_yticks(rows, names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(detections), 4) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=7)
    axes.tick_params(axis="x", pad=1, length=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    rest = "" if len(detections) == len(attributions) else f", the best {len(detections)} of {len(attributions)}"
    axes.set_title(f"share of each source level in the score{rest}", fontsize=8, loc="right")
    _number_boxes(top, detections)


def _number_boxes(axes: Axes, detections: Detections) -> None:
    """The rank of each box beside it, in the colour of its level, none upon another; a line leads to a far one."""
    height, width = axes.images[0].get_size()
    figure = axes.get_figure(root=True)
    assert figure is not None
    pixels = width / (axes.get_position().width * figure.get_figwidth())  # an inch
    sizes = [
        (ceil(_NUMBER[0] * len(f"{row + 1}") * pixels), ceil(_NUMBER[1] * pixels)) for row in range(len(detections))
    ]
    limits = np.asarray([width, height])
    boxes = detections.boxes.cpu().numpy().reshape(-1, 2, 2).clip(0, limits).round().astype(np.int64).reshape(-1, 4)
    spots = place_captions(boxes, sizes, (width, height))
    for row, (box, level) in enumerate(zip(boxes, detections.levels.tolist(), strict=True)):
        color = LEVEL_COLORS[level % len(LEVEL_COLORS)]
        if not spots[row].any():
            spots[row] = _nearest_free(box, sizes[row], limits, spots)
            middle = spots[row].reshape(2, 2).mean(axis=0)
            nearest = np.clip(middle, box[:2], box[2:])
            axes.plot(*zip(nearest, middle, strict=True), color=color, linewidth=0.7, scalex=False, scaley=False)
        x1, y1, x2, y2 = spots[row].tolist()
        axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, facecolor=color, linewidth=0))
        axes.text(
            (x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2, f"{row + 1}", color="white", fontsize=7, ha="center",
            va="center_baseline", clip_on=True,
        )  # fmt: skip


def _nearest_free(
    box: NDArray[np.int64], size: tuple[int, int], limits: NDArray[np.int64], taken: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The place of ``size`` next to the box's corner, all over the image, that covers none of ``taken``."""
    x, y = (np.arange(0, max(limit - side, 0) + 1, max(side // 2, 1)) for limit, side in zip(limits, size, strict=True))
    low = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    high = low + size
    meets = (low[:, None] < taken[None, :, 2:]) & (high[:, None] > taken[None, :, :2])
    distance = np.abs((low + high) / 2 - box[:2]).sum(axis=1)
    distance[np.any(meets[..., 0] & meets[..., 1], axis=1)] += limits.sum()
    best = int(distance.argmin())
    return np.concatenate([low[best], high[best]])


def _check(
    weights: Sequence[NDArray[np.floating[Any]]] | None,
    fused: Sequence[NDArray[np.floating[Any]]] | None,
    strides: Sequence[int],
    sources: Sequence[int],
) -> None:
    for what, maps in (("weights", weights), ("fused", fused)):
        if maps is not None and len(maps) != len(strides):
            raise ValueError(f"{what} of {len(maps)} levels, but {len(strides)} strides {tuple(strides)}")
    for level_weights in weights or ():
        if level_weights.ndim != 3 or len(level_weights) != len(sources):
            raise ValueError(f"weights must be ({len(sources)} levels, h, w), got shape {level_weights.shape}")
    for strength in fused or ():
        if strength.ndim != 2:
            raise ValueError(f"fused maps must be (h, w), got shape {strength.shape}")
