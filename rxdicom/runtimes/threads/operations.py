"""The requests of this side that are outstanding: message IDs, the window, and the callers that wait."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rxdicom.errors import ArgumentError, AssociationAborted, PeerProtocolError, RxDicomError, StateError, TimedOut
from rxdicom.protocol.policy import Timeouts
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.responses import BOUND, LIMIT, Exchange, is_final
from rxdicom.wire.dimse import Message


class Operation:
    """One request that waits for its only response."""

    __slots__ = ("answer", "deadline", "error", "gate", "message_id")

    def __init__(self, message_id: int) -> None:
        self.message_id = message_id
        self.answer: Message | None = None
        self.error: Exception | None = None
        self.deadline: float | None = None
        """When the response is due; None until the request has left."""
        # A bare lock is the fastest hand-off between two threads that there is.
        self.gate = threading.Lock()
        self.gate.acquire()

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.error is not None

    def arrived(self, answer: Message) -> None:
        """Note that the response is there, whatever observers of it do before it is handed over."""
        if not self.is_over:
            self.answer = answer

    def complete(self, answer: Message) -> None:
        """Let the caller have the response."""
        del answer
        self.end()

    def end(self, error: Exception | None = None) -> None:
        """Let the caller go on, with the response that has arrived, or with ``error``. Only the first call counts."""
        if not self.is_over:
            self.error = error
        if self.gate.locked():
            self.gate.release()


class Operations:
    """All outstanding operations of an association."""

    def __init__(self, connection: Connection, timeouts: Timeouts, abandon: Callable[[str], None]) -> None:
        self._connection = connection
        self._abandon = abandon
        self._timeouts = timeouts
        # Notified when a place in the window, or room for responses, has become free.
        self._changed = threading.Condition(threading.Lock())
        self._outstanding: dict[int, Operation | Exchange] = {}
        self._waiting = 0
        self._last_id = 0
        self._over: Exception | None = None
        self._ending = False

    # ---- places in the window

    @contextmanager
    def begin(self, msg_id: int | None, window: int) -> Generator[Operation]:
        """A new operation, as soon as the window (0 is unlimited) has room for it.

        Raises :class:`~rxdicom.errors.ArgumentError` for a message ID that is outstanding or no message ID.
        """
        operation = Operation(self.next_id(msg_id))
        self.register(operation, window)
        try:
            yield operation
        finally:
            self.remove(operation)

    def next_id(self, msg_id: int | None) -> int:
        """A message ID to be used: the given one, or the next that is free."""
        with self._changed:
            if msg_id is not None:
                if not 0 <= msg_id <= 0xFFFF:
                    raise ArgumentError(f"message ID {msg_id} is out of range; give one from 0 to 65535, or none")
                self._check_free(msg_id)
                return msg_id
            while True:
                self._last_id = self._last_id % 0xFFFF + 1
                if self._last_id not in self._outstanding:
                    return self._last_id

    def _check_free(self, message_id: int) -> None:
        if message_id in self._outstanding:
            raise ArgumentError(f"message ID {message_id} is outstanding; leave it out, and the next free one is taken")

    def register(self, operation: Operation | Exchange, window: int) -> None:
        """Take a place in the window, or wait for one."""
        seconds = self._timeouts.response
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            with self._changed:
                self._check_free(operation.message_id)
                # Who has its last response is out of the window, though its caller may not have gone on yet.
                running = [each for each in self._outstanding.values() if not each.is_over]
                if self._over is not None:
                    raise self._over
                if not window or len(running) < window:
                    self._outstanding[operation.message_id] = operation
                    return
                _check_own(running)
                if not self._connection.in_reader and not self._wait_for_change(deadline):
                    raise TimedOut("response", seconds)
            if self._connection.in_reader:
                self._pump(deadline)
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut("response", seconds)

    def remove(self, operation: Operation | Exchange) -> None:
        """Give the place back."""
        with self._changed:
            self._outstanding.pop(operation.message_id, None)
            self._changed.notify_all()

    def _wait_for_change(self, deadline: float | None) -> bool:
        """Wait as one of those for whom the reader has to go on, however full the buffer of another is."""
        self._waiting += 1
        self._changed.notify_all()
        try:
            return self._changed.wait(_left(deadline))
        finally:
            self._waiting -= 1

    # ---- waiting for responses

    def wait(self, operation: Operation, seconds: float | None) -> Message:
        """Wait for the response. Raises :class:`~rxdicom.errors.TimedOut` ``seconds`` after the request has left."""
        with self._heard():
            while not operation.is_over:
                # As long as the request is on its way the deadline of writing holds, and ends the association.
                deadline = operation.deadline
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut("response", seconds)
                until = deadline if deadline is not None or seconds is None else time.monotonic() + seconds
                if self._connection.in_reader:
                    self._pump(until)
                else:
                    operation.gate.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic()))
        if operation.answer is None:
            raise operation.error or AssociationAborted()
        return operation.answer

    @contextmanager
    def _heard(self) -> Generator[None]:
        """Has the reader go on although the buffer of another operation is full."""
        if len(self._outstanding) < 2:
            yield
            return
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1

    def next_of(self, exchange: Exchange) -> Message:
        """The next response of an exchange. Raises its error, or TimedOut when none comes in time."""
        seconds = self._timeouts.response
        while True:
            with exchange.ready:
                if exchange.items:
                    answer = exchange.items.popleft()
                    break
                if exchange.error is not None:
                    raise exchange.error
                deadline = exchange.deadline
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut("response", seconds)
                until = deadline if deadline is not None or seconds is None else time.monotonic() + seconds
                if not self._connection.in_reader:
                    exchange.ready.wait(_left(until))
            if self._connection.in_reader:
                self._pump(until)
        if len(exchange.items) == BOUND // 2:
            with self._changed:
                self._changed.notify_all()
        return answer

    def _pump(self, deadline: float | None) -> None:
        try:
            self._connection.pump(deadline)
        except (OSError, RxDicomError) as error:
            raise AssociationAborted(by="transport", cause=str(error)) from error

    # ---- what the reader says

    def sent(self, message: Message) -> None:
        """A request has left: its response is due from now on."""
        operation = self._outstanding.get(message.MessageID or 0)
        self._rearm(operation)
        if isinstance(operation, Exchange):
            self._connection.wake_reader()

    def _rearm(self, operation: Operation | Exchange | None) -> None:
        if operation is None or self._timeouts.response is None:
            return
        deadline = time.monotonic() + self._timeouts.response
        if isinstance(operation, Exchange):
            if operation.cancel_sent:
                return
            deadline = operation.within_cap(deadline, self._timeouts.operation)
        operation.deadline = deadline

    def arrived(self, answer: Message) -> None:
        """A response has come."""
        operation = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if operation is not None:
            operation.arrived(answer)

    def complete(self, answer: Message) -> bool:
        """Hand a response over. False if nothing was outstanding under its message ID."""
        operation = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if operation is None:
            return False
        self._rearm(operation)
        if isinstance(operation, Exchange) and answer.CommandField != operation.expected:
            self._refuse(operation, answer)
            return True
        operation.complete(answer)
        if isinstance(operation, Exchange):
            if is_final(answer):
                self.remove(operation)
            else:
                self._wait_for_room(operation)
        return True

    def _refuse(self, exchange: Exchange, answer: Message) -> None:
        """A response of another command: its Success would be that of another operation."""
        fault = f"message {exchange.message_id} answered by {answer.name}"
        forget(answer.data)
        exchange.arrived_final = False
        exchange.end(PeerProtocolError(f"{fault}; the association is aborted"))
        self.remove(exchange)
        self._abandon(fault)

    def _wait_for_room(self, exchange: Exchange) -> None:
        """Read no more while a consumer is behind, so that TCP slows the peer down.

        Not for ever: other operations of the association that wait for their responses have the reader go on, and an
        exchange that then falls too far behind is given up.
        """
        if exchange.listener is not None or exchange.thread == threading.get_ident():
            return
        with self._changed:
            while len(exchange.items) >= BOUND and not (self._waiting or self._ending or exchange.closed or self._over):
                self._changed.wait()
        if len(exchange.items) > LIMIT:
            exchange.end(StateError(f"more than {LIMIT} responses wait for their consumer; read them faster"))

    def failed(self, message: Message, error: Exception) -> None:
        """A request could not be sent."""
        operation = self._outstanding.get(message.MessageID or 0)
        if operation is not None:
            operation.end(error)
            if isinstance(operation, Exchange):
                self.remove(operation)

    def room(self, *, ending: bool = False) -> None:
        """The reader need not wait for a consumer that has gone away, or, ``ending``, for any."""
        with self._changed:
            self._ending = self._ending or ending
            self._changed.notify_all()

    def fail_all(self, error: Exception) -> None:
        """No response will come any more."""
        with self._changed:
            self._over = self._over or error
            operations = tuple(self._outstanding.values())
            for operation in operations:
                if isinstance(operation, Exchange):
                    del self._outstanding[operation.message_id]
            self._changed.notify_all()
        for operation in operations:
            operation.end(error)

    # ---- deadlines that nobody waits for: the reader enforces them

    def next_deadline(self) -> float | None:
        """When the next response is due of what flows into Rx, or is cancelled and being drained."""
        deadlines = [each.deadline for each in self._unattended() if each.deadline is not None]
        return min(deadlines, default=None)

    def overdue(self, now: float) -> list[Exchange]:
        """Those whose deadline has passed."""
        return [each for each in self._unattended() if each.deadline is not None and now >= each.deadline]

    def _unattended(self) -> list[Exchange]:
        if not self._outstanding:
            return []
        exchanges = [each for each in tuple(self._outstanding.values()) if isinstance(each, Exchange)]
        return [each for each in exchanges if each.closed or each.listener is not None]


def _check_own(running: list[Operation | Exchange]) -> None:
    """A thread whose own unfinished responses fill the window would wait for itself."""
    thread = threading.get_ident()
    exchanges = [each for each in running if isinstance(each, Exchange) and not (each.closed or each.listener)]
    if any(each.thread == thread for each in exchanges):
        raise StateError("responses that this thread has not consumed fill the window; finish them first")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
