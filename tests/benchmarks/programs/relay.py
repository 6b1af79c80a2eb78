"""``relay.py PORT TARGET DELAY``: a wide-area link on the loopback. Hands on what it receives DELAY seconds later.

Each direction of each connection is delayed by the same time, in order, without a limit to the bandwidth or to what is
on its way; the end of a direction is delayed too. Everything waits for a socket or for a deadline. The loopback's own
handshake is not delayed: a real connection takes one more round trip.
"""

import select
import socket
import sys
from collections import deque
from contextlib import suppress
from time import monotonic

_CHUNK = 1 << 20


class Direction:
    """Bytes from one socket to another, and when each of them is due."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self.source, self.sink, self._delay = source, sink, delay
        self._under_way: deque[tuple[float, memoryview]] = deque()
        self.is_open = self.is_flowing = True

    @property
    def due(self) -> float | None:
        """When something is to be handed on, on the monotonic clock; None if nothing is under way."""
        return self._under_way[0][0] if self._under_way else None

    def take(self) -> None:
        """Read what has come, or the end, which is an empty piece."""
        try:
            data = self.source.recv(_CHUNK)
        except OSError:
            data = b""
        self.is_open = bool(data)
        self._under_way.append((monotonic() + self._delay, memoryview(data)))

    def hand_on(self) -> None:
        """Write what is due, as far as the sink takes it."""
        now = monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            due, data = self._under_way.popleft()
            if not data:
                self.is_flowing = False
                with suppress(OSError):
                    self.sink.shutdown(socket.SHUT_WR)
                return
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:  # whoever was to have it is gone
                self.is_open = self.is_flowing = False
                self._under_way.clear()
                return
            if sent < len(data):
                self._under_way.appendleft((due, data[sent:]))
                return


def serve(port: int, target: int, delay: float) -> None:
    """Relay all connections, for ever."""
    directions: list[Direction] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            now = monotonic()
            sources = [each.source for each in directions if each.is_open]
            late = [each.sink for each in directions if each.due is not None and each.due <= now]
            pending = [each.due - now for each in directions if each.due is not None and each.due > now]
            # select() rather than poll(): its timeout is not rounded to milliseconds.
            readable, writable, _ = select.select([listener, *sources], late, [], min(pending, default=None))
            if listener in readable:
                directions += _connect(listener.accept()[0], target, delay)
            for each in directions:
                if each.source in readable:
                    each.take()
                if each.sink in writable or (each.due is not None and each.due <= monotonic()):
                    each.hand_on()
            directions = _alive(directions)


def _connect(near: socket.socket, target: int, delay: float) -> list[Direction]:
    far = socket.create_connection(("127.0.0.1", target))
    for each in (near, far):
        each.setblocking(False)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return [Direction(near, far, delay), Direction(far, near, delay)]


def _alive(directions: list[Direction]) -> list[Direction]:
    """Without the connections that are over, whose sockets are closed."""
    alive: list[Direction] = []
    for one, other in zip(directions[::2], directions[1::2], strict=True):
        if one.is_flowing or other.is_flowing:
            alive += one, other
        else:
            one.source.close()
            other.source.close()
    return alive


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
