"""The pump of one association: who reads, who writes, the deadlines. It knows bytes and notices only.

Who has the read turn receives. That is the reader, a thread of the association's own, or, as long as it waits for a
response, the caller of a request: then no thread hands over to another. Locks, in the order in which they may be taken:
the read turn, the write turn, the state lock. The state lock is never held while the socket is waited for or an
observer runs.
"""

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol as Interface

from rxdicom.errors import RxDicomError, TimedOut
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.threads.transport import BUFFER_SIZE, Transport
from rxdicom.runtimes.threads.waiting import Waiting, wait

_FIRST_BUFFER = 1024
_UNASSOCIATED_BUFFER = 4096
_LARGER = 16
_MOST_BEHIND = 1024
"""Answers that may wait behind what another thread is writing, before the reader reads no more."""
_LEFT_TO_CALLERS = 0.02
"""Seconds for which the reader leaves the socket alone once a caller has read its response: the next request of a
series then wakes one thread and not two. What the peer says unasked meanwhile is that much late."""

Step = Callable[[float], list[Produced]]
"""A call of the protocol with the current time."""


class Owner(Interface):
    """The association, as its connection sees it."""

    def watched(self) -> int:
        """The mask of notices that somebody observes right now."""
        ...

    def publish(self, produced: list[Produced]) -> bool:
        """Queue the events of ``produced`` and update the state; called under the state lock.

        Whether there is anything for observers to see.
        """
        ...

    def deliver(self, *, may_wait: bool) -> None:
        """Let the observers see what was published; called without any lock. With ``may_wait``, when they have."""
        ...

    def handle(self, produced: list[Produced]) -> None:
        """Act on ``produced``, after the observers; whatever takes time is left to :meth:`work`."""
        ...

    def work(self) -> None:
        """Do what :meth:`handle` has left; called by the reader, without any lock."""
        ...

    def is_alone(self) -> bool:
        """Whether nobody waits for a response but, perhaps, the caller who reads right now."""
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


class Waiter(Interface):
    """What a caller waits for."""

    @property
    def is_ready(self) -> bool:
        """Whether the wait is over."""
        ...


class Connection:
    """Moves bytes between a transport and a protocol, and what it produces to its owner."""

    def __init__(self, protocol: Protocol, owner: Owner, timeouts: Timeouts, name: str) -> None:
        self._protocol = protocol
        self._owner = owner
        self._timeouts = timeouts
        self._transport: Transport | None = None
        self._lock = threading.Lock()
        self.failure: Exception | None = None
        """Why the connection ended, if it was not closed in order."""
        # ---- writing
        self._write_turn = threading.Lock()
        self._pending: bytes | memoryview | None = None
        self._blocked_until: float | None = None
        # A run could not be written, and nobody waits until it can: the reader goes on with it.
        self._left_to_reader = False
        self._behind = 0
        # ---- reading
        self._name = name
        # Held until the reader runs: nobody can wait for the end of a thread that has not begun.
        self._starting = threading.Lock()
        self._reader: threading.Thread | None = None
        self._reader_id = 0
        self._reader_waits: Waiting | None = None
        self._read_turn = threading.Lock()
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        # Not so at first: after the TLS handshake the engine may hold what the peer sent right behind it.
        self._drained = False
        self._armed: float | None = None
        # Something has come and nothing has left since, with which its acknowledgement could go along.
        self._ack_due = False
        self._postponed: deque[Step] = deque()
        # ---- a caller that reads
        self.leader = 0
        """The thread that reads instead of the reader, 0 if there is none."""
        self._leader_waits: Waiting | None = None
        self._left_until = 0.0
        # The reader waits until the caller that reads does so no more.
        self._parked = False
        self._broken: Exception | None = None

    def start(self, transport: Transport, first_step: Callable[[], None]) -> None:
        """Start the reader; it takes ``first_step`` before anything else: that has the protocol begin.

        Raises :class:`OSError` without a free descriptor and :class:`RuntimeError` without a thread.
        """
        waits = Waiting()
        reader = threading.Thread(target=self._run, args=(transport, first_step), name=self._name, daemon=True)
        with self._starting:
            self._transport, self._reader_waits, self._reader = transport, waits, reader
            try:
                reader.start()
            except RuntimeError:
                self._transport, self._reader_waits, self._reader = None, None, None
                waits.close()
                raise

    @property
    def in_reader(self) -> bool:
        """Whether the current thread is the reader."""
        return threading.get_ident() == self._reader_id

    @property
    def in_leader(self) -> bool:
        """Whether the current thread reads although it is not the reader."""
        return self.leader == threading.get_ident()

    def join(self, timeout: float | None) -> bool:
        """Wait for the reader to end, unless it is the current thread. Whether it has ended."""
        with self._starting:
            reader = self._reader
        if reader is None:
            return True
        if not self.in_reader:
            reader.join(timeout)
        return not reader.is_alive()

    # ---- steps

    def perform(self, step: Step, *, may_wait: bool = True) -> None:
        """Take one protocol step, send what it gives to send, tell the observers, act on it.

        With ``may_wait`` the caller waits while the peer is slow to read, or an observer is busy; otherwise the reader,
        or who has called that observer, goes on with it.
        """
        protocol, transport, owner = self._protocol, self._transport, self._owner
        # Who can have the write turn now writes without a second look at the protocol.
        has_turn = transport is not None and self._write_turn.acquire(blocking=False)
        done = True
        try:
            with self._lock:
                protocol.watched = owner.watched()
                now = time.monotonic()
                produced = step(now)
                if has_turn and self._pending is None and protocol.outgoing:
                    self._pending, more = protocol.data_to_send(now)
                    produced += more
                seen = owner.publish(produced) if produced else False
                # The reader itself looks at the deadlines before it waits.
                earlier = not self.in_reader and self._is_earlier(protocol.next_deadline())
            if has_turn and transport is not None and self._pending is not None:
                done = self._write_pending(transport, may_wait)
        finally:
            if has_turn:
                self._write_turn.release()
        if produced:
            self._settle(produced, seen, may_wait)
        if not done:
            self.wake_reader()
        elif protocol.outgoing or protocol.sending is not None or self._pending is not None:
            self.flush(may_wait=may_wait, patient=may_wait)
        if earlier or protocol.closing:
            self.wake_reader()

    def _is_earlier(self, deadline: float | None) -> bool:
        """Whether the reader waits for longer than until ``deadline``."""
        return deadline is not None and (self._armed is None or deadline < self._armed)

    def perform_soon(self, step: Step) -> None:
        """Take one protocol step now if nobody is at another, else have the reader take it. It waits for nothing.

        So a finalizer may call this, though the garbage collector runs it in the middle of anything.
        """
        if not self._lock.acquire(blocking=False):
            self.postpone(step)
            return
        try:
            self._protocol.watched = self._owner.watched()
            produced = step(time.monotonic())
            seen = self._owner.publish(produced)
        finally:
            self._lock.release()
        self.flush(may_wait=False, patient=False)
        self._settle(produced, seen, False)
        self.wake_reader()

    def postpone(self, step: Step) -> None:
        """Have the reader take one protocol step; this takes no lock and waits for nothing."""
        self._postponed.append(step)
        self.wake_reader()

    def _settle(self, produced: list[Produced], seen: bool, patient: bool) -> None:
        if seen:
            self._owner.deliver(may_wait=patient)
        self._owner.handle(produced)

    def wake_reader(self) -> None:
        """Have the reader look again at what it waits for, the socket among it."""
        self._left_until = 0.0
        if self._reader_waits is not None and not self.in_reader:
            self._reader_waits.wake()

    def wake(self, thread: int) -> None:
        """Have a thread that waits here for a response look again."""
        if thread == threading.get_ident():
            return
        if thread == self._reader_id:
            self.wake_reader()
        elif thread == self.leader and self._leader_waits is not None:
            self._leader_waits.wake()

    # ---- writing

    def flush(self, *, may_wait: bool, patient: bool = True) -> None:
        """Write what there is, unless another thread is writing: then that one writes this too.

        ``may_wait`` for the peer, and for who is writing, which the reader never does; ``patient`` with observers.
        """
        transport, protocol = self._transport, self._protocol
        while transport is not None and (protocol.wants_to_send or self._pending is not None):
            if not self._write_turn.acquire(blocking=False) and not self._await_write_turn(may_wait):
                return
            self._behind = 0
            try:
                done, produced, seen = self._write(transport, may_wait)
            finally:
                self._write_turn.release()
            if produced:
                self._settle(produced, seen, patient)
            if not done:
                self.wake_reader()
                return

    def _await_write_turn(self, may_wait: bool) -> bool:
        """Another thread writes. The reader waits for its turn only once too many of its answers wait already."""
        if not self.in_reader:
            return may_wait and self._write_turn.acquire()
        self._behind += 1
        return self._behind > _MOST_BEHIND and self._write_turn.acquire()

    def _write(self, transport: Transport, may_wait: bool) -> tuple[bool, list[Produced], bool]:
        """Write until there is no more, or something to tell, or (False) the peer reads no more."""
        protocol = self._protocol
        produced: list[Produced] = []
        seen = False
        while True:
            if self._pending is None:
                with self._lock:
                    protocol.watched = self._owner.watched()
                    self._pending, produced = protocol.data_to_send(time.monotonic())
                    seen = self._owner.publish(produced) if produced else False
                if self._pending is None:
                    return True, produced, seen
            if not self._write_pending(transport, may_wait):
                return False, produced, seen
            if produced or not protocol.wants_to_send:
                return True, produced, seen

    def _write_pending(self, transport: Transport, may_wait: bool) -> bool:
        """Write what is pending. False if the peer reads no more: the reader goes on with it."""
        data = self._pending
        assert data is not None
        try:
            sent = transport.send(data)
            if sent != len(data) or transport.holds_back:
                return self._write_rest(transport, memoryview(data)[sent or 0 :], may_wait)
        except (OSError, RxDicomError) as error:
            self._give_up(transport, error)
            return True
        self._pending = self._blocked_until = None
        self._left_to_reader = self._ack_due = False
        return True

    def _write_rest(self, transport: Transport, pending: memoryview, may_wait: bool) -> bool:
        """What the transport did not take at once. Whether all of it has left."""
        may_wait = may_wait and not self.in_reader
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
            elif sent == len(pending) and transport.flush():
                self._pending = self._blocked_until = None
                self._left_to_reader = self._ack_due = False
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
        self._reader_id = threading.get_ident()
        try:
            first_step()
            self._owner.work()
            while not ((self._protocol.closing or self._protocol.timed_out is not None) and self._is_over()):
                self.pump(None)
                self._owner.work()
        except (RxDicomError, OSError) as error:
            self.failure = self.failure or error
        finally:
            self._end(transport)

    def _is_over(self) -> bool:
        """Whether the peer has had its time, or does not read what still should leave; or everything has left."""
        late = self._protocol.timed_out is not None or self._blocked_until is not None
        with self._lock:
            return late or (not self._protocol.wants_to_send and self._pending is None)

    def pump(self, deadline: float | None) -> None:
        """Receive once, or wait for something to receive, or for a deadline. Only the reader calls this.

        Raises :class:`ConnectionError` at the end of the stream.
        """
        transport = self._transport
        assert transport is not None
        if self._broken is not None:
            raise self._broken
        if self._postponed:
            self.perform(self._postponed.popleft(), may_wait=False)
            # It may have been the last one: then nothing is to be waited for.
            return
        if self._left_to_reader:
            # Who does not read the answers is not read from: they would pile up.
            self._drained = False
            self._wait(transport, select.POLLOUT, deadline)
            return
        if self._drained:
            self._drained = False
            if not self._wait(transport, select.POLLIN, deadline):
                return
        if self._left_until and time.monotonic() < self._left_until:
            self._wait(transport, 0, self._left_until if deadline is None else min(deadline, self._left_until))
        elif self._read_turn.acquire(blocking=False):
            try:
                self._receive(transport)
            finally:
                self._read_turn.release()
        else:
            self._park(transport, deadline)

    def _park(self, transport: Transport, deadline: float | None) -> None:
        """A caller reads: wait until it does so no more."""
        self._parked = True
        if self._read_turn.acquire(blocking=False):
            # It has gone before it could see that.
            self._read_turn.release()
        else:
            self._wait(transport, 0, deadline)
        self._parked = False

    def _receive(self, transport: Transport) -> None:
        """With the read turn: receive what there is, and act on it."""
        buffer = self._buffer
        count = transport.receive_into(buffer)
        if count is None:
            self._drained = True
            return
        if count == 0:
            raise ConnectionResetError("")
        self._drained = count < len(buffer) and transport.gives_all
        protocol = self._protocol
        largest = BUFFER_SIZE if protocol.is_associated else _UNASSOCIATED_BUFFER
        if count == len(buffer) < largest:
            # Only who receives much has a large buffer: a thousand connections without association have small ones.
            self._buffer = memoryview(bytearray(min(largest, _LARGER * count)))
        self._ack_due = True
        with self._lock:
            protocol.watched = self._owner.watched()
            now = time.monotonic()
            produced = protocol.receive_data(buffer[:count], now)
            if not self._drained:
                # A peer that never pauses must not escape its deadline.
                produced += protocol.handle_timeout(now)
            seen = self._owner.publish(produced) if produced else False
            earlier = self.leader != 0 and self._is_earlier(protocol.next_deadline())
        if protocol.outgoing or self._pending is not None:
            self.flush(may_wait=False)
        if produced:
            self._settle(produced, seen, True)
        if earlier or protocol.closing:
            self.wake_reader()
        if not self._drained:
            # A peer that never pauses must not escape those deadlines either that nobody waits for.
            self._keep_time(time.monotonic(), self._owner.next_deadline())

    def _keep_time(self, now: float, deadline: float | None) -> None:
        if deadline is not None and now >= deadline:
            self._owner.handle_timeout(now)

    def _wait(self, transport: Transport, events: int, deadline: float | None) -> bool:
        """Whether the socket is ready. Deadlines are acted on."""
        with self._lock:
            armed = self._protocol.next_deadline()
            for each in (self._owner.next_deadline(), self._blocked_until, deadline):
                if each is not None and (armed is None or each < armed):
                    armed = each
            self._armed = armed
        if events and self._ack_due:
            self._ack_due = False
            transport.expect_data()
        waits = self._reader_waits
        ready = waits is not None and waits.wait(transport.fileno(), events, armed)
        now = time.monotonic()
        if self._blocked_until is not None and now >= self._blocked_until:
            raise TimedOut("write", self._timeouts.write)
        if self._left_to_reader:
            self.flush(may_wait=False)
        if armed is not None and now >= armed:
            self._owner.handle_timeout(now)
            self.perform(self._protocol.handle_timeout)
        return ready

    # ---- a caller that reads

    def claim(self) -> None:
        """The current thread sends a request and is going to :meth:`lead`: the reader is not to be there before it."""
        now = time.monotonic()
        if self._left_until < now + _LEFT_TO_CALLERS / 2 and not self.in_reader and self._owner.is_alone():
            self._left_until = now + _LEFT_TO_CALLERS

    def lead(self, waiter: Waiter, deadline: float | None) -> bool:
        """Read until ``waiter`` is ready, or ``deadline``, or :meth:`wake`; False if another thread reads already.

        The caller then acts on what comes as the reader would, but leaves to it what :meth:`Owner.work` does.
        """
        if self._left_to_reader or not self._read_turn.acquire(blocking=False):
            return False
        transport = self._transport
        self.leader = threading.get_ident()
        try:
            if transport is None or self._broken is not None:
                return False
            if self._leader_waits is None:
                self._leader_waits = Waiting()
            while not waiter.is_ready:
                if self._drained:
                    self._drained = False
                    if self._ack_due:
                        self._ack_due = False
                        transport.expect_data()
                    if not self._leader_waits.wait(transport.fileno(), select.POLLIN, deadline):
                        break
                self._receive(transport)
        except (RxDicomError, OSError) as error:
            # The end is the reader's to tell.
            self._broken = error
        finally:
            self._stop_leading()
        return True

    def glance(self) -> None:
        """Act on what has come, without waiting for anything: the reader may not have had its turn to run."""
        transport = self._transport
        if transport is None or not self._read_turn.acquire(blocking=False):
            return
        self.leader = threading.get_ident()
        try:
            while self._broken is None:
                self._receive(transport)
                if self._drained:
                    break
        except (RxDicomError, OSError) as error:
            self._broken = error
        finally:
            self.leader = 0
            self._read_turn.release()
            if self._broken is not None or self._parked:
                self.wake_reader()

    def limit_unsent(self, size: int | None) -> None:
        """See :meth:`Transport.limit_unsent`."""
        transport = self._transport
        if transport is not None:
            transport.limit_unsent(size)

    def _stop_leading(self) -> None:
        alone = self._drained and self._broken is None and self._owner.is_alone()
        self._left_until = time.monotonic() + _LEFT_TO_CALLERS if alone else 0.0
        self.leader = 0
        self._read_turn.release()
        if not alone:
            self.wake_reader()
        elif self._parked and self._reader_waits is not None:
            self._reader_waits.wake()

    # ---- the end

    def _end(self, transport: Transport) -> None:
        """Close, whatever the state; the events that are left are told even where one of them fails."""
        transport.say_goodbye()
        transport.shutdown()
        self._pending = self._blocked_until = None
        with self._lock:
            self._protocol.watched = self._owner.watched()
            produced = self._protocol.receive_eof(time.monotonic(), str(self.failure or ""))
            produced.append((Notice.CONN_CLOSE, (transport.address,)))
            self._owner.publish(produced)
        # Whoever reads or writes right now must be done before the descriptor can be another connection's.
        with self._read_turn, self._write_turn:
            self._transport = None
        transport.close()
        for waits in (self._reader_waits, self._leader_waits):
            if waits is not None:
                waits.close()
        # Who keeps the association does not keep this.
        self._buffer = memoryview(b"")
        try:
            self._owner.deliver(may_wait=True)
            self._owner.handle(produced)
            self._owner.work()
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
