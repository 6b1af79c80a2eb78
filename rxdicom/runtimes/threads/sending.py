"""The bulk call: many C-STOREs over one association, as many outstanding as its window allows."""

import threading
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from rxdicom.errors import ArgumentError, AssociationAborted, DatasetError, InvalidFile, NoAcceptedContext, TimedOut
from rxdicom.runtimes.batches import Sent, Totals
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.threads.operations import Batch, Operation, Operations
from rxdicom.runtimes.threads.responses import Results
from rxdicom.status import Status
from rxdicom.wire.dimse import Message

if TYPE_CHECKING:
    from reactivex import Observable

MOST_OUTSTANDING = 64
"""Requests of one batch, also where the window is unlimited or larger."""
ITEM_FAULTS = (InvalidFile, DatasetError, NoAcceptedContext, ArgumentError, OSError)
"""What is wrong with one object and says nothing about the others."""


class Transfer(Results[Sent]):
    """What becomes of the objects of a batch, as :class:`~rxdicom.runtimes.batches.Sent` records, as it becomes known.

    With a window above 1 that is the order in which the peer answers. An object that cannot be sent, or is refused,
    is one of the results and does not stop the others; the loss of the association is raised.
    """

    def __init__(self, run: Callable[[], Generator[Sent]], name: str) -> None:
        super().__init__(self._counting(run), self._watched)
        self._name = name
        self.totals = Totals()
        """How far it has come."""

    def _counting(self, run: Callable[[], Generator[Sent]]) -> Callable[[], Generator[Sent]]:
        def count() -> Generator[Sent]:
            sending = run()
            try:
                for sent in sending:
                    self.totals = self.totals.with_one(sent)
                    yield sent
            finally:
                sending.close()

        return count

    def _watched(self, use_once: Callable[[], None]) -> "Observable[Sent]":
        """The same as an Observable: a thread of its own sends and emits."""
        from rxdicom.events.streams import response_stream

        def subscribe(
            on_next: Callable[[Sent], None], on_error: Callable[[Exception], None], on_completed: Callable[[], None]
        ) -> Callable[[], None]:
            left = threading.Event()

            def send() -> None:
                sending = self._run()
                try:
                    for sent in sending:
                        if left.is_set():
                            return
                        on_next(sent)
                except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                    on_error(error)
                else:
                    on_completed()
                finally:
                    sending.close()

            try:
                use_once()
                threading.Thread(target=send, name=self._name, daemon=True).start()
            except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                on_error(error)
            return left.set

        return response_stream(subscribe)


class Sender:
    """Keeps the window full: sends what there is, and tells what became of it.

    ``begin`` sends the request for an instance, ``status`` reads a response, ``give_up`` expects none any more.
    """

    def __init__(
        self,
        operations: Operations,
        window: int,
        begin: Callable[[Any, Batch], tuple[Operation, Message]],
        status: Callable[[Message, Message], Status],
        give_up: Callable[[Operation], None],
    ) -> None:
        self._operations = operations
        self._window = min(window or MOST_OUTSTANDING, MOST_OUTSTANDING)
        self._begin = begin
        self._status = status
        self._give_up = give_up
        self._batch = Batch()
        self._requests: dict[int, tuple[Any, Message]] = {}

    def run(self, instances: Iterable[Any]) -> Generator[Sent]:
        """What becomes of each. Raises what says that the association is over, and what ``instances`` raises."""
        try:
            for instance in instances:
                refused = self._send(instance)
                if refused is not None:
                    yield refused
                while self._batch.is_ready or len(self._batch.running) >= self._window:
                    yield self._next()
            while self._batch.running:
                yield self._next()
        finally:
            for operation in tuple(self._batch.running.values()):
                self._operations.remove(operation)

    def _send(self, instance: Any) -> Sent | None:
        """Send one. What is wrong with it alone is its result."""
        try:
            operation, request = self._begin(instance, self._batch)
        except ITEM_FAULTS as error:
            return Sent(instance, error=error)
        self._requests[operation.message_id] = instance, request
        return None

    def _next(self) -> Sent:
        operation = self._operations.next_over(self._batch)
        self._operations.remove(operation)
        instance, request = self._requests.pop(operation.message_id)
        if operation.answer is None:
            return self._failed(instance, operation)
        forget(operation.answer.data)
        size = 0 if request.data is None else request.data.size
        return Sent(instance, self._status(request, operation.answer), size=size)

    def _failed(self, instance: Any, operation: Operation) -> Sent:
        """What could not be read while it was sent, or was not answered in time; otherwise the association is over."""
        error = operation.error
        if not isinstance(error, TimedOut | OSError | DatasetError):
            raise error or AssociationAborted()
        self._give_up(operation)
        return Sent(instance, error=error)
