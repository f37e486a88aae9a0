"""Large images as tiles to learn from: a record an image -> a record a tile, with the objects in it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.records import DetectionData, ImageRecord, Window
from pyrafuse.base.views.cutting import cut_tiles
from pyrafuse.data.formats.layout import Splits

LEAST_VISIBLE = 0.5
"""An object of which a tile shows less than this share is set aside there: neither to be found nor missed."""


@dataclass(frozen=True)
class Tiles:
    """A data set in tiles.

    Attributes:
        splits: Each tile is an image of them.
        num_hidden: Training objects of which no tile shows enough to learn them.
    """

    splits: Splits
    num_hidden: int


def tile_splits(splits: Splits, *, tile: int | None, overlap: float) -> Tiles:
    """Both splits with a record for each tile of a larger image; as they are without ``tile``.

    Args:
        splits: Data of whole images.
        tile: Side of a tile in pixels of the image; None keeps images whole.
        overlap: Least share of a tile's side that it has in common with the next one.
    """
    if tile is None:
        return Tiles(splits, 0)
    train, num_hidden = _tile(splits.train, tile, overlap)
    val, _ = _tile(splits.val, tile, overlap)
    return Tiles(replace(splits, train=train, val=val), num_hidden)


def _tile(data: DetectionData, tile: int, overlap: float) -> tuple[DetectionData, int]:
    """The data in tiles, and how many objects no tile shows well enough."""
    records: list[ImageRecord] = []
    num_hidden = 0
    for record in data.records:
        is_hidden = ~record.crowd
        for part, rows in _cut(record, tile, overlap):
            records.append(part)
            is_hidden[rows[~part.crowd]] = False
        num_hidden += int(is_hidden.sum())
    return replace(data, records=tuple(records)), num_hidden


def _cut(record: ImageRecord, tile: int, overlap: float) -> Iterator[tuple[ImageRecord, NDArray[np.int64]]]:
    """The tiles of an image, and the rows of the objects that each one shows."""
    if max(record.height, record.width) <= tile:
        yield record, np.arange(len(record.labels))
        return
    areas = _areas(record.boxes)
    for left, top, right, bottom in cut_tiles(record.height, record.width, tile=tile, overlap=overlap):
        low, high = np.array([left, top] * 2, np.float32), np.array([right, bottom] * 2, np.float32)
        boxes = record.boxes.clip(low, high)
        visible = _areas(boxes) / np.maximum(areas, 1e-9)
        rows = np.flatnonzero(visible > 0)
        part = ImageRecord(
            record.path,
            f"{record.image_id}@{left},{top}",
            right - left,
            bottom - top,
            (boxes - low)[rows],
            record.labels[rows],
            record.crowd[rows] | (visible[rows] < LEAST_VISIBLE),
            (record.areas * visible)[rows].astype(np.float32),
            Window(left, top, record.width, record.height),
        )
        yield part, rows


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
