"""A server that runs until it is told to end: address -> socket -> uvicorn -> Ctrl-C or SIGTERM."""

import asyncio
import errno
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import printable

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """Take ``port`` of ``host``, 0 for any that is free; whoever connects waits until the server runs.

    Raises:
        PyrafuseError: If it is in use, may not be taken, or there is no such host.
    """
    if not 0 <= port <= 65535:
        raise PyrafuseError(f"--port must be in 0..65535, got {port}; 0 takes any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PyrafuseError(
                f"port {port} of {host} is in use: give --port 0 for any that is free, or end the program that "
                "listens there"
            ) from error
        if error.errno == errno.EACCES:
            raise PyrafuseError(f"port {port} may not be taken: give --port 1024 or more") from error
        raise PyrafuseError(f"cannot listen on {printable(host)}: {error.strerror or error}") from error


def tell_address(taken: socket.socket) -> str:
    """``http://127.0.0.1:8000``."""
    host, port = taken.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Impatient(H11Protocol):
    """Closes a connection on which no request begins for as long as requests may take; uvicorn waits for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._watch_from(self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch_from(self, last: object) -> None:
        self._watching = self.loop.call_later(self.config.timeout_graceful_shutdown or 0, self._watch, last)

    def _watch(self, last: object) -> None:
        """Close if the request ``last`` was answered a while ago, and no other began; None stands for no request."""
        if self not in self.connections:  # a web socket now
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is last:
            self.transport.close()
        else:
            self._watch_from(self.cycle if is_idle else self)


def run(app: FastAPI, taken: socket.socket, *, grace_s: float) -> None:
    """Serve ``app`` until Ctrl-C or SIGTERM; requests at work are answered within ``grace_s``."""
    config = uvicorn.Config(
        app,
        http=Impatient,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(grace_s)),
        lifespan="on",
    )
    server = uvicorn.Server(config)
    try:
        with server.capture_signals():  # uvicorn's own begin a moment later, with the loop
            server.run(sockets=[taken])
    except KeyboardInterrupt:  # uvicorn has ended, and sends the signal on
        pass
    finally:
        taken.close()
