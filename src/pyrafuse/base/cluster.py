"""A Ray cluster: connected, or started on this machine, and its cores and GPUs divided among workers."""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.extras import naming_extras
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.printable import counted, printable

if TYPE_CHECKING:
    from types import ModuleType

ADDRESS = "RAY_ADDRESS"

VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # or Ray tells on standard output that a worker has ended
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # or it tells on standard error of what Ray Data does on purpose
    "RAY_worker_niceness": "0",  # or workers wait for everything else on the machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns of what will change
}
"""Set before Ray is imported, which reads them then, and before a cluster of our own starts."""

CONNECT_S = 5.0
"""Seconds for a cluster to answer: Ray itself would try for minutes, and then end the process."""

STORE_BYTES = 2**27
"""Memory for what is sent within a cluster of our own: graphs and numbers."""


@contextmanager
def connect(address: str | None, tell: Callable[[str], None]) -> "Iterator[ModuleType]":
    """Ray, connected to the cluster at ``address``, or that of `ADDRESS`, or a local one that ends with the block.

    Raises:
        MissingLibraryError: If Ray is not installed.
        PyrafuseError: If no cluster answers.
    """
    os.environ.update(VARIABLES)
    with naming_extras():
        import ray as library
    if library.is_initialized():
        yield library  # the caller's own
        return
    address = address or os.environ.get(ADDRESS) or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    else:
        _check_answers(address)
    tell(f"Ray: {'a local cluster starts' if address == 'local' else f'cluster at {address}'}")
    try:
        # Ray sets a handler of its own for SIGTERM, which goes with the block
        with hold_interrupts(), _silent_errors():
            library.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PyrafuseError(
            f"cannot connect to the Ray cluster at {address}: {printable(error, limit=300)}; give --ray-address "
            "HOST:PORT, or leave it and RAY_ADDRESS out for a local one. If the cluster asks for a token, as does "
            "Ray from 2.59 on, set RAY_AUTH_MODE=token"
        ) from error
    try:
        yield library
    finally:
        with hold_interrupts():
            library.shutdown()


@contextmanager
def _silent_errors() -> Iterator[None]:
    """A block in which standard error goes nowhere: Ray tells there, in the midst of a bar, which variables it read."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_answers(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    reason = "that is no HOST:PORT"
    if colon and host and port.isdecimal() and int(port) < 2**16:
        try:
            socket.create_connection((host, int(port)), CONNECT_S).close()
        except OSError as error:
            reason = str(error.strerror or error)
        else:
            return
    raise PyrafuseError(
        f"no Ray cluster answers at {address} ({reason}): start one by `ray start --head --port=6379` and give "
        "--ray-address HOST:6379, or leave it and RAY_ADDRESS out for a local one"
    )


def divide(nodes: Sequence[Mapping[str, float]], workers: int | None, unit: str) -> tuple[int, int]:
    """How many workers there are, and how many cores each of them gets: as many as fit on the machines.

    Args:
        nodes: Resources of each machine, by Ray's names.
        workers: How many are asked for; by default as many as there are of ``unit``.
        unit: What a worker has one of at least, ``CPU`` or ``GPU``.

    Raises:
        PyrafuseError: If there is no room for them.
    """

    def count_places(cores: int) -> int:
        return sum(int(min(node.get(unit, 0), node.get("CPU", 0) // cores)) for node in nodes)

    most = count_places(1)
    number = most if workers is None else workers
    if not 0 < number <= most:
        remedy = f"give --workers {most} or fewer" if most else "give another --device, or another cluster"
        raise PyrafuseError(
            f"the cluster has room for {counted(most, 'worker')}, each with a {unit}"
            f"{f', and {number} are asked for' if number else ''}: {remedy}"
        )
    largest = int(max(node.get("CPU", 0) for node in nodes))
    return number, max(cores for cores in range(1, largest + 1) if count_places(cores) >= number)


def last_words(error: Exception) -> str:
    """The last sentence of Ray's report on a process that has ended, which says what happened."""
    text = " ".join(str(error).split())
    return printable(text.partition("Worker exit detail: ")[2].partition(". Some common")[0] or text, limit=200)
