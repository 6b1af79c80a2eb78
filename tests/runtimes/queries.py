"""What the tests of queries and retrieval share: entities that speak all of it, handlers, and a raw peer's messages."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian

from rxdicom import AE, AssociationServer, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.datasets import encode
from rxdicom.events.records import AsyncOps, DIMSEReceived, DIMSESent
from rxdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation
from rxdicom.protocol.negotiation import propose
from rxdicom.sop_class import (
    BasicFilmSession,
    BasicGrayscalePrintManagementMeta,
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from rxdicom.status import Status
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import AsyncOperationsWindow, RoleSelection
from rxdicom.wire.pdu import AssociateRQ
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.runtimes.raw import pdus

FIND, GET, MOVE = (
    str(StudyRootQueryRetrieveInformationModelFind),
    str(StudyRootQueryRetrieveInformationModelGet),
    str(StudyRootQueryRetrieveInformationModelMove),
)
CT, META, SESSION = str(CTImageStorage), str(BasicGrayscalePrintManagementMeta), str(BasicFilmSession)
ALL = (VERIFICATION, CT, FIND, GET, MOVE, META)
CONTEXT = {uid: 2 * index + 1 for index, uid in enumerate(ALL)}
"""The context ID of each SOP class, whoever proposes them."""
MODEL = {Command.C_FIND_RQ: FIND, Command.C_GET_RQ: GET, Command.C_MOVE_RQ: MOVE}
Counters = tuple[int | None, int | None, int | None, int | None]


def entity(title: str = "QR") -> AE:
    """An AE for everything here in both roles, in implicit VR."""
    ae = AE(title)
    for uid in ALL:
        ae.add_requested_context(uid, IMPLICIT_VR_LITTLE_ENDIAN)
        roles = (True, True) if uid == CT else (None, None)
        ae.add_supported_context(uid, IMPLICIT_VR_LITTLE_ENDIAN, *roles)
    return ae


def start(ae: AE, *handlers: EventHandler) -> AssociationServer:
    """A server on a free port, which accepts every window of asynchronous operations."""
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_ASYNC_OPS, as_proposed), *handlers])


def as_proposed(event: AsyncOps) -> tuple[int, int]:
    return event.nr_invoked, event.nr_performed


def window(size: int) -> AsynchronousOperationsWindowNegotiation:
    """Proposes that so many operations may run at a time, in either direction."""
    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked = item.maximum_number_operations_performed = size
    return item


# ---- datasets


def query(patient: str = "*") -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "PATIENT"
    identifier.PatientID = patient
    return identifier


def instance(uid: str = "1.2.3", size: int = 0, patient: str = "") -> Dataset:
    """A CT image as far as it needs to be one, with ``size`` bytes of pixel data."""
    dataset = Dataset()
    dataset.SOPClassUID = CT
    dataset.SOPInstanceUID = uid
    dataset.PatientID = patient
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    if size:
        dataset.BitsAllocated = 8
        dataset.add_new(0x7FE00010, "OW", bytes(size))
    return dataset


def counters(answer: Status | Message) -> Counters:
    """How many sub-operations remain, and are completed, failed and completed with a warning."""
    return (
        answer.NumberOfRemainingSuboperations,
        answer.NumberOfCompletedSuboperations,
        answer.NumberOfFailedSuboperations,
        answer.NumberOfWarningSuboperations,
    )


# ---- what was seen


class Heard:
    """The messages that an association sent or received, and a way to wait for one of them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._changed = threading.Condition()

    def __call__(self, event: DIMSEReceived | DIMSESent) -> None:
        with self._changed:
            self.messages.append(event.message)
            self._changed.notify_all()

    def of(self, kind: Command, message_id: int | None = None) -> list[Message]:
        """Those of one command, and of one message ID where that is given."""
        found = [each for each in self.messages if each.kind is kind]
        return [
            each
            for each in found
            if message_id is None or message_id in (each.MessageID, each.MessageIDBeingRespondedTo)
        ]

    def wait_for(self, kind: Command, count: int, within: float) -> bool:
        """Whether so many of one command come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.of(kind)) >= count, within)


# ---- the messages of a raw peer


def raw_request(operations: int = 1) -> AssociateRQ:
    """An A-ASSOCIATE-RQ for everything here, as SCP of CT images too."""
    contexts = [(uid, [IMPLICIT_VR_LITTLE_ENDIAN]) for uid in ALL]
    items = [RoleSelection(CT, True, True), AsyncOperationsWindow(operations, operations)]
    return propose("ANY-SCP", "RAW", contexts, maximum_length=16384, items=items)


def query_rq(kind: Command, message_id: int, identifier: Dataset | None = None) -> bytes:
    """A C-FIND-RQ, C-GET-RQ or C-MOVE-RQ."""
    data = encode(identifier or query(), IMPLICIT_VR_LITTLE_ENDIAN)
    elements = {"MoveDestination": "DEST"} if kind is Command.C_MOVE_RQ else {}
    asked = message(
        kind,
        CONTEXT[MODEL[kind]],
        Encoded(IMPLICIT_VR_LITTLE_ENDIAN, data),
        MessageID=message_id,
        Priority=2,
        AffectedSOPClassUID=MODEL[kind],
        **elements,
    )
    return pdus(asked, data)


def store_rq(message_id: int) -> bytes:
    """A C-STORE-RQ with a small CT image."""
    data = encode(instance(), IMPLICIT_VR_LITTLE_ENDIAN)
    asked = message(
        Command.C_STORE_RQ,
        CONTEXT[CT],
        Encoded(IMPLICIT_VR_LITTLE_ENDIAN, data),
        MessageID=message_id,
        Priority=0,
        AffectedSOPClassUID=CT,
        AffectedSOPInstanceUID="1.2.3",
    )
    return pdus(asked, data)


def cancel_rq(message_id: int, context_id: int = CONTEXT[FIND]) -> bytes:
    return pdus(message(Command.C_CANCEL_RQ, context_id, MessageIDBeingRespondedTo=message_id))


def answer_to(
    asked: Message, status: int, identifier: Dataset | None = None, message_id: int | None = None, **elements: Any
) -> bytes:
    """A response to any request, with a dataset or without."""
    data = None if identifier is None else encode(identifier, IMPLICIT_VR_LITTLE_ENDIAN)
    given = message(
        Command(asked.kind | 0x8000),
        asked.context_id,
        None if data is None else Encoded(IMPLICIT_VR_LITTLE_ENDIAN, data),
        MessageIDBeingRespondedTo=asked.MessageID if message_id is None else message_id,
        Status=status,
        **elements,
    )
    return pdus(given, data)


def report_rq(message_id: int, event_type: int = 1) -> bytes:
    """An N-EVENT-REPORT-RQ without event information."""
    return pdus(
        message(
            Command.N_EVENT_REPORT_RQ,
            CONTEXT[META],
            MessageID=message_id,
            AffectedSOPClassUID=SESSION,
            AffectedSOPInstanceUID="1.2.3",
            EventTypeID=event_type,
        )
    )


def statuses(answers: Iterable[tuple[Status, Dataset | None]]) -> list[int]:
    return [int(status) for status, _ in answers]


def ended_by(found: Sequence[Message]) -> tuple[int, int]:
    """How many responses were pending, and the status of the one that was not, which must be the only one."""
    pending = [each for each in found if each.Status in (0xFF00, 0xFF01)]
    assert len(pending) == len(found) - 1, [each.Status for each in found]
    assert found[-1] not in pending
    return len(pending), found[-1].Status or 0
