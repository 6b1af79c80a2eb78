"""Which events: the source that most operators want, and filters in the terms of the standard."""

from collections.abc import Callable
from typing import Any, TypeVar

import reactivex
from reactivex import Observable, abc
from reactivex import operators as ops

from rxdicom.errors import ArgumentError
from rxdicom.events import kinds
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import (
    ACSEReceived,
    ACSESent,
    DIMSEReceived,
    DIMSESent,
    Event,
    PDUReceived,
    PDUSent,
    ServiceEvent,
)
from rxdicom.events.streams import EventStreams, GuardedObservable
from rxdicom.operators.records import Derived, Failure, Operation, Progress, StoredInstance
from rxdicom.status import (
    STATUS_CANCEL,
    STATUS_FAILURE,
    STATUS_PENDING,
    STATUS_SUCCESS,
    STATUS_UNKNOWN,
    STATUS_WARNING,
    code_to_category,
)
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.pdu import PDU

_CATEGORIES = frozenset({STATUS_SUCCESS, STATUS_WARNING, STATUS_FAILURE, STATUS_CANCEL, STATUS_PENDING, STATUS_UNKNOWN})
_WithPDU = TypeVar("_WithPDU", bound=PDUReceived | PDUSent | ACSEReceived | ACSESent)
_WithMessage = TypeVar("_WithMessage", bound=DIMSEReceived | DIMSESent)
_WithTitles = TypeVar("_WithTitles", bound=Event | Derived)
_WithSOPClass = TypeVar(
    "_WithSOPClass", bound=DIMSEReceived | DIMSESent | ServiceEvent | Operation | Failure | StoredInstance
)
_WithStatus = TypeVar("_WithStatus", bound=DIMSEReceived | DIMSESent | Operation | Progress | Failure | StoredInstance)

ACTIVITY: tuple[EventKind[Any], ...] = (
    kinds.EVT_CONN_OPEN,
    kinds.EVT_CONN_CLOSE,
    kinds.EVT_DIMSE_RECV,
    kinds.EVT_DIMSE_SENT,
    kinds.EVT_REQUESTED,
    kinds.EVT_ACCEPTED,
    kinds.EVT_REJECTED,
    kinds.EVT_ESTABLISHED,
    kinds.EVT_RELEASED,
    kinds.EVT_ABORTED,
)
"""The kinds of :func:`activity`: everything but bytes, PDUs and transitions, which cost more to observe."""


class _Merged(GuardedObservable[Event]):
    """Several streams of one owner. They come from one hub, which delivers in order and never two at once."""

    def __init__(self, streams: tuple[Observable[Event], ...]) -> None:
        super().__init__()
        self._streams = streams

    def _subscribe_core(
        self, observer: abc.ObserverBase[Event], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return reactivex.merge(*self._streams).subscribe(observer, scheduler=scheduler)


def activity(events: EventStreams, *more: EventKind[Any]) -> Observable[Event]:
    """The messages of an association, a server or an AE, and the beginnings and ends of associations, in order.

    This is what the operators apply to that look at more than one kind of event. ``more`` adds kinds::

        activity(server.events).pipe(completed_studies(quiet=30))
        activity(server.events, evt.EVT_DATA_RECV, evt.EVT_DATA_SENT).pipe(summaries())

    ::

        dimse_recv    ----rq--------------|
        dimse_sent    --------rsp---------|
        released      --------------rel---|
        activity      ----rq--rsp---rel---|
    """
    return _Merged(tuple(events[kind] for kind in dict.fromkeys((*ACTIVITY, *more))))


def of_pdu(*types: type[PDU]) -> Callable[[Observable[_WithPDU]], Observable[_WithPDU]]:
    """Events of these types of PDU, the classes of :mod:`rxdicom.wire.pdu`, in PDU and ACSE streams.

    ::

        pdu_recv               --RQ--PD--PD--RRQ--|
        of_pdu(AssociateRQ)    --RQ---------------|

    The ACSE streams cost nothing for P-DATA-TF, which is taken apart only while somebody observes PDUs.
    """
    _some("of_pdu", types)

    def of_these(event: _WithPDU) -> bool:
        pdu = event.pdu if isinstance(event, PDUReceived | PDUSent) else event.primitive
        return isinstance(pdu, types)

    return ops.filter(of_these)


def of_message(*types: Command) -> Callable[[Observable[_WithMessage]], Observable[_WithMessage]]:
    """Events of these messages: ``of_message(Command.C_STORE_RQ, Command.C_STORE_RSP)``.

    ::

        dimse_recv                        --echo--store--find--store--|
        of_message(Command.C_STORE_RQ)    --------store--------store--|
    """
    _some("of_message", types)
    wanted = frozenset(int(each) for each in types)

    def of_these(event: _WithMessage) -> bool:
        return event.message.CommandField in wanted

    return ops.filter(of_these)


def of_sop_class(*uids: str) -> Callable[[Observable[_WithSOPClass]], Observable[_WithSOPClass]]:
    """Messages, operations, failures and instances of these SOP classes.

    A response may leave its SOP class out: then it is the abstract syntax of its presentation context.

    ::

        dimse_recv                      --ct--mr--ct--|
        of_sop_class(CTImageStorage)    --ct------ct--|
    """
    _some("of_sop_class", uids)
    wanted = frozenset(str(uid) for uid in uids)

    def of_these(item: _WithSOPClass) -> bool:
        return _sop_class_of(item) in wanted

    return ops.filter(of_these)


def of_status(*categories: str) -> Callable[[Observable[_WithStatus]], Observable[_WithStatus]]:
    """Responses, and what is made of them, whose status is in one of these categories of :mod:`rxdicom.status`.

    ::

        dimse_sent                   --rq--0000--A700--B000--|
        of_status(STATUS_FAILURE)    ------------A700--------|

    Requests have no status and are left out.
    """
    wanted = checked_categories("of_status", categories)

    def of_these(item: _WithStatus) -> bool:
        status = item.message.Status if isinstance(item, DIMSEReceived | DIMSESent) else item.status
        return status is not None and code_to_category(status) in wanted

    return ops.filter(of_these)


def from_ae(*titles: str) -> Callable[[Observable[_WithTitles]], Observable[_WithTitles]]:
    """What belongs to associations that these AEs requested, by their calling AE titles.

    ::

        A requested by CT1, B by MR1    --A--B--A--B--|
        from_ae("CT1")                  --A-----A-----|

    Events from before the A-ASSOCIATE-RQ are left out: nobody knows yet whose they are.
    """
    _some("from_ae", titles)

    def from_these(item: _WithTitles) -> bool:
        return ae_titles(item)[0] in titles

    return ops.filter(from_these)


def to_ae(*titles: str) -> Callable[[Observable[_WithTitles]], Observable[_WithTitles]]:
    """What belongs to associations that were addressed to these AEs, by their called AE titles.

    ::

        A addressed to STORE, B to QR    --A--B--A--B--|
        to_ae("QR")                      -----B-----B--|
    """
    _some("to_ae", titles)

    def to_these(item: _WithTitles) -> bool:
        return ae_titles(item)[1] in titles

    return ops.filter(to_these)


def ae_titles(item: Event | Derived) -> tuple[str, str]:
    """The calling and the called AE title of the association that an event or record belongs to, empty if unknown."""
    if isinstance(item, Derived):
        return item.calling_ae_title, item.called_ae_title
    if item.assoc is None:
        return "", ""
    return item.assoc.requestor.ae_title, item.assoc.acceptor.ae_title


def identity(event: Event) -> dict[str, Any]:
    """The fields of :class:`~rxdicom.operators.records.Derived` for what is made of an event."""
    calling, called = ae_titles(event)
    return {
        "association": getattr(event.assoc, "name", ""),
        "calling_ae_title": calling,
        "called_ae_title": called,
        "timestamp": event.timestamp,
    }


def sop_class_uid(message: Message, assoc: Any) -> str:
    """The SOP class that a message is about: its own, else the abstract syntax of its context, else empty."""
    own = message.AffectedSOPClassUID or message.RequestedSOPClassUID
    if own or assoc is None:
        return own or ""
    contexts = (each for each in assoc.accepted_contexts if each.context_id == message.context_id)
    return next((str(each.abstract_syntax) for each in contexts), "")


def _sop_class_of(item: DIMSEReceived | DIMSESent | ServiceEvent | Operation | Failure | StoredInstance) -> str:
    if isinstance(item, Event):
        message = item.request if isinstance(item, ServiceEvent) else item.message
        return sop_class_uid(message, item.assoc)
    return item.sop_class_uid


def checked_categories(name: str, categories: tuple[str, ...]) -> frozenset[str]:
    """Categories of statuses as a set. Raises :class:`~rxdicom.errors.ArgumentError` for none, and for what is none."""
    _some(name, categories)
    if unknown := sorted(set(categories) - _CATEGORIES):
        raise ArgumentError(
            f"{', '.join(unknown)}: no category of a status; these are {', '.join(sorted(_CATEGORIES))}"
        )
    return frozenset(categories)


def _some(name: str, chosen: tuple[Any, ...]) -> None:
    if not chosen:
        raise ArgumentError(f"{name}() lets nothing through; say what it is to keep")
