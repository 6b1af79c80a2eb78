"""The event records: one frozen class per kind, what observers and handlers are called with.

Records can be built by hand, to test a handler without a network: ``CFind.by_hand(query)``, or ``AsyncOps(…)`` with
its fields. Their repr shows no patient data.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from attrs import Factory, field, frozen

from rxdicom.events import kinds
from rxdicom.events.datasets import decode, encode, encoded_bytes, file_head, file_meta
from rxdicom.wire.dimse import COMMANDS, ELEMENTS, Command, Message, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import SOPClassCommonExtended
from rxdicom.wire.pdu import PDU, AssociateRQ
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset


def _never() -> bool:
    return False


@frozen(eq=False, kw_only=True)
class Event:
    """What every event has. ``assoc`` is the association in which it occurred (None in an event built by hand)."""

    event: ClassVar[kinds.EventKind[Any]]
    assoc: Any = field(default=None, repr=False)
    timestamp: datetime = field(factory=partial(datetime.now, UTC))
    """When it occurred, timezone-aware."""

    @property
    def name(self) -> str:
        return self.event.name

    @property
    def description(self) -> str:
        return self.event.description


# ---- notification events


@frozen(eq=False, kw_only=True)
class ConnectionOpened(Event):
    """The transport connection is there; ``address`` is the peer's (host, port)."""

    event = kinds.EVT_CONN_OPEN
    address: tuple[str, int]


@frozen(eq=False, kw_only=True)
class ConnectionClosed(Event):
    """The transport connection is gone."""

    event = kinds.EVT_CONN_CLOSE
    address: tuple[str, int]


@frozen(eq=False, kw_only=True)
class DataReceived(Event):
    """Bytes as they came from the peer, cut anywhere."""

    event = kinds.EVT_DATA_RECV
    data: bytes = field(repr=False)


@frozen(eq=False, kw_only=True)
class DataSent(Event):
    """Bytes handed to the transport, whole PDUs."""

    event = kinds.EVT_DATA_SENT
    data: bytes = field(repr=False)


@frozen(eq=False, kw_only=True)
class PDUReceived(Event):
    event = kinds.EVT_PDU_RECV
    pdu: PDU


@frozen(eq=False, kw_only=True)
class PDUSent(Event):
    event = kinds.EVT_PDU_SENT
    pdu: PDU


@frozen(eq=False, kw_only=True)
class ACSEReceived(Event):
    """An association-control primitive came in: the record of its PDU."""

    event = kinds.EVT_ACSE_RECV
    primitive: PDU


@frozen(eq=False, kw_only=True)
class ACSESent(Event):
    """An association-control primitive was issued: the record of its PDU."""

    event = kinds.EVT_ACSE_SENT
    primitive: PDU


@frozen(eq=False, kw_only=True)
class _WithMessage(Event):
    message: Message

    @property
    def dataset(self) -> "Dataset | None":
        """The message's dataset, decoded on first use; None if it has none."""
        return None if self.message.data is None else decode(self.message.data)


@frozen(eq=False, kw_only=True)
class DIMSEReceived(_WithMessage):
    """A whole message came in."""

    event = kinds.EVT_DIMSE_RECV


@frozen(eq=False, kw_only=True)
class DIMSESent(_WithMessage):
    """A message begins to leave."""

    event = kinds.EVT_DIMSE_SENT


@frozen(eq=False, kw_only=True)
class FSMTransition(Event):
    """The state machine moved, in the names of PS3.8 table 9-10: ``Sta6``, ``Evt10``, ``DT-2``, ``Sta6``."""

    event = kinds.EVT_FSM_TRANSITION
    current_state: str
    fsm_event: str
    action: str
    next_state: str


@frozen(eq=False, kw_only=True)
class Requested(Event):
    """An association is requested, by whichever side."""

    event = kinds.EVT_REQUESTED


@frozen(eq=False, kw_only=True)
class Accepted(Event):
    event = kinds.EVT_ACCEPTED


@frozen(eq=False, kw_only=True)
class Rejected(Event):
    """The codes are those of PS3.8 table 9-21."""

    event = kinds.EVT_REJECTED
    result: int
    source: int
    reason: int


@frozen(eq=False, kw_only=True)
class Established(Event):
    event = kinds.EVT_ESTABLISHED


@frozen(eq=False, kw_only=True)
class Released(Event):
    event = kinds.EVT_RELEASED


@frozen(eq=False, kw_only=True)
class Aborted(Event):
    """The codes are those of PS3.8 table 9-26; ``by`` is local, peer or transport; ``cause`` says more, if known."""

    event = kinds.EVT_ABORTED
    source: int
    reason: int
    by: str
    cause: str = ""


# ---- intervention events: negotiation


@frozen(eq=False, kw_only=True)
class _WithRequest(Event):
    associate: AssociateRQ | None = field(default=None, repr=False)
    """The A-ASSOCIATE-RQ that carries the items."""


@frozen(eq=False, kw_only=True)
class AsyncOps(_WithRequest):
    """The window that the requestor proposes; return (invoked, performed) as the requestor sees them."""

    event = kinds.EVT_ASYNC_OPS
    nr_invoked: int
    nr_performed: int


@frozen(eq=False, kw_only=True)
class SOPCommon(_WithRequest):
    """Proposed items by SOP class UID; return a dict of those accepted."""

    event = kinds.EVT_SOP_COMMON
    items: Mapping[str, SOPClassCommonExtended]


@frozen(eq=False, kw_only=True)
class SOPExtended(_WithRequest):
    """Proposed application information by SOP class UID; return a dict of the answers."""

    event = kinds.EVT_SOP_EXTENDED
    app_info: Mapping[str, bytes]


@frozen(eq=False, kw_only=True)
class UserID(_WithRequest):
    """The proposed identity; return (accepted, server response or None)."""

    event = kinds.EVT_USER_ID
    user_id_type: int
    primary_field: bytes = field(repr=False)
    secondary_field: bytes | None = field(default=None, repr=False)
    positive_response_requested: bool = False


# ---- intervention events: services


@frozen
class EventContext:
    """The presentation context of a request, with this side's roles."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    as_scu: bool = False
    as_scp: bool = True


def _context_of(event: "ServiceEvent") -> EventContext:
    """What a request tells about its context, for events built by hand."""
    request, is_report = event.request, event.event is kinds.EVT_N_EVENT_REPORT
    sop_class = request.AffectedSOPClassUID or request.RequestedSOPClassUID or ""
    syntax = IMPLICIT_VR_LITTLE_ENDIAN if request.data is None else request.data.transfer_syntax
    return EventContext(request.context_id, sop_class, syntax, as_scu=is_report, as_scp=not is_report)


_BY_HAND = {"MessageID": 1, "Priority": 0, "ActionTypeID": 1, "EventTypeID": 1, "MoveDestination": ""}


@frozen(eq=False, kw_only=True)
class ServiceEvent(Event):
    """A request of the peer; its command elements are attributes of ``request`` under their DICOM keywords."""

    request: Message
    context: EventContext = field(default=Factory(_context_of, takes_self=True))
    cancelled: Callable[[], bool] = field(default=_never, repr=False)

    @classmethod
    def by_hand(
        cls, dataset: "Dataset | None" = None, transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, **given: Any
    ) -> Self:
        """An event to call a handler with in a unit test, without a network.

        ``given`` are command elements under their keywords, and fields of the record such as ``cancelled``. Elements
        that the request must have and are not given: the UIDs are those of ``dataset``, else empty; Message ID, Action
        Type ID and Event Type ID are 1. Raises :class:`~rxdicom.errors.ArgumentError` for what such a request cannot
        carry, and :class:`~rxdicom.errors.DatasetError` for a dataset that cannot be encoded.

        >>> CMove.by_hand(MoveDestination="ARCHIVE").move_destination
        'ARCHIVE'
        """
        command = Command[f"{cls.event.name.removeprefix('EVT_')}_RQ"]
        required, _, carries = COMMANDS[command]
        elements = {keyword: given.pop(keyword) for keyword in tuple(given) if keyword in ELEMENTS}
        for keyword in required - elements.keys():
            uid = keyword.removeprefix("Affected").removeprefix("Requested")
            elements[keyword] = _BY_HAND[keyword] if keyword in _BY_HAND else str(getattr(dataset, uid, ""))
        data = None
        if dataset is not None or carries == "always":
            data = Encoded(transfer_syntax, b"" if dataset is None else encode(dataset, transfer_syntax))
        return cls(request=message(command, 1, data, **elements), **given)

    @property
    def message_id(self) -> int:
        return self.request.MessageID or 0

    @property
    def is_cancelled(self) -> bool:
        """Whether the peer has sent C-CANCEL for this request; once true it stays so."""
        return self.cancelled()

    def _dataset(self) -> "Dataset":
        if self.request.data is None:
            from pydicom import Dataset

            return Dataset()
        return decode(self.request.data)


@frozen(eq=False, kw_only=True)
class CEcho(ServiceEvent):
    event = kinds.EVT_C_ECHO


@frozen(eq=False, kw_only=True)
class CStore(ServiceEvent):
    """A composite instance to be stored; return a status."""

    event = kinds.EVT_C_STORE
    calling_ae_title: str = ""
    """Written to the file meta information as Source Application Entity Title."""
    store: Callable[["CStore", str, bool], None] | None = field(default=None, repr=False)
    """How the runtime writes a file: (event, path, durable)."""

    @property
    def encoded(self) -> Encoded:
        """The dataset as it was received."""
        if self.request.data is None:
            return Encoded(self.context.transfer_syntax, b"")
        return self.request.data

    @property
    def dataset(self) -> "Dataset":
        """The instance, decoded on first use, once.

        Raises :class:`~rxdicom.errors.DatasetError`; if that escapes the handler the peer gets 0xC210.
        """
        return self._dataset()

    @property
    def file_meta(self) -> "FileMetaDataset":
        """The file meta information for a file with this dataset (PS3.10 §7.1)."""
        return file_meta(*self._identity(), self.calling_ae_title)

    @property
    def path(self) -> str | None:
        """Where the dataset was spooled to while it came in, a Part 10 file; None if it is held in memory.

        The file is removed after the handler returned, unless :meth:`save` moved it.
        """
        return self.encoded.path

    def head(self) -> bytes:
        """The bytes of preamble and file meta information that go before the dataset in a file."""
        return self.encoded.head or file_head(*self._identity(), self.calling_ae_title)

    def encoded_dataset(self, include_meta: bool = True) -> bytes:
        """The dataset as received, by default as a whole Part 10 file."""
        data = encoded_bytes(self.encoded)
        return self.head() + data if include_meta else bytes(data)

    def save(self, path: str | bytes | os.PathLike[str], *, durable: bool = True) -> None:
        """Write a Part 10 file with the dataset as it was received, undecoded.

        It appears under ``path`` only when it is complete; before this returns, file and folder are fsynced.
        ``durable=False`` leaves the fsync out: a crash of the machine (not of the program) may then lose files
        that were acknowledged. Raises :class:`OSError`; if that escapes the handler the peer gets 0xA700.
        """
        if self.store is None:
            raise OSError("this event was built by hand and has no store; use encoded_dataset()")
        self.store(self, os.fsdecode(path), durable)

    def _identity(self) -> tuple[str, str, str]:
        request = self.request
        return (
            request.AffectedSOPClassUID or "",
            request.AffectedSOPInstanceUID or "",
            self.context.transfer_syntax,
        )


@frozen(eq=False, kw_only=True)
class _WithIdentifier(ServiceEvent):
    @property
    def identifier(self) -> "Dataset":
        """The identifier of the request, decoded on first use, once."""
        return self._dataset()


@frozen(eq=False, kw_only=True)
class CFind(_WithIdentifier):
    """A query; return an iterable of (status, identifier)."""

    event = kinds.EVT_C_FIND


@frozen(eq=False, kw_only=True)
class CGet(_WithIdentifier):
    """A retrieval; return an iterable: the number of sub-operations, then (status, dataset or path)."""

    event = kinds.EVT_C_GET


@frozen(eq=False, kw_only=True)
class CMove(_WithIdentifier):
    """A move; return an iterable: the destination's address, the number of sub-operations, then (status, dataset)."""

    event = kinds.EVT_C_MOVE

    @property
    def move_destination(self) -> str:
        return self.request.MoveDestination or ""


@frozen(eq=False, kw_only=True)
class NAction(ServiceEvent):
    event = kinds.EVT_N_ACTION

    @property
    def action_type(self) -> int | None:
        return self.request.ActionTypeID

    @property
    def action_information(self) -> "Dataset":
        return self._dataset()


@frozen(eq=False, kw_only=True)
class NCreate(ServiceEvent):
    event = kinds.EVT_N_CREATE

    @property
    def attribute_list(self) -> "Dataset":
        return self._dataset()


@frozen(eq=False, kw_only=True)
class NDelete(ServiceEvent):
    event = kinds.EVT_N_DELETE


@frozen(eq=False, kw_only=True)
class NEventReport(ServiceEvent):
    event = kinds.EVT_N_EVENT_REPORT

    @property
    def event_type(self) -> int | None:
        return self.request.EventTypeID

    @property
    def event_information(self) -> "Dataset":
        return self._dataset()


@frozen(eq=False, kw_only=True)
class NGet(ServiceEvent):
    event = kinds.EVT_N_GET

    @property
    def attribute_identifiers(self) -> tuple[int, ...]:
        """Tags of the attributes asked for; empty for all."""
        return self.request.AttributeIdentifierList or ()


@frozen(eq=False, kw_only=True)
class NSet(ServiceEvent):
    event = kinds.EVT_N_SET

    @property
    def modification_list(self) -> "Dataset":
        return self._dataset()

    @property
    def attribute_list(self) -> "Dataset":
        return self._dataset()
