"""Signals that end a command arrive, wherever they hit, and those of batch systems end it as SIGTERM does."""

import os
import signal
import sys
import threading
import time

import pytest

from pyrafuse.base.interrupts import as_interrupts, as_term


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_hits_a_finaliser_comes_again(number):
    class Ended:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0.001)

    def wait():
        Ended()
        time.sleep(10)

    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), as_interrupts() as received:
        wait()
    assert received == ([signal.SIGTERM] if number == signal.SIGTERM else [])
    assert sys.unraisablehook is hook


def test_a_thread_whose_loading_process_ended_shows_no_traceback(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))
    told = [ConnectionResetError(), EOFError(), ValueError()]

    def tell():
        for error in told:
            sys.excepthook(type(error), error, None)

    with as_interrupts():
        thread = threading.Thread(target=tell)
        thread.start()
        thread.join()
        sys.excepthook(EOFError, told[1], None)
    assert shown == [told[2], told[1]]


def test_a_signal_does_what_sigterm_does_and_only_in_the_block():
    before = signal.getsignal(signal.SIGUSR1)
    with as_interrupts() as received:
        with pytest.raises(KeyboardInterrupt), as_term("USR1"):
            signal.raise_signal(signal.SIGUSR1)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_sigterm_itself_stays_as_it_is():
    before = signal.getsignal(signal.SIGTERM)
    with as_term("TERM"):
        assert signal.getsignal(signal.SIGTERM) is before
