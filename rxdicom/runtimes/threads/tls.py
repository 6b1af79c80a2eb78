"""The transport over TLS. In a module of its own, so that ``ssl`` is loaded only by those who speak TLS."""

import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, cast

from rxdicom.errors import ArgumentError, ConnectionFailed, TimedOut
from rxdicom.runtimes.threads.transport import Transport
from rxdicom.runtimes.threads.waiting import wait

_CHUNK = 131072
"""Bytes that go through the TLS engine at a time."""


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
            data = self._socket.recv(_CHUNK)
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
            taken = self._tls.write(data[:_CHUNK])
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


def secured(
    sock: socket.socket, context: ssl.SSLContext, hostname: str | None, host: str, seconds: float | None
) -> TLSTransport:
    """TLS over a socket that is connected to ``host``, which the certificate must name if ``hostname`` is None.

    Raises :class:`~rxdicom.errors.ArgumentError` for a context that is not for clients, and what
    :meth:`TLSTransport.handshake` raises, which has ``seconds``.
    """
    if context.check_hostname and not hostname:
        # An SSLObject would leave the check out then, without a word.
        hostname = host
    try:
        transport = TLSTransport(sock, context, hostname, server=False)
    except (ssl.SSLError, ValueError) as error:
        sock.close()
        raise ArgumentError(f"tls_args: not a context for clients, or no host name for it: {error}") from error
    try:
        transport.handshake(None if seconds is None else time.monotonic() + seconds)
    except BaseException:
        transport.close()
        raise
    return transport
