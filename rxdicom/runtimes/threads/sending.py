"""The bulk call: many C-STOREs over one association, as many outstanding as its window allows."""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rxdicom.errors import AssociationAborted
from rxdicom.runtimes.batches import Sent, Supply, Totals, concerns_one
from rxdicom.runtimes.files import forget
from rxdicom.runtimes.threads.operations import Batch, Operation, Operations
from rxdicom.runtimes.threads.responses import Results
from rxdicom.runtimes.user import MessageIDTaken, Request
from rxdicom.status import Status
from rxdicom.wire.dimse import Message

if TYPE_CHECKING:
    from reactivex import Observable

MOST_OUTSTANDING = 64
"""Requests of one batch, also where the window is unlimited or larger."""


class Transfer(Results[Sent]):
    """What becomes of the objects of a batch, as :class:`~rxdicom.runtimes.batches.Sent` records, as it becomes known.

    With a window above 1 that is the order in which the peer answers. An object that cannot be sent, or is refused,
    is one of the results and does not stop the others. When the association is lost, that is what became of those
    that were on their way; then it is raised.
    """

    def __init__(
        self, run: Callable[[], Generator[Sent]], name: str, leaving: Callable[[], None] = lambda: None
    ) -> None:
        # Nothing in here refers to this object: who breaks out of the iteration ends it, without the garbage collector.
        self._tally = _Tally(run)
        super().__init__(self._tally.run, partial(_watched, self._tally.run, name, leaving))

    @property
    def totals(self) -> Totals:
        """How far it has come."""
        return self._tally.totals


class _Tally:
    """Counts what it passes on."""

    def __init__(self, run: Callable[[], Generator[Sent]]) -> None:
        self.totals = Totals()
        self._run = run

    def run(self) -> Generator[Sent]:
        sending = self._run()
        try:
            for sent in sending:
                self.totals = self.totals.with_one(sent)
                yield sent
        finally:
            sending.close()


def _watched(
    run: Callable[[], Generator[Sent]], name: str, leaving: Callable[[], None], use_once: Callable[[], None]
) -> "Observable[Sent]":
    """The results as an Observable: a thread of its own sends and emits."""
    from rxdicom.events.streams import response_stream

    def subscribe(
        on_next: Callable[[Sent], None], on_error: Callable[[Exception], None], on_completed: Callable[[], None]
    ) -> Callable[[], None]:
        left = threading.Event()

        def send() -> None:
            sending = run()
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

        def leave() -> None:
            left.set()
            leaving()

        try:
            use_once()
            threading.Thread(target=send, name=name, daemon=True).start()
        except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
            on_error(error)
        return leave

    return response_stream(subscribe)


class Sender:
    """Keeps the window full: sends what there is, and tells what became of it.

    ``prepare`` makes the request for an instance, ``begin`` sends it, ``status`` reads a response, ``give_up`` expects
    none any more.
    """

    def __init__(
        self,
        operations: Operations,
        window: int,
        prepare: Callable[[Any], Request],
        begin: Callable[[Request, Batch], tuple[Operation, Message]],
        status: Callable[[Message, Message], Status],
        give_up: Callable[[Operation], None],
    ) -> None:
        self._operations = operations
        self._window = min(window or MOST_OUTSTANDING, MOST_OUTSTANDING)
        self._prepare = prepare
        self._begin = begin
        self._status = status
        self._give_up = give_up
        self._batch = Batch()
        self._requests: dict[int, tuple[Any, Message]] = {}
        self._lost: Exception | None = None

    def run(self, instances: Iterable[Any]) -> Generator[Sent]:
        """What becomes of each that was asked for. Raises what says that the association is over, when all of them are
        accounted for, and what ``instances`` raises.
        """
        supply = instances if isinstance(instances, Supply) else None
        # The next one is made ready while others are on their way, where asking for it early means nothing to anybody.
        early = supply is not None or isinstance(instances, Sequence)
        try:
            for instance in instances:
                prepared = self._prepared(instance)
                is_its_turn = False
                try:
                    over = self._make_room()
                    if supply is None or any(each.answer is None for each in over):
                        yield from self._results(over)
                    is_its_turn = (supply is None or supply.wants(instance)) and self._lost is None
                finally:
                    if not is_its_turn:
                        _close(prepared)
                refused = self._send(instance, prepared) if is_its_turn else None
                # The peer has something to do again: now there is time for what it has answered.
                yield from self._results(over)
                if refused is not None:
                    yield refused
                if not early:
                    yield from self._results(self._make_room())
                if self._lost is not None or not is_its_turn:
                    break
            while self._batch.running:
                yield from self._results([self._next_over()])
            if self._lost is not None:
                raise self._lost
        finally:
            for operation in tuple(self._batch.running.values()):
                self._operations.remove(operation)

    def _prepared(self, instance: Any) -> Request | Sent:
        """The request for one. What is wrong with it alone is its result."""
        try:
            return self._prepare(instance)
        except Exception as error:  # noqa: BLE001 - whatever an object makes pydicom raise, the others are to be sent
            return self._failed(instance, error)

    def _make_room(self) -> list[Operation]:
        """What has ended, and more, until there is room in the window."""
        over: list[Operation] = []
        while self._batch.is_ready or len(self._batch.running) >= self._window:
            over.append(self._next_over())
        return over

    def _next_over(self) -> Operation:
        operation = self._operations.next_over(self._batch)
        self._operations.remove(operation)
        if operation.answer is not None:
            forget(operation.answer.data)
        return operation

    def _send(self, instance: Any, prepared: Request | Sent) -> Sent | None:
        """Send one. What is wrong with it alone is its result."""
        if isinstance(prepared, Sent):
            return prepared
        try:
            try:
                operation, request = self._begin(prepared, self._batch)
            except MessageIDTaken:
                # By somebody who chose it, since it was made ready.
                prepared.close()
                prepared = self._prepare(instance)
                operation, request = self._begin(prepared, self._batch)
        except Exception as error:  # noqa: BLE001 - whatever an object makes pydicom raise, the others are to be sent
            prepared.close()
            return self._failed(instance, error)
        self._requests[operation.message_id] = instance, request
        return None

    def _results(self, over: list[Operation]) -> Generator[Sent]:
        """What became of those that have ended; each is told once."""
        while over:
            yield self._result(over.pop(0))

    def _result(self, operation: Operation) -> Sent:
        instance, request = self._requests.pop(operation.message_id)
        if operation.answer is None:
            error = operation.error or AssociationAborted()
            if concerns_one(error):
                # It could not be read while it was sent, or was not answered in time.
                self._give_up(operation)
            return self._failed(instance, error)
        size = 0 if request.data is None else request.data.size
        return Sent(instance, self._status(request, operation.answer), size=size)

    def _failed(self, instance: Any, error: Exception) -> Sent:
        """What went wrong with one, which may be that the association is over."""
        if not concerns_one(error):
            self._lost = self._lost or error
        return Sent(instance, error=error)


def _close(prepared: Request | Sent) -> None:
    """It is not going to be sent."""
    if isinstance(prepared, Request):
        prepared.close()
