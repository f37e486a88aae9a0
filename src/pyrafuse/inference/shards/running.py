"""Predictions in shards: sources -> plan -> the shards that are not done -> an engine -> outcomes, counted and told."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pyrafuse.base.errors import PyrafuseError, check_count
from pyrafuse.base.images.sources import tell_suffixes
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.paths import check_writable
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.printable import counted, list_names, printable
from pyrafuse.base.terminal import Terminal
from pyrafuse.inference.shards.plan import SOURCES, keep_plan
from pyrafuse.inference.shards.shard import (
    BEGUN,
    Job,
    Outcome,
    check_formats,
    is_done,
    predict_shard,
    read_outcome,
)
from pyrafuse.inference.shards.sources import Listing, read_entries

SHARD_IMAGES = 1000
"""Images a shard, where nothing is said."""

LINE_EVERY_S = 60.0
"""Seconds between two lines of progress where there is no terminal."""

Execute = Callable[[Sequence[int]], Iterator[Outcome]]
"""Numbers of shards -> what became of each, in any order."""

Engine = Callable[[Job, Predictor, Callable[[str], None]], AbstractContextManager[Execute]]
"""What is asked, the detector as it was read here, and what is told sentences -> what executes shards."""


@dataclass(frozen=True)
class ShardedSummary:
    """What became of all images.

    Attributes:
        num_images: Images that were predicted on, in earlier calls too.
        num_objects: Objects found in them.
        num_failed: Images that could not be read.
        num_shards: Shards.
        num_earlier: Shards that were done before this call.
        seconds: Wall time of this call.
    """

    num_images: int
    num_objects: int
    num_failed: int
    num_shards: int
    num_earlier: int
    seconds: float


@contextmanager
def here(job: Job, detector: Predictor, tell: Callable[[str], None]) -> Iterator[Execute]:  # noqa: ARG001
    """Shards are predicted on in this process, one after another."""
    yield lambda numbers: (predict_shard(job, detector, number) for number in numbers)


def predict_in_shards(
    detector: Predictor,
    sources: Sequence[str],
    job: Job,
    *,
    facts: Mapping[str, Any],
    shard_images: int = SHARD_IMAGES,
    column: str | None = None,
    limit: int | None = None,
    engine: Engine = here,
    console: Terminal | None = None,
) -> ShardedSummary:
    """Predict on every image of ``sources`` once, and write a file a shard; shards that are done stay as they are.

    Args:
        detector: The detector, as it was read here.
        sources: Folders, lists, Parquet files, globs, images and addresses.
        job: What is asked.
        facts: What the results depend on beside the images, in plain values: a folder of other ones is refused.
        shard_images: Images a shard.
        column: Column of Parquet files; by default it follows from names and types.
        limit: Only so many images, the first ones.
        engine: Who works.
        console: Where progress is shown; by default nowhere.

    Raises:
        DataError: If there is no such source, or one that lists images cannot be read.
        PyrafuseError: If ``job.output`` holds something else, another process writes to it, or a shard cannot be made.
    """
    check_count("shard_images", shard_images, 1)
    check_writable(job.output, is_folder=True)
    job.settings.resolve(detector.card)  # before anything is written
    check_formats(job.formats)
    console, start, listing = console or Terminal(quiet=True), time.perf_counter(), Listing()
    with hold_folder(job.output):
        entries = read_entries(tuple(sources), listing, column=column, leave_out=job.output)
        facts = {**facts, "formats": sorted(set(job.formats))}
        planned = keep_plan(job.output, islice(entries, limit), shard_images, facts)
        _tell_listing(listing, console.print)
        numbers = range(-(-planned.num_images // shard_images))
        todo = [number for number in numbers if not is_done(job.output, number)]
        shutil.rmtree(job.output / BEGUN, ignore_errors=True)
        job = replace(job, passwords=dict(listing.passwords))
        total = _Total(planned.num_images, len(numbers), console)
        for number in set(numbers) - set(todo):
            total.add(read_outcome(job.output, number))
        if total.num_shards:
            console.print(f"goes on: {total.num_shards} of {counted(len(numbers), 'shard')} are done")
        try:
            if todo:
                with total.shown(), engine(job, detector, console.print) as execute:
                    for outcome in execute(todo):
                        total.add(outcome)
        except KeyboardInterrupt:
            done = sum(is_done(job.output, number) for number in numbers)
            raise KeyboardInterrupt(
                f"{job.output} holds {done} of {counted(len(numbers), 'shard')}; the same command goes on"
            ) from None
        finally:
            shutil.rmtree(job.output / BEGUN, ignore_errors=True)
        missing = [number for number in todo if not is_done(job.output, number)]
    if missing:
        bounds = [(n * shard_images, min((n + 1) * shard_images, planned.num_images) - 1) for n in missing[:3]]
        ids = ", ".join(f"{first} to {last}" for first, last in bounds)
        raise PyrafuseError(
            f"{counted(len(missing), 'shard')} of {len(numbers)} {'is' if len(missing) == 1 else 'are'} not done: each "
            f"ended its workers several times, for want of memory say (shards {list_names(missing, most=3)}, images "
            f"{ids} of {job.output / SOURCES}). The others are done, and the same command tries these again"
        )
    return ShardedSummary(
        total.num_images,
        total.num_objects,
        total.num_failed,
        len(numbers),
        len(numbers) - len(todo),
        time.perf_counter() - start,
    )


class _Total:
    """What is done, counted and shown.

    Args:
        all_images: Images of all shards.
        all_shards: Number of shards.
        console: Where it is shown: a bar on a terminal, else a line now and then.
    """

    def __init__(self, all_images: int, all_shards: int, console: Terminal) -> None:
        self.num_images = self.num_objects = self.num_failed = self.num_shards = 0
        self._all_images, self._all_shards, self._console = all_images, all_shards, console
        self._bar: Progress | None = None
        self._start = self._told = time.monotonic()
        self._earlier = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the progress while the block runs."""
        self._start = self._told = time.monotonic()
        self._earlier = self._done
        if not self._console.is_terminal:
            yield
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images, {task.fields[rate]}"), TimeElapsedColumn())
        bar = Progress(TextColumn("predict"), *columns, console=self._console)
        self._task = bar.add_task("predict", total=self._all_images, completed=self._done, rate="")
        with bar:
            self._bar = bar
            yield
            self._bar = None

    @property
    def _done(self) -> int:
        return self.num_images + self.num_failed

    def add(self, outcome: Outcome) -> None:
        """Count what became of a shard.

        Raises:
            PyrafuseError: If it could not be made.
        """
        if outcome.problem:
            raise PyrafuseError(outcome.problem)
        if not outcome.images + outcome.unreadable:
            return
        self.num_shards += 1
        self.num_images += outcome.images
        self.num_objects += outcome.objects
        self.num_failed += outcome.unreadable
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=self._tell_rate(now))
        elif now - self._told >= LINE_EVERY_S:
            self._told = now
            self._console.print(f"{self._done} of {counted(self._all_images, 'image')}, {self._tell_rate(now)}")

    def _tell_rate(self, now: float) -> str:
        rate = (self._done - self._earlier) / max(now - self._start, 1e-9)
        left = timedelta(seconds=round((self._all_images - self._done) / rate)) if rate else "unknown time"
        return f"{rate:.1f} a second, {left} left"


def _tell_listing(listing: Listing, tell: Callable[[str], None]) -> None:
    for source, column in list(listing.columns.items())[:3]:
        what = "images" if column.holds_bytes else "paths"
        tell(f"{printable(source)}: {what} of the column {column.name}, {counted(column.num_rows, 'row')}")
    if len(listing.columns) > 3:
        tell(f"... and {len(listing.columns) - 3} more Parquet files")
    if listing.repeated:
        tell(f"named again and passed over: {counted(listing.repeated, 'image')}")
    if listing.passed_over:
        tell(f"passed over: {tell_suffixes(listing.passed_over)}")
