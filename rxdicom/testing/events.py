"""Events of every intervention kind, made by hand: unit tests of handlers without a network."""

from collections.abc import Sequence
from typing import Any, TypeVar

from rxdicom.errors import ArgumentError
from rxdicom.events import kinds
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import ServiceEvent
from rxdicom.protocol.negotiation import propose
from rxdicom.recording.associations import RecordedAssociation
from rxdicom.runtimes.association import Peer
from rxdicom.wire.items import (
    AsyncOperationsWindow,
    SOPClassExtended,
    UserIdentity,
    UserItem,
)
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

_R = TypeVar("_R")


def association(calling_ae_title: str = "SCU", called_ae_title: str = "SCP", *, name: str = "TEST-1") -> Any:
    """A stand-in for the association of an event: who takes part in it, as the acceptor sees it."""
    return RecordedAssociation(
        name=name,
        is_requestor=False,
        requestor=Peer(calling_ae_title, "127.0.0.1", 50104),
        acceptor=Peer(called_ae_title, "127.0.0.1", 104),
    )


def event(kind: EventKind[_R], dataset: Any = None, **given: Any) -> _R:
    """An event of any intervention kind, to call its handler with.

    Of a service event ``dataset`` is what the request carries, and ``given`` are command elements under their keywords,
    ``transfer_syntax``, and fields of the record: see :meth:`~rxdicom.events.records.ServiceEvent.by_hand`. Of a
    negotiation event ``given`` are the fields of the record; what is left out is proposed as a small example, and
    ``associate`` is an A-ASSOCIATE-RQ that proposes it. ``assoc`` is a stand-in, unless it is given.

    Raises :class:`~rxdicom.errors.ArgumentError` for what such a request cannot carry.

    >>> event(kinds.EVT_ASYNC_OPS, nr_invoked=4).nr_invoked
    4
    >>> event(kinds.EVT_C_MOVE, MoveDestination="ARCHIVE").move_destination
    'ARCHIVE'
    """
    record: Any = kind.record
    given.setdefault("assoc", association())
    if issubclass(record, ServiceEvent):
        made: Any = record.by_hand(dataset, **given)
        return made
    if kind not in _EXAMPLES or dataset is not None:
        raise ArgumentError(f"{kind!r} is no request with a dataset, or no event that is handled")
    fields = {**_EXAMPLES[kind], **given}
    fields.setdefault("associate", _request(given["assoc"], _items(kind, fields)))
    return record(**fields)


_EXAMPLES: dict[EventKind[Any], dict[str, Any]] = {
    kinds.EVT_ASYNC_OPS: {"nr_invoked": 1, "nr_performed": 1},
    kinds.EVT_SOP_COMMON: {"items": {}},
    kinds.EVT_SOP_EXTENDED: {"app_info": {}},
    kinds.EVT_USER_ID: {"user_id_type": 1, "primary_field": b"user"},
}


def _items(kind: EventKind[Any], fields: dict[str, Any]) -> Sequence[UserItem]:
    """The items of extended negotiation that a negotiation event is about."""
    if kind is kinds.EVT_ASYNC_OPS:
        return [AsyncOperationsWindow(fields["nr_invoked"], fields["nr_performed"])]
    if kind is kinds.EVT_SOP_COMMON:
        return list(fields["items"].values())
    if kind is kinds.EVT_SOP_EXTENDED:
        return [SOPClassExtended(uid, info) for uid, info in fields["app_info"].items()]
    asked = fields.get("positive_response_requested", False)
    return [UserIdentity(fields["user_id_type"], asked, fields["primary_field"], fields.get("secondary_field") or b"")]


def _request(assoc: Any, items: Sequence[UserItem]) -> Any:
    """An A-ASSOCIATE-RQ with these items."""
    return propose(
        assoc.acceptor.ae_title,
        assoc.requestor.ae_title,
        [(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])],
        maximum_length=16384,
        items=items,
    )
