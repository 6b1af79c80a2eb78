"""Performs the requests of the peer: calls handlers where they belong, drives the services, sends the responses."""

import contextvars
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rxdicom.events.dispatcher import DEFAULTS, Dispatcher, Handler
from rxdicom.events.kinds import EventKind
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.aio.connection import Connection
from rxdicom.runtimes.aio.inbox import Inbox
from rxdicom.runtimes.aio.workers import Workers
from rxdicom.runtimes.performance import END, Performance
from rxdicom.runtimes.provider import Provider, source_of
from rxdicom.runtimes.sub_operations import MoveDestination, Route, SameAssociation
from rxdicom.services.effects import Open
from rxdicom.services.outcome import Result
from rxdicom.services.provider import ROWS, Row
from rxdicom.wire.dimse import Command, Message

if TYPE_CHECKING:
    from rxdicom.runtimes.aio.association import Association

_IN_MEMORY = (type(iter([])), type(iter(())))
"""Iterators that run none of the handler's code."""


class LoopPerformance(Performance):
    """Runs handlers that can await on the loop, and plain ones in threads beside it.

    All calls of a plain handler have the same context variables, and never run at the same time; a generator's may
    run in one thread after the other.
    """

    def __init__(self, handlers: Dispatcher, workers: Workers, **options: Any) -> None:
        super().__init__(**options)
        self._handlers = handlers
        self._workers = workers
        self._context = contextvars.copy_context()
        self._items: AsyncIterator[Any] | Iterator[Any] | None = None

    async def call(self, event: Any) -> Any:
        handler, args = self._handlers.slot(event.event)
        if is_prompt(event.event, handler):
            value = handler(event, *args)
        else:
            value = await self._aside(handler, event, *args)
        return await value if inspect.isawaitable(value) else value

    def take_items(self, value: Any) -> None:
        self._items = aiter(value) if hasattr(value, "__aiter__") else iter(value)

    async def next_item(self) -> Any:
        items = self._items
        if isinstance(items, AsyncIterator):
            return await anext(items, END)
        if isinstance(items, _IN_MEMORY):
            return next(items, END)
        return await self._aside(next, items, END)

    async def close_items(self) -> None:
        if isinstance(self._items, AsyncIterator):
            close = getattr(self._items, "aclose", None)
            if close is not None:
                await close()
        elif (close := getattr(self._items, "close", None)) is not None:
            await self._aside(close)

    async def _aside(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._workers.run(self._context.run, function, *args)


def is_prompt(kind: EventKind[Any], handler: Handler) -> bool:
    """Whether calling a handler only gives something to await or to iterate over, or is a default: on the loop then."""
    while isinstance(handler, partial):
        handler = cast("partial[Any]", handler).func
    if handler is DEFAULTS[kind] or _starts(handler):
        return True
    return not inspect.isroutine(handler) and _starts(getattr(handler, "__call__", None))  # noqa: B004 - is it async?


def _starts(function: Any) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    )


class Performer:
    """The provider side of an association: a task for each request that is being performed."""

    def __init__(
        self,
        assoc: "Association",
        connection: Connection,
        protocol: Protocol,
        workers: Workers,
    ) -> None:
        self._assoc = assoc
        self._connection = connection
        self._protocol = protocol
        self._workers = workers
        self._provider: Provider[LoopPerformance] = Provider(assoc)
        self.inbox = Inbox(lambda: protocol.negotiated.performed, self._perform, connection.look)

    def cancel(self, request: Message) -> None:
        """C-CANCEL has come, perhaps for what is over."""
        self._provider.cancel(request)

    def put(self, request: Message) -> None:
        """The peer asks for something."""
        self._provider.expect(request)
        self.inbox.put(request)

    async def _perform(self, request: Message) -> None:
        """Answer one request."""
        answer = self._provider.refusal(request)
        if answer is None:
            answer = await self._answer(ROWS[request.kind], request)
        # That the association is over by now is nobody's fault.
        if self._assoc.is_established:
            await self._send(answer)

    async def _answer(self, row: Row, request: Message) -> Message:
        routes = {"route": self._route(request), "open_route": self._open_route(request)}
        performance = LoopPerformance(self._assoc.handlers, self._workers, send=self._send_pending, **routes)
        event = self._provider.event(row, request, performance)
        self._provider.begin(request, performance)
        try:
            result: Result = await performance.perform(row, event)
        except Exception as error:  # noqa: BLE001 - exactly one final response, whatever happens
            result = self._provider.failed(event, error)
        finally:
            self._provider.end(request)
        return self._provider.ended(result)

    def _route(self, request: Message) -> Route | None:
        if request.kind is not Command.C_GET_RQ:
            return None
        return SameAssociation(self._assoc, request.Priority or 0)

    def _open_route(self, request: Message) -> Callable[[Open], Route] | None:
        setup = self._assoc.setup
        dial = setup.dial
        if request.kind is not Command.C_MOVE_RQ or dial is None:
            return None
        elements = {
            "priority": request.Priority or 0,
            "originator_aet": self._assoc.requestor.ae_title,
            "originator_id": request.MessageID,
        }

        def open_route(destination: Open) -> Route:
            return MoveDestination(dial, destination, request.MoveDestination or "", setup.requested, elements)

        return open_route

    # ---- responses

    async def _send_pending(self, answer: Message) -> None:
        self._provider.look_at(answer)
        await self._send(answer)

    async def _send(self, answer: Message) -> None:
        """Send a response of a service, which is to end if the association is over. Returns when it has left."""
        source = source_of(answer)

        def step(now: float) -> list[Produced]:
            return self._protocol.send(answer, source, now)

        self._connection.perform(step)
        await self._connection.drain()

    def not_sent(self, answer: Message, error: Exception) -> None:
        """A response could not be encoded."""
        instead = self._provider.instead_of(answer, error)
        if instead is None:
            self._assoc.abandon(f"not even a failure can be sent: {error}")
        elif self._assoc.is_established:
            self._connection.perform(lambda now: self._protocol.send(instead, None, now))

    def stop(self, spared: "set[Any]") -> None:
        """The association is over: async handlers are cancelled, plain ones see it in ``is_cancelled``."""
        self._provider.stop()
        self.inbox.stop(spared)
