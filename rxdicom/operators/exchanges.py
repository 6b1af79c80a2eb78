"""Requests and what became of them: paired with their responses, the progress of retrievals, failures."""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from rxdicom.errors import abort_reason, reject_reason
from rxdicom.events.records import (
    Aborted,
    ConnectionClosed,
    DIMSEReceived,
    DIMSESent,
    Event,
    Rejected,
    Released,
)
from rxdicom.operators.core import Fold, Operator, folded
from rxdicom.operators.filters import checked_categories, identity, sop_class_uid
from rxdicom.operators.records import Failure, Operation, Progress, operation_name, status_of
from rxdicom.status import STATUS_FAILURE, STATUS_PENDING, STATUS_UNKNOWN, code_to_category
from rxdicom.wire.dimse import Command

_V = TypeVar("_V")

_RETRIEVALS = frozenset({Command.C_GET_RSP, Command.C_MOVE_RSP})
_RESPONDING_OFTEN = frozenset({Command.C_FIND_RSP, *_RETRIEVALS})


class Outstanding(Generic[_V]):
    """What is known of the requests that wait for their final response, by association, direction and message ID.

    Its bound is the standard's: an association has 65,536 message IDs, and is forgotten when it is over.
    """

    def __init__(self) -> None:
        self._by_association: dict[Any, dict[tuple[bool, int], _V]] = {}

    def __len__(self) -> int:
        return sum(len(each) for each in self._by_association.values())

    def request(self, event: DIMSEReceived | DIMSESent, value: _V) -> None:
        """Note a request. One with a message ID that is outstanding takes its place."""
        key = isinstance(event, DIMSEReceived), event.message.MessageID or 0
        self._by_association.setdefault(event.assoc, {})[key] = value

    def response(self, event: DIMSEReceived | DIMSESent, *, final: bool) -> _V | None:
        """What was noted of the request that a response answers; forgotten if it is the final one."""
        waiting = self._by_association.get(event.assoc, {})
        key = isinstance(event, DIMSESent), event.message.MessageIDBeingRespondedTo or 0
        if not final:
            return waiting.get(key)
        found = waiting.pop(key, None)
        if not waiting:
            self._by_association.pop(event.assoc, None)
        return found

    def forget(self, assoc: Any) -> None:
        """The association is over: nothing more is answered."""
        self._by_association.pop(assoc, None)


def paired() -> Operator[Event, Operation]:
    """Every request with its final response and the time between them, of all associations, in both directions.

    To be applied to :func:`~rxdicom.operators.activity`. What is cut off by the end of its association, and a response
    whose request was not seen, is not emitted; a C-CANCEL-RQ is no operation.

    ::

        activity    --rq1--rq2--rsp2--rsp1(pending)--rsp1--|
        paired()    ------------2--------------------1-----|
    """
    return folded(_Pairing)


class _Asked:
    """A request, and how many pending responses have come."""

    def __init__(self, request: DIMSEReceived | DIMSESent) -> None:
        self.request = request
        self.pending = 0


class _Pairing(Fold[Event, Operation]):
    def __init__(self) -> None:
        self._outstanding = Outstanding[_Asked]()

    def step(self, item: Event) -> Iterable[Operation]:
        if isinstance(item, DIMSEReceived | DIMSESent):
            return self._message(item)
        if isinstance(item, Released | Aborted | ConnectionClosed):
            self._outstanding.forget(item.assoc)
        return ()

    def _message(self, event: DIMSEReceived | DIMSESent) -> Iterable[Operation]:
        message = event.message
        if not message.is_response:
            if message.kind is not Command.C_CANCEL_RQ:
                self._outstanding.request(event, _Asked(event))
            return ()
        final = is_final(event)
        asked = self._outstanding.response(event, final=final)
        if asked is None:
            return ()
        if not final:
            asked.pending += 1
            return ()
        return (_operation(asked, event),)


def _operation(asked: _Asked, event: DIMSEReceived | DIMSESent) -> Operation:
    request = asked.request
    return Operation(
        request=request.message,
        response=event.message,
        # A clock that was set back in between must not make it negative.
        duration=max(0.0, (event.timestamp - request.timestamp).total_seconds()),
        is_performed=isinstance(request, DIMSEReceived),
        pending=asked.pending,
        sop_class_uid=sop_class_uid(request.message, request.assoc),
        assoc=request.assoc,
        **identity(event),
    )


def is_final(event: DIMSEReceived | DIMSESent) -> bool:
    """Whether a response ends its operation: all do, but pending ones of C-FIND, C-GET and C-MOVE (PS3.7 §9.1)."""
    message = event.message
    return message.CommandField not in _RESPONDING_OFTEN or code_to_category(message.Status or 0) != STATUS_PENDING


def progress() -> Operator[DIMSEReceived | DIMSESent, Progress]:
    """The sub-operation counters of C-GET and C-MOVE responses: of pending ones, and of the final one.

    A counter that a response leaves out is 0.

    ::

        dimse_recv    --rsp(2 left)--rsp(1 left)--store--rsp(final)--|
        progress()    --0/2----------1/2-----------------2/2---------|
    """
    return folded(_Progressing)


class _Progressing(Fold[DIMSEReceived | DIMSESent, Progress]):
    def step(self, item: DIMSEReceived | DIMSESent) -> Iterable[Progress]:
        message = item.message
        if message.CommandField not in _RETRIEVALS:
            return ()
        return (
            Progress(
                name=operation_name(message),
                message_id=message.MessageIDBeingRespondedTo or 0,
                remaining=message.NumberOfRemainingSuboperations or 0,
                completed=message.NumberOfCompletedSuboperations or 0,
                failed=message.NumberOfFailedSuboperations or 0,
                warning=message.NumberOfWarningSuboperations or 0,
                status=status_of(message, sop_class_uid(message, item.assoc)),
                **identity(item),
            ),
        )


def failures(*categories: str) -> Operator[Event, Failure]:
    """Rejections, aborts, and responses with a failure status, each with its cause, as one type of record.

    To be applied to :func:`~rxdicom.operators.activity`. ``categories`` are those of the statuses that count, by
    default Failure and Unknown; Warning and Cancel can be named too.

    ::

        activity      --rj--rsp(0000)--rsp(A700)--abort--|
        failures()    --rj-------------A700-------abort--|
    """
    counted = checked_categories("failures", categories or (STATUS_FAILURE, STATUS_UNKNOWN))
    return folded(lambda: _Failing(counted))


class _Failing(Fold[Event, Failure]):
    def __init__(self, categories: frozenset[str]) -> None:
        self._categories = categories

    def step(self, item: Event) -> Iterable[Failure]:
        match item:
            case Rejected():
                by = "local" if getattr(item.assoc, "is_acceptor", False) else "peer"
                return (Failure(kind="rejected", cause=cause_of(item), by=by, assoc=item.assoc, **identity(item)),)
            case Aborted():
                return (Failure(kind="aborted", cause=cause_of(item), by=item.by, assoc=item.assoc, **identity(item)),)
            case DIMSEReceived() | DIMSESent():
                return self._response(item)
            case _:
                return ()

    def _response(self, event: DIMSEReceived | DIMSESent) -> Iterable[Failure]:
        message = event.message
        if message.Status is None or code_to_category(message.Status) not in self._categories:
            return ()
        uid = sop_class_uid(message, event.assoc)
        status = status_of(message, uid)
        meaning = status.description or f"status 0x{status:04X}"
        return (
            Failure(
                kind="status",
                cause=f"{meaning}: {status.ErrorComment}" if status.ErrorComment else meaning,
                by="local" if isinstance(event, DIMSESent) else "peer",
                status=status,
                name=operation_name(message),
                sop_class_uid=uid,
                assoc=event.assoc,
                **identity(event),
            ),
        )


def cause_of(event: Rejected | Aborted) -> str:
    """Why an association was rejected or aborted, in words."""
    if isinstance(event, Rejected):
        return reject_reason(event.source, event.reason)
    if event.cause or event.by == "transport":
        return event.cause or "the connection was lost"
    return abort_reason(event.source, event.reason)
