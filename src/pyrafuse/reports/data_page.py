"""A data set as a page: how many objects of each class, and pictures with their boxes."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.captions import draw_boxes
from pyrafuse.base.detections import PALETTE
from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import read_image
from pyrafuse.base.printable import counted
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.checks.sizes import LARGE_SIDE_PX, SMALL_SIDE_PX, compute_sizes
from pyrafuse.visualization.report import MAX_GALLERY_SIDE_PX, Report


def describe_data(
    title: str,
    splits: Sequence[DetectionData],
    *,
    limit: int,
    seed: int = 0,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """The page over ``splits``, which have one list of classes.

    Args:
        title: Its title.
        splits: What is shown.
        limit: Pictures of each split; where it has more, they are drawn at random.
        seed: Seed of that draw.
        name: Class whose images are shown; by default all are.
        progress: Called with the pictures done and the number of all.
    """
    report = Report(title)
    report.add_section("Classes")
    names = splits[0].names
    counts = [np.bincount(np.concatenate([np.zeros(0, np.int64), *(r.labels for r in s.records)]), minlength=len(names))
              for s in splits]  # fmt: skip
    sizes = compute_sizes(splits)
    titles = [split.split or "all" for split in splits]
    report.add_table(
        ("class", *titles, "small", "medium", "large"),
        [
            (row.name, *(int(count[k]) for count in counts), row.small, row.medium, row.large)
            for k, row in enumerate(sizes[: len(names)])
        ],
        caption="Objects of each split, and by size those that are not set aside: small below"
        f" {SMALL_SIDE_PX} x {SMALL_SIDE_PX} pixels, large "
        f"from {LARGE_SIDE_PX} x {LARGE_SIDE_PX} on.",
    )
    chosen = [choose_records(split, limit, seed=seed, name=name) for split in splits]
    done, total, failures = 0, sum(map(len, chosen)), []
    for split, records, heading in zip(splits, chosen, titles, strict=True):
        report.add_section(heading.capitalize())
        of = f" of the class {name}" if name is not None else ""
        report.add_text(f"{len(records)} of {counted(len(split), 'image')}{of}.")
        pictures = []
        for record in records:
            try:
                pictures.append((draw_record(record, names), _caption(record)))
            except DataError as error:
                failures.append((str(error),))
            done += 1
            if progress:
                progress(done, total)
        report.add_gallery(pictures)
    if failures:
        report.add_section("Not readable")
        report.add_table(("reason",), failures)
    return report


def choose_records(data: DetectionData, limit: int, *, seed: int, name: str | None) -> list[ImageRecord]:
    """At most ``limit`` images, those with an object of the class ``name`` alone if it is given, in their order."""
    label = -1 if name is None else data.names.index(name)
    fitting = [r for r in data.records if name is None or (r.labels == label).any()]
    if len(fitting) <= limit:
        return fitting
    rows = np.random.default_rng(seed).choice(len(fitting), limit, replace=False)
    return [fitting[row] for row in np.sort(rows)]


def draw_record(record: ImageRecord, names: Sequence[str]) -> NDArray[np.uint8]:
    """(H, W, 3) the image as large as it is shown, with a box and a caption for each object.

    Raises:
        DataError: If it cannot be read.
    """
    pixels: NDArray[np.uint8] = read_image(record.path)
    height, width = pixels.shape[:2]
    scale = MAX_GALLERY_SIDE_PX / max(height, width)  # small images are enlarged: a caption must not cover them
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(pixels, size, interpolation=interpolation).astype(np.uint8, copy=False)
    if not len(record.labels):
        return pixels
    labels = record.labels.tolist()
    drawn = draw_boxes(
        np.ascontiguousarray(pixels.transpose(2, 0, 1)),
        record.boxes * scale,
        names=[str(names[label]) for label in labels],
        marks=["(set aside)" if is_aside else "" for is_aside in record.crowd.tolist()],
        colors=[PALETTE[label % len(PALETTE)] for label in labels],
    )
    return np.ascontiguousarray(np.asarray(drawn).transpose(1, 2, 0))


def _caption(record: ImageRecord) -> str:
    return f"{record.path.name}: {record.width} x {record.height}, {counted(len(record.labels), 'object')}"
