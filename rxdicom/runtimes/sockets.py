"""Sockets, as every runtime needs them: how they are set up, and who is at their ends."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

BACKLOG = 1024
"""Connections that wait to be accepted."""
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def prepare(sock: socket.socket) -> None:
    """Have a connected socket not block, and not hold back what is small."""
    sock.setblocking(False)
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def expect_data(sock: socket.socket) -> None:
    """To be called before data is waited for: have it acknowledged at once.

    A peer with Nagle's algorithm on sends the rest of a message only when the first part is acknowledged, and the
    kernel delays that for 40 ms unless told otherwise, again and again.
    """
    if _QUICKACK is not None:
        try:  # noqa: SIM105 - for every message, and twice as fast
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except OSError:
            pass


def end_point(name: Callable[[], Any]) -> tuple[str, int]:
    """Host and port of an IPv4 or IPv6 socket name (``sock.getpeername``); the peer may be gone already."""
    try:
        host, port = name()[:2]
    except OSError:
        return "", 0
    # An IPv4 peer of a socket that serves both families.
    return str(host).removeprefix("::ffff:"), int(port)


def listen(address: tuple[str, int] | socket.socket) -> socket.socket:
    """A listening socket; an empty host serves IPv4 and IPv6. One that listens already is taken as it is.

    Raises :class:`OSError`.
    """
    if isinstance(address, socket.socket):
        address.setblocking(False)
        return address
    host, port = address
    if not host and socket.has_dualstack_ipv6():
        sock = socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    sock.setblocking(False)
    return sock
