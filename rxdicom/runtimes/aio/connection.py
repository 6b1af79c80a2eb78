"""The pump of one association: bytes in and out, one timer. It knows bytes and notices only.

Everything here runs on the event loop and waits for nothing. What is to be sent is made when the transport wants it,
and what comes in is not read while the owner is behind.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, cast
from typing import Protocol as Interface

from rxdicom.errors import TimedOut
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.association import NOWHERE
from rxdicom.runtimes.sockets import end_point, expect_data, prepare

BUFFER_SIZE = 262144
_UNASSOCIATED = 4096
_RUNS_AT_A_TIME = 4
"""Runs of PDUs (of about 264 kB) that one association writes before the others of its loop have their turn."""

Step = Callable[[float], list[Produced]]
"""A call of the protocol with the current time."""


class Owner(Interface):
    """The association, as its connection sees it."""

    def watched(self) -> int:
        """The mask of notices that somebody observes right now."""
        ...

    def connected(self) -> None:
        """The connection is there."""
        ...

    def publish(self, produced: list[Produced]) -> bool:
        """Queue the events of ``produced`` and update the state. Whether there is anything for observers to see."""
        ...

    def deliver(self) -> None:
        """Let the observers see what was published."""
        ...

    def handle(self, produced: list[Produced]) -> None:
        """Act on ``produced``, after the observers."""
        ...

    def wants_data(self) -> bool:
        """Whether anything more is to be read: not while handlers or consumers are too far behind."""
        ...

    def next_deadline(self) -> float | None:
        """When something of the owner's is due."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Act on that deadline, if it has passed."""
        ...

    def lost(self) -> None:
        """The connection is closed and its descriptor given back."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Moves bytes between a transport and a protocol, and what it produces to its owner.

    ``buffer`` may be shared by all connections of a loop: what is in it is taken before another one is read.
    """

    def __init__(self, protocol: Protocol, owner: Owner, timeouts: Timeouts, buffer: memoryview) -> None:
        self._protocol = protocol
        self._owner = owner
        self._timeouts = timeouts
        self._buffer = buffer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._given = False
        self._transport: asyncio.Transport | None = None
        self._certificate: dict[str, Any] | None = None
        self.remote_address = self.local_address = NOWHERE
        self.failure: Exception | None = None
        """Why the connection ended, if it was not closed in order."""
        self._timer: asyncio.Handle | None = None
        self._armed = 0.0
        # ---- writing
        self._paused = False
        self._blocked_until: float | None = None
        self._blocked_size = 0
        self._continuing = False
        self._until_drained: list[asyncio.Future[None]] = []
        # ---- reading
        self._reading = True

    def attach(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Have a socket, which is connected and is to be given to a transport of ``loop``."""
        prepare(sock)
        self._socket, self._loop = sock, loop
        self._given = False
        self.remote_address, self.local_address = end_point(sock.getpeername), end_point(sock.getsockname)

    def give_socket(self) -> socket.socket:
        """The socket, for a transport, whose it is from now on."""
        assert self._socket is not None
        self._given = True
        return self._socket

    def never_made(self) -> None:
        """No transport has come of the socket."""
        if self._socket is not None and not self._given:
            self._socket.close()
        self._socket = None

    def now(self) -> float:
        """The time on the clock of the loop."""
        return time.monotonic() if self._loop is None else self._loop.time()

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as :meth:`ssl.SSLSocket.getpeercert` gives it; None without TLS."""
        return self._certificate

    # ---- steps

    def perform(self, step: Step) -> None:
        """Take one protocol step, send what it gives to send, tell the observers, act on it."""
        self._protocol.watched = self._owner.watched()
        self._follow(step(self.now()))

    def _follow(self, produced: list[Produced]) -> None:
        seen = bool(produced) and self._owner.publish(produced)
        self._flush()
        self._settle(produced, seen)
        self.look()

    def _settle(self, produced: list[Produced], seen: bool) -> None:
        if seen:
            self._owner.deliver()
        if produced:
            self._owner.handle(produced)

    def look(self) -> None:
        """Look again at whether to read, when the next deadline is, and whether this is over."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._protocol.closing or self._protocol.timed_out is not None:
            self._end(transport)
            return
        wanted = self._owner.wants_data()
        if wanted != self._reading:
            self._reading = wanted
            (transport.resume_reading if wanted else transport.pause_reading)()
        self._arm()

    def _end(self, transport: asyncio.Transport) -> None:
        if self._paused:
            # The peer has had its time, or does not read what still should leave.
            transport.abort()
        elif not self._protocol.wants_to_send:
            transport.close()

    # ---- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._certificate = tls.getpeercert()
        # Nothing may be left in the transport: the memory of a run is used again for the next one. An asyncio
        # transport pauses above the mark, its TLS from the mark on.
        self._transport.set_write_buffer_limits(high=0 if tls is None else 1, low=0)
        self._expect_data()
        self._owner.connected()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        self._transport = None
        self._disarm()
        self._end_waiting()
        cause = self.failure or exc or ""
        produced = self._protocol.receive_eof(self.now(), str(cause))
        self.tell_end(produced)

    def tell_end(self, produced: list[Produced]) -> None:
        """Have the end told, even where one of those who are told fails."""
        if self.remote_address != NOWHERE:
            produced.append((Notice.CONN_CLOSE, (self.remote_address,)))
        try:
            self._settle(produced, self._owner.publish(produced))
        finally:
            self._owner.lost()

    def interrupt(self, cause: Exception) -> None:
        """Cut the connection, after what can leave at once. The peer is not waited for."""
        self.failure = self.failure or cause
        transport = self._transport
        if transport is None:
            return
        if self._paused or transport.is_closing():
            transport.abort()
        else:
            transport.close()

    @property
    def is_connected(self) -> bool:
        """Whether a transport is there."""
        return self._transport is not None

    # ---- reading

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - how much there is does not matter
        # Without an association little at a time, so that who has sent too much is cut off before it is read.
        return self._buffer if self._protocol.is_associated else self._buffer[:_UNASSOCIATED]

    def buffer_updated(self, nbytes: int) -> None:
        now = self.now()
        self._protocol.watched = self._owner.watched()
        produced = self._protocol.receive_data(self._buffer[:nbytes], now)
        deadline = self._protocol.next_deadline()
        if deadline is not None and now >= deadline:
            # A peer that never pauses must not escape its deadline.
            produced += self._protocol.handle_timeout(now)
        self._follow(produced)
        self._expect_data()

    def eof_received(self) -> bool:
        """The transport closes itself: DICOM knows no half-closed connection."""
        return False

    def _expect_data(self) -> None:
        if self._socket is not None:
            expect_data(self._socket)

    # ---- writing

    def _flush(self) -> None:
        """Write what there is, as long as the peer reads it and the others of the loop need not wait too long."""
        runs = 0
        while (transport := self._transport) is not None and not self._paused and self._protocol.wants_to_send:
            if transport.is_closing():
                self._protocol.drop_outgoing()
                break
            if runs == _RUNS_AT_A_TIME:
                self._continue_later()
                return
            runs += 1
            self._protocol.watched = self._owner.watched()
            data, produced = self._protocol.data_to_send(self.now())
            seen = bool(produced) and self._owner.publish(produced)
            if data is not None:
                transport.write(data)
            self._settle(produced, seen)
        if not self._paused:
            self._end_waiting()

    def _continue_later(self) -> None:
        if not self._continuing and self._loop is not None:
            self._continuing = True
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._continuing = False
        self._flush()
        self.look()

    def pause_writing(self) -> None:
        self._paused = True
        self._block()
        self._arm()

    def resume_writing(self) -> None:
        self._paused = False
        self._blocked_until = None
        self._flush()
        self.look()

    def _block(self) -> None:
        seconds = self._timeouts.write
        self._blocked_until = None if seconds is None else self.now() + seconds
        self._blocked_size = 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until nothing is waiting to be sent, or nothing can be sent any more."""
        while self._transport is not None and self._loop is not None:
            if not (self._paused or self._protocol.wants_to_send):
                return
            drained = self._loop.create_future()
            self._until_drained.append(drained)
            await drained

    def _end_waiting(self) -> None:
        waiting, self._until_drained = self._until_drained, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # ---- the timer

    def _arm(self) -> None:
        """Have the timer run at the next deadline, or before that: then it is set again."""
        if self._transport is None or self._loop is None:
            return
        deadline = earliest(self._protocol.next_deadline(), self._owner.next_deadline(), self._blocked_until)
        if deadline is None or (self._timer is not None and self._armed <= deadline):
            return
        self._disarm()
        self._armed = deadline
        self._timer = self._loop.call_at(deadline, self._on_time)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        now = self.now()
        if self._blocked_until is not None and now >= self._blocked_until:
            self._check_progress()
        self._owner.handle_timeout(now)
        self.perform(self._protocol.handle_timeout)

    def _check_progress(self) -> None:
        """The deadline of writing has passed: has the peer read anything at all?"""
        transport = self._transport
        assert transport is not None
        if transport.get_write_buffer_size() < self._blocked_size:
            self._block()
            return
        self._blocked_until = None
        self.failure = self.failure or TimedOut("write", self._timeouts.write)
        transport.abort()


def earliest(*deadlines: float | None) -> float | None:
    """The first of those that there are."""
    return min((each for each in deadlines if each is not None), default=None)
