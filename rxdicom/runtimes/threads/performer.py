"""Performs the requests of the peer: drives the services, calls the handlers, sends the responses."""

import logging
from typing import Any, TypeVar

from rxdicom.errors import StateError
from rxdicom.events.dispatcher import Dispatcher
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import CStore, EventContext, ServiceEvent
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import forget, store
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.services.effects import Effect, Raised, Reply, Service, Value
from rxdicom.services.outcome import STATUS_UNUSABLE
from rxdicom.services.provider import KIND_OF_REQUEST, refused, status_service
from rxdicom.wire.dimse import Command, Message, message

_Result = TypeVar("_Result")
_LOG = logging.getLogger("rxdicom")


class Performer:
    """The provider side of an association: single-response requests are performed by the reader itself."""

    def __init__(self, assoc: Any, connection: Connection, protocol: Protocol, handlers: Dispatcher) -> None:
        self._assoc = assoc
        self._connection = connection
        self._protocol = protocol
        self._handlers = handlers

    def perform(self, request: Message) -> None:
        """Answer one request."""
        try:
            if request.kind is Command.C_CANCEL_RQ:
                return
            context = self._protocol.negotiated.contexts[request.context_id]
            answer = refused(request, context.abstract_syntax)
            fault = ""
            if answer is None:
                answer, fault = drive(status_service(self._event(request)), self._handlers)
            if fault:
                _LOG.error("%s: %s; answered 0x%04X", self._assoc.name, fault, answer.Status)
            self._send(answer)
        finally:
            forget(request.data)

    def _event(self, request: Message) -> ServiceEvent:
        context = self._protocol.negotiated.contexts[request.context_id]
        kind: EventKind[Any] = KIND_OF_REQUEST[request.kind]
        fields: dict[str, Any] = {
            "assoc": self._assoc,
            "request": request,
            "context": EventContext(
                context.context_id, context.abstract_syntax, context.transfer_syntax[0], context.as_scu, context.as_scp
            ),
        }
        if kind.record is CStore:
            called = self._assoc.requestor if self._assoc.is_acceptor else self._assoc.acceptor
            fields |= {"calling_ae_title": called.ae_title, "store": store}
        return kind.record(**fields)

    def not_sent(self, answer: Message, error: Exception) -> None:
        """A response could not be encoded: the handler gave elements that cannot be. The peer must not wait for it."""
        _LOG.error("%s: a response could not be sent: %s", self._assoc.name, error)
        if answer.Status == STATUS_UNUSABLE:
            self._assoc.abandon(f"not even a failure can be sent: {error}")
        else:
            message_id = answer.MessageIDBeingRespondedTo
            self._send(
                message(answer.kind, answer.context_id, MessageIDBeingRespondedTo=message_id, Status=STATUS_UNUSABLE)
            )

    def _send(self, answer: Message) -> None:
        def step(now: float) -> list[Produced]:
            return self._protocol.send(answer, None, now)

        try:
            self._connection.perform(step)
        except StateError as error:
            _LOG.debug("%s: a response was not sent, the association is over: %s", self._assoc.name, error)


def drive(service: Service[_Result], handlers: Dispatcher) -> _Result:
    """Run a service to its result, calling handlers on the current thread."""
    try:
        effect = next(service)
        while True:
            effect = service.send(_reply(effect, handlers))
    except StopIteration as stop:
        return stop.value


def _reply(effect: Effect, handlers: Dispatcher) -> Reply:
    try:
        return Value(handlers.call(effect.event))
    except Exception as error:  # noqa: BLE001 - the edge of the user's handler
        _LOG.debug("exception in the handler of %s", effect.event.name, exc_info=True)
        return Raised(error)
    except SystemExit as error:
        # It would end the thread of the association, and nothing else.
        return Raised(RuntimeError(f"the handler called sys.exit({error.code!r})"))
