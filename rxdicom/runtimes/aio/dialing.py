"""How a requestor gets its connection: names resolved, addresses tried, TLS shaken, each before its deadline."""

import asyncio
import os
import socket
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from attrs import frozen

from rxdicom.errors import ArgumentError, ConnectionFailed, TimedOut
from rxdicom.protocol.policy import Timeouts
from rxdicom.runtimes.aio.connection import Connection

TLSArguments = tuple[ssl.SSLContext, str | None]
"""The context, and the host name that the peer's certificate must have; None for the address that is connected to."""
GOODBYE = 1.0
"""Seconds for the peer to answer the close alert of TLS."""
_MOMENT = 0.05
"""Seconds; more than the making of a transport takes where there is no handshake."""
_LONG = 1e8
"""Seconds; asyncio knows no handshake without a deadline. Ours is set around it."""


@frozen
class Dialing:
    """Where to connect to, and how."""

    host: str
    port: int
    bind_address: tuple[str, int] | None
    tls_args: TLSArguments | None
    timeouts: Timeouts

    async def connect(self, connection: Connection) -> None:
        """Connect, and have ``connection`` use that.

        Raises :class:`~rxdicom.errors.ConnectionFailed`, :class:`~rxdicom.errors.TimedOut` or
        :class:`~rxdicom.errors.ArgumentError`.
        """
        sock = await _in_time(self._connected(), "connect", self.timeouts.connect)
        loop = asyncio.get_running_loop()
        connection.attach(sock, loop)
        options: dict[str, Any] = {}
        if self.tls_args is not None:
            context, hostname = self.tls_args
            if context.check_hostname and not hostname:
                hostname = self.host
            options = {"server_hostname": hostname or "", **tls(context)}
        making = loop.create_connection(lambda: connection, sock=connection.give_socket(), **options)
        await make(making, sock, self.timeouts.tls)

    async def _connected(self) -> socket.socket:
        """A connected socket, over the first of the host's addresses (IPv6 and IPv4) that answers."""
        failures: list[str] = []
        for family, kind, protocol, _, address in await self._resolve():
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:
                where = f"{self.host}:{self.port}"
                raise ConnectionFailed(f"no socket to connect to {where}: {error.strerror or error}") from error
            try:
                sock.setblocking(False)
                if self.bind_address is not None:
                    sock.bind(self.bind_address)
                await asyncio.get_running_loop().sock_connect(sock, address)
                return sock
            except OSError as error:
                sock.close()
                # What asyncio makes of it says where, but not why.
                failures.append(f"{address[0]}: {os.strerror(error.errno) if error.errno else error}")
            except BaseException:
                sock.close()
                raise
        tried = "; ".join(failures)
        raise ConnectionFailed(f"cannot connect to {self.host}:{self.port} ({tried}); is the peer listening there?")

    async def _resolve(self) -> Any:
        with suppress(socket.gaierror, UnicodeError):
            return socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        try:
            return await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConnectionFailed(f"unknown host {self.host!r}: {reason}; check the name") from error


def tls(context: ssl.SSLContext) -> dict[str, Any]:
    """The arguments of a transport over TLS; the deadline of its handshake is that of :func:`make`."""
    return {"ssl": context, "ssl_handshake_timeout": _LONG, "ssl_shutdown_timeout": GOODBYE}


async def make(making: Coroutine[Any, Any, Any], sock: socket.socket, seconds: float | None) -> None:
    """Await the transport that ``making`` makes of a socket, its handshake before a deadline included.

    Raises ConnectionFailed, TimedOut or ArgumentError.
    """
    try:
        await _in_time(_made(making, sock), "tls", seconds)
    except TimedOut:
        raise
    except ssl.SSLError as error:
        raise ConnectionFailed(f"TLS handshake failed: {error.reason or error}; check certificates") from error
    except ValueError as error:
        raise ArgumentError(f"tls_args: not a context for clients, or no host name for it: {error}") from error
    except ConnectionResetError as error:
        raise ConnectionFailed("the peer closed the connection in the TLS handshake; does it expect TLS?") from error
    except OSError as error:
        raise ConnectionFailed(f"connection lost in the TLS handshake: {error}") from error


async def _made(making: Coroutine[Any, Any, Any], sock: socket.socket) -> None:
    """Where the making of a transport is cancelled, uvloop closes the descriptor twice, the second time when it may be
    another connection's. So it is not cancelled: it is soon done, or fails when the socket is shut down.
    """
    task = asyncio.ensure_future(making)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task], timeout=None if cancelled is None else _MOMENT)
        except asyncio.CancelledError as error:
            cancelled = error
            continue
        if cancelled is not None and not task.done():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
    if cancelled is None:
        task.result()
        return
    if not task.cancelled():
        # Known from now on: nobody else asks for it.
        task.exception()
    raise cancelled


async def _in_time(work: Any, phase: str, seconds: float | None) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimedOut:
        raise
    except TimeoutError as error:
        raise TimedOut(phase, seconds) from error
