"""`pyrafuse data shard`."""

from pathlib import Path
from typing import Literal

from pyrafuse.base.errors import check_between
from pyrafuse.base.paths import check_data


def shard(
    source: str,
    destination: Path,
    /,
    *,
    shard_mb: int = 256,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
) -> int:
    """Write a data set as tar files with an index, for data of very many images or at an address.

    The new folder is a data set as any other: `pyrafuse train DESTINATION` trains on the same pixels in the same order
    as on the source. Images keep their bytes. Every split is written. The folder appears complete and read again, or
    not at all.

    Args:
        source: A folder or a file of any format that is read, or shapes (generated images).
        destination: Folder to create.
        shard_mb: Size of a tar file at most, in MB; an image is never divided.
        missing: error for images that are listed and not there; skip leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored or upright; auto is
            upright with a warning.
        boxes: What the numbers of a box are, as in `data check`.
    """
    check_data(source)
    check_between("--shard-mb", shard_mb, 1, 10**6)
    from pyrafuse.base.printable import counted
    from pyrafuse.base.progress import create_bar
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.cli.data_writing import read_sources, tell
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.data.sharding.writing import write_shards
    from pyrafuse.data.writing.converting import check_destination

    check_destination(destination, Path(source))
    (readings,) = read_sources([source], ReadingRules(missing=missing, exif=exif, boxes=boxes))
    with create_bar(Terminal()) as bar:
        task = bar.add_task("writing images", total=None)
        written = write_shards(
            readings,
            destination,
            shard_bytes=shard_mb * 10**6,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    tell(written.problems)
    parts = [
        f"{split or 'one split'} {counted(count, 'image')} in {counted(written.num_shards[split], 'shard')}"
        for split, count in written.num_images.items()
    ]
    print(f"{destination}: {'; '.join(parts)}")
    unkept = {what for reading in readings for what in reading.unkept}
    for what in sorted(unkept):
        print(f"not kept: {what}: {sum(reading.unkept.get(what, 0) for reading in readings)}")
    read_errors = sum(problem.severity == "error" for reading in readings for problem in reading.problems)
    if left_out := read_errors + len(written.problems):
        print(f"left out: {counted(left_out, 'image or object', 'images or objects')} with an error, told above")
    return int(bool(left_out))
