"""What can be bound to an association or a server: notification observers and intervention handlers together."""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from rxdicom.errors import ArgumentError
from rxdicom.events.dispatcher import Dispatcher, Handler
from rxdicom.events.hub import Hub
from rxdicom.events.kinds import EventKind

EventHandler = tuple[EventKind[Any], Handler] | tuple[EventKind[Any], Handler, Sequence[Any]]
"""``(kind, handler)`` or ``(kind, handler, [further arguments])``."""


class Bindings:
    """A hub and a dispatcher under the two words ``bind`` and ``unbind``."""

    def __init__(self, parent: Dispatcher | None = None) -> None:
        self.hub = Hub()
        self.dispatcher = Dispatcher(parent)
        self._lock = threading.Lock()
        self._observers: dict[tuple[EventKind[Any], Handler], Callable[[], None]] = {}

    def bind(self, kind: EventKind[Any], handler: Handler, args: Sequence[Any] | None = None) -> None:
        """Observe a notification kind, or become the one handler of an intervention kind."""
        if not callable(handler):
            raise ArgumentError(f"the handler for {kind!r} is {handler!r}, which cannot be called")
        arguments = tuple(args or ())
        if kind.is_intervention:
            self.dispatcher.bind(kind, handler, arguments)
            return
        with self._lock:
            if (kind, handler) not in self._observers:
                observer = partial(_call, handler, arguments) if arguments else handler
                self._observers[kind, handler] = self.hub.subscribe(kind.number, observer)

    def unbind(self, kind: EventKind[Any], handler: Handler) -> None:
        """Undo :meth:`bind`; what is not bound is left alone."""
        if kind.is_intervention:
            self.dispatcher.unbind(kind, handler)
            return
        with self._lock:
            dispose = self._observers.pop((kind, handler), None)
        if dispose is not None:
            dispose()

    def bind_all(self, handlers: Iterable[EventHandler] | None) -> None:
        for kind, handler, *args in handlers or ():
            self.bind(kind, handler, args[0] if args else None)


def _call(handler: Handler, args: tuple[Any, ...], event: Any) -> object:
    return handler(event, *args)
