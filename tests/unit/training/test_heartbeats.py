"""Processes of a training that fall silent, end early or are killed: the others say so and end."""

import subprocess
import sys
import time

import pytest
from torch.distributed import DistBackendError, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from pyrafuse.training import heartbeats
from pyrafuse.training.heartbeats import Heartbeats, LostProcessError, describe_exits

CLOSED = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711"


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(heartbeats, "BEAT_S", 0.02)
    monkeypatch.setattr(heartbeats, "MOST_MISSED", 5)
    return TCPStore("127.0.0.1", 0, 3, is_master=True, wait_for_workers=False)


@pytest.fixture
def ended(monkeypatch) -> list[int]:
    """Exit statuses of processes whose main thread did not end in time; here none of them really ends."""
    statuses: list[int] = []
    monkeypatch.setattr(heartbeats, "GRACE_S", 0.0)
    monkeypatch.setattr(heartbeats.os, "_exit", statuses.append)
    return statuses


def beat_once(store, rank) -> None:
    Heartbeats(store, rank, 3)._store.set(str(rank), "1")


def test_processes_that_end_well_are_not_missed(store):
    first, second, third = (Heartbeats(store, rank, 3) for rank in range(3))
    with first.exchanged():
        with second.exchanged(), third.exchanged():
            pass
        assert not first._is_reason_known.wait(0.3)  # many times as long as a process may be silent


def test_a_silent_process_is_named_by_the_first_one_alone(store):
    first = Heartbeats(store, 0, 3)
    beat_once(store, 1)
    with pytest.raises(LostProcessError, match=r"^process 1 has not answered for 0 s$"), first.exchanged():
        raise RuntimeError(CLOSED)
    with pytest.raises(SystemExit, match="1"), Heartbeats(store, 2, 3).exchanged():
        raise RuntimeError(CLOSED)


def test_the_first_process_is_missed_by_the_others(store):
    Heartbeats(store, 0, 3)
    beat_once(store, 0)
    with pytest.raises(LostProcessError, match=r"^process 0 has not answered"), Heartbeats(store, 1, 3).exchanged():
        raise DistBackendError("NCCL: unhandled system error")


def test_a_store_that_is_gone_was_in_the_first_process():
    server = TCPStore("127.0.0.1", 0, 3, is_master=True, wait_for_workers=False)
    beats = Heartbeats(TCPStore("127.0.0.1", server.port, 3, is_master=False, wait_for_workers=False), 1, 3)

    del server
    with pytest.raises(LostProcessError, match=r"^process 0 is gone, or its machine"), beats.exchanged():
        raise RuntimeError(CLOSED)


def test_an_error_of_its_own_stays_what_it_is(store):
    with pytest.raises(RuntimeError, match="out of memory"), Heartbeats(store, 0, 3).exchanged():
        raise RuntimeError("out of memory")


def test_a_process_that_ended_with_an_error_is_named(store):
    first = Heartbeats(store, 0, 3)
    with pytest.raises(ValueError, match="an image is broken"), Heartbeats(store, 2, 3).exchanged():
        raise ValueError("an image is broken")
    with pytest.raises(LostProcessError, match=r"^process 2 has ended early$"), first.exchanged():
        raise RuntimeError(CLOSED)


def test_killed_processes_are_told_by_their_signal():
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert failed.wait(60) == 3
    assert describe_exits([killed]) == ""
    assert describe_exits([killed, failed]) == "process 2 ended with status 3"
    killed.kill()
    killed.wait(60)
    assert describe_exits([killed, failed]) == "process 1 was killed by SIGKILL"


def test_a_process_that_waits_for_a_killed_one_ends_all(store, ended, capsys):
    killed, living = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2))
    killed.kill()
    killed.wait(60)
    first = Heartbeats(store, 0, 3, [killed, living])
    with first.exchanged():
        assert living.wait(60) != 0
        end = time.monotonic() + 60
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
    assert ended == [1]
    assert "pyrafuse: process 1 was killed by SIGKILL: all processes end; --resume" in capsys.readouterr().err
