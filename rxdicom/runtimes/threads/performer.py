"""Performs the requests of the peer: builds the events, drives the services, sends the responses."""

import logging
import threading
from typing import TYPE_CHECKING, Any

from rxdicom.errors import AssociationAborted, AssociationReleased, StateError
from rxdicom.events.dispatcher import Dispatcher
from rxdicom.events.records import CStore, EventContext, ServiceEvent
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import forget, store
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.driver import Dial, MoveDestination, Performance, Route, SameAssociation
from rxdicom.services.effects import Open
from rxdicom.services.outcome import STATUS_UNUSABLE, Outcome, Result, fault, response
from rxdicom.services.provider import DUPLICATE_INVOCATION, ROWS, TOO_MANY, Row, refused
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import BytesSource

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.association import Association

_LOG = logging.getLogger("rxdicom")
_OVER = (StateError, AssociationAborted, AssociationReleased)
"""What a service meets when the association has ended under it."""


class Performer:
    """The provider side of an association.

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
    ) -> None:
        self._assoc = assoc
        self._connection = connection
        self._protocol = protocol
        self._handlers = handlers
        self._dial = dial
        self._requested = requested
        self._running: dict[int, Performance] = {}

    def perform(self, request: Message) -> None:
        """Answer one request."""
        if request.kind is Command.C_CANCEL_RQ:
            forget(request.data)
            running = self._running.get(request.MessageIDBeingRespondedTo or 0)
            if running is not None:
                running.cancelled = True
            return
        context = self._protocol.negotiated.contexts[request.context_id]
        answer = refused(request, context.abstract_syntax)
        if answer is not None:
            forget(request.data)
            self.send(answer)
            return
        row = ROWS[request.kind]
        if row.iterates:
            self._perform_aside(row, request)
        else:
            performance = Performance(self._handlers, self.send)
            self._run(performance, row, self._event(row, request, performance))

    def _perform_aside(self, row: Row, request: Message) -> None:
        window = self._protocol.negotiated.performed
        if request.MessageID in self._running:
            self._refuse(request, DUPLICATE_INVOCATION)
            return
        if window and len(self._running) >= window:
            self._refuse(request, TOO_MANY[request.kind])
            return
        performance = Performance(self._handlers, self._send_waiting, self._route(request), self._open_route(request))
        event = self._event(row, request, performance)
        self._running[event.message_id] = performance

        name = f"rxdicom-{self._assoc.name}-{request.name}-{event.message_id}"
        try:
            threading.Thread(target=self._run, args=(performance, row, event), name=name, daemon=True).start()
        except RuntimeError as error:
            _LOG.error("%s: no thread for a %s: %s", self._assoc.name, request.name, error)
            self._running.pop(event.message_id, None)
            self._refuse(request, TOO_MANY[request.kind])

    def _refuse(self, request: Message, status: int) -> None:
        forget(request.data)
        self.send(response(request, Outcome(status)))

    @property
    def is_current(self) -> bool:
        """Whether the current thread performs a request of this association."""
        thread = threading.get_ident()
        return any(running.thread == thread for running in tuple(self._running.values()))

    def _run(self, performance: Performance, row: Row, event: ServiceEvent) -> None:
        try:
            result: Result = performance.run(row.service(event))
        except _OVER as error:
            _LOG.debug("%s: %s ended with the association: %s", self._assoc.name, event.request.name, error)
            result = Result(response(event.request, fault(event, error)))
        except Exception as error:  # noqa: BLE001 - exactly one final response, whatever happens
            _LOG.exception("%s: %s failed", self._assoc.name, event.request.name)
            result = Result(response(event.request, fault(event, error)))
        finally:
            self._running.pop(event.message_id, None)
            forget(event.request.data)
        if result.fault:
            _LOG.error("%s: %s; answered 0x%04X", self._assoc.name, result.fault, result.response.Status)
        self.send(result.response)

    def _route(self, request: Message) -> Route | None:
        if request.kind is not Command.C_GET_RQ:
            return None
        return SameAssociation(self._assoc, request.Priority or 0)

    def _open_route(self, request: Message) -> Any:
        dial = self._dial
        if request.kind is not Command.C_MOVE_RQ or dial is None:
            return None
        elements = {
            "priority": request.Priority or 0,
            "originator_aet": self._assoc.requestor.ae_title,
            "originator_id": request.MessageID,
        }

        def open_route(destination: Open) -> Route:
            return MoveDestination(dial, destination, request.MoveDestination or "", self._requested, elements)

        return open_route

    def _event(self, row: Row, request: Message, performance: Performance) -> ServiceEvent:
        context = self._protocol.negotiated.contexts[request.context_id]
        fields: dict[str, Any] = {
            "assoc": self._assoc,
            "request": request,
            "context": EventContext(
                context.context_id, context.abstract_syntax, context.transfer_syntax[0], context.as_scu, context.as_scp
            ),
            "cancelled": performance.is_cancelled,
        }
        if row.kind.record is CStore:
            called = self._assoc.requestor if self._assoc.is_acceptor else self._assoc.acceptor
            fields |= {"calling_ae_title": called.ae_title, "store": store}
        return row.kind.record(**fields)

    # ---- responses

    def send(self, answer: Message) -> None:
        """Send a response; that the association is over by now is nobody's fault."""
        try:
            self._send_waiting(answer)
        except StateError as error:
            _LOG.debug("%s: a response was not sent, the association is over: %s", self._assoc.name, error)

    def _send_waiting(self, answer: Message) -> None:
        """Send a response of a service, which is to end if the association is over."""
        data = None if answer.data is None else answer.data.data
        source = None if data is None else BytesSource(data)

        def step(now: float) -> list[Produced]:
            return self._protocol.send(answer, source, now)

        self._connection.perform(step)

    def not_sent(self, answer: Message, error: Exception) -> None:
        """A response could not be encoded: the handler gave elements that cannot be. The peer must not wait for it."""
        _LOG.error("%s: a response could not be sent: %s", self._assoc.name, error)
        if answer.Status == STATUS_UNUSABLE:
            self._assoc.abandon(f"not even a failure can be sent: {error}")
        else:
            message_id = answer.MessageIDBeingRespondedTo
            self.send(
                message(answer.kind, answer.context_id, MessageIDBeingRespondedTo=message_id, Status=STATUS_UNUSABLE)
            )

    def stop(self) -> None:
        """The association is over: handlers that look at ``is_cancelled`` see it."""
        for running in tuple(self._running.values()):
            running.cancelled = True
