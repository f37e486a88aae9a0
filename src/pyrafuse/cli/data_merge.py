"""`pyrafuse data merge`."""

from pathlib import Path
from typing import Literal

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.paths import check_data


def merge(
    *sources: str,
    output: Path,
    to: str | None = None,
    images: Literal["copy", "link", "reference"] = "copy",
    allow_loss: bool = False,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
) -> int:
    """Put data sets together, of any formats, and write them to a new folder.

    Splits of one name become one, and classes of one name are one class.

    Args:
        sources: Folders or files of any format that is read.
        output: Folder to create.
        to: Format to write; by default that of the first source, or COCO where that is only read.
        images: copy them; link them (hard links, which take no room); or reference, which leaves them and names them
            by their path (COCO alone can).
        allow_loss: Whether something of the objects may be lost.
        missing: error for images that are listed and not there; skip leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored or upright; auto is
            upright with a warning.
        boxes: What the numbers of a box are, as in `data check`.
    """
    if len(sources) < 2:
        raise PyrafuseError(
            f"{len(sources)} data set cannot be merged; name two or more, and -o OUT for the new folder"
        )
    for source in sources:
        check_data(source)
    from pyrafuse.cli.data_writing import choose_format, read_sources, tell, tell_plan, write_planned
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.data.writing.converting import check_destination, find_writing, plan
    from pyrafuse.data.writing.merging import merge_readings

    if to is not None:
        find_writing(to)
    check_destination(output, *map(Path, sources))
    found = read_sources(sources, ReadingRules(missing=missing, exif=exif, boxes=boxes))
    merged, problems = merge_readings(found)
    tell(problems)
    planned = plan(merged, to or choose_format(found[0]), images=images, allow_loss=allow_loss)
    write_planned(planned, output)
    tell_plan(planned, output)
    return 0
