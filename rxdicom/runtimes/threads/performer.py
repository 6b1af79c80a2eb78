"""Performs the requests of the peer: builds the events, drives the services, sends the responses."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rxdicom.errors import AssociationAborted, AssociationReleased, StateError
from rxdicom.events.dispatcher import Dispatcher
from rxdicom.events.records import CStore, EventContext, ServiceEvent
from rxdicom.log import concerning
from rxdicom.presentation import PresentationContext
from rxdicom.protocol.notices import Produced
from rxdicom.protocol.protocol import Protocol
from rxdicom.runtimes.files import forget, store
from rxdicom.runtimes.sub_operations import Blocking, MoveDestination, Route, SameAssociation
from rxdicom.runtimes.threads.connection import Connection
from rxdicom.runtimes.threads.driver import Dial, Performance
from rxdicom.service_class import ServiceClass
from rxdicom.services.effects import Open
from rxdicom.services.outcome import STATUS_UNUSABLE, Outcome, Result, fault, response
from rxdicom.services.provider import DUPLICATE_INVOCATION, ROWS, TOO_MANY, Row, is_listed, refused
from rxdicom.sop_class import uid_to_service_class
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import BytesSource

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.association import Association

_FIND_AHEAD = 16384
"""Bytes of matches that wait for a peer to have room for them."""
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
        done: Callable[[], None],
    ) -> None:
        self._assoc = assoc
        self._log = concerning(assoc)
        self._connection = connection
        self._protocol = protocol
        self._handlers = handlers
        self._dial = dial
        self._requested = requested
        # Says that what had a thread of its own is over.
        self._done = done
        # Those that wait for their turn, by message ID, and whether C-CANCEL has come for them already.
        self._expected: dict[int, bool] = {}
        self._performances: set[Performance] = set()
        # Those with a thread of their own, by message ID.
        self._running: dict[int, Performance] = {}
        # What the events of one association have in common.
        self._contexts: dict[int, tuple[EventContext, ServiceClass]] = {}
        # Those that have been looked at, by context and command.
        self._statuses: set[tuple[int, int, int]] = set()
        self._peer_title: str | None = None

    def expect(self, request: Message) -> None:
        """A request has come; :meth:`perform` follows when it is its turn. C-CANCEL may come before that."""
        self._expected[request.MessageID or 0] = False

    def cancel(self, request: Message) -> None:
        """C-CANCEL has come, perhaps for what is over."""
        forget(request.data)
        message_id = request.MessageIDBeingRespondedTo or 0
        running = self._running.get(message_id)
        if running is not None:
            running.cancelled = True
        elif message_id in self._expected:
            self._expected[message_id] = True

    def perform(self, request: Message) -> bool:
        """Answer one request. Whether that goes on on a thread of its own, which says at its end that it is over."""
        cancelled = self._expected.pop(request.MessageID or 0, False)
        context, service = self._context(request.context_id)
        answer = refused(request, context.abstract_syntax, as_scp=context.as_scp, service=service)
        if answer is not None:
            forget(request.data)
            self.send(answer)
            return False
        row = ROWS[request.kind]
        if row.iterates:
            return self._perform_aside(row, request, cancelled)
        performance = Performance(self._handlers, self._send_pending)
        self._run(performance, row, self._event(row, request, performance))
        return False

    def _perform_aside(self, row: Row, request: Message, cancelled: bool) -> bool:
        if request.MessageID in self._running:
            self._refuse(request, DUPLICATE_INVOCATION)
            return False
        performance = Performance(self._handlers, self._send_pending, self._route(request), self._open_route(request))
        performance.cancelled = cancelled
        performance.request_kind = request.kind
        event = self._event(row, request, performance)
        self._running[event.message_id] = performance

        def run() -> None:
            # Whoever takes five of a million matches and cancels should not have cost what all buffers hold.
            if request.kind is Command.C_FIND_RQ:
                self._connection.limit_unsent(_FIND_AHEAD)
            try:
                self._run(performance, row, event)
            finally:
                if not any(each.request_kind is Command.C_FIND_RQ for each in tuple(self._performances)):
                    self._connection.limit_unsent(None)
                self._done()

        name = f"rxdicom-{self._assoc.name}-{request.name}-{event.message_id}"
        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError as error:
            self._log.error("no thread for a %s: %s", request.name, error)
            self._running.pop(event.message_id, None)
            self._refuse(request, TOO_MANY[request.kind])
            return False
        return True

    def _refuse(self, request: Message, status: int) -> None:
        forget(request.data)
        self.send(response(request, Outcome(status)))

    @property
    def is_current(self) -> bool:
        """Whether the current thread performs a request of this association."""
        thread = threading.get_ident()
        return any(each.thread == thread for each in tuple(self._performances))

    def _run(self, performance: Performance, row: Row, event: ServiceEvent) -> None:
        self._performances.add(performance)
        try:
            result: Result = performance.run(row.service(event))
        except _OVER as error:
            self._log.debug("%s ended with the association: %s", event.request.name, error)
            result = Result(response(event.request, fault(event, error)))
        except Exception as error:  # noqa: BLE001 - exactly one final response, whatever happens
            self._log.exception("%s failed", event.request.name)
            result = Result(response(event.request, fault(event, error)))
        finally:
            self._performances.discard(performance)
            if self._running.get(event.message_id) is performance:
                del self._running[event.message_id]
            forget(event.request.data)
        if result.fault:
            self._log.error("%s; answered 0x%04X", result.fault, result.response.Status)
        else:
            self._look_at(result.response)
        self.send(result.response)

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

    def _event(self, row: Row, request: Message, performance: Performance) -> ServiceEvent:
        record = row.kind.record
        cancelled = performance.is_cancelled
        context, _ = self._context(request.context_id)
        if record is not CStore:
            return record(assoc=self._assoc, request=request, context=context, cancelled=cancelled)
        if self._peer_title is None:
            peer = self._assoc.requestor if self._assoc.is_acceptor else self._assoc.acceptor
            self._peer_title = peer.ae_title
        return record(
            assoc=self._assoc,
            request=request,
            context=context,
            cancelled=cancelled,
            calling_ae_title=self._peer_title,
            store=store,
        )

    def _context(self, context_id: int) -> tuple[EventContext, ServiceClass]:
        found = self._contexts.get(context_id)
        if found is None:
            context = self._protocol.negotiated.contexts[context_id]
            uid = context.abstract_syntax
            event_context = EventContext(context_id, uid, context.transfer_syntax[0], context.as_scu, context.as_scp)
            found = event_context, self._assoc.service_classes.get(uid) or uid_to_service_class(uid)
            self._contexts[context_id] = found
        return found

    # ---- responses

    def _send_pending(self, answer: Message) -> None:
        self._look_at(answer)
        self._send_waiting(answer)
        # C-CANCEL may be there.
        self._connection.glance()

    def _look_at(self, answer: Message) -> None:
        """A handler's status that its service does not have is sent as it is, and logged, once."""
        key = answer.context_id, answer.command["CommandField"], answer.command["Status"]
        if key in self._statuses:
            return
        self._statuses.add(key)
        _, service = self._context(answer.context_id)
        operation = answer.name.removesuffix("-RSP")
        if not is_listed(service, operation, key[2]):
            self._log.warning("%s: status 0x%04X is none of %s", operation, key[2], service.name)

    def send(self, answer: Message) -> None:
        """Send a response; that the association is over by now is nobody's fault."""
        try:
            self._send_waiting(answer)
        except StateError as error:
            self._log.debug("a response was not sent, the association is over: %s", error)

    def _send_waiting(self, answer: Message) -> None:
        """Send a response of a service, which is to end if the association is over."""
        data = None if answer.data is None else answer.data.data
        source = None if data is None else BytesSource(data)

        def step(now: float) -> list[Produced]:
            return self._protocol.send(answer, source, now)

        self._connection.perform(step)

    def not_sent(self, answer: Message, error: Exception) -> None:
        """A response could not be encoded: the handler gave elements that cannot be. The peer must not wait for it."""
        self._log.error("a response could not be sent: %s", error)
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
