"""The event records: frozen, discreet, to be built by hand, with the attributes that the design promises."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pydicom.filereader
import pytest
from attrs.exceptions import FrozenInstanceError
from pydicom import Dataset, FileDataset

from rxdicom.errors import DatasetError
from rxdicom.events import records
from rxdicom.events.datasets import encode
from rxdicom.events.kinds import INTERVENTION_KINDS, NOTIFICATION_KINDS, EventKind
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import (
    PresentationContextRQ,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
)
from rxdicom.wire.pdu import PDV, AssociateRQ, PDataTF
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.support import storable_files

EVERY_KIND = (*NOTIFICATION_KINDS, *INTERVENTION_KINDS)
EVERY = pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.name)
SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
INSTANCE = "1.2.3.4.5"
PATIENT = ("CITIZEN^JANE", "PID-4711", "19700101")
SECRETS = (b"jane.citizen", b"correct horse")


def dcmread(source: BytesIO | Path, force: bool = False) -> FileDataset:
    return pydicom.dcmread(source, force=force)  # pyright: ignore[reportUnknownMemberType] - of another parameter


def patient() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SOPInstanceUID = INSTANCE
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PATIENT
    return dataset


def context(syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> records.EventContext:
    return records.EventContext(1, SECONDARY_CAPTURE, syntax)


def request(command: Command, **elements: Any) -> Message:
    """A request of the peer with the patient's dataset, whether or not the standard lets it have one."""
    data = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, encode(patient(), EXPLICIT_VR_LITTLE_ENDIAN))
    return Message({"CommandField": int(command), "MessageID": 7, "CommandDataSetType": 1, **elements}, 1, data)


def store_event(syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, **fields: Any) -> records.CStore:
    data = fields.pop("data", None) or Encoded(syntax, encode(patient(), syntax))
    rq = message(
        Command.C_STORE_RQ,
        1,
        data,
        MessageID=7,
        Priority=2,
        AffectedSOPClassUID=SECONDARY_CAPTURE,
        AffectedSOPInstanceUID=INSTANCE,
    )
    return records.CStore(request=rq, context=context(syntax), calling_ae_title="MODALITY", **fields)


IDENTITY = UserIdentity(2, True, *SECRETS)
COMMON = SOPClassCommonExtended("1.2.3", "1.2.840.10008.4.2")
ASSOCIATE = AssociateRQ(
    "CALLED",
    "CALLING",
    (IDENTITY, SOPClassExtended("1.2.3", b"\1"), COMMON),
    presentation_contexts=(PresentationContextRQ(1, SECONDARY_CAPTURE, (IMPLICIT_VR_LITTLE_ENDIAN,)),),
)
FRAGMENT = PDV(1, 2, encode(patient(), EXPLICIT_VR_LITTLE_ENDIAN))
ADDRESS = ("192.0.2.1", 104)
STORE = request(Command.C_STORE_RQ, AffectedSOPClassUID=SECONDARY_CAPTURE, AffectedSOPInstanceUID=INSTANCE)

FIELDS: dict[str, dict[str, Any]] = {
    "EVT_CONN_OPEN": {"address": ADDRESS},
    "EVT_CONN_CLOSE": {"address": ADDRESS},
    "EVT_DATA_RECV": {"data": FRAGMENT.data},
    "EVT_DATA_SENT": {"data": FRAGMENT.data},
    "EVT_PDU_RECV": {"pdu": PDataTF((FRAGMENT,))},
    "EVT_PDU_SENT": {"pdu": ASSOCIATE},
    "EVT_ACSE_RECV": {"primitive": ASSOCIATE},
    "EVT_ACSE_SENT": {"primitive": ASSOCIATE},
    "EVT_DIMSE_RECV": {"message": STORE},
    "EVT_DIMSE_SENT": {"message": STORE},
    "EVT_FSM_TRANSITION": {
        "current_state": "Sta6",
        "fsm_event": "Evt10",
        "action": "DT-2",
        "next_state": "Sta6",
    },
    "EVT_REQUESTED": {},
    "EVT_ACCEPTED": {},
    "EVT_REJECTED": {"result": 1, "source": 2, "reason": 3},
    "EVT_ESTABLISHED": {},
    "EVT_RELEASED": {},
    "EVT_ABORTED": {"source": 2, "reason": 6, "by": "peer"},
    "EVT_ASYNC_OPS": {"nr_invoked": 3, "nr_performed": 4, "associate": ASSOCIATE},
    "EVT_SOP_COMMON": {"items": {"1.2.3": COMMON}, "associate": ASSOCIATE},
    "EVT_SOP_EXTENDED": {"app_info": {"1.2.3": b"\1"}, "associate": ASSOCIATE},
    "EVT_USER_ID": {
        "user_id_type": 2,
        "primary_field": SECRETS[0],
        "secondary_field": SECRETS[1],
        "positive_response_requested": True,
        "associate": ASSOCIATE,
    },
    "EVT_C_ECHO": {"request": request(Command.C_ECHO_RQ), "context": context()},
    "EVT_C_FIND": {"request": request(Command.C_FIND_RQ), "context": context()},
    "EVT_C_GET": {"request": request(Command.C_GET_RQ), "context": context()},
    "EVT_C_MOVE": {"request": request(Command.C_MOVE_RQ, MoveDestination="ARCHIVE"), "context": context()},
    "EVT_C_STORE": {"request": STORE, "context": context(), "calling_ae_title": "MODALITY"},
    "EVT_N_ACTION": {"request": request(Command.N_ACTION_RQ, ActionTypeID=1), "context": context()},
    "EVT_N_CREATE": {"request": request(Command.N_CREATE_RQ), "context": context()},
    "EVT_N_DELETE": {"request": request(Command.N_DELETE_RQ), "context": context()},
    "EVT_N_EVENT_REPORT": {"request": request(Command.N_EVENT_REPORT_RQ, EventTypeID=2), "context": context()},
    "EVT_N_GET": {
        "request": request(Command.N_GET_RQ, AttributeIdentifierList=(0x00100010, 0x00100020)),
        "context": context(),
    },
    "EVT_N_SET": {"request": request(Command.N_SET_RQ), "context": context()},
}
"""What an event of each kind is built with by hand."""
DATASETS = {
    "EVT_DIMSE_RECV": "dataset",
    "EVT_DIMSE_SENT": "dataset",
    "EVT_C_STORE": "dataset",
    "EVT_C_FIND": "identifier",
    "EVT_C_GET": "identifier",
    "EVT_C_MOVE": "identifier",
    "EVT_N_ACTION": "action_information",
    "EVT_N_CREATE": "attribute_list",
    "EVT_N_EVENT_REPORT": "event_information",
    "EVT_N_SET": "modification_list",
}
"""Under which name each kind that has a dataset gives it."""


def built(kind: EventKind[Any], **more: Any) -> Any:
    return kind.record(**FIELDS[kind.name], **more)


# ---- all of them


@EVERY
def test_every_event_has_the_common_attributes(kind: EventKind[Any]):
    association = object()
    before = datetime.now(UTC)
    event = built(kind, assoc=association)
    assert event.event is kind
    assert event.assoc is association
    assert event.name == kind.name
    assert event.description == kind.description
    assert before <= event.timestamp <= datetime.now(UTC)
    assert event.timestamp.utcoffset() == timedelta(0)
    assert built(kind).assoc is None


@EVERY
def test_events_are_frozen_and_equal_only_to_themselves(kind: EventKind[Any]):
    now = datetime.now(UTC)
    event, twin = built(kind, timestamp=now), built(kind, timestamp=now)
    assert event != twin
    assert len({event, twin}) == 2
    for name in ("timestamp", "assoc", *FIELDS[kind.name]):
        with pytest.raises(FrozenInstanceError):
            setattr(event, name, None)


@EVERY
def test_the_fields_are_attributes(kind: EventKind[Any]):
    event = built(kind)
    for name, value in FIELDS[kind.name].items():
        assert getattr(event, name) is value


@EVERY
def test_a_repr_shows_no_patient_and_no_secret(kind: EventKind[Any]):
    event = built(kind, assoc="the association of CITIZEN^JANE")
    if kind.name in DATASETS:
        assert getattr(event, DATASETS[kind.name]).PatientID == PATIENT[1]
    shown = repr(event) + str(event) + f"{event}"
    assert shown.startswith(kind.record.__name__ + "(")
    for secret in (*PATIENT, *PATIENT[0].split("^"), *(each.decode() for each in SECRETS)):
        assert secret not in shown
        assert secret.encode().hex() not in shown


# ---- what each has of its own


def test_the_data_of_a_transfer_is_bytes():
    for name in ("EVT_DATA_RECV", "EVT_DATA_SENT"):
        assert type(FIELDS[name]["data"]) is bytes


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_decoded_once_and_shared(name: str):
    kind = next(each for each in EVERY_KIND if each.name == name)
    event = built(kind)
    dataset = getattr(event, DATASETS[name])
    assert dataset == patient()
    assert getattr(event, DATASETS[name]) is dataset
    assert getattr(built(kind), DATASETS[name]) is dataset


@pytest.mark.parametrize("name", [name for name in DATASETS if not name.startswith("EVT_DIMSE")])
def test_a_dataset_that_is_absent_is_empty(name: str):
    kind = next(each for each in EVERY_KIND if each.name == name)
    rq = Message({"CommandField": 1, "MessageID": 1}, 1, None)
    assert getattr(kind.record(request=rq, context=context()), DATASETS[name]) == Dataset()


def test_a_message_without_a_dataset_gives_none():
    without = Message({"CommandField": int(Command.C_ECHO_RQ), "MessageID": 1}, 1)
    assert records.DIMSEReceived(message=without).dataset is None
    assert records.DIMSESent(message=without).dataset is None


@pytest.mark.parametrize("kind", INTERVENTION_KINDS[4:], ids=lambda kind: kind.name)
def test_a_request_has_its_message_id_and_context(kind: EventKind[Any]):
    event = built(kind)
    assert event.message_id == 7
    assert event.request.MessageID == 7
    assert event.context.abstract_syntax == SECONDARY_CAPTURE
    assert event.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    assert (event.context.as_scu, event.context.as_scp) == (False, True)


@pytest.mark.parametrize("record", [records.CFind, records.CGet, records.CMove])
def test_cancellation_is_asked_for_each_time(record: Callable[..., Any]):
    answers = iter([False, True])
    event = record(request=request(Command.C_FIND_RQ), context=context(), cancelled=lambda: next(answers))
    assert [event.is_cancelled, event.is_cancelled] == [False, True]
    assert not record(request=request(Command.C_FIND_RQ), context=context()).is_cancelled


def test_elements_of_the_command_are_named_as_the_design_does():
    def of(name: str) -> Any:
        return built(next(kind for kind in EVERY_KIND if kind.name == name))

    assert of("EVT_C_MOVE").move_destination == "ARCHIVE"
    assert of("EVT_N_ACTION").action_type == 1
    assert of("EVT_N_EVENT_REPORT").event_type == 2
    assert of("EVT_N_GET").attribute_identifiers == (0x00100010, 0x00100020)
    assert of("EVT_N_SET").attribute_list is of("EVT_N_SET").modification_list
    bare = Message({"CommandField": int(Command.N_GET_RQ), "MessageID": 1}, 1)
    assert records.NGet(request=bare, context=context()).attribute_identifiers == ()


# ---- C-STORE


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_stored_dataset_is_decoded_by_one_thread_once(syntax: str, monkeypatch: pytest.MonkeyPatch):
    reads: list[int] = []
    read = pydicom.filereader.read_dataset

    def count(*args: Any, **kwargs: Any) -> Dataset:
        reads.append(1)
        return read(*args, **kwargs)

    monkeypatch.setattr(pydicom.filereader, "read_dataset", count)
    event = store_event(syntax)
    assert reads == []
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(lambda: event.dataset) for _ in range(32)]
    datasets = [future.result() for future in futures]
    assert all(each is datasets[0] for each in datasets)
    assert datasets[0] == patient()
    assert records.DIMSEReceived(message=event.request).dataset is datasets[0]
    assert reads == [1]


def test_a_dataset_that_cannot_be_decoded_says_so_each_time():
    event = store_event(data=Encoded(EXPLICIT_VR_LITTLE_ENDIAN, b"\x10\0\x10\0PN\xff\0CITIZEN"))
    raised: list[DatasetError] = []
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"\(0010,0010\)") as caught:
            _ = event.dataset
        raised.append(caught.value)
    assert raised[0] is raised[1]
    assert "CITIZEN" not in str(raised[0])


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_encoded_dataset_is_what_was_received(syntax: str):
    event = store_event(syntax)
    received = encode(patient(), syntax)
    assert event.encoded_dataset(include_meta=False) == received
    whole = event.encoded_dataset()
    assert type(whole) is bytes
    assert whole == event.head() + received
    read = dcmread(BytesIO(whole))
    assert read == patient()
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.file_meta.MediaStorageSOPInstanceUID == INSTANCE


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
def test_without_file_meta_it_can_be_read_by_force(syntax: str):
    assert dcmread(BytesIO(store_event(syntax).encoded_dataset(False)), force=True) == patient()


def test_received_data_may_be_a_bytearray():
    event = store_event(data=Encoded(EXPLICIT_VR_LITTLE_ENDIAN, bytearray(encode(patient(), SYNTAXES[1]))))
    assert type(event.encoded_dataset(False)) is bytes
    assert dcmread(BytesIO(event.encoded_dataset())) == patient()


def test_the_file_meta_information_names_everything():
    meta = store_event().file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.MediaStorageSOPClassUID == SECONDARY_CAPTURE
    assert meta.MediaStorageSOPInstanceUID == INSTANCE
    assert meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "MODALITY"
    by_hand = records.CStore(request=store_event().request, context=context())
    assert "SourceApplicationEntityTitle" not in by_hand.file_meta


@pytest.mark.filterwarnings("error")
def test_file_meta_information_takes_what_peers_send():
    event = records.CStore(
        request=Message(
            {"AffectedSOPClassUID": "1.02.3", "AffectedSOPInstanceUID": "1." * 40 + "1", "CommandField": 1}, 1
        ),
        context=context(),
        calling_ae_title="LONGER THAN SIXTEEN CHARACTERS",
    )
    head = dcmread(BytesIO(event.head())).file_meta
    assert event.file_meta.group_dataset(2).keys() == head.keys()
    nothing = records.CStore(request=Message({"CommandField": 1}, 1), context=context())
    assert "MediaStorageSOPInstanceUID" in nothing.file_meta


def test_a_handler_saves_with_pydicom_as_everywhere(tmp_path: Path):
    event = store_event()
    dataset = event.dataset
    dataset.file_meta = event.file_meta
    dataset.save_as(tmp_path / "saved.dcm", enforce_file_format=True)
    assert dcmread(tmp_path / "saved.dcm") == patient()


def test_the_pixels_of_a_received_image_can_be_shown():
    path, head = next(each for each in storable_files().items() if each[0].name == "MR_small_RLE.dcm")
    data = Encoded(head.transfer_syntax_uid, path.read_bytes()[head.offset :])
    event = store_event(head.transfer_syntax_uid, data=data)
    assert (event.dataset.pixel_array == dcmread(path).pixel_array).all()


def test_a_spooled_dataset_is_read_from_its_file(tmp_path: Path):
    in_memory = store_event()
    data = in_memory.encoded_dataset(False)
    spooled = tmp_path / "spooled"
    spooled.write_bytes(in_memory.head() + data + b"what follows is not its own")
    encoded = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, path=str(spooled), offset=len(in_memory.head()), size=len(data))
    event = store_event(data=encoded)
    assert in_memory.path is None
    assert event.path == str(spooled)
    assert event.dataset == patient()
    assert event.encoded_dataset() == in_memory.encoded_dataset()
    assert event.encoded_dataset(False) == data


def test_a_dataset_that_could_not_be_kept_says_why():
    event = store_event(data=Encoded(EXPLICIT_VR_LITTLE_ENDIAN, error=OSError("disk full")))
    for access in (lambda: event.dataset, event.encoded_dataset):
        with pytest.raises(DatasetError, match="disk full"):
            access()


def test_a_request_without_a_dataset_is_empty():
    event = records.CStore(request=Message({"CommandField": 1, "MessageID": 1}, 1), context=context())
    assert event.dataset == Dataset()
    assert event.encoded_dataset(False) == b""


def test_save_of_an_event_built_by_hand_says_what_to_do(tmp_path: Path):
    with pytest.raises(OSError, match=r"encoded_dataset\(\)"):
        store_event().save(tmp_path / "never.dcm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/tmp/a.dcm", Path("/tmp/a.dcm"), b"/tmp/a.dcm"], ids=["str", "path", "bytes"])
def test_save_hands_the_path_to_the_runtime(path: Any):
    calls: list[Any] = []

    def store(event: records.CStore, where: str, durable: bool) -> None:
        calls.append((event, where, durable))

    event = store_event(store=store)
    event.save(path)
    event.save(path, durable=False)
    assert calls == [(event, "/tmp/a.dcm", True), (event, "/tmp/a.dcm", False)]


def test_save_to_no_path_is_refused():
    nowhere: Any = None
    never: Any = pytest.fail
    with pytest.raises(TypeError):
        store_event(store=never).save(nowhere)
