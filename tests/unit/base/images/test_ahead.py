"""What is read ahead comes in order, not too far ahead, and ends when nobody asks any more."""

import threading
import time

import numpy as np
import pytest

from pyrafuse.base.images.ahead import make_ahead, read_ahead
from pyrafuse.base.images.sources import Frame, Source


class Numbers:
    """0, 1, 2 ...: how many were made, by whom, and whether the making was closed."""

    def __init__(self, count, error=None):
        self.made, self.threads, self.is_closed = 0, set(), False
        self.count, self.error = count, error

    def __iter__(self):
        try:
            for number in range(self.count):
                self.made += 1
                self.threads.add(threading.current_thread())
                yield number
            if self.error:
                raise self.error
        finally:
            self.is_closed = True


def wait_until(is_true):
    end = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_they_come_in_order_made_by_another_thread():
    numbers = Numbers(100)
    assert list(make_ahead(numbers, depth=3)) == list(range(100))
    assert threading.current_thread() not in numbers.threads
    assert numbers.is_closed


def test_only_so_many_are_made_ahead():
    numbers = Numbers(100)
    ahead = make_ahead(numbers, depth=3)
    assert next(ahead) == 0
    wait_until(lambda: numbers.made == 5)  # one was taken, three wait, one is in the thread's hand
    time.sleep(0.02)
    assert numbers.made == 5
    ahead.close()


@pytest.mark.parametrize("error", [ValueError("no 3"), KeyboardInterrupt()])
def test_an_error_comes_at_its_place(error):
    ahead = make_ahead(Numbers(3, error), depth=8)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)) as caught:
        next(ahead)
    assert caught.value is error


def test_closing_ends_the_thread_and_closes_what_makes():
    numbers = Numbers(10**9)
    ahead = make_ahead(numbers, depth=2)
    next(ahead)
    ahead.close()
    assert numbers.is_closed
    assert not any(thread.is_alive() for thread in numbers.threads)
    assert numbers.made < 20


def frames_of(numbers):
    return lambda: (Frame(str(number), np.zeros((1, 1, 3), np.uint8)) for number in numbers)


def test_a_source_is_read_to_its_limit_and_no_further():
    numbers = Numbers(100)
    frames = list(read_ahead(Source(frames_of(numbers), 100), batch=4, limit=7))
    assert [frame.name for frame in frames] == list("0123456")
    assert [frame.index for frame in frames] == list(range(7))
    assert numbers.made == 7


def test_a_camera_is_read_as_it_is_asked():
    numbers = Numbers(100)
    frames = read_ahead(Source(frames_of(numbers), None, is_stream=True))
    assert next(frames).name == "0"
    assert numbers.made == 1
    assert numbers.threads == {threading.current_thread()}
