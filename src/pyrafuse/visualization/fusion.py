"""Which pyramid levels were fused, and where: heat maps of fusion weights over the image.

Figure 3 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection" (ASFF), arXiv:1911.09516.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from pyrafuse.base.captions import place_captions
from pyrafuse.base.detections import Detections
from pyrafuse.visualization.figures import LEVEL_COLORS, plain, quiet_axes
from pyrafuse.visualization.maps import MapPage, draw_detections, draw_map

MAX_BARS = 12
"""So many detections, the best ones, have their attribution drawn and are numbered; the other numbers are of all."""

_SIDE, _LABELS = 3.4, 1.5  # inches
_NUMBER = (0.075, 0.13)  # inches: width of a digit with its margin, height


@dataclass(frozen=True, eq=False)
class MapRow:
    """A row of maps: the weights of one fusion's sources, and what is fused.

    Attributes:
        label: What is fused.
        titles: What each of the S weights is.
        stride: Pixels a cell.
        weights: (S, h, w) in 0..1.
        fused: (h, w), strength of the fused features; drawn on a scale of its own.
        is_output: Whether ``fused`` is of the neck's output.

    Raises:
        ValueError: If weights, titles and the fused map disagree in number or shape.
    """

    label: str
    titles: Sequence[str]
    stride: int
    weights: NDArray[np.floating[Any]]
    fused: NDArray[np.floating[Any]]
    is_output: bool = False

    def __post_init__(self) -> None:
        if self.weights.ndim != 3 or len(self.weights) != len(self.titles):
            raise ValueError(f"weights must be ({len(self.titles)} sources, h, w), got shape {self.weights.shape}")
        if self.fused.ndim != 2:
            raise ValueError(f"fused maps must be (h, w), got shape {self.fused.shape}")


def plot_fusion(
    pixels: NDArray[np.uint8],
    detections: Detections,
    rows: Sequence[MapRow],
    strides: Sequence[int],
    *,
    meaning: str = "weight of the source",
    attributions: NDArray[np.floating[Any]] | None = None,
    attribution_strides: Sequence[int] = (),
) -> Figure:
    """Detections coloured by pyramid level, and below, a row a fusion, the weights that made it.

    Args:
        pixels: (H, W, 3) uint8 RGB that the maps cover: the network's input, or the image itself where the input was
            stretched from it.
        detections: Boxes in pixels of ``pixels``, best first.
        rows: Maps below the image.
        strides: Pixels a cell of each output level, finest first; names the levels.
        meaning: What the weights are, for the colour bar.
        attributions: (N, T), shares of the detections' scores, a bar each for the best.
        attribution_strides: Pixels a cell of the T levels that the shares are of.

    Raises:
        ValueError: If attributions and detections disagree in number.
    """
    has_bars = attributions is not None and len(detections) > 0
    most = max((len(row.titles) for row in rows), default=0)
    page = MapPage(
        pixels,
        rows=len(rows),
        columns=most + 1 if rows else len(strides),
        has_bar=bool(rows),
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
    for rank, row in enumerate(rows):
        for column, (title, weight) in enumerate(zip(row.titles, row.weights, strict=True)):
            axes = page.add_map(rank, column)
            picture = draw_map(axes, pixels, weight, limits=(0, 1))
            axes.set_title(f"{plain(title)}, mean {weight.mean():.2f}", fontsize=8)
            if not rank and not column:
                page.add_bar(picture, meaning)
        page.label_row(rank, plain(row.label))
        axes = page.add_map(rank, most)
        draw_map(axes, pixels, row.fused)
        axes.set_title(f"{'output of' if row.is_output else 'fused at'} {plain(row.label)}, own scale", fontsize=8)
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


def plot_weights(bars: Mapping[str, Mapping[str, float]]) -> Figure:
    """A bar a fusion, as long as the weights of its sources together, which are written in it.

    Args:
        bars: Weight of each source by its name, by the name of what is fused.
    """
    figure = Figure(figsize=(8, 0.6 + 0.26 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for row, weights in enumerate(bars.values()):
        begin = 0.0
        for source, (name, weight) in enumerate(weights.items()):
            axes.barh(row, weight, left=begin, color=LEVEL_COLORS[source % len(LEVEL_COLORS)], height=0.8)
            if weight > 0.1:
                text = plain(f"{name} {weight:.2f}")
                axes.text(begin + weight / 2, row, text, ha="center", va="center", fontsize=7)
            begin += weight
    axes.set_yticks(range(len(bars)), [plain(name) for name in bars], fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    quiet_axes(axes, x="mean weight of each source")
    return figure
