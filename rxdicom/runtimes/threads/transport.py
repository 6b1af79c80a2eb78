"""Non-blocking byte transports: TCP, and TLS over it; and how to connect one before a deadline."""

import os
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, cast

from rxdicom.errors import ArgumentError, ConnectionFailed, TimedOut
from rxdicom.runtimes.threads.waiting import wait

BUFFER_SIZE = 262144
_TLS_CHUNK = 131072
_UNSENT_LIMIT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNLIMITED = 0x7FFFFFFF
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Transport:
    """A connected TCP socket. ``None`` as a result means: not now, wait until the socket is ready."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self.address = _host_and_port(sock.getpeername)
        self.local_address = _host_and_port(sock.getsockname)

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
        """To be called before waiting for data: have it acknowledged at once.

        A peer with Nagle's algorithm on sends the rest of a message only when the first part is acknowledged, and
        the kernel delays that for 40 ms unless told otherwise, again and again.
        """
        if _QUICKACK is not None:
            try:  # noqa: SIM105 - for every message, and twice as fast
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                pass

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


class TLSTransport(Transport):
    """TLS as :class:`ssl.SSLObject` over memory, because an SSL socket must not be used by two threads.

    The lock is held for cryptography only, never while the socket is waited for.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, hostname: str | None, *, server: bool) -> None:
        super().__init__(sock)
        self._lock = threading.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = b""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=hostname)

    def handshake(self, deadline: float | None) -> None:
        """Shake hands before ``deadline``. Raises ConnectionFailed or TimedOut."""
        try:
            while True:
                with self._lock:
                    done = self._try_handshake()
                while not self.flush():
                    wait(self.fileno(), select.POLLOUT, deadline, "tls")
                if done:
                    return
                wait(self.fileno(), select.POLLIN, deadline, "tls")
                if self._feed() == 0:
                    raise ConnectionFailed("the peer closed the connection in the TLS handshake; does it expect TLS?")
        except ssl.SSLError as error:
            with suppress(OSError):
                self.flush()
            raise ConnectionFailed(f"TLS handshake failed: {error.reason or error}; check certificates") from error
        except OSError as error:
            if isinstance(error, ConnectionFailed | TimedOut):
                raise
            raise ConnectionFailed(f"connection lost in the TLS handshake: {error}") from error

    def _try_handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _feed(self) -> int | None:
        """Move bytes from the socket to the TLS engine."""
        try:
            data = self._socket.recv(_TLS_CHUNK)
        except BlockingIOError:
            return None
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        return len(data)

    def receive_into(self, buffer: memoryview) -> int | None:
        while True:
            with self._lock:
                try:
                    return cast(int, self._tls.read(len(buffer), buffer))  # pyright: ignore[reportArgumentType, reportInvalidCast]
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
            # A new session ticket or a key update may ask for an answer.
            self.flush()
            if self._feed() is None:
                return None

    gives_all = False
    """The TLS engine may hold more, whatever the count."""

    def send(self, data: bytes | memoryview) -> int | None:
        if not self.flush():
            return None
        with self._lock:
            taken = self._tls.write(data[:_TLS_CHUNK])
        self.flush()
        return taken

    def flush(self) -> bool:
        with self._lock:
            self._unsent += self._outgoing.read()
            self.holds_back = bool(self._unsent)
            while self._unsent:
                try:
                    self._unsent = self._unsent[self._socket.send(self._unsent) :]
                except BlockingIOError:
                    return False
            self.holds_back = False
        return True

    @property
    def certificate(self) -> dict[str, Any] | None:
        with self._lock:
            return self._tls.getpeercert()

    def say_goodbye(self) -> None:
        """Send the close alert, so that the peer can tell the end from a cut. Its answer is not waited for."""
        with suppress(OSError, ValueError):
            with self._lock, suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self.flush()


def _host_and_port(name: Any) -> tuple[str, int]:
    """Host and port of an IPv4 or IPv6 socket name; the peer may be gone already."""
    try:
        host, port = name()[:2]
    except OSError:
        return "", 0
    # An IPv4 peer of a socket that serves both families.
    return str(host).removeprefix("::ffff:"), int(port)


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
