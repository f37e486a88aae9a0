"""`pyrafuse data convert`."""

from pathlib import Path
from typing import Literal

from pyrafuse.base.paths import check_data


def convert(
    source: str,
    destination: Path,
    /,
    *,
    to: str,
    images: Literal["copy", "link", "reference"] = "copy",
    allow_loss: bool = False,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
) -> int:
    """Write a data set in another format.

    Every split is written. What the other format cannot hold is listed, and --allow-loss gives it up. The folder
    appears complete and read again, or not at all.

    Args:
        source: A folder or a file of any format that is read, or shapes (generated images).
        destination: Folder to create.
        to: Format to write: coco, voc, yolo, cvat, labelme, imagefolder or csv.
        images: copy them; link them (hard links, which take no room); or reference, which leaves them and names them
            by their path (COCO alone can).
        allow_loss: Whether something of the objects may be lost.
        missing: error for images that are listed and not there; skip leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored or upright; auto is
            upright with a warning.
        boxes: What the numbers of a box are, as in `data check`.
    """
    check_data(source)
    from pyrafuse.cli.data_writing import read_sources, tell_plan, write_planned
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.data.writing.converting import check_destination, find_writing, plan

    find_writing(to)
    check_destination(destination, Path(source))
    (readings,) = read_sources([source], ReadingRules(missing=missing, exif=exif, boxes=boxes))
    planned = plan(readings, to, images=images, allow_loss=allow_loss)
    write_planned(planned, destination)
    tell_plan(planned, destination)
    return 0
