"""`pyrafuse data check`."""

from pathlib import Path
from typing import Literal

from pyrafuse.base.paths import check_data, check_writable


def check(
    path: str,
    /,
    *,
    strict: bool = False,
    json: Path | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    missing: Literal["error", "skip"] = "error",
    exif: Literal["auto", "stored", "upright"] = "auto",
    boxes: str = "auto",
) -> int:
    """Read a data set whole and say what is wrong with it.

    The status is 2 if there is an error, or, with --strict, a warning.

    Args:
        path: A folder, a data.yaml, a COCO JSON file, or shapes (generated images).
        strict: Whether a warning counts as an error.
        json: File to write the report to, for programs.
        val_fraction: Share of the images that is drawn for validation where no split is meant for it.
        seed: Seed of that draw.
        missing: error for images that are listed and not there; skip leaves them out and counts them.
        exif: Frame of boxes in images that EXIF turns, where the annotated size cannot tell: stored as the pixels lie
            in the file, or upright; auto is upright with a warning.
        boxes: What the numbers of a box are: auto is what the layout has. Else one of pixels, shares and percent, one
            of corners (x1 y1 x2 y2), sizes (x y width height) and centers (centre, width, height), or both:
            shares,corners.
    """
    check_data(path)
    if json is not None:
        check_writable(json)
    import json as json_format

    from pyrafuse.base.progress import create_bar
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.base.writing import write_text
    from pyrafuse.data.checks import checking
    from pyrafuse.data.formats.layout import read_splits
    from pyrafuse.data.reading.rules import ReadingRules

    rules = ReadingRules(missing=missing, exif=exif, boxes=boxes)
    splits = read_splits(path, val_fraction=val_fraction, seed=seed, rules=rules)
    with create_bar(Terminal()) as bar:
        task = bar.add_task("decoding images", total=None)
        report = checking.check(splits, progress=lambda done, total: bar.update(task, completed=done, total=total))
    print(report.text())
    if json is not None:
        write_text(json, json_format.dumps(report.to_json(), indent=1))
    return 2 if report.has_errors or (strict and report.warnings) else 0
