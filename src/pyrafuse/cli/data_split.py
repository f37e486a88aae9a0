"""`pyrafuse data split`."""

from pathlib import Path
from typing import Literal

from pyrafuse.base.paths import check_data


def split(
    source: str,
    destination: Path,
    /,
    *,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    group: str | None = None,
    near_duplicates: bool = False,
    to: str | None = None,
    images: Literal["copy", "link", "reference"] = "copy",
    allow_loss: bool = False,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
) -> int:
    r"""Divide a data set into training, validation and test, and write it to a new folder.

    Each split has its share of every class and of small, medium and large objects. Images of one group stay together.
    The splits that there are do not count.

    Args:
        source: A folder or a file of any format that is read, or shapes (generated images).
        destination: Folder to create.
        val: Share of the images for validation; 0 makes no such split.
        test: Share of the images for the test; 0 makes no such split.
        seed: Seed that decides between equals.
        group: Regular expression: images in whose path it finds the same text are one group, 'video(\d+)' say.
        near_duplicates: Whether pictures that look alike are one group, by a perceptual hash.
        to: Format to write; by default that of the source, or COCO where that is only read.
        images: copy them; link them (hard links, which take no room); or reference, which leaves them and names them
            by their path (COCO alone can).
        allow_loss: Whether something of the objects may be lost.
        missing: error for images that are listed and not there; skip leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored or upright; auto is
            upright with a warning.
        boxes: What the numbers of a box are, as in `data check`.
    """
    check_data(source)
    from pyrafuse.cli.data_writing import choose_format, group_images, read_sources, tell_plan, write_planned
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.data.writing.converting import check_destination, find_writing, plan
    from pyrafuse.data.writing.splitting import join_splits, split_reading, tell_shares

    if to is not None:
        find_writing(to)
    check_destination(destination, Path(source))
    (readings,) = read_sources([source], ReadingRules(missing=missing, exif=exif, boxes=boxes))
    joined = join_splits(readings)
    groups = group_images(joined.data.records, group, near_duplicates=near_duplicates)
    shares = {"train": 1 - val - test, **{name: share for name, share in (("val", val), ("test", test)) if share}}
    parts = split_reading(joined, shares, seed=seed, groups=groups)
    planned = plan(parts, to or choose_format(readings), images=images, allow_loss=allow_loss)
    write_planned(planned, destination)
    tell_plan(planned, destination)
    print(tell_shares(parts))
    return 0
