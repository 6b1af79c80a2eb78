"""Drives a service on the current thread: calls the handler, holds its iterator, sends, stores, closes."""

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from rxdicom.errors import RxDicomError
from rxdicom.events.dispatcher import Dispatcher
from rxdicom.log import concerning
from rxdicom.runtimes.sub_operations import Route, failed, finished
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
from rxdicom.wire.dimse import Command, Message

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.association import Association

_Result = TypeVar("_Result")

Dial = Callable[..., "Association"]
"""Opens an association to a C-MOVE destination: (address, port, **arguments of ``associate``)."""


def _nowhere(message: Message) -> None:
    raise RuntimeError(f"there is nobody to send {message} to")


class Performance:
    """One request that is being performed. ``cancelled`` is set by the reader, and stays."""

    cancelled = False
    kind: Command | None = None
    thread = 0
    """The thread that performs it."""
    _items: Iterator[Any] | None = None
    _event: Any = None

    def __init__(
        self,
        handlers: Dispatcher,
        send: Callable[[Message], None] = _nowhere,
        route: Route | None = None,
        open_route: Callable[[Open], Route] | None = None,
    ) -> None:
        self._handlers = handlers
        self._send = send
        self._route = route
        self._open_route = open_route

    def is_cancelled(self) -> bool:
        """Whether C-CANCEL has come for this request, or its association is over."""
        return self.cancelled

    def perform(self, row: Row, event: Any) -> Result:
        """Answer a request. What ends the association is raised."""
        self.thread = threading.get_ident()
        if isinstance(row, Single):
            return row.answer(event, self._call(event))
        return self.run(row.service(event))

    def run(self, service: Service[_Result]) -> _Result:
        """Run a service to its result. What ends the association is raised, after closing the service."""
        try:
            effect = next(service)
            while True:
                effect = service.send(self._reply(effect))
        except StopIteration as stop:
            return stop.value
        finally:
            service.close()
            if self._items is not None or self._route is not None:
                self._close()
            # The event knows this object: together they, and the dataset, would stay until the garbage collector comes.
            self._event = None

    def _reply(self, effect: Effect) -> Reply:
        match effect:
            case Call(event):
                return self._call(event)
            case Pull():
                return self._pull()
            case Send(message):
                self._send(message)
                return None
            case Open():
                return self._open(effect)
            case SubStore(instance):
                return self._sub_store(instance)

    def _call(self, event: Any) -> Called:
        try:
            value = self._handlers.call(event)
            if event.event.iterates:
                self._event = event
                self._items = iter(value)
            return Value(value)
        except BaseException as error:  # noqa: BLE001 - the edge of the user's handler
            return _raised(event, error)

    def _pull(self) -> Reply:
        if self._items is None:
            return Done()
        try:
            item = next(self._items)
        except StopIteration:
            return Cancelled() if self.cancelled else Done()
        except BaseException as error:  # noqa: BLE001 - the edge of the user's handler
            return _raised(self._event, error)
        return Cancelled(item) if self.cancelled else Value(item)

    def _open(self, destination: Open) -> Reply:
        if self._open_route is None:
            return Raised(RuntimeError("there is no way to open an association to a destination here"))
        try:
            self._route = self._open_route(destination)
        except (TypeError, ValueError, RxDicomError) as error:
            return Raised(error)
        return Value(None)

    def _sub_store(self, instance: Any) -> Reply:
        if self._route is None:
            return Value(failed(instance, RuntimeError("there is no route for sub-operations")))
        try:
            return Value(finished(self._route.store(instance)))
        except RxDicomError:
            raise
        except Exception as error:  # noqa: BLE001 - the handler's instance, and what pydicom raises about it
            return Value(failed(instance, error))

    def _close(self) -> None:
        close = None if self._items is None else getattr(self._items, "close", None)
        if close is not None:
            try:
                close()
            except BaseException:  # noqa: BLE001 - the edge of the user's handler
                concerning(self._event).exception("exception while a handler's iterator was closed")
        if self._route is not None:
            finished(self._route.close())


def _raised(event: Any, error: BaseException) -> Raised:
    concerning(event).debug("exception in the handler of %s", event.name, exc_info=True)
    if isinstance(error, Exception):
        return Raised(error)
    # SystemExit and its like would end the thread of the association, and nothing else.
    return Raised(RuntimeError(f"the handler raised {type(error).__name__}"))
