"""Files from the network: whole and checked, or not at all; whoever has them must answer within seconds.

address -> answer -> temporary file, hashed as it comes -> length and SHA-256 compared -> the file's name
"""

import hashlib
import http.client
import ipaddress
import socket
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.printable import printable
from pyrafuse.base.progress import create_bar
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_atomically

ANSWER_WITHIN_S = 8.0
"""Seconds that a server has to answer, name look-up and redirections included."""

STALLED_AFTER_S = 30.0
"""Seconds without any data after which a download that began has failed."""

SLOWEST = 1000
"""Bytes a second, over all of a download, below which it has failed; the first `STALLED_AFTER_S` are not counted."""

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
    host, console = host_of(address), Terminal()

    def fail(reason: str) -> CheckpointError:
        return CheckpointError(f"cannot fetch {what}: {reason}; {describe_remedy(address, remedy)}")

    def in_words(error: Exception) -> str:
        return describe_failure(error, host)

    try:
        response = answer_in_time(lambda: open_address(address), host)
    except NETWORK_ERRORS as error:
        raise fail(in_words(error)) from error
    total, found = int(response.headers.get("Content-Length") or 0), hashlib.sha256()
    console.print(f"fetching {address}{f' ({total / 1e6:.1f} MB)' if total else ''}")
    with response, write_atomically(file) as stream, create_bar(console if console.is_terminal else None) as bar:
        task = bar.add_task(file.name, total=total or None)
        pieces = read_pieces(response, host)
        while True:
            try:
                piece = next(pieces, b"")
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


def host_of(address: str) -> str:
    """Host and port of ``address``, without user name and password."""
    return urlsplit(address).netloc.rpartition("@")[2]


def open_address(address: str, *, timeout_s: float | None = None) -> Any:
    """The answer of the server at ``address``, http or https.

    A redirection is followed to http and https alone, and to this machine only from this machine. A user name and
    password in ``address`` are sent to that server alone.

    Args:
        address: The address.
        timeout_s: Seconds without any data after which it has failed; by default `STALLED_AFTER_S`.

    Raises:
        OSError: If the server cannot be reached, refuses, or leads elsewhere.
        HTTPException: If it does not answer as it should.
        ValueError: If ``address`` is none.
    """
    parts = urlsplit(address)
    login = unquote(parts.netloc.rpartition("@")[0])
    request = urllib.request.Request(
        urlunsplit(parts._replace(netloc=host_of(address))), headers={"User-Agent": "pyrafuse"}
    )
    if login:
        request.add_unredirected_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    return urllib.request.build_opener(_Redirections).open(request, timeout=timeout_s or STALLED_AFTER_S)


def read_pieces(response: Any, host: str) -> Iterator[bytes]:
    """The body of an answer as it comes.

    Raises:
        TimeoutError: If it comes with less than `SLOWEST` bytes a second.
    """
    began, received = time.monotonic(), 0
    while piece := response.read1(PIECE):
        received += len(piece)
        if time.monotonic() - began > STALLED_AFTER_S + received / SLOWEST:
            raise TimeoutError(f"{host} sends less than {SLOWEST:,} bytes a second")
        yield piece


class _Redirections(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        parts = urlsplit(newurl)
        if parts.scheme in {"http", "https"} and (
            not _is_here(parts.hostname) or _is_here(urlsplit(req.full_url).hostname)
        ):
            return super().redirect_request(req, fp, code, msg, headers, newurl)
        reason = f"and leads to {printable(newurl, limit=200)}, where nothing is fetched from"
        raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp)


def _is_here(host: str | None) -> bool:
    """Whether ``host`` is this machine."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False  # it cannot be asked either
    return any(one.is_loopback or one.is_unspecified for one in map(ipaddress.ip_address, map(str, found)))


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
