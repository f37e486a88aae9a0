"""A detector that is given several views of each image, and puts together what it finds in them.

frames -> views of some frames at a time -> the detector, batch by batch -> one `Detections` a frame
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.arrays import like
from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.views.cutting import View, Views
from pyrafuse.base.views.merging import merge

MULTIPLE = 32
"""Sides of a scaled input are multiples of this."""


@dataclass(frozen=True)
class InViews:
    """Predicts as ``detector`` does, in ``views`` of each image.

    Where an image has one view, the image itself, its detections are those of ``detector``.

    Attributes:
        detector: Detects in each view.
        views: Which views of each image there are.
        tell: Is told each view that is done, as its share of its image.
    """

    detector: Predictor
    views: Views
    tell: Callable[[float], object] = lambda share: None  # noqa: ARG005

    @property
    def card(self) -> Card:
        """The detector's own."""
        return self.detector.card

    @property
    def device(self) -> object:
        """Where the detector computes."""
        return getattr(self.detector, "device", "cpu")

    def predict_frames(
        self,
        frames: Iterable[Frame],
        *,
        batch_size: int = 1,
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        labels: tuple[int, ...] = (),
        preprocessing: Preprocessing | None = None,
        keep_images: bool = True,
        clip: bool = True,
    ) -> Generator[Detections, None, None]:
        """Detections of each readable frame in turn.

        Frames are taken until they have ``batch_size`` views, so that the memory holds one image where it has as many
        tiles. ``max_detections`` limits each view and each image; the detector's own limit, each view alone.
        """
        base = preprocessing or self.card.preprocessing
        for some in self._gather(frames, batch_size):
            found: list[list[Detections]] = [[] for _ in some]
            for scale in self.views.scales:
                pieces = [(i, view) for i, (_, views) in enumerate(some) for view in views if view.scale == scale]
                detections = self._predict(
                    (_cut(some[i][0], view) for i, view in pieces),
                    scale,
                    batch_size=batch_size,
                    score_threshold=score_threshold,
                    nms_iou=nms_iou,
                    max_detections=max_detections,
                    labels=labels,
                    preprocessing=_scaled(base, scale),
                    keep_images=False,
                    clip=False,
                )
                for (i, _), each in zip(pieces, detections, strict=True):
                    found[i].append(each)
                    self.tell(1 / len(some[i][1]))
            for (frame, views), parts in zip(some, found, strict=True):
                assert frame.image is not None
                one = parts[0] if len(parts) == 1 else _merge(parts, views, frame.image.shape[:2], self.views)
                if score_threshold is not None and len(parts) > 1:
                    one = one[one.scores >= score_threshold][:max_detections]
                image = like(one.boxes, frame.image.transpose(2, 0, 1)) if keep_images else None
                placed = replace(one, source=frame.name, image=image)
                yield placed.clip() if clip else placed

    def _gather(self, frames: Iterable[Frame], least: int) -> Iterator[list[tuple[Frame, tuple[View, ...]]]]:
        """Some frames at a time, with their views: as few as have ``least`` views at each scale."""
        some: list[tuple[Frame, tuple[View, ...]]] = []
        for frame in frames:
            if frame.image is not None:
                some.append((frame, self.views.of(*frame.image.shape[:2])))
            if some and sum(len(views) for _, views in some) >= least * len(self.views.scales):
                yield some
                some = []
        if some:
            yield some

    def _predict(self, frames: Iterator[Frame], scale: float, **options: object) -> Iterator[Detections]:
        try:
            yield from self.detector.predict_frames(frames, **options)  # pyright: ignore[reportArgumentType]
        except PyrafuseError as error:
            if scale == 1:
                raise
            raise PyrafuseError(f"{error} (augment asks for {scale:g} times the size)") from error


def in_views(detector: Predictor, views: Views | None) -> Predictor:
    """``detector``, given ``views`` of each image; itself where there is one."""
    return detector if views is None or views.is_single else InViews(detector, views)


def predict_telling(
    detector: Predictor, frames: Iterable[Frame], tell: Callable[[float], object], **options: Any
) -> Iterator[Detections]:
    """What ``detector`` predicts; ``tell`` is told what is done, in images: of one in tiles, after each tile."""
    if isinstance(detector, InViews):
        yield from replace(detector, tell=tell).predict_frames(frames, **options)
        return
    for found in detector.predict_frames(frames, **options):
        yield found
        tell(1)


def count_ahead(detector: Predictor, batch_size: int) -> int:
    """Images that are worked on at a time, in batches of ``batch_size``: one that is cut into tiles fills them."""
    return 1 if isinstance(detector, InViews) and detector.views.tile is not None else batch_size


def _cut(frame: Frame, view: View) -> Frame:
    assert frame.image is not None
    return replace(frame, image=view.cut(frame.image))


def _scaled(preprocessing: Preprocessing, scale: float) -> Preprocessing:
    if scale == 1:
        return preprocessing
    multiple = 1 if preprocessing.fit == "keep_ratio" else MULTIPLE
    height, width = (max(MULTIPLE, round(side * scale / multiple) * multiple) for side in preprocessing.size)
    return preprocessing.at_size((height, width))


def _merge(found: Sequence[Detections], views: Sequence[View], size: tuple[int, int], how: Views) -> Detections:
    """What was found in all views of an image of ``size``, in its own pixels; boxes end at borders between tiles."""
    bounds = [_bounds(view, size) for view in views]
    boxes = [
        view.to_image(each.numpy().boxes).clip(low, high)
        for view, each, (low, high) in zip(views, found, bounds, strict=True)
    ]
    columns = [each.numpy() for each in found]
    all_boxes = np.concatenate(boxes)
    has_area = (all_boxes[:, 2:] > all_boxes[:, :2]).all(axis=1)
    scores, labels, levels = (np.concatenate(list(parts))[has_area] for parts in list(zip(*columns, strict=True))[1:])
    of_views = np.repeat(np.arange(len(views)), [len(each) for each in found])[has_area]
    merged = merge(
        all_boxes[has_area].astype(np.float64),
        scores.astype(np.float64),
        labels,
        of_views,
        [view.box for view in views],
        size,
        method=how.merge,
    )
    kind = found[0].boxes
    return replace(
        found[0],
        boxes=like(kind, merged.boxes.astype(np.float32)),
        scores=like(kind, merged.scores.astype(np.float32)),
        labels=like(kind, labels[merged.rows]),
        levels=like(kind, levels[merged.rows]),
        rows=None,
        image_size=size,
    )


def _bounds(view: View, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and largest corners (4,) of a box of ``view``; there are none at the image's own edges."""
    edges = [0, 0, size[1], size[0]]
    left, top, right, bottom = (
        float(edge) if edge != outer else sign * np.inf
        for edge, outer, sign in zip(view.box, edges, (-1, -1, 1, 1), strict=True)
    )
    return np.array([left, top, left, top], np.float32), np.array([right, bottom, right, bottom], np.float32)
