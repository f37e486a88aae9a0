"""Heartbeats of the processes of a training: where one is gone, the others end with a sentence.

each process -> its beats in the store -> the first process: who is gone -> the store -> all end

The error of a broken connection names no process, and of a GPU's there is none for ten minutes.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]  # as documented

from pyrafuse.base.errors import PyrafuseError

BEAT_S = 1.0
"""Time between two beats."""
MOST_MISSED = 30
"""Number of beats without an answer after which a process is gone."""
GRACE_S = 15.0
"""Time for a process to end by itself after another one is gone."""

VERDICT = "verdict"
"""Key of what the first process has found out."""
WAITED_FOR, DONE, ENDED = "waited for", "done", "ended"
"""What stands in the store in place of the number of beats."""


class LostProcessError(PyrafuseError):
    """Another process of the training is gone, or has ended early."""


class Heartbeats:
    """Tells the other processes of a training that this one lives, and finds out which of them do not.

    Args:
        store: Store that all of them reach; another connection to it is made.
        rank: Number of this process.
        world_size: Number of processes.
        others: Processes 1, 2, ... where this one, the first, has started them; they are killed with it.
    """

    def __init__(
        self, store: Store, rank: int, world_size: int, others: Sequence["subprocess.Popen[bytes]"] = ()
    ) -> None:
        self._store = PrefixStore("heartbeats", store.clone())
        self._rank = rank
        self._watched = range(1, world_size) if rank == 0 else range(1)
        self._others = others
        self._reason = ""
        self._is_told_elsewhere = False
        self._is_reason_known = threading.Event()
        self._is_over = threading.Event()
        if rank == 0:
            for other in range(world_size):
                self._store.compare_set(str(other), "", WAITED_FOR)
            self._store.set(VERDICT, "")

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """Beat and watch within the block; if another process is gone, this one ends within `GRACE_S`.

        Raises:
            LostProcessError: If a connection to another process breaks in the block, with the name of that process.
            SystemExit: In the same case, where the first process says so.
        """
        self._store.set(str(self._rank), "0")  # from now on it is missed
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        last = ENDED
        try:
            yield
            last = DONE
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            self._is_reason_known.wait(BEAT_S * MOST_MISSED + GRACE_S)
            if self._is_told_elsewhere:
                raise SystemExit(1) from error
            raise LostProcessError(self._reason or "the connection to another process is broken") from error
        finally:
            self._is_over.set()
            thread.join(GRACE_S)
            with suppress(RuntimeError):  # the store may be gone
                self._store.set(str(self._rank), last)

    def _run(self) -> None:
        beats, missed = 0, dict.fromkeys(self._watched, 0)
        seen: dict[int, str] = {}
        while not self._reason:
            if self._is_over.wait(BEAT_S):
                return
            beats += 1
            try:
                self._store.set(str(self._rank), str(beats))
                self._reason = self._find_reason(seen, missed)
            except RuntimeError:
                self._reason = "process 0 is gone, or its machine does not answer"
        self._is_reason_known.set()
        if self._is_over.wait(GRACE_S):
            return
        if not self._is_told_elsewhere:  # the other threads wait for an answer that never comes
            text = f"pyrafuse: {self._reason}: all processes end; --resume goes on from last.ckpt"
            print(text, file=sys.stderr, flush=True)
        for process in self._others:
            process.kill()
        os._exit(1)

    def _find_reason(self, seen: dict[int, str], missed: dict[int, int]) -> str:
        """Which process is gone, and how that is known; empty while all of them live."""
        if self._rank > 0:
            if not self._store.check([VERDICT]):
                return ""  # the first process has not come yet
            if verdict := self._store.get(VERDICT).decode():
                self._is_told_elsewhere = True
                return verdict
        reason = describe_exits(self._others)
        values = self._store.multi_get([str(rank) for rank in self._watched])
        for rank, value in zip(self._watched, (value.decode() for value in values), strict=True):
            is_silent = value == seen.get(rank) and value not in (WAITED_FOR, DONE)
            missed[rank], seen[rank] = missed[rank] + 1 if is_silent else 0, value
            if value == ENDED:
                reason = reason or f"process {rank} has ended early"
                self._is_told_elsewhere = self._rank > 0
            elif missed[rank] >= MOST_MISSED:
                reason = reason or f"process {rank} has not answered for {BEAT_S * MOST_MISSED:.0f} s"
        if reason and self._rank == 0:
            self._store.set(VERDICT, reason)
        return reason


def describe_exits(others: Sequence["subprocess.Popen[bytes]"]) -> str:
    """Which of the processes 1, 2, ... has ended with an error, and how; empty where none has."""
    for rank, process in enumerate(others, 1):
        if status := process.poll():
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            return f"process {rank} {how}"
    return ""
