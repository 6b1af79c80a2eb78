"""The single-slot dispatcher: for each intervention kind exactly one handler at all times, by default a default."""

from collections.abc import Callable, Sequence
from typing import Any, Concatenate

from rxdicom.errors import ArgumentError
from rxdicom.events import kinds as k
from rxdicom.events.kinds import EventKind

Handler = Callable[Concatenate[Any, ...], Any]
"""Called with the event, then the further arguments that it was bound with."""
Slot = tuple[Handler, tuple[Any, ...]]

NO_CONTENT: dict[str, Any] = {}


def _answers(value: Any) -> Handler:
    """A handler that always gives the same answer."""

    def default_handler(event: object) -> Any:
        del event
        return value

    return default_handler


_FAILURES = {
    k.EVT_C_STORE: 0xC211,
    k.EVT_C_FIND: 0xC311,
    k.EVT_C_GET: 0xC411,
    k.EVT_C_MOVE: 0xC511,
}
_N_KINDS = (
    k.EVT_N_ACTION,
    k.EVT_N_CREATE,
    k.EVT_N_DELETE,
    k.EVT_N_EVENT_REPORT,
    k.EVT_N_GET,
    k.EVT_N_SET,
)
FAULT: dict[EventKind[Any], int] = {**_FAILURES, **dict.fromkeys(_N_KINDS, 0x0110), k.EVT_C_ECHO: 0x0000}
"""The status for a request whose handler fails, and that of the default handler."""


def _iterable_defaults() -> dict[EventKind[Any], Handler]:
    final = {kind: [(FAULT[kind], None)] for kind in (k.EVT_C_FIND, k.EVT_C_GET, k.EVT_C_MOVE)}
    return {kind: _answers(tuple(items)) for kind, items in final.items()}


DEFAULTS: dict[EventKind[Any], Handler] = {
    k.EVT_ASYNC_OPS: _answers(None),
    k.EVT_SOP_COMMON: _answers(NO_CONTENT),
    k.EVT_SOP_EXTENDED: _answers(NO_CONTENT),
    k.EVT_USER_ID: _answers((True, None)),
    k.EVT_C_ECHO: _answers(0x0000),
    k.EVT_C_STORE: _answers(FAULT[k.EVT_C_STORE]),
    **_iterable_defaults(),
    **{kind: _answers((FAULT[kind], None)) for kind in _N_KINDS},
    k.EVT_N_DELETE: _answers(FAULT[k.EVT_N_DELETE]),
}


class Dispatcher:
    """The slots of an AE's listener or of one association; an association falls back on its listener's."""

    __slots__ = ("_parent", "_slots")

    def __init__(self, parent: "Dispatcher | None" = None) -> None:
        self._parent = parent
        self._slots: dict[EventKind[Any], Slot] = {}

    def bind(self, kind: EventKind[Any], handler: Handler, args: Sequence[Any] = ()) -> None:
        """Make ``handler`` the one for ``kind``; it is called with the event, then ``args``."""
        if kind not in DEFAULTS:
            raise ArgumentError(f"{kind!r} is not an intervention event")
        self._slots[kind] = (handler, tuple(args))

    def unbind(self, kind: EventKind[Any], handler: Handler) -> None:
        """Put the default back, if ``handler`` is the bound one."""
        if self.slot(kind)[0] == handler:
            self._slots[kind] = (DEFAULTS[kind], ())

    def follow(self, parent: "Dispatcher") -> None:
        """Fall back on another one from now on."""
        self._parent = parent

    def slot(self, kind: EventKind[Any]) -> Slot:
        """The handler for ``kind`` and its further arguments."""
        dispatcher: Dispatcher | None = self
        while dispatcher is not None:
            slot = dispatcher._slots.get(kind)
            if slot is not None:
                return slot
            dispatcher = dispatcher._parent
        return DEFAULTS[kind], ()

    def is_bound(self, kind: EventKind[Any]) -> bool:
        """Whether somebody bound a handler of their own."""
        return self.slot(kind)[0] is not DEFAULTS[kind]

    def call(self, event: Any) -> Any:
        """What the handler makes of ``event``; it may raise anything."""
        handler, args = self.slot(event.event)
        return handler(event, *args)
