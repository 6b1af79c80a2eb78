"""How the asyncio runtime sends the requests of an association's user, and awaits what comes back.

What a cancelled task leaves behind: an operation with several responses is cancelled by C-CANCEL and drained. One with
a single response cannot be taken back: it stays in the window until the peer answers or is overdue, and the answer is
dropped. The association stays usable in both cases.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Iterable
from functools import partial
from typing import Any

from rxdicom.errors import StateError, TimedOut
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.aio.connection import Connection
from rxdicom.runtimes.aio.operations import Exchange, Operations, is_final
from rxdicom.runtimes.aio.responses import Responses
from rxdicom.runtimes.aio.sending import Transfer, window_kept_full
from rxdicom.runtimes.aio.workers import Workers
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.requests import Pair, UserRequests
from rxdicom.runtimes.user import Preparation, Request, StorePreparation
from rxdicom.status import Status
from rxdicom.wire.dimse import Command, Message

_LARGE = 65536
"""Bytes of a dataset from which on it is decoded off the loop."""


class Requests(
    UserRequests[Coroutine[Any, Any, Status], Coroutine[Any, Any, Pair], Responses, Transfer, Coroutine[Any, Any, None]]
):
    """What :class:`Association` sends; every ``send_…`` of one response is a coroutine."""

    is_established: bool

    def __init__(
        self, protocol: Protocol, connection: Connection, timeouts: Timeouts, workers: Workers, *, convert: bool
    ) -> None:
        super().__init__(protocol, convert=convert)
        self._connection = connection
        self._timeouts = timeouts
        self._workers = workers
        self._operations = Operations(connection, protocol, timeouts, self.abandon)

    @abstractmethod
    def _over(self) -> Exception:
        """Why nothing can be sent."""

    @abstractmethod
    def abandon(self, cause: str) -> None:
        """Abort for a reason that the ABORTED event gives as its cause."""

    # ---- one response

    async def _ask_status(self, kind: Command, msg_id: int | None, prepare: Preparation) -> Status:
        return self._lone_status(*await self._exchange(kind, msg_id, prepare))

    async def _ask_pair(self, kind: Command, msg_id: int | None, prepare: Preparation) -> Pair:
        return await self._decoded(*await self._exchange(kind, msg_id, prepare))

    async def _decoded(self, request: Message, answer: Message) -> Pair:
        if answer.data is not None and answer.data.size >= _LARGE:
            return await self._workers.run(self._pair, request, answer)
        return self._pair(request, answer)

    async def _exchange(self, kind: Command, msg_id: int | None, prepare: Preparation) -> tuple[Message, Message]:
        """Send a request that has one response, as soon as the window has room for it; returns both."""
        if not self.is_established:
            raise self._over()
        negotiated = self._protocol.negotiated
        exchange = Exchange(kind, self._operations.next_id(msg_id))
        await self._operations.register(exchange, negotiated.invoked)
        try:
            request = await self._prepared(prepare, exchange.message_id)
            self._send(request)
        except BaseException:
            self._operations.remove(exchange)
            raise
        try:
            return request.message, await self._operations.next_of(exchange)
        except TimedOut:
            self._operations.drop(exchange)
            raise
        finally:
            # One whose caller was cancelled is outstanding still; the timer now sees to its deadline.
            exchange.close()
            self._connection.look()

    async def _prepared(self, prepare: Preparation, message_id: int) -> Request:
        """What has to be encoded is, off the loop."""
        negotiated = self._protocol.negotiated
        if not isinstance(prepare, StorePreparation):
            return prepare(negotiated, message_id)
        request = prepare.as_it_lies(negotiated, message_id)
        return request or await self._workers.run(prepare.encoded, negotiated, message_id)

    def _send(self, request: Request) -> None:
        try:
            self._connection.perform(lambda now: self._protocol.send(request.message, request.source, now))
        except StateError:
            request.close()
            raise self._over() from None

    # ---- no response, and many requests

    async def _send_cancel(self, msg_id: int, context_id: int | None, query_model: str | None) -> None:
        if not self.is_established:
            raise self._over()
        self._send(Request(self._cancel(msg_id, context_id, query_model)))

    def _send_batch(self, instances: Iterable[Any], priority: int) -> Transfer:
        store = partial(self._store_one, priority)
        return Transfer(lambda: window_kept_full(instances, self._protocol.negotiated.invoked, store, self._why_over))

    def _why_over(self) -> Exception | None:
        return None if self.is_established else self._over()

    async def _store_one(self, priority: int, instance: Any) -> Sent:
        """What becomes of one; if the association is lost under it, that."""
        try:
            prepare = self._storing(instance, priority)
            request, answer = await self._exchange(Command.C_STORE_RQ, None, prepare)
        except Exception as error:  # noqa: BLE001 - what is wrong with one, or with the association, which is looked at
            return Sent(instance, error=error)
        size = 0 if request.data is None else request.data.size
        return Sent(instance, self._lone_status(request, answer), size=size)

    # ---- several responses

    def _ask_many(self, msg_id: int | None, prepare: Preparation) -> Responses:
        if not self.is_established:
            raise self._over()
        message_id = self._operations.next_id(msg_id)
        request = prepare(self._protocol.negotiated, message_id)
        return Responses(message_id, lambda: self._iterate(request))

    async def _iterate(self, request: Request) -> AsyncGenerator[Pair]:
        asked = request.message
        exchange = Exchange(asked.kind, asked.MessageID or 0)
        if not self.is_established:
            raise self._over()
        await self._operations.register(exchange, self._protocol.negotiated.invoked)
        try:
            self._send(request)
        except BaseException:
            self._operations.remove(exchange)
            raise
        try:
            while True:
                answer = await self._operations.next_of(exchange)
                yield await self._decoded(asked, answer)
                if is_final(answer):
                    return
        finally:
            self._leave(exchange, asked.context_id)

    def _leave(self, exchange: Exchange, context_id: int) -> None:
        """Nobody consumes any more: cancel what is still running. It is drained; nothing is waited for."""
        exchange.close()
        if exchange.is_over:
            self._operations.remove(exchange)
            return
        exchange.cancel_sent = True
        seconds = self._timeouts.response
        exchange.deadline = None if seconds is None else self._connection.now() + seconds

        def cancel(now: float) -> list[Produced]:
            try:
                return self._protocol.send(self._cancel(exchange.message_id, context_id), None, now)
            except StateError:
                # The association is on its way out, and the operation ends with it.
                return []

        self._connection.perform(cancel)
