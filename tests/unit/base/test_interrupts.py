"""Signals of batch systems end a command as SIGTERM does."""

import signal

import pytest

from pyrafuse.base.interrupts import as_interrupts, as_term


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
