"""Performs the requests of the peer: builds the events, drives the services, sends the responses."""

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rxdicom.errors import StateError
from rxdicom.events.dispatcher import Dispatcher
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.provider import Provider, source_of
from rxdicom.runtimes.sub_operations import Blocking, MoveDestination, Route, SameAssociation
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.driver import Dial, Performance
from rxdicom.services.effects import Open
from rxdicom.services.outcome import Outcome, Result, response
from rxdicom.services.provider import ROWS, TOO_MANY, Row, Series
from rxdicom.wire.dimse import Command, Message

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.association import Association

_FIND_AHEAD = 16384
"""Bytes of matches that wait for a peer to have room for them."""


class Performer(Provider[Performance]):
    """The provider side of an association of the blocking runtime.

    Requests with one response are performed by the reader itself. C-FIND, C-GET and C-MOVE have a thread of their own,
    so that C-CANCEL and A-ABORT are seen at once, as many side by side as the window allows.
    """

    def __init__(
        self,
        assoc: "Association",
        connection: Connection,
        protocol: Protocol,
        handlers: Dispatcher,
        dial: Dial | None,
        requested: tuple[PresentationContext, ...],
        done: Callable[[], None],
    ) -> None:
        super().__init__(assoc)
        self._assoc = assoc
        self._connection = connection
        self._protocol = protocol
        self._handlers = handlers
        self._dial = dial
        self._requested = requested
        # Says that what had a thread of its own is over.
        self._done = done

    def perform(self, request: Message) -> bool:
        """Answer one request. Whether that goes on on a thread of its own, which says at its end that it is over."""
        answer = self.refusal(request)
        if answer is not None:
            self.send(answer)
            return False
        row = ROWS[request.command["CommandField"]]
        if isinstance(row, Series):
            return self._perform_aside(row, request)
        performance = Performance(self._handlers, self._send_pending)
        self.begin(request, performance)
        self._run(row, request, performance)
        return False

    def _perform_aside(self, row: Series, request: Message) -> bool:
        performance = Performance(self._handlers, self._send_pending, self._route(request), self._open_route(request))
        performance.kind = request.kind
        self.begin(request, performance)

        def run() -> None:
            # Whoever takes five of a million matches and cancels should not have cost what all buffers hold.
            if performance.kind is Command.C_FIND_RQ:
                self._connection.limit_unsent(_FIND_AHEAD)
            try:
                self._run(row, request, performance)
            finally:
                if all(each.kind is not Command.C_FIND_RQ for each in self.running):
                    self._connection.limit_unsent(None)
                self._done()

        name = f"rxdicom-{self._assoc.name}-{request.name}-{request.MessageID}"
        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError as error:
            self.log.error("no thread for a %s: %s", request.name, error)
            self.end(request)
            self.send(response(request, Outcome(TOO_MANY[request.kind])))
            return False
        return True

    @property
    def is_current(self) -> bool:
        """Whether the current thread performs a request of this association."""
        thread = threading.get_ident()
        return any(each.thread == thread for each in self.running)

    def _run(self, row: Row, request: Message, performance: Performance) -> None:
        event = self.event(row, request, performance)
        try:
            result: Result = performance.perform(row, event)
        except Exception as error:  # noqa: BLE001 - exactly one final response, whatever happens
            result = self.failed(event, error)
        finally:
            self.end(request)
        self.send(self.ended(result))

    def _route(self, request: Message) -> Route | None:
        if request.kind is not Command.C_GET_RQ:
            return None
        return SameAssociation(Blocking(self._assoc), request.Priority or 0)

    def _open_route(self, request: Message) -> Any:
        dial = self._dial
        if request.kind is not Command.C_MOVE_RQ or dial is None:
            return None
        elements = {
            "priority": request.Priority or 0,
            "originator_aet": self._assoc.requestor.ae_title,
            "originator_id": request.MessageID,
        }

        async def opened(*address: Any, **options: Any) -> Blocking:
            return Blocking(dial(*address, **options))

        def open_route(destination: Open) -> Route:
            return MoveDestination(opened, destination, request.MoveDestination or "", self._requested, elements)

        return open_route

    # ---- responses

    def _send_pending(self, answer: Message) -> None:
        """Send a response of a service, which is to end if the association is over."""
        self.look_at(answer)
        source = None if answer.data is None else source_of(answer)
        self._connection.perform(partial(self._protocol.send, answer, source))
        # C-CANCEL may be there.
        self._connection.glance()

    def send(self, answer: Message) -> None:
        """Send a response; that the association is over by now is nobody's fault."""
        source = None if answer.data is None else source_of(answer)
        try:
            self._connection.perform(partial(self._protocol.send, answer, source))
        except StateError as error:
            self.log.debug("a response was not sent, the association is over: %s", error)

    def not_sent(self, answer: Message, error: Exception) -> None:
        """A response could not be encoded: the handler gave elements that cannot be. The peer must not wait for it."""
        instead = self.instead_of(answer, error)
        if instead is None:
            self._assoc.abandon(f"not even a failure can be sent: {error}")
        else:
            self.send(instead)
