"""How the blocking runtime sends the requests of an association's user, and waits for what comes back."""

import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from rxdicom.errors import StateError, TimedOut
from rxdicom.events.hub import forbid_in_observer
from rxdicom.protocol.negotiation import Negotiated
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.requests import Pair, UserRequests
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.operations import Batch, Operation, Operations
from rxdicom.runtimes.threads.responses import Exchange, Responses, is_final
from rxdicom.runtimes.threads.sending import Sender, Transfer
from rxdicom.runtimes.user import Preparation, Request
from rxdicom.status import Status
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.templates import CommandEncoder

if TYPE_CHECKING:
    from reactivex import Observable


class Requests(UserRequests[Status, Pair, Responses, Transfer, None]):
    """What :class:`Association` sends; callers block until the response is there."""

    is_established: bool

    def __init__(self, protocol: Protocol, connection: Connection, timeouts: Timeouts, *, convert: bool) -> None:
        super().__init__(protocol, convert=convert)
        self._connection = connection
        self._timeouts = timeouts
        self._operations = Operations(connection, timeouts, self.abandon, lambda: protocol.last_activity)

    @abstractmethod
    def _over(self) -> Exception:
        """Why nothing can be sent."""

    @abstractmethod
    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""

    # ---- one response

    def _ask_status(self, kind: Command, msg_id: int | None, prepare: Preparation) -> Status:
        return self._lone_status(*self._exchange(kind, msg_id, prepare))

    def _ask_pair(self, kind: Command, msg_id: int | None, prepare: Preparation) -> Pair:
        return self._pair(*self._exchange(kind, msg_id, prepare))

    def _exchange(self, kind: Command, msg_id: int | None, prepare: Preparation) -> tuple[Message, Message]:
        """Send a request that has one response, wait for it; returns both."""
        forbid_in_observer("a request")
        operation, request = self._begin(kind, msg_id, prepare)
        try:
            return request, self._operations.wait(operation)
        except TimedOut:
            self._give_up(operation)
            raise
        finally:
            self._operations.remove(operation)

    def _begin(
        self, kind: Command, msg_id: int | None, prepare: Preparation, batch: Batch | None = None
    ) -> tuple[Operation, Message]:
        """Send a request, as soon as the window has room for it."""
        if not self.is_established:
            raise self._over()
        negotiated = self._protocol.negotiated
        operation = self._operations.begin(kind, msg_id, negotiated.invoked)
        try:
            request = prepare(negotiated, operation.message_id)
            self._send(request)
        except BaseException:
            self._operations.remove(operation)
            raise
        if batch is not None:
            batch.add(operation)
        return operation, request.message

    def _give_up(self, operation: Operation) -> None:
        """A response that did not come in time does not keep the association from being idle."""
        self._connection.perform(lambda _: self._no_longer_expect(operation.message_id), may_wait=False)

    def _no_longer_expect(self, message_id: int) -> list[Produced]:
        self._protocol.invoked.discard(message_id)
        return []

    def _send(self, request: Request) -> None:
        self._connection.claim()
        try:
            self._connection.perform(partial(self._protocol.send, request.message, request.source, runs=request.runs))
        except StateError:
            request.close()
            raise self._over() from None

    # ---- no response, and many requests

    def _send_cancel(self, msg_id: int, context_id: int | None, query_model: str | None) -> None:
        if not self.is_established:
            raise self._over()
        cancel = self._cancel(msg_id, context_id, query_model)
        try:
            self._connection.perform(lambda now: self._protocol.send(cancel, None, now), may_wait=False)
        except StateError:
            raise self._over() from None

    def _send_batch(self, instances: Iterable[Any], priority: int) -> Transfer:
        forbid_in_observer("a request")

        encoder = CommandEncoder()

        def prepare(instance: Any) -> Request:
            negotiated = self._protocol.negotiated
            request = self._storing(instance, priority)(negotiated, self._operations.next_id(None))
            return request.begun(negotiated.maximum_length, encoder)

        def begin(request: Request, batch: Batch) -> tuple[Operation, Message]:
            def ready(_: Negotiated, __: int) -> Request:
                return request

            return self._begin(Command.C_STORE_RQ, request.message.MessageID, ready, batch)

        def run() -> Generator[Sent]:
            window = self._protocol.negotiated.invoked
            sender = Sender(self._operations, window, prepare, begin, self._status, self._give_up)
            return sender.run(instances)

        return Transfer(run, "rxdicom-send")

    # ---- several responses

    def _ask_many(self, msg_id: int | None, prepare: Preparation) -> Responses:
        forbid_in_observer("a request")
        if not self.is_established:
            raise self._over()
        message_id = self._operations.next_id(msg_id)
        request = prepare(self._protocol.negotiated, message_id)
        return Responses(message_id, lambda: self._iterate(request), partial(self._stream, request))

    def _iterate(self, request: Request) -> Generator[Pair]:
        exchange = Exchange(request.message)
        self._start(exchange, request)
        try:
            while True:
                answer = self._operations.next_of(exchange)
                yield self._pair(request.message, answer)
                if is_final(answer):
                    return
        finally:
            self._leave(exchange, request.message.context_id)

    def _stream(self, request: Request, use_once: Callable[[], None]) -> "Observable[Pair]":
        from rxdicom.events.streams import response_stream

        def subscribe(
            on_next: Callable[[Pair], None], on_error: Callable[[Exception], None], on_completed: Callable[[], None]
        ) -> Callable[[], None]:
            def listen(answer: Message | Exception) -> None:
                if isinstance(answer, Exception):
                    on_error(answer)
                    return
                try:
                    given = self._pair(request.message, answer)
                except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                    on_error(error)
                    self._leave(exchange, request.message.context_id)
                    return
                on_next(given)
                if is_final(answer):
                    on_completed()

            exchange = Exchange(request.message, listen)
            try:
                forbid_in_observer("a request")
                use_once()
                self._start(exchange, request)
                self._connection.wake_reader()
            except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                exchange.error = error
                on_error(error)
            return lambda: self._leave(exchange, request.message.context_id)

        return response_stream(subscribe)

    def _start(self, exchange: Exchange, request: Request) -> None:
        if not self.is_established:
            raise self._over()
        self._operations.register(exchange, self._protocol.negotiated.invoked)
        try:
            self._send(request)
        except BaseException:
            self._operations.remove(exchange)
            raise

    def _leave(self, exchange: Exchange, context_id: int) -> None:
        """Nobody consumes any more: cancel what is still running. The reader drains it; nothing is waited for."""
        exchange.close()
        if exchange.is_over or exchange.cancel_sent:
            return
        exchange.cancel_sent = True
        seconds = self._timeouts.response
        exchange.deadline = None if seconds is None else time.monotonic() + seconds
        self._operations.room()

        def cancel(now: float) -> list[Produced]:
            try:
                return self._protocol.send(self._cancel(exchange.message_id, context_id), None, now)
            except StateError:
                # The association is on its way out, and the operation ends with it.
                return []

        self._connection.perform_soon(cancel)
        self._connection.wake_reader()
