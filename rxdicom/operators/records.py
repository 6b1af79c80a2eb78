"""What the domain operators make of events: frozen records without patient data, safe to keep and to send on."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from attrs import field, frozen

from rxdicom.service_class import ServiceClass
from rxdicom.sop_class import uid_to_service_class
from rxdicom.status import STATUS_PENDING, Status
from rxdicom.wire.dimse import Message


@frozen(kw_only=True)
class Derived:
    """What all of them have: the association that it is about, and when."""

    association: str = ""
    """Its name, as in the log."""
    calling_ae_title: str = ""
    called_ae_title: str = ""
    timestamp: datetime
    """Of the event that completed this record, timezone-aware."""


@frozen(kw_only=True)
class Operation(Derived):
    """A request with its final response (PS3.7 §7.5)."""

    request: Message
    """Its dataset is kept as long as this record is, if it was held in memory."""
    response: Message
    duration: float
    """Seconds from the whole request to the beginning of the final response, on the wall clock."""
    is_performed: bool
    """Whether this side was asked; otherwise it is the one that asked."""
    pending: int = 0
    """How many pending responses came before the final one."""
    sop_class_uid: str = ""
    assoc: Any = field(default=None, repr=False, eq=False)

    @property
    def name(self) -> str:
        """``C-STORE``, ``N-ACTION`` …"""
        return operation_name(self.request)

    @property
    def message_id(self) -> int:
        return self.request.MessageID or 0

    @property
    def sop_instance_uid(self) -> str:
        """Empty where the operation is not about one instance."""
        return self.request.AffectedSOPInstanceUID or self.request.RequestedSOPInstanceUID or ""

    @property
    def status(self) -> Status:
        """That of the final response, with its meaning and elements."""
        return status_of(self.response, self.sop_class_uid)


@frozen(kw_only=True)
class Progress(Derived):
    """How far a C-GET or C-MOVE has come: the sub-operation counters of one response (PS3.7 §9.1.3.1, §9.1.4.1)."""

    name: str
    """``C-GET`` or ``C-MOVE``."""
    message_id: int
    remaining: int
    completed: int
    failed: int
    warning: int
    status: Status

    @property
    def done(self) -> int:
        """Sub-operations that are over, in whatever way."""
        return self.completed + self.failed + self.warning

    @property
    def total(self) -> int:
        return self.done + self.remaining

    @property
    def is_final(self) -> bool:
        return self.status.category != STATUS_PENDING


@frozen(kw_only=True)
class Failure(Derived):
    """Something that did not succeed, and why."""

    kind: Literal["rejected", "aborted", "status"]
    cause: str
    """In words."""
    by: str
    """Whose doing it is: local, peer or transport."""
    status: Status | None = None
    """Of a response."""
    name: str = ""
    """The operation that a response is about: ``C-STORE`` …"""
    sop_class_uid: str = ""
    assoc: Any = field(default=None, repr=False, eq=False)


def _none() -> Mapping[str, Any]:
    return MappingProxyType({})


@frozen(kw_only=True)
class AssociationSummary(Derived):
    """An association, once it is over. ``timestamp`` is when."""

    address: tuple[str, int] | None = None
    """The peer's host and port; None if that was never reached, or is not known."""
    began: datetime
    """Of the first event that was seen of it."""
    ended: Literal["released", "rejected", "aborted", "closed", "unknown"]
    """``closed``: the connection, before there was an association; ``unknown``: the stream ended before it did."""
    cause: str = ""
    """Why it was rejected or aborted, in words."""
    by: str = ""
    """Whose doing that was: local, peer or transport."""
    messages_received: Mapping[str, int] = field(factory=_none)
    """By name: ``C-STORE-RQ`` …"""
    messages_sent: Mapping[str, int] = field(factory=_none)
    failures: int = 0
    """Responses with a failure status, both ways."""
    bytes_received: int | None = None
    """On the transport, TLS apart; None if no such event was in the stream."""
    bytes_sent: int | None = None

    @property
    def duration(self) -> float:
        """Seconds, on the wall clock."""
        return (self.timestamp - self.began).total_seconds()


@frozen(kw_only=True)
class StoredInstance(Derived):
    """An instance that a peer sent and that was answered with success or a warning. ``timestamp`` is of the answer."""

    study_instance_uid: str
    """From the head of the dataset, as the two that follow; empty if it is not there or cannot be read."""
    series_instance_uid: str
    modality: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size: int
    """Bytes of the encoded dataset."""
    status: int
    path: str | None = None
    """The file that it was saved in, if it was received into one: others are known to the handler only."""


@frozen(kw_only=True)
class CompletedStudy:
    """The instances of a study that have been stored."""

    study_instance_uid: str
    instances: Mapping[str, str | None]
    """SOP Instance UID → path, as :class:`StoredInstance` has it; one that came again counts once."""
    series: Mapping[str, int]
    """Instances by Series Instance UID."""
    modalities: Mapping[str, int]
    """Instances by modality."""
    size: int
    """Bytes of their encoded datasets."""
    calling_ae_titles: tuple[str, ...]
    """Who sent them, in the order of their first instances."""
    called_ae_titles: tuple[str, ...]
    first: datetime
    """When the first of them was stored."""
    last: datetime
    completed_by: Literal["quiet", "release", "limit", "end"]
    """Nothing more came; the association was released; there was no room to wait longer; the stream ended."""


@frozen
class Rate:
    """What one direction carries, per second."""

    bytes: float = 0.0
    pdus: float = 0.0
    messages: float = 0.0


@frozen
class Throughput:
    """What was carried within a window of time."""

    timestamp: datetime
    """Its end, on the scheduler's clock."""
    seconds: float
    """Its length."""
    received: Rate
    sent: Rate


# ---- from messages


def operation_name(message: Message) -> str:
    """``C-STORE`` for a C-STORE-RQ and a C-STORE-RSP.

    >>> operation_name(Message({"CommandField": 0x8001}))
    'C-STORE'
    """
    return message.name.rpartition("-")[0]


def status_of(message: Message, sop_class_uid: str) -> Status:
    """The status of a response, with what it means for this SOP class and the elements that came with it."""
    service: ServiceClass = uid_to_service_class(sop_class_uid)
    table = service.status_table(operation_name(message))
    elements = {key: value for key, value in message.command.items() if key != "Status" and hasattr(Status, key)}
    return Status(message.Status or 0, table, **elements)
