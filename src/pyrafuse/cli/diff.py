"""`pyrafuse diff`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyrafuse.base.errors import DataError, PyrafuseError, check_between, check_count
from pyrafuse.base.paths import check_data, check_page, find_checkpoint
from pyrafuse.base.printable import counted, list_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyrafuse.base.records import DetectionData
    from pyrafuse.base.terminal import Terminal
    from pyrafuse.evaluation.coco import CocoEvaluator
    from pyrafuse.evaluation.difference import Difference


def diff(
    first: str,
    second: str,
    data: str,
    /,
    *,
    split: str = "val",
    size: int | None = None,
    score: float | None = None,
    tile: int | None = None,
    overlap: float | None = None,
    augment: tuple[str, ...] = (),
    merge: Literal["nms", "wbf"] | None = None,
    batch: int = 8,
    workers: int | None = None,
    limit: int = 24,
    missing: Literal["error", "skip"] | None = None,
    exif: Literal["auto", "stored", "upright"] | None = None,
    boxes: str | None = None,
    page: Path = Path("diff.html"),
    device: str = "auto",
) -> int:
    """Tell what one detector finds and another does not, by class and size, with pictures side by side.

    Args:
        first: A: a checkpoint, the folder of a run, an exported .onnx or .xml, or COCO results, .json.
        second: B, of the same kinds.
        data: A folder or a file of any format that is read, or shapes (generated images).
        split: train, val or test.
        size: Side of the networks' input in pixels; by default each model's own.
        score: Least score of a detection that counts, 0..1; by default each detector's own, where its F1 is best.
        tile: Side in pixels of the tiles that a larger image is cut into, for both models; by default that of each
            model's training, where it was on tiles; 0 keeps images whole.
        overlap: Least share of a tile's side that it has in common with the next one, 0..0.9; by default that of the
            training, or 0.2.
        augment: Other views of each image or tile, as in `evaluate`: flip, scales, a scale such as 1.5, whole.
        merge: nms, the default, keeps the best of the boxes that several views find, wbf takes their weighted mean.
        batch: Images, or tiles, at a time.
        workers: Processes that load; by default as many as there are cores for it.
        limit: Pictures on the page, those with most differences.
        missing: error for images that are listed and not there, skip to leave them out and count them; by default
            error.
        exif: Frame of boxes in images that EXIF turns, as in `evaluate`.
        boxes: What the numbers of a box are, as in `data check`.
        page: File of the page, .html.
        device: auto, cpu, gpu, or the number of a GPU such as 1; exported files run on the processor.
    """
    from pyrafuse.base.terminal import Terminal

    difference, files = compare_detectors(
        first,
        second,
        data,
        split=split,
        size=size,
        score=score,
        tile=tile,
        overlap=overlap,
        augment=augment,
        merge=merge,
        batch=batch,
        workers=workers,
        limit=limit,
        missing=missing,
        exif=exif,
        boxes=boxes,
        page=page,
        device=device,
        console=Terminal(),
    )
    print(f"A  {files[0]}\nB  {files[1]}\n\n{difference.table()}\n\n{difference.summary()}\n\nwritten to  {page}")
    return 0


def compare_detectors(
    first: str,
    second: str,
    data: str,
    *,
    split: str,
    size: int | None,
    score: float | None,
    tile: int | None,
    overlap: float | None,
    augment: tuple[str, ...],
    merge: Literal["nms", "wbf"] | None,
    batch: int,
    workers: int | None,
    limit: int,
    missing: Literal["error", "skip"] | None,
    exif: Literal["auto", "stored", "upright"] | None,
    boxes: str | None,
    page: Path | None,
    device: str,
    console: "Terminal",
) -> "tuple[Difference, tuple[Path, Path]]":
    """What `diff` tells, with the same options, and the files of A and B; ``page`` is written where it is given.

    Raises:
        PyrafuseError: If a value does not fit, or a model, results or the data cannot be read.
    """
    check_between("size", size, 1)
    check_between("score", score, 0, 1)
    check_between("batch", batch, 1)
    check_between("workers", workers, 0)
    check_count("limit", limit)
    check_data(data)
    if page is not None:
        check_page(page, "--page")
    files = (_find(first), _find(second))
    from pyrafuse.base.progress import create_bar
    from pyrafuse.cli.data_problems import tell_problems
    from pyrafuse.cli.detectors import NO_SPEEDUPS, choose_views, load_detecting
    from pyrafuse.data.formats.layout import read_split
    from pyrafuse.data.reading.rules import ReadingRules
    from pyrafuse.evaluation.difference import compare
    from pyrafuse.reports.difference import describe_difference

    asked = {"tile": tile, "overlap": overlap, "augment": augment, "merge": merge}
    if all(map(_is_results, files)) and (unused := [name for name, value in asked.items() if value not in (None, ())]):
        raise PyrafuseError(
            f"--{unused[0]} is for a model, and A and B are results, which hold the detections: leave it out"
        )
    loaded = [
        None
        if _is_results(file)
        else load_detecting(
            file,
            device,
            NO_SPEEDUPS,
            choose_views(file, console, tile=tile, overlap=overlap, augment=augment, merge=merge),
        )
        for file in files
    ]
    _check_classes({file: each[0].card.names for file, each in zip(files, loaded, strict=True) if each is not None})
    rules = ReadingRules.from_values({}, missing=missing, exif=exif, boxes=boxes)
    images = tell_problems(read_split(data, split, rules=rules))
    console.print(f"{counted(len(images), 'image')} of {data} ({images.split})", highlight=False, markup=False)
    evaluators = [
        _read(file, images, console)
        if each is None
        else each[1](each[0], images, size=size, batch_size=batch, workers=workers, console=console)
        for file, each in zip(files, loaded, strict=True)
    ]
    with create_bar(console) as bar:
        bar.add_task("judge and draw" if page is not None else "judge", total=None)
        difference = compare(evaluators[0], evaluators[1], score=score, limit=limit)
        if page is not None:
            facts = {"A": files[0], "B": files[1], "data": data, "split": images.split}
            describe_difference(difference, facts).save(page)
    return difference, files


def _is_results(file: Path) -> bool:
    return file.suffix.lower() == ".json"


def _find(given: str) -> Path:
    file = Path(given)
    if not _is_results(file):
        return find_checkpoint(given)
    if not file.is_file():
        raise DataError(f"no such file of results: {file}; pyrafuse evaluate and predict --formats coco write one")
    return file


def _check_classes(names: "Mapping[Path, tuple[str, ...]]") -> None:
    """Refuse models of different classes.

    Raises:
        DataError: With the classes that only one of them knows.
    """
    names = {file: known for file, known in names.items() if known}  # one without names is taken at its word
    if len({frozenset(known) for known in names.values()}) < 2:
        return
    (first, of_first), (second, of_second) = names.items()
    told = [
        f"{list_names(name for name in own if name not in other)} is known to {file} alone"
        for file, own, other in ((first, of_first, of_second), (second, of_second, of_first))
        if set(own) - set(other)
    ]
    raise DataError(f"A and B have different classes: {'; '.join(told)}. Compare detectors of the same classes")


def _read(file: Path, images: "DetectionData", console: "Terminal") -> "CocoEvaluator":
    from pyrafuse.inference.results_file import read_results

    results = read_results(file, images)
    for note in results.notes:
        console.print(note, highlight=False, markup=False)
    return results.evaluator
