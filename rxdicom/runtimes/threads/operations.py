"""The requests of this side that are outstanding: message IDs, the window, and the callers that wait."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from rxdicom.errors import ArgumentError, AssociationAborted, RxDicomError, TimedOut
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.wire.dimse import Message


class Operation:
    """One request that waits for its response."""

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

    def end(self, error: Exception | None = None) -> None:
        """Let the caller go on, with the response that has arrived, or with ``error``. Only the first call counts."""
        if not self.is_over:
            self.error = error
        if self.gate.locked():
            self.gate.release()


class Operations:
    """All outstanding operations of an association."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._free = threading.Condition(threading.Lock())
        self._outstanding: dict[int, Operation] = {}
        self._last_id = 0
        self._seconds: float | None = None

    @contextmanager
    def begin(self, msg_id: int | None, window: int, seconds: float | None) -> Generator[Operation]:
        """A new operation, as soon as the window (0 is unlimited) has room for it.

        Raises :class:`~rxdicom.errors.ArgumentError` for a message ID that is outstanding or no message ID.
        """
        self._seconds = seconds
        operation = self._register(msg_id, window, seconds)
        try:
            yield operation
        finally:
            with self._free:
                del self._outstanding[operation.message_id]
                self._free.notify()

    def _register(self, msg_id: int | None, window: int, seconds: float | None) -> Operation:
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            with self._free:
                message_id = self._check_id(msg_id)
                # Who has its response is out of the window, though its caller may not have gone on yet.
                if not window or sum(not each.is_over for each in self._outstanding.values()) < window:
                    operation = self._outstanding[message_id] = Operation(message_id)
                    return operation
                if not self._connection.in_reader and not self._free.wait(_left(deadline)):
                    raise TimedOut("response", seconds)
            if self._connection.in_reader:
                self._pump(deadline)
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimedOut("response", seconds)

    def _check_id(self, msg_id: int | None) -> int:
        if msg_id is not None:
            if not 0 <= msg_id <= 0xFFFF:
                raise ArgumentError(f"message ID {msg_id} is out of range; give one from 0 to 65535, or none")
            if msg_id in self._outstanding:
                raise ArgumentError(f"message ID {msg_id} is outstanding; leave it out, and the next free one is taken")
            return msg_id
        while True:
            self._last_id = self._last_id % 0xFFFF + 1
            if self._last_id not in self._outstanding:
                return self._last_id

    def wait(self, operation: Operation, seconds: float | None) -> Message:
        """Wait for the response. Raises :class:`~rxdicom.errors.TimedOut` ``seconds`` after the request has left."""
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

    def _pump(self, deadline: float | None) -> None:
        try:
            self._connection.pump(deadline)
        except (OSError, RxDicomError) as error:
            raise AssociationAborted(by="transport", cause=str(error)) from error

    # ---- what the reader says

    def sent(self, message: Message) -> None:
        """A request has left: its response is due from now on."""
        operation = self._outstanding.get(message.MessageID or 0)
        if operation is not None and self._seconds is not None:
            operation.deadline = time.monotonic() + self._seconds

    def arrived(self, answer: Message) -> None:
        """A response has come: it counts, whatever observers of it do before the caller goes on."""
        operation = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if operation is not None and not operation.is_over:
            operation.answer = answer

    def complete(self, answer: Message) -> bool:
        """Let the caller have its response. False if nothing was outstanding under its message ID."""
        operation = self._outstanding.get(answer.MessageIDBeingRespondedTo or 0)
        if operation is None:
            return False
        operation.end()
        return True

    def failed(self, message: Message, error: Exception) -> None:
        """A request could not be sent."""
        operation = self._outstanding.get(message.MessageID or 0)
        if operation is not None:
            operation.end(error)

    def fail_all(self, error: Exception) -> None:
        """No response will come any more."""
        with self._free:
            operations = tuple(self._outstanding.values())
        for operation in operations:
            operation.end(error)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
