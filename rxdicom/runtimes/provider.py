"""The provider side of an association, but for where handlers run: events, contexts, refusals. For every runtime."""

from typing import Generic, Protocol, TypeVar

from rxdicom.errors import AssociationAborted, AssociationReleased, StateError
from rxdicom.events.records import CStore, EventContext, ServiceEvent
from rxdicom.log import concerning
from rxdicom.runtimes.association import AssociationState
from rxdicom.runtimes.files import forget, store
from rxdicom.service_class import ServiceClass
from rxdicom.services.outcome import STATUS_UNUSABLE, Outcome, Result, fault, response
from rxdicom.services.provider import DUPLICATE_INVOCATION, Row, is_listed, not_kept, refused
from rxdicom.sop_class import uid_to_service_class
from rxdicom.wire.dimse import Message, message
from rxdicom.wire.encoded import BytesSource, Source


class Performing(Protocol):
    """One request that is being performed, as far as it is seen from here."""

    cancelled: bool
    """Set when C-CANCEL comes, and stays."""

    def is_cancelled(self) -> bool: ...


_OVER = (StateError, AssociationAborted, AssociationReleased)
"""What a service meets when the association has ended under it."""


_Performance = TypeVar("_Performance", bound=Performing)


class Provider(Generic[_Performance]):
    """What is known of the requests of the peer, waiting and being performed."""

    def __init__(self, assoc: AssociationState) -> None:
        self._state = assoc
        self.log = concerning(assoc)
        # Those that wait for their turn, by message ID, and whether C-CANCEL has come for them already.
        self._expected: dict[int, bool] = {}
        self._running: dict[int, _Performance] = {}
        # What the events of one association have in common.
        self._contexts: dict[int, tuple[EventContext, ServiceClass]] = {}
        # Context, command and SOP class of requests that need not be looked at again.
        self._fitting: set[tuple[int, int, str | None]] = set()
        # Those that have been looked at, by context, command and status.
        self._statuses: set[tuple[int, int, int]] = set()
        self._peer_title: str | None = None

    @property
    def running(self) -> tuple[_Performance, ...]:
        """What is being performed right now."""
        return tuple(self._running.values())

    def expect(self, request: Message) -> None:
        """A request has come; it is performed when it is its turn. C-CANCEL may come before that."""
        self._expected[request.command["MessageID"]] = False

    def cancel(self, request: Message) -> None:
        """C-CANCEL has come, perhaps for what is over."""
        forget(request.data)
        message_id = request.MessageIDBeingRespondedTo or 0
        performance = self._running.get(message_id)
        if performance is not None:
            performance.cancelled = True
        elif message_id in self._expected:
            self._expected[message_id] = True

    def refusal(self, request: Message) -> Message | None:
        """It is the turn of a request. The response if it cannot be performed at all, None for the others."""
        command = request.command
        key = request.context_id, command["CommandField"], command.get("AffectedSOPClassUID")
        answer = None
        if key not in self._fitting or key[2] is None:
            context, service = self._context(request.context_id)
            answer = refused(request, context.abstract_syntax, as_scp=context.as_scp, service=service)
            if answer is None:
                self._fitting.add(key)
        if answer is None and command["MessageID"] in self._running:
            answer = response(request, Outcome(DUPLICATE_INVOCATION))
        if answer is None and request.data is not None and (result := not_kept(request)) is not None:
            answer = self.ended(result)
        if answer is not None:
            self._expected.pop(command["MessageID"], None)
            forget(request.data)
        return answer

    def begin(self, request: Message, performance: _Performance) -> None:
        """It is being performed from now on."""
        message_id = request.command["MessageID"]
        if self._expected.pop(message_id, False):
            performance.cancelled = True
        self._running[message_id] = performance

    def end(self, request: Message) -> None:
        """It is over."""
        del self._running[request.command["MessageID"]]
        if request.data is not None:
            forget(request.data)

    def event(self, row: Row, request: Message, performance: _Performance) -> ServiceEvent:
        """What the handler is called with."""
        record = row.record
        context, _ = self._context(request.context_id)
        if record is not CStore:
            return record(assoc=self._state, request=request, context=context, cancelled=performance.is_cancelled)
        if self._peer_title is None:
            peer = self._state.requestor if self._state.is_acceptor else self._state.acceptor
            self._peer_title = peer.ae_title
        return record(
            assoc=self._state,
            request=request,
            context=context,
            cancelled=performance.is_cancelled,
            calling_ae_title=self._peer_title,
            store=store,
        )

    def _context(self, context_id: int) -> tuple[EventContext, ServiceClass]:
        found = self._contexts.get(context_id)
        if found is None:
            accepted = {each.context_id: each for each in self._state.accepted_contexts}
            context = accepted[context_id]
            uid = context.abstract_syntax
            event_context = EventContext(context_id, uid, context.transfer_syntax[0], context.as_scu, context.as_scp)
            found = event_context, self._state.service_classes.get(uid) or uid_to_service_class(uid)
            self._contexts[context_id] = found
        return found

    # ---- results

    def failed(self, event: ServiceEvent, error: Exception) -> Result:
        """The result of a service that raised: exactly one final response, whatever happens."""
        if isinstance(error, _OVER):
            self.log.debug("%s ended with the association: %s", event.request.name, error)
        else:
            self.log.error("%s failed", event.request.name, exc_info=error)
        return Result(response(event.request, fault(event, error)))

    def ended(self, result: Result) -> Message:
        """The final response, after the log was told what is to be said about it."""
        answer = result.response
        if result.fault:
            self.log.error("%s; answered 0x%04X", result.fault, answer.Status)
        elif (answer.context_id, answer.command["CommandField"], answer.command["Status"]) not in self._statuses:
            self.look_at(answer)
        return answer

    def look_at(self, answer: Message) -> None:
        """A handler's status that its service does not have is sent as it is, and logged, once."""
        key = answer.context_id, answer.command["CommandField"], answer.command["Status"]
        if key in self._statuses:
            return
        self._statuses.add(key)
        _, service = self._context(answer.context_id)
        operation = answer.name.removesuffix("-RSP")
        if not is_listed(service, operation, key[2]):
            self.log.warning("%s: status 0x%04X is none of %s", operation, key[2], service.name)

    def instead_of(self, answer: Message, error: Exception) -> Message | None:
        """What is sent instead of a response that could not be encoded; None if not even that can be.

        The handler gave elements that cannot be, but the peer must not wait for it.
        """
        self.log.error("a response could not be sent: %s", error)
        if answer.Status == STATUS_UNUSABLE:
            return None
        message_id = answer.MessageIDBeingRespondedTo
        return message(answer.kind, answer.context_id, MessageIDBeingRespondedTo=message_id, Status=STATUS_UNUSABLE)

    def stop(self) -> None:
        """The association is over: handlers that look at ``is_cancelled`` see it."""
        for performance in self.running:
            performance.cancelled = True


def source_of(answer: Message) -> Source | None:
    """What the dataset of a response is read from."""
    data = None if answer.data is None else answer.data.data
    return None if data is None else BytesSource(data)
