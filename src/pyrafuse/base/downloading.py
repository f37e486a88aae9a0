"""Files from the network: whole and checked, or not at all; whoever has them must answer within seconds.

address -> answer -> temporary file, hashed as it comes -> length and SHA-256 compared -> the file's name
"""

import hashlib
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.progress import create_bar
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_atomically

ANSWER_WITHIN_S = 8.0
"""Seconds that a server has to answer, name look-up and redirections included."""

STALLED_AFTER_S = 30.0
"""Seconds without any data after which a download that began has failed."""

PIECE = 1 << 18
"""Bytes that are read at once."""

NETWORK_ERRORS = (OSError, http.client.HTTPException)

T = TypeVar("T")


def download(address: str, file: Path, *, what: str, digest: str = "", remedy: str = "") -> None:
    """Fetch ``address`` into ``file``, which is written whole or not at all; the progress goes to standard error.

    Args:
        address: http or https.
        file: Path of the file; its folder is made.
        what: Name of the file, for messages.
        digest: First hexadecimal digits of its SHA-256; nothing is compared without them.
        remedy: What to type instead, where the file cannot be had.

    Raises:
        CheckpointError: If the server does not answer in time, refuses, ends too early, or gives another file.
        PyrafuseError: If the file cannot be written.
    """
    host, console = urlsplit(address).netloc, Terminal()

    def fail(reason: str) -> CheckpointError:
        return CheckpointError(f"cannot fetch {what}: {reason}; {describe_remedy(address, remedy)}")

    def in_words(error: Exception) -> str:
        return describe_failure(error, host)

    try:
        response = answer_in_time(lambda: _open(address), host)
    except NETWORK_ERRORS as error:
        raise fail(in_words(error)) from error
    total, found = int(response.headers.get("Content-Length") or 0), hashlib.sha256()
    console.print(f"fetching {address}{f' ({total / 1e6:.1f} MB)' if total else ''}")
    with response, write_atomically(file) as stream, create_bar(console if console.is_terminal else None) as bar:
        task = bar.add_task(file.name, total=total or None)
        while True:
            try:
                piece = response.read(PIECE)
            except NETWORK_ERRORS as error:  # here, as an `OSError` of the file is told otherwise
                raise fail(in_words(error)) from error
            if not piece:
                break
            found.update(piece)
            stream.write(piece)
            bar.advance(task, len(piece))
        if stream.tell() < total:
            raise fail(f"{host} ended after {stream.tell():,} of {total:,} bytes")
        if not found.hexdigest().startswith(digest):
            raise fail(f"its SHA-256 begins with {found.hexdigest()[: len(digest)]}, and should with {digest}")


def describe_failure(error: Exception, host: str) -> str:
    """What a request to ``host`` failed by."""
    if isinstance(error, urllib.error.HTTPError):
        return f"{host} answers {error.code} {error.reason}"
    if isinstance(error, TimeoutError):
        return str(error) if host in str(error) else f"{host} sent nothing for {STALLED_AFTER_S:g} s"
    if isinstance(error, http.client.HTTPException):
        return f"{host} does not answer as it should ({type(error).__name__})"
    return f"{host} cannot be reached ({getattr(error, 'reason', None) or error})"


def describe_remedy(address: str, more: str = "") -> str:
    """What to do where ``address`` cannot be fetched."""
    return f"download {address} where there is a network, and give that file in place of the name{more}"


def answer_in_time(ask: Callable[[], T], host: str) -> T:
    """What ``ask`` returns, which waits for ``host``: in a thread, as a name look-up that hangs cannot be interrupted.

    Raises:
        TimeoutError: If it takes longer than `ANSWER_WITHIN_S`.
    """
    found: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            found.append(ask())
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is an answer as well
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"{host} does not answer within {ANSWER_WITHIN_S:g} s")
    return found[0]


def _open(address: str) -> Any:
    request = urllib.request.Request(address, headers={"User-Agent": "pyrafuse"})
    return urllib.request.urlopen(request, timeout=STALLED_AFTER_S)
