"""The non-blocking byte transport over TCP, and how to connect one before a deadline. TLS is in ``tls``."""

import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from rxdicom.errors import ArgumentError, ConnectionFailed, TimedOut
from rxdicom.runtimes.sockets import end_point, expect_data, prepare
from rxdicom.runtimes.threads.waiting import wait

BUFFER_SIZE = 262144
_UNSENT_LIMIT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNLIMITED = 0x7FFFFFFF


class Transport:
    """A connected TCP socket. ``None`` as a result means: not now, wait until the socket is ready."""

    def __init__(self, sock: socket.socket) -> None:
        prepare(sock)
        self._socket = sock
        self.address = end_point(sock.getpeername)
        self.local_address = end_point(sock.getsockname)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive_into(self, buffer: memoryview) -> int | None:
        """How many bytes came; 0 at the end of the stream. Raises :class:`OSError` when the connection is lost."""
        try:
            return self._socket.recv_into(buffer)
        except BlockingIOError:
            return None

    gives_all = True
    """Whether a receive that did not fill the buffer has left nothing, so that the socket can be waited for."""

    def send(self, data: bytes | memoryview) -> int | None:
        """How many bytes were taken."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return None

    holds_back = False
    """Whether something that was taken has not left yet."""

    def flush(self) -> bool:
        """Whether everything that was taken has left."""
        return True

    def expect_data(self) -> None:
        """To be called before data is waited for: have it acknowledged at once."""
        expect_data(self._socket)

    def limit_unsent(self, size: int | None) -> None:
        """Have the kernel take no more than about ``size`` bytes that the peer has no room for yet (None: any)."""
        if _UNSENT_LIMIT is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _UNSENT_LIMIT, _UNLIMITED if size is None else size)

    def handshake(self, deadline: float | None) -> None:
        """Nothing to do without TLS."""

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as :meth:`ssl.SSLSocket.getpeercert` gives it; None without TLS."""
        return None

    def say_goodbye(self) -> None:
        """Nothing to do without TLS."""

    def shutdown(self) -> None:
        """End both directions; the reader wakes up and closes."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back. Only the reader does this."""
        self._socket.close()


def connect(host: str, port: int, bind_address: tuple[str, int] | None, deadline: float | None) -> socket.socket:
    """A connected socket, over the first of the host's addresses (IPv6 and IPv4) that answers.

    Raises :class:`~rxdicom.errors.ConnectionFailed` or :class:`~rxdicom.errors.TimedOut`.
    """
    if not 0 < port < 65536:
        raise ArgumentError(f"port {port} is not a TCP port; give one from 1 to 65535")
    failures: list[str] = []
    for family, kind, protocol, _, address in _resolve(host, port, deadline):
        try:
            sock = socket.socket(family, kind | getattr(socket, "SOCK_CLOEXEC", 0), protocol)
        except OSError as error:
            raise ConnectionFailed(f"no socket to connect to {host}:{port}: {error.strerror or error}") from error
        try:
            sock.setblocking(False)
            if bind_address is not None:
                sock.bind(bind_address)
            _connect(sock, address, deadline)
            return sock
        except TimedOut:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            failures.append(f"{address[0]}: {error.strerror or error}")
    raise ConnectionFailed(f"cannot connect to {host}:{port} ({'; '.join(failures)}); is the peer listening there?")


def _connect(sock: socket.socket, address: Any, deadline: float | None) -> None:
    with suppress(BlockingIOError):
        sock.connect(address)
        return
    wait(sock.fileno(), select.POLLOUT, deadline, "connect")
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _resolve(host: str, port: int, deadline: float | None) -> list[Any]:
    """The addresses of a host. The resolver knows no deadline, so it runs on a thread that can be left behind."""
    with suppress(socket.gaierror, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[Any] = []
    failure: list[OSError | UnicodeError] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failure.append(error)

    thread = threading.Thread(target=resolve, name=f"rxdicom-resolve-{host}", daemon=True)
    thread.start()
    thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
    if thread.is_alive():
        raise TimedOut("connect")
    if failure:
        reason = getattr(failure[0], "strerror", None) or failure[0]
        raise ConnectionFailed(f"unknown host {host!r}: {reason}; check the name")
    return found
