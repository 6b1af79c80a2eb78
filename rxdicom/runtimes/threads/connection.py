"""The pump of one association: a reader thread, the write turn, the deadlines. It knows bytes and notices only.

Locks, in the order in which they may be taken: the write turn, then the state lock. The state lock is never held
while the socket is waited for or an observer runs.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol as Interface

from rxdicom.errors import RxDicomError, TimedOut
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.threads.transport import BUFFER_SIZE, Transport, milliseconds, wait

_FIRST_BUFFER = 1024
_LARGER = 16
_MOST_BEHIND = 1024
"""Answers that may wait behind what another thread is writing, before the reader reads no more."""


class Owner(Interface):
    """The association, as its connection sees it."""

    def watched(self) -> int:
        """The mask of notices that somebody observes right now."""
        ...

    def publish(self, produced: list[Produced]) -> None:
        """Queue the events of ``produced`` and update the state; called under the state lock."""
        ...

    def deliver(self, *, may_wait: bool) -> None:
        """Let the observers see what was published; called without any lock. With ``may_wait``, when they have."""
        ...

    def handle(self, produced: list[Produced]) -> None:
        """Act on ``produced``; called without any lock, after the observers."""
        ...

    def next_deadline(self) -> float | None:
        """When a response is due for which no thread waits."""
        ...

    def handle_timeout(self, now: float) -> None:
        """Act on that deadline, if it has passed; called without any lock."""
        ...

    def lost(self) -> None:
        """The connection is closed and its descriptor given back."""
        ...


class Connection:
    """Moves bytes between a transport and a protocol, and what it produces to its owner."""

    def __init__(self, protocol: Protocol, owner: Owner, timeouts: Timeouts, name: str) -> None:
        self._protocol = protocol
        self._owner = owner
        self._timeouts = timeouts
        self._transport: Transport | None = None
        self._lock = threading.Lock()
        self._write_turn = threading.Lock()
        self._pending: memoryview | None = None
        self._blocked_until: float | None = None
        # A run could not be written, and nobody waits until it can: the reader goes on with it.
        self._left_to_reader = False
        self._behind = 0
        self._armed: float | None = None
        self.failure: Exception | None = None
        """Why the connection ended, if it was not closed in order."""
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        # Not so at first: after the TLS handshake the engine may hold what the peer sent right behind it.
        self._drained = False
        self._wake: WakeUp | None = None
        self._poll = select.poll()
        self._interest = select.POLLIN
        self._name = name
        self._reader: threading.Thread | None = None

    def start(self, transport: Transport, first_step: Callable[[], None]) -> None:
        """Start the reader; it takes ``first_step`` before anything else: that has the protocol begin.

        Raises :class:`OSError` without a free descriptor and :class:`RuntimeError` without a thread.
        """
        wake = WakeUp()
        reader = threading.Thread(target=self._run, args=(transport, first_step), name=self._name, daemon=True)
        self._poll.register(transport.fileno(), select.POLLIN)
        self._poll.register(wake.fileno(), select.POLLIN)
        self._transport, self._wake, self._reader = transport, wake, reader
        try:
            reader.start()
        except RuntimeError:
            self._transport, self._wake, self._reader = None, None, None
            wake.close()
            raise

    @property
    def in_reader(self) -> bool:
        """Whether the current thread is the reader."""
        return self._reader is not None and threading.get_ident() == self._reader.ident

    def join(self, timeout: float | None) -> bool:
        """Wait for the reader to end, unless it is the current thread. Whether it has ended."""
        if self._reader is None:
            return True
        if not self.in_reader:
            self._reader.join(timeout)
        return not self._reader.is_alive()

    # ---- steps

    def perform(self, step: Callable[[float], list[Produced]], *, may_wait: bool = True) -> None:
        """Take one protocol step, send what it gives to send, tell the observers, act on it.

        With ``may_wait`` the caller waits while the peer is slow to read, or an observer is busy; otherwise the reader,
        or who has called that observer, goes on with it.
        """
        with self._lock:
            self._protocol.watched = self._owner.watched()
            produced = step(time.monotonic())
            self._owner.publish(produced)
            earlier = _is_earlier(self._protocol.next_deadline(), self._armed)
        self.flush(may_wait=may_wait and not self.in_reader, patient=may_wait)
        self._settle(produced, patient=may_wait)
        if earlier or self._protocol.closing:
            self.wake_reader()

    def wake_reader(self) -> None:
        """Have the reader look again at what it waits for."""
        if self._wake is not None and not self.in_reader:
            self._wake.set()

    def _settle(self, produced: list[Produced], *, patient: bool = True) -> None:
        self._owner.deliver(may_wait=patient)
        if produced:
            self._owner.handle(produced)

    # ---- writing

    def flush(self, *, may_wait: bool, patient: bool = True) -> None:
        """Write what there is, unless another thread is writing: then that one writes this too.

        ``may_wait`` for the peer, ``patient`` with observers.
        """
        transport = self._transport
        while transport is not None and (self._protocol.wants_to_send or self._pending is not None):
            if not self._take_turn():
                return
            try:
                done, produced = self._write(transport, may_wait)
            finally:
                self._write_turn.release()
            self._settle(produced, patient=patient)
            if not done:
                self.wake_reader()
                return

    def _take_turn(self) -> bool:
        """Take the write turn if nobody has it. The reader waits for it once too many of its answers have to."""
        if self._write_turn.acquire(blocking=False):
            self._behind = 0
            return True
        if not self.in_reader:
            return False
        self._behind += 1
        return self._behind > _MOST_BEHIND and self._write_turn.acquire()

    def _write(self, transport: Transport, may_wait: bool) -> tuple[bool, list[Produced]]:
        """Write until there is no more, or something to tell, or (False) the peer reads no more."""
        while True:
            produced: list[Produced] = []
            if self._pending is None:
                with self._lock:
                    self._protocol.watched = self._owner.watched()
                    data, produced = self._protocol.data_to_send(time.monotonic())
                    self._owner.publish(produced)
                if data is None:
                    return True, produced
                self._pending = memoryview(data)
            try:
                if not self._write_pending(transport, self._pending, may_wait):
                    return False, produced
            except (OSError, RxDicomError) as error:
                self._give_up(transport, error)
                return True, produced
            if produced:
                return True, produced

    def _write_pending(self, transport: Transport, pending: memoryview, may_wait: bool) -> bool:
        while True:
            sent = transport.send(pending) if len(pending) else (0 if transport.flush() else None)
            if sent is None:
                self._pending = pending
                if self._blocked_until is None or may_wait:
                    self._blocked_until = _later(self._timeouts.write)
                self._left_to_reader = not may_wait
                if not may_wait:
                    return False
                wait(transport.fileno(), select.POLLOUT, self._blocked_until, "write")
            elif not len(pending):
                self._pending = self._blocked_until = None
                self._left_to_reader = False
                return True
            else:
                pending = pending[sent:]
                self._blocked_until = None

    def _give_up(self, transport: Transport, error: Exception) -> None:
        """Nothing can be written any more: what is queued is dropped, and the reader finds the end."""
        self.failure = self.failure or error
        self._pending = self._blocked_until = None
        with self._lock:
            self._protocol.drop_outgoing()
        transport.shutdown()

    # ---- reading

    def _run(self, transport: Transport, first_step: Callable[[], None]) -> None:
        try:
            first_step()
            while not self._is_over():
                self.pump(None)
        except (RxDicomError, OSError) as error:
            self.failure = self.failure or error
        finally:
            self._end(transport)

    def _is_over(self) -> bool:
        if self._protocol.timed_out is not None or (self._protocol.closing and self._blocked_until is not None):
            # The peer has had its time, or does not read what still should leave.
            return True
        return self._protocol.closing and not self._protocol.wants_to_send and self._pending is None

    def pump(self, deadline: float | None) -> None:
        """Receive once, or wait for something to receive, or for a deadline. Only the reader calls this.

        Raises :class:`ConnectionError` at the end of the stream.
        """
        transport = self._transport
        assert transport is not None
        if self._drained or self._left_to_reader:
            self._drained = False
            self._wait(transport, deadline)
            return
        count = transport.receive_into(self._buffer)
        if count is None:
            self._drained = True
            return
        if count == 0:
            raise ConnectionResetError("")
        data = self._buffer[:count]
        self._drained = transport.is_drained_by(count, self._buffer)
        if count == len(self._buffer) < BUFFER_SIZE:
            # Only who receives much has a large buffer: a thousand idle connections have small ones.
            self._buffer = memoryview(bytearray(min(BUFFER_SIZE, _LARGER * count)))
        # A peer that never pauses must not escape its deadline either.
        self.perform(lambda now: self._protocol.receive_data(data, now) + self._protocol.handle_timeout(now))

    def _wait(self, transport: Transport, deadline: float | None) -> None:
        with self._lock:
            limits = (self._protocol.next_deadline(), self._owner.next_deadline(), self._blocked_until, deadline)
            self._armed = min((each for each in limits if each is not None), default=None)
        # Who does not read the answers is not read from: they would pile up.
        interest = select.POLLOUT if self._left_to_reader else select.POLLIN
        if interest != self._interest:
            self._poll.modify(transport.fileno(), interest)
            self._interest = interest
        transport.expect_data()
        ready = self._poll.poll(milliseconds(self._armed))
        if self._wake is not None and any(fd == self._wake.fileno() for fd, _ in ready):
            self._wake.clear()
        now = time.monotonic()
        if self._blocked_until is not None and now >= self._blocked_until:
            raise TimedOut("write", self._timeouts.write)
        if self._left_to_reader:
            self.flush(may_wait=False)
        if self._armed is not None and now >= self._armed:
            self._owner.handle_timeout(now)
            self.perform(self._protocol.handle_timeout)

    def _end(self, transport: Transport) -> None:
        """Close, whatever the state; the events that are left are told even where one of them fails."""
        transport.say_goodbye()
        transport.shutdown()
        self._pending = self._blocked_until = None
        with self._lock:
            produced = self._protocol.receive_eof(time.monotonic(), str(self.failure or ""))
            produced.append((Notice.CONN_CLOSE, (transport.address,)))
            self._owner.publish(produced)
        # Whoever writes right now must be done before the descriptor can be another connection's.
        with self._write_turn:
            self._transport = None
        self._poll.unregister(transport.fileno())
        transport.close()
        if self._wake is not None:
            self._wake.close()
        # Who keeps the association does not keep this.
        self._buffer = memoryview(b"")
        try:
            self._settle(produced)
        finally:
            self._owner.lost()

    def interrupt(self, cause: Exception) -> None:
        """Cut the connection now, without a word to the peer. The reader ends."""
        self.failure = self.failure or cause
        transport = self._transport
        if transport is not None:
            transport.shutdown()


def _later(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds


def _is_earlier(deadline: float | None, armed: float | None) -> bool:
    return deadline is not None and (armed is None or deadline < armed)


class WakeUp:
    """A descriptor that wakes the reader from its poll."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        with self._lock, suppress(BlockingIOError):
            if not self._closed:
                os.write(self._write, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 8)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for fd in {self._read, self._write}:
                os.close(fd)
