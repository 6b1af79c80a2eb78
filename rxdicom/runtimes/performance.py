"""Drives a service: has the handler called, holds what it returned, sends, stores, closes. For every runtime.

Written with ``async``; a runtime that blocks gives what never suspends.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rxdicom.errors import RxDicomError
from rxdicom.log import concerning
from rxdicom.runtimes.sub_operations import Route, failed
from rxdicom.services.effects import (
    Call,
    Called,
    Cancelled,
    Done,
    Effect,
    Open,
    Pull,
    Raised,
    Reply,
    Send,
    Service,
    SubStore,
    Value,
)
from rxdicom.services.outcome import Result
from rxdicom.services.provider import Row, Single
from rxdicom.wire.dimse import Message

_Result = TypeVar("_Result")

END = object()
"""What :meth:`Performance.next_item` gives after the last one."""


async def _nowhere(message: Message) -> None:
    raise RuntimeError(f"there is nobody to send {message} to")


class Performance(ABC):
    """One request that is being performed. ``cancelled`` is set when C-CANCEL comes, and stays."""

    def __init__(
        self,
        send: Callable[[Message], Awaitable[None]] = _nowhere,
        route: Route | None = None,
        open_route: Callable[[Open], Route] | None = None,
    ) -> None:
        self.cancelled = False
        self._send = send
        self._route = route
        self._open_route = open_route
        self._has_items = False
        self._event: Any = None

    # ---- where handlers run is the runtime's

    @abstractmethod
    async def call(self, event: Any) -> Any:
        """What the handler makes of ``event``; it may raise anything."""

    @abstractmethod
    def take_items(self, value: Any) -> None:
        """Hold the iterable that the handler returned."""

    @abstractmethod
    async def next_item(self) -> Any:
        """Its next item, or :data:`END`."""

    @abstractmethod
    async def close_items(self) -> None:
        """Have the handler's ``finally`` run."""

    # ---- driving

    def is_cancelled(self) -> bool:
        """Whether C-CANCEL has come for this request, or its association is over."""
        return self.cancelled

    async def perform(self, row: Row, event: Any) -> Result:
        """Answer a request. What ends the association is raised."""
        if isinstance(row, Single):
            return row.answer(event, await self._call(event))
        return await self.run(row.service(event))

    async def run(self, service: Service[_Result]) -> _Result:
        """Run a service to its result. What ends the association is raised, after closing the service."""
        try:
            effect = next(service)
            while True:
                effect = service.send(await self._reply(effect))
        except StopIteration as stop:
            return stop.value
        finally:
            service.close()
            await self._close()

    async def _reply(self, effect: Effect) -> Reply:
        match effect:
            case Call(event):
                return await self._call(event)
            case Pull():
                return await self._pull()
            case Send(message):
                await self._send(message)
                return None
            case Open():
                return self._open(effect)
            case SubStore(instance):
                return await self._sub_store(instance)

    async def _call(self, event: Any) -> Called:
        try:
            value = await self.call(event)
            if event.event.iterates:
                self._event = event
                self.take_items(value)
                self._has_items = True
            return Value(value)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge of the user's handler
            return _raised(event, error)

    async def _pull(self) -> Reply:
        if not self._has_items:
            return Done()
        try:
            item = await self.next_item()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge of the user's handler
            return _raised(self._event, error)
        if item is END:
            return Cancelled() if self.cancelled else Done()
        return Cancelled(item) if self.cancelled else Value(item)

    def _open(self, destination: Open) -> Reply:
        if self._open_route is None:
            return Raised(RuntimeError("there is no way to open an association to a destination here"))
        try:
            self._route = self._open_route(destination)
        except (TypeError, ValueError, RxDicomError) as error:
            return Raised(error)
        return Value(None)

    async def _sub_store(self, instance: Any) -> Reply:
        if self._route is None:
            return Value(failed(instance, RuntimeError("there is no route for sub-operations")))
        try:
            return Value(await self._route.store(instance))
        except RxDicomError:
            raise
        except Exception as error:  # noqa: BLE001 - the handler's instance, and what pydicom raises about it
            return Value(failed(instance, error))

    async def _close(self) -> None:
        try:
            if self._has_items:
                await self.close_items()
        except Exception:  # noqa: BLE001 - the edge of the user's handler
            concerning(self._event).exception("exception while a handler's iterator was closed")
        finally:
            # The event knows this object: together they, and the dataset, would stay until the garbage collector comes.
            self._event = None
            if self._route is not None:
                await self._route.close()


def _raised(event: Any, error: BaseException) -> Raised:
    if isinstance(error, SystemExit):
        # It would end the thread or the loop of the association, and nothing else.
        return Raised(RuntimeError(f"the handler called sys.exit({error.code!r})"))
    concerning(event).debug("exception in the handler of %s", event.name, exc_info=True)
    assert isinstance(error, Exception)
    return Raised(error)
