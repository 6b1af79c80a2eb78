"""TCP ports for programs that have to be told one. Needs nothing but the standard library."""

import socket
from contextlib import suppress
from random import SystemRandom

_RANGE = range(10_000, 15_000)
"""Ports below are those of known services; from those above the kernel takes one for each connection that is opened."""


def free_port() -> int:
    """A TCP port that nobody has right now, and that nobody is given who does not ask for this very one.

    By chance, so that two runs side by side do not choose the same: whoever starts a program, starts it later.
    """
    chance = SystemRandom()
    while True:
        port = chance.choice(_RANGE)
        with suppress(OSError), socket.create_server(("", port)):
            return port


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)
