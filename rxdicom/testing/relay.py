"""A relay on the loopback between real sockets that does what a script says: cut, delay, corrupt, reorder, split."""

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from rxdicom.testing.faults import Act, End, Fault, Faults, Pause, Script

_CHUNK = 65536
_CONNECT = 10.0
"""Seconds to connect to the target."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close by RST."""


class Relay:
    """Listens on the loopback and hands on what it receives to a target, and back. Made by :func:`relay`."""

    def __init__(self, target: tuple[str, int], scripts: tuple[Faults, ...]) -> None:
        self._target = target
        self._scripts = scripts or (Faults(),)
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        """Host and port to be connected to instead of the target."""
        self.connections = 0
        """How many there have been."""
        self._lock = threading.Lock()
        self._running: list[_Connection] = []
        self._thread = threading.Thread(target=self._accept, name="rxdicom-relay", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """End the delays of current connections that have no time of their own."""
        with self._lock:
            running = tuple(self._running)
        for each in running:
            each.release()

    def close(self) -> None:
        """Stop listening, and cut what is connected."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for each in self._running:
            each.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, _CONNECT)
            except OSError:
                client.close()
                continue
            with self._lock:
                connection = _Connection(client, server, self._scripts[min(self.connections, len(self._scripts) - 1)])
                self.connections += 1
                self._running = [each for each in self._running if each.is_alive] + [connection]
                connection.start()


class _Connection:
    """One connection with both its sockets, on a thread of its own."""

    def __init__(self, client: socket.socket, server: socket.socket, faults: Faults) -> None:
        self._wake, self._woken = socket.socketpair()
        self._sockets = (client, server)
        for each in (*self._sockets, self._woken):
            each.setblocking(False)
        for each in self._sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._directions = (
            _Direction(client, server, faults.from_requestor),
            _Direction(server, client, faults.from_acceptor),
        )
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="rxdicom-relay-connection", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def release(self) -> None:
        for each in self._directions:
            each.released = True
        self._look()

    def stop(self) -> None:
        self._stopped = True
        self._look()
        self._thread.join()

    def _look(self) -> None:
        with suppress(OSError):
            self._wake.send(b"\0")

    def _run(self) -> None:
        reset = False
        try:
            while not self._stopped and not all(each.is_done for each in self._directions):
                self._wait()
                for each in self._directions:
                    end = each.advance()
                    if end is not None:
                        reset, self._stopped = end.reset, True
                        break
        except OSError:
            # One side has gone without a word, and so does the other.
            reset = True
        finally:
            self._close(reset)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        wanted: dict[socket.socket, int] = {}
        for each in self._directions:
            for sock, events in each.wanted():
                wanted[sock] = wanted.get(sock, 0) | events
        for sock, events in wanted.items():
            poll.register(sock, events)
        due = min((each.paused_until for each in self._directions if each.paused_until), default=None)
        poll.poll(None if due is None else max(0.0, due - time.monotonic()) * 1000 + 1)
        with suppress(BlockingIOError):
            self._woken.recv(_CHUNK)

    def _close(self, reset: bool) -> None:
        for each in self._sockets:
            with suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.close()
        self._wake.close()
        self._woken.close()


class _Direction:
    """What one side sends, on its way to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket, faults: Sequence[Fault]) -> None:
        self._source = source
        self._sink = sink
        self._script = Script(faults)
        self._acts: deque[Act] = deque()
        self._pending = b""
        self._is_eof = False
        self._is_held = False
        self.is_done = False
        self.paused_until: float | None = None
        self.released = False

    def wanted(self) -> list[tuple[socket.socket, int]]:
        """What is waited for: nothing is read before all that was read has been handed on."""
        if self.is_done or self.paused_until or self._is_held:
            return []
        return [(self._sink, select.POLLOUT)] if self._pending else [(self._source, select.POLLIN)]

    def advance(self) -> End | None:
        """Go on as far as it goes without waiting. What ends the connection, if something does."""
        if self._is_held and self.released:
            self._is_held = False
        if self.paused_until is not None and time.monotonic() >= self.paused_until:
            self.paused_until = None
        while not (self.paused_until or self._is_held or self.is_done):
            if self._pending:
                if not self._send():
                    return None
            elif self._acts:
                match self._acts.popleft():
                    case End() as end:
                        return end
                    case Pause(None):
                        self._is_held = not self.released
                    case Pause(seconds):
                        self.paused_until = time.monotonic() + (seconds or 0.0)
                    case bytes() as data:
                        self._pending = data
            elif not self._receive():
                return None
        return None

    def _send(self) -> bool:
        try:
            self._pending = self._pending[self._sink.send(self._pending) :]
        except BlockingIOError:
            return False
        return True

    def _receive(self) -> bool:
        """Whether there is something to go on with."""
        if self._is_eof:
            self._sink.shutdown(socket.SHUT_WR)
            self.is_done = True
            return False
        try:
            data = self._source.recv(_CHUNK)
        except BlockingIOError:
            return False
        self._is_eof = not data
        self._acts.extend(self._script.feed(data) if data else filter(None, (self._script.finish(),)))
        return True


def relay(target: tuple[str, int], *faults: Faults) -> Relay:
    """A relay to ``target`` (host and port), as a context manager; connect to its ``address`` instead.

    The first connection gets the first of ``faults``, and so on; the last one is for all that follow. So with
    ``relay(address, Faults(from_requestor=[Cut(at=5000)]), Faults())`` the first connection is cut and others are not.
    """
    return Relay(target, faults)
