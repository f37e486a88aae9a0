"""What is written behind is written in order and whole; an error is told, and nothing is written after it."""

import threading

import pytest

from pyrafuse.core.detections import no_detections
from pyrafuse.inference.writers.behind import WritingBehind
from pyrafuse.inference.writers.registry import Finding, Writer


class Listing(Writer):
    """Keeps ranks; fails at one."""

    def __init__(self, fails_at=None):
        self.ranks, self.threads, self.fails_at = [], set(), fails_at

    def write(self, finding):
        self.threads.add(threading.current_thread())
        if finding.index == self.fails_at:
            raise OSError("disk full")
        self.ranks.append(finding.index)


def write(listings, ranks, end=None):
    with WritingBehind(listings) as behind:
        for rank in ranks:
            behind.write(Finding(no_detections(), rank))
        if end:
            raise end


def test_all_writers_get_all_in_order():
    first, second = Listing(), Listing()
    write([first, second], range(50))
    assert first.ranks == second.ranks == list(range(50))
    assert threading.current_thread() not in first.threads


def test_an_interrupt_does_not_lose_what_waits():
    listing = Listing()
    with pytest.raises(KeyboardInterrupt):
        write([listing], range(4), KeyboardInterrupt())
    assert listing.ranks == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [3, 60])
def test_an_error_is_raised_and_nothing_written_after_it(count):
    listing = Listing(fails_at=2)
    with pytest.raises(OSError, match="disk full"):
        write([listing], range(count))
    assert listing.ranks == [0, 1]
