"""The requests of this side that are outstanding: message IDs, the window, and the callers that wait."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from rxdicom.errors import AssociationAborted, PeerProtocolError, RxDicomError, StateError, TimedOut
from rxdicom.protocol.policy import Timeouts
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.responses import BOUND, LIMIT, Exchange, is_final
from rxdicom.runtimes.user import MessageIDs
from rxdicom.status import PENDING
from rxdicom.wire.dimse import Command, Message


class Operation:
    """One request that waits for its only response."""

    answer: Message | None = None
    error: Exception | None = None
    is_ready = False
    """Whether its caller need not wait any more: observers have seen the answer, or there is an error."""
    deadline: float | None = None
    """When the response is due; None until the request has left."""
    batch: "Batch | None" = None
    # A bare lock is the fastest hand-off between two threads that there is; there is one only if it is needed.
    gate: "threading.Lock | None" = None

    def __init__(self, kind: Command, message_id: int) -> None:
        self.message_id = message_id
        self.expected = kind | 0x8000
        """The command field of its response."""
        self.thread = threading.get_ident()

    @property
    def is_over(self) -> bool:
        return self.is_ready

    is_attended = True
    """Whether a thread waits for it."""

    @property
    def overdue_at(self) -> float | None:
        """When waiting any longer makes no sense."""
        return self.deadline

    def await_news(self, seconds: float | None) -> None:
        """Wait until it is over, or ``seconds``, while another thread reads."""
        gate = threading.Lock()
        gate.acquire()
        self.gate = gate
        # Whoever ends it from now on sees the gate.
        if not self.is_ready:
            gate.acquire(timeout=-1 if seconds is None else seconds)
        self.gate = None

    def accepts(self, answer: Message) -> bool:
        """Whether a response under its message ID can be its own."""
        command = answer.command
        return command["CommandField"] == self.expected and command["Status"] not in PENDING

    def end(self, error: Exception | None = None) -> None:
        """Let the caller go on, with the response that has arrived, or with ``error``. Only the first call counts."""
        if not self.is_ready and self.answer is None:
            self.error = error
        self.is_ready = True
        gate = self.gate
        if gate is not None and gate.locked():
            gate.release()
        if self.batch is not None:
            self.batch.tell(self)


class Batch:
    """Operations of which one thread waits for any."""

    def __init__(self) -> None:
        self.running: dict[int, Operation] = {}
        self._over: deque[Operation] = deque()
        self._ready = threading.Condition(threading.RLock())

    def add(self, operation: Operation) -> None:
        """Take an operation in. One that is over by now is found too."""
        self.running[operation.message_id] = operation
        operation.batch = self
        if operation.is_over:
            self.tell(operation)

    def tell(self, operation: Operation) -> None:
        """One of them is over."""
        with self._ready:
            if operation not in self._over:
                self._over.append(operation)
            self._ready.notify_all()

    @property
    def is_ready(self) -> bool:
        """Whether one of them is over."""
        return bool(self._over)

    @property
    def overdue_at(self) -> float | None:
        """When the first of them is overdue."""
        return min((each.deadline for each in self.running.values() if each.deadline is not None), default=None)

    def await_news(self, seconds: float | None) -> None:
        """Wait until one is over, or ``seconds``, while another thread reads."""
        with self._ready:
            if not self._over:
                self._ready.wait(seconds)

    def take(self) -> Operation | None:
        """The next one that is over, None if there is none yet."""
        with self._ready:
            if not self._over:
                return None
            operation = self._over.popleft()
            del self.running[operation.message_id]
            return operation


class Operations:
    """All outstanding operations of an association."""

    def __init__(
        self,
        connection: Connection,
        timeouts: Timeouts,
        abandon: Callable[[str], None],
        last_heard: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._last_heard = last_heard
        self._abandon = abandon
        self._timeouts = timeouts
        # Notified when a place in the window, or room for responses, has become free.
        # A finalizer may run while its thread holds this.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._sleepers = 0
        self._outstanding: dict[int, Operation | Exchange] = {}
        self._ids = MessageIDs(self._outstanding)
        self._waiting = 0
        self._reader_waits = False
        self._over: Exception | None = None
        self._ending = False

    # ---- places in the window

    def begin(self, kind: Command, msg_id: int | None, window: int) -> Operation:
        """A new operation, as soon as the window (0 is unlimited) has room for it; :meth:`remove` ends it.

        Raises :class:`~rxdicom.errors.ArgumentError` for a message ID that is outstanding or no message ID.
        """
        with self._lock:
            operation = Operation(kind, self._ids.next(msg_id))
            if self._over is None and (not window or len(self._outstanding) < window):
                self._outstanding[operation.message_id] = operation
                return operation
        self.register(operation, window)
        return operation

    def next_id(self, msg_id: int | None) -> int:
        """A message ID to be used: the given one, or the next that is free."""
        with self._lock:
            return self._ids.next(msg_id)

    def register(self, operation: Operation | Exchange, window: int) -> None:
        """Take a place in the window, or wait for one."""
        seconds = self._timeouts.response
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            with self._lock:
                self._ids.check(operation.message_id)
                if self._over is not None:
                    raise self._over
                # Who has its last response is out of the window, though its caller may not have gone on yet.
                running = [each for each in self._outstanding.values() if not each.is_over]
                if not window or len(running) < window:
                    self._outstanding[operation.message_id] = operation
                    return
                _check_own(running)
                if not self._connection.in_reader and not self._wait_for_change(deadline):
                    raise TimedOut("response", seconds)
            if self._connection.in_reader:
                self._pump_for_place(window, deadline)
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut("response", seconds)

    def _pump_for_place(self, window: int, deadline: float | None) -> None:
        """A handler on the reader waits for a place: it pumps, and who gives a place back wakes it."""
        self._reader_waits = True
        try:
            # One may have been given back before that was known: then nobody would wake it.
            if sum(not each.is_over for each in tuple(self._outstanding.values())) >= window:
                self._pump(deadline)
        finally:
            self._reader_waits = False

    def remove(self, operation: Operation | Exchange) -> None:
        """Give the place back."""
        with self._lock:
            self._outstanding.pop(operation.message_id, None)
            if self._sleepers:
                self._changed.notify_all()
        if self._reader_waits:
            self._connection.wake_reader()

    def _wait_for_change(self, deadline: float | None) -> bool:
        """Wait as one of those for whom the reader has to go on, however full the buffer of another is."""
        self._waiting += 1
        self._tell()
        try:
            return self._sleep(deadline)
        finally:
            self._waiting -= 1

    def _sleep(self, deadline: float | None) -> bool:
        """Under the lock: wait until something has changed. False at the deadline."""
        self._sleepers += 1
        try:
            return self._changed.wait(_left(deadline))
        finally:
            self._sleepers -= 1

    def _tell(self) -> None:
        """Under the lock: something has changed."""
        if self._sleepers:
            self._changed.notify_all()

    # ---- waiting for responses

    def wait(self, operation: Operation) -> Message:
        """Wait for the response. Raises :class:`~rxdicom.errors.TimedOut` if it does not come in time."""
        while not operation.is_ready:
            deadline = operation.deadline
            if deadline is None or time.monotonic() >= deadline:
                deadline = self._until(operation)
            self._await(operation, deadline)
        answer = operation.answer
        if answer is None:
            raise operation.error or AssociationAborted()
        return answer

    def next_of(self, exchange: Exchange) -> Message:
        """The next response of an exchange. Raises its error, or TimedOut when none comes in time."""
        while True:
            until = self._until(exchange)
            answer = exchange.take()
            if answer is not None:
                break
            self._await(exchange, until)
        if len(exchange.items) == BOUND // 2:
            with self._lock:
                self._tell()
        return answer

    def next_over(self, batch: Batch) -> Operation:
        """The next operation of a batch that is over, one whose response does not come in time among them."""
        while (operation := batch.take()) is None:
            try:
                self._await(batch, self._until(batch))
            except TimedOut as error:
                for each in tuple(batch.running.values()):
                    if each.deadline is not None and time.monotonic() >= each.deadline:
                        each.end(error)
        return operation

    def _await(self, waiter: Operation | Exchange | Batch, until: float | None) -> None:
        """Wait for news, as the one who reads if nobody else does."""
        if self._connection.in_reader:
            self._pump(until)
        elif not self._connection.lead(waiter, until):
            self._follow(waiter, until)

    def _until(self, operation: Operation | Exchange | Batch) -> float | None:
        """How long to wait at most. Raises TimedOut if that is over already."""
        deadline = self._due(operation)
        if deadline is None:
            # As long as the request is on its way the deadline of writing holds, and ends the association.
            return _later(self._timeouts.response)
        if time.monotonic() >= deadline:
            raise TimedOut("response", self._timeouts.response)
        return deadline

    def _due(self, operation: Operation | Exchange | Batch) -> float | None:
        """When waiting any longer makes no sense. The instances of a C-GET are as good as its pending responses."""
        deadline = operation.overdue_at
        if deadline is None or not isinstance(operation, Exchange) or operation.expected != Command.C_GET_RSP:
            return deadline
        since_heard = self._last_heard() + (self._timeouts.response or 0)
        return max(deadline, since_heard if operation.cap is None else min(since_heard, operation.cap))

    def _follow(self, waiter: Operation | Exchange | Batch, until: float | None) -> None:
        """Wait while another thread reads. The reader goes on then, although the buffer of another is full."""
        with self._lock:
            self._waiting += 1
            self._tell()
        try:
            waiter.await_news(_left(until))
        finally:
            with self._lock:
                self._waiting -= 1

    def is_alone(self) -> bool:
        """Whether nobody but the current thread waits for a response."""
        thread = threading.get_ident()
        outstanding = tuple(self._outstanding.values())
        if len(outstanding) == 1:
            return outstanding[0].thread == thread and outstanding[0].is_attended
        return all(each.thread == thread and each.is_attended for each in outstanding)

    def _pump(self, deadline: float | None) -> None:
        try:
            self._connection.pump(deadline)
        except (OSError, RxDicomError) as error:
            raise AssociationAborted(by="transport", cause=str(error)) from error

    # ---- what the reader says

    def sent(self, message: Message) -> None:
        """A request has left: its response is due from now on."""
        operation = self._outstanding.get(message.command.get("MessageID", 0))
        if isinstance(operation, Operation):
            operation.deadline = _later(self._timeouts.response)
        elif operation is not None:
            self._rearm(operation)
            if operation.listener is not None:
                self._connection.wake_reader()

    def _rearm(self, exchange: Exchange) -> None:
        deadline = _later(self._timeouts.response)
        if deadline is not None and not exchange.cancel_sent:
            exchange.deadline = exchange.within_cap(deadline, self._timeouts.operation)

    def arrived(self, answer: Message) -> None:
        """A response has come. It counts, whatever happens while observers see it, before :meth:`complete`."""
        operation = self._outstanding.get(answer.command["MessageIDBeingRespondedTo"])
        if operation is None or not operation.accepts(answer):
            return
        if isinstance(operation, Exchange):
            operation.arrived(answer)
        elif operation.answer is None and not operation.is_ready:
            operation.answer = answer

    def complete(self, answer: Message) -> bool:
        """Hand a response over. False if nothing was outstanding under its message ID."""
        operation = self._outstanding.get(answer.command["MessageIDBeingRespondedTo"])
        if operation is None:
            return False
        if isinstance(operation, Operation) and (operation.answer is answer or operation.accepts(answer)):
            operation.end()
            self._connection.wake(operation.thread)
        elif isinstance(operation, Exchange) and operation.accepts(answer):
            self._hand_over(operation, answer)
        else:
            self._refuse(operation, answer)
        return True

    def _hand_over(self, exchange: Exchange, answer: Message) -> None:
        self._rearm(exchange)
        exchange.complete(answer)
        self._connection.wake(exchange.thread)
        if is_final(answer):
            self.remove(exchange)
        else:
            self._wait_for_room(exchange)

    def _refuse(self, operation: Operation | Exchange, answer: Message) -> None:
        """A response of another command: its Success would be that of another operation."""
        request = Command(operation.expected & 0x7FFF).message_name
        fault = f"{request} {operation.message_id} answered by {answer.name} with status 0x{answer.Status or 0:04X}"
        forget(answer.data)
        self._end(operation, PeerProtocolError(f"{fault}; the association is aborted"))
        self._abandon(fault)

    def _end(self, operation: Operation | Exchange, error: Exception) -> None:
        operation.end(error)
        self._connection.wake(operation.thread)
        if isinstance(operation, Exchange):
            self.remove(operation)

    def _wait_for_room(self, exchange: Exchange) -> None:
        """Read no more while a consumer is behind, so that TCP slows the peer down.

        Not for ever: other operations of the association that wait for their responses have the reader go on, and an
        exchange that then falls too far behind is given up.
        """
        if exchange.listener is not None or self._connection.in_leader or exchange.thread == threading.get_ident():
            return
        with self._lock:
            while len(exchange.items) >= BOUND and not (self._waiting or self._ending or exchange.closed or self._over):
                self._sleep(None)
        if len(exchange.items) > LIMIT:
            self._end(exchange, StateError(f"more than {LIMIT} responses wait for their consumer; read them faster"))

    def failed(self, message: Message, error: Exception) -> None:
        """A request could not be sent."""
        operation = self._outstanding.get(message.MessageID or 0)
        if operation is not None:
            self._end(operation, error)

    def room(self, *, ending: bool = False) -> None:
        """The reader need not wait for a consumer that has gone away, or, ``ending``, for any."""
        with self._lock:
            self._ending = self._ending or ending
            self._tell()

    def await_drained(self) -> None:
        """Wait until operations that were left early have had their final response, or are overdue.

        Some peers do not answer a release request that comes before that.
        """
        with self._lock:
            while drained := [self._due(each) for each in self._outstanding.values() if _is_draining(each)]:
                if not self._sleep(_earliest(drained)):
                    return

    def fail_all(self, error: Exception) -> None:
        """No response will come any more."""
        with self._lock:
            self._over = self._over or error
            operations = tuple(self._outstanding.values())
            for operation in operations:
                # One whose last response is there, seen by observers and not yet handed over, still gets it.
                if isinstance(operation, Exchange) and not operation.arrived_final:
                    del self._outstanding[operation.message_id]
            self._tell()
        for operation in operations:
            operation.end(error)
            self._connection.wake(operation.thread)

    # ---- deadlines that nobody waits for: the reader enforces them

    def next_deadline(self) -> float | None:
        """When the next response is due of what flows into Rx, or is cancelled and being drained."""
        if not self._outstanding:
            return None
        return _earliest(self._due(each) for each in self._unattended())

    def end_overdue(self, now: float) -> bool:
        """End those whose deadline has passed. Whether there were any."""
        overdue = [each for each in self._unattended() if (due := self._due(each)) is not None and now >= due]
        for exchange in overdue:
            self._end(exchange, TimedOut("response", self._timeouts.response))
        return bool(overdue)

    def _unattended(self) -> list[Exchange]:
        exchanges = [each for each in tuple(self._outstanding.values()) if isinstance(each, Exchange)]
        return [each for each in exchanges if not each.is_attended]


def _is_draining(operation: Operation | Exchange) -> bool:
    return isinstance(operation, Exchange) and operation.closed and not operation.is_over


def _check_own(running: list[Operation | Exchange]) -> None:
    """A thread whose own unfinished responses fill the window would wait for itself."""
    thread = threading.get_ident()
    if any(isinstance(each, Exchange) and each.is_attended and each.thread == thread for each in running):
        raise StateError("responses that this thread has not consumed fill the window; finish them first")


def _earliest(deadlines: Iterable[float | None]) -> float | None:
    return min((each for each in deadlines if each is not None), default=None)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _later(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
