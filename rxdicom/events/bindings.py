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
        self._observers: list[tuple[EventKind[Any], Handler, Callable[[], None]]] = []

    def bind(self, kind: EventKind[Any], handler: Handler, args: Sequence[Any] | None = None) -> None:
        """Observe a notification kind, or become the one handler of an intervention kind.

        The handler is called with the event, then ``args``. A notification kind takes the same handler once only.
        Raises :class:`~rxdicom.errors.ArgumentError` for what is no kind or cannot be called.
        """
        if not isinstance(kind, EventKind):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"{kind!r} is not a kind of event; use one of the evt.EVT_ constants")
        if not callable(handler):
            raise ArgumentError(f"the handler for {kind!r} is {handler!r}, which cannot be called")
        arguments = tuple(args or ())
        if kind.is_intervention:
            self.dispatcher.bind(kind, handler, arguments)
            return
        with self._lock:
            if self._find(kind, handler) is None:
                observer = partial(_call, handler, arguments) if arguments else handler
                self._observers.append((kind, handler, self.hub.subscribe(kind.number, observer)))

    def unbind(self, kind: EventKind[Any], handler: Handler) -> None:
        """Undo :meth:`bind`; what is not bound is left alone."""
        if kind.is_intervention:
            self.dispatcher.unbind(kind, handler)
            return
        with self._lock:
            index = self._find(kind, handler)
            bound = None if index is None else self._observers.pop(index)
        if bound is not None:
            bound[2]()

    def _find(self, kind: EventKind[Any], handler: Handler) -> int | None:
        # By comparison: a bound method is another object each time, and what can be called need not be hashable.
        pairs = enumerate(self._observers)
        return next((index for index, (each, bound, _) in pairs if each is kind and bound == handler), None)

    def bind_all(self, handlers: Iterable[EventHandler] | None) -> None:
        """Bind each ``(kind, handler)`` or ``(kind, handler, [further arguments])``."""
        for row in handlers or ():
            if len(row) not in (2, 3):
                raise ArgumentError(f"{row!r} is not (kind, handler) or (kind, handler, [further arguments])")
            kind, handler, *args = row
            self.bind(kind, handler, *args)


def _call(handler: Handler, args: tuple[Any, ...], event: Any) -> object:
    return handler(event, *args)
