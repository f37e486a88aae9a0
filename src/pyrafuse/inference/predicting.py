"""Predictions over a whole source: frames -> detector -> files, with what could not be read counted, not fatal."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pyrafuse.base.errors import DataError, check_between
from pyrafuse.base.first_of import FirstOf
from pyrafuse.base.images.ahead import read_ahead
from pyrafuse.base.images.sources import Frame, Source, open_source, tell_suffixes
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.paths import check_writable
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.printable import printable
from pyrafuse.base.progress import advancing
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.views.detecting import count_ahead
from pyrafuse.inference.finding import Settings, find_in
from pyrafuse.inference.writers.behind import WritingBehind
from pyrafuse.inference.writers.registry import Destination, create_writers

NUM_NOTES = 5
"""So many images are named of those that were not read plainly."""


@dataclass(frozen=True)
class Failure:
    """An input that could not be read, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What became of a source.

    Attributes:
        num_images: Images and video frames that were predicted on.
        num_objects: Objects found in them.
        num_failed: Inputs that could not be read.
        failures: The first thousand of these.
        seconds: Wall time from the first frame read to the last file written.
        notes: What was decided in reading an image, such as which white was taken, with its name; of the first
            thousand images.
    """

    num_images: int
    num_objects: int
    num_failed: int
    failures: tuple[Failure, ...]
    seconds: float
    notes: tuple[str, ...] = ()


def predict_to(
    detector: Predictor,
    source: Any,
    output: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("image", "json"),
    score: float | None = 0.25,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    batch: int = 1,
    size: int | tuple[int, int] | None = None,
    classes: Sequence[str | int] | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> Summary:
    """Predict on everything in ``source`` and write what was found below ``output``.

    An input that cannot be read is passed over and told in the summary. Upon an interrupt, which is how a camera is
    stopped, everything until then is written, and told by the interrupt where more was to come; upon an error no video
    that was begun, and no file of results over all.

    Args:
        detector: Detector on the device to compute on, or an exported one; `in_views` lets it work in tiles.
        source: Whatever `open_source` takes, or what it returned.
        output: A folder; made when it is not there.
        formats: What to write, by the names that `WRITERS` has.
        score: Least score that is kept, 0..1; the detector's own threshold when none.
        nms_iou: Overlap above which two boxes of a class are one object; the detector's own when none.
        max_detections: Largest number of detections an image; the detector's own when none.
        batch: Images at a time.
        size: Side, or height and width, of the network's input in pixels; by default what it was trained at.
        classes: Names or numbers of the classes that are kept; by default all.
        limit: Only so many images and frames, the first ones.
        progress: Whether to show a bar with the time that is left, and each failure, on standard error.

    Raises:
        DataError: If there is no such source, or nothing in it can be read.
        PyrafuseError: If a format is unknown, a number is out of its range, a file cannot be written or another
            process writes to ``output``.
    """
    settings = Settings(score, nms_iou, max_detections, batch, size, classes)
    check_between("limit", limit, 1)
    settings.resolve(detector.card)  # before anything is written
    check_writable(output, is_folder=True)
    frames = source if isinstance(source, Source) else open_source(source)
    destination = Destination(Path(output), frames.root, tuple(detector.card.category_ids))
    failures, notes = FirstOf[Failure](), FirstOf[str]()
    num_images = num_objects = 0
    start = time.perf_counter()

    with ExitStack() as stack:
        stack.enter_context(hold_folder(output))
        writers = create_writers(formats, destination)
        stack.enter_context(destination.record)
        for writer in writers:
            stack.enter_context(writer)
        behind = stack.enter_context(WritingBehind(writers))
        bar = stack.enter_context(_create_bar(is_shown=progress))
        total = frames.num_frames if limit is None else min(limit, frames.num_frames or limit)
        advance = advancing(bar, bar.add_task("predict", total=total))

        ahead = read_ahead(frames, batch=count_ahead(detector, batch), limit=limit)
        stack.callback(getattr(ahead, "close", lambda: None))

        def pass_over(frame: Frame) -> None:
            failure = Failure(frame.name, frame.error or "cannot be read")
            failures.add(failure)
            bar.console.print(f"passed over: {failure.reason}", markup=False, highlight=False, soft_wrap=True)
            advance(1)

        def keep_notes(frame: Frame) -> None:
            for note in frame.notes:
                notes.add(f"{printable(frame.name)}: {note}")

        found = find_in(
            detector,
            ahead,
            settings,
            pass_over=pass_over,
            note=keep_notes,
            tell=advance,
            keep_images=any(writer.needs_pixels for writer in writers),
        )
        try:
            for finding in found:
                with hold_interrupts():  # what is counted is written
                    destination.record.spare(finding.detections.source)
                    behind.write(finding)
                    num_images += 1
                    num_objects += len(finding.detections)
        except KeyboardInterrupt:
            if not frames.is_stream:
                of_all = f" of {total}" if total else ""
                kept = f"{output} holds the first {num_images}{of_all}" if num_images else "no image was finished"
                raise KeyboardInterrupt(kept) from None
        if (
            failures.count and not num_images
        ):  # before the writers end: an earlier result is not replaced by an empty one
            reason = failures.kept[0].reason
            raise DataError(
                f"none of {failures.count} inputs can be read, the first: {reason}" if failures.count > 1 else reason
            )
    if progress:
        _tell_notes(notes, frames.passed_over)
    seconds = time.perf_counter() - start
    return Summary(num_images, num_objects, failures.count, tuple(failures.kept), seconds, tuple(notes.kept))


def _tell_notes(notes: FirstOf[str], passed_over: Mapping[str, int]) -> None:
    for note in notes.kept[:NUM_NOTES]:
        print(note, file=sys.stderr)
    if notes.count > NUM_NOTES:
        print(f"... and {notes.count - NUM_NOTES} more images of which such a thing was decided", file=sys.stderr)
    if passed_over:
        print(f"passed over: {tell_suffixes(passed_over)}", file=sys.stderr)


def _create_bar(*, is_shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Terminal(quiet=not is_shown),
        disable=not is_shown,
    )
