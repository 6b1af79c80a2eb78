"""Every event and record as JSON: total, without patient data unless asked for, without secrets ever."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence

from rxdicom import evt
from rxdicom.events import records
from rxdicom.events.datasets import encode
from rxdicom.events.kinds import EventKind
from rxdicom.operators import (
    completed_studies,
    failures,
    paired,
    progress,
    stored_instances,
    summaries,
    throughput,
    to_dict,
    to_jsonl,
)
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import UserIdentity
from rxdicom.wire.pdu import AssociateRQ
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.events.test_records import EVERY_KIND, FIELDS, PATIENT, SECRETS
from tests.operators.support import (
    Assoc,
    aborted,
    at,
    closed,
    opened,
    received,
    rejected,
    released,
    run,
    store,
    through,
)

ASSOC = Assoc()
EVERY = pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.name)


def event_of(kind: EventKind[Any]) -> records.Event:
    return kind.record(assoc=ASSOC, timestamp=at(0), **FIELDS[kind.name])


def strict(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


@EVERY
@pytest.mark.parametrize("phi", [False, True])
def test_every_kind_is_json_with_what_all_events_have(kind: EventKind[Any], phi: bool) -> None:
    shown = to_dict(event_of(kind), phi=phi)
    assert json.loads(strict(shown)) == shown
    assert {key: shown[key] for key in ("event", "association", "calling_ae_title", "called_ae_title")} == {
        "event": kind.name,
        "association": "STORE-1",
        "calling_ae_title": "MODALITY" if kind is not evt.EVT_C_STORE else shown["calling_ae_title"],
        "called_ae_title": "STORE",
    }
    assert datetime.fromisoformat(shown["timestamp"]) == at(0)
    assert not shown.keys() & {"assoc", "cancelled", "store", "associate"}


@EVERY
def test_every_kind_by_hand_without_an_association(kind: EventKind[Any]) -> None:
    shown = to_dict(kind.record(**FIELDS[kind.name]))
    assert (shown["event"], shown["association"]) == (kind.name, "")
    strict(shown)


@EVERY
def test_patient_data_is_left_out(kind: EventKind[Any]) -> None:
    line = strict(to_dict(event_of(kind)))
    for identifier in PATIENT:
        assert identifier not in line
        assert base64.b64encode(identifier.encode()).decode() not in line


@EVERY
def test_secrets_never_appear(kind: EventKind[Any]) -> None:
    line = strict(to_dict(event_of(kind), phi=True))
    for secret in SECRETS:
        assert secret.decode() not in line
        assert secret.hex() not in line


WITH_DATASET = [kind for kind in EVERY_KIND if {"message", "request"} & FIELDS[kind.name].keys()]


@pytest.mark.parametrize("kind", WITH_DATASET, ids=lambda kind: kind.name)
def test_with_phi_identifiers_are_decoded(kind: EventKind[Any]) -> None:
    shown = to_dict(event_of(kind), phi=True)
    message = shown["message"] if "message" in shown else shown["request"]
    assert message["dataset"]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": PATIENT[0]}]}
    assert message["dataset"]["00100020"] == {"vr": "LO", "Value": [PATIENT[1]]}
    without = to_dict(event_of(kind))
    assert "dataset" not in (without["message"] if "message" in without else without["request"])


def test_what_an_event_tells() -> None:
    assert to_dict(event_of(evt.EVT_CONN_OPEN))["address"] == ["192.0.2.1", 104]
    assert to_dict(event_of(evt.EVT_DATA_RECV))["data"] == {"bytes": len(FIELDS["EVT_DATA_RECV"]["data"])}
    assert to_dict(event_of(evt.EVT_ABORTED)) == {
        "event": "EVT_ABORTED",
        "association": "STORE-1",
        "calling_ae_title": "MODALITY",
        "called_ae_title": "STORE",
        "timestamp": "2024-02-29T12:00:00+00:00",
        "source": 2,
        "reason": 6,
        "by": "peer",
        "cause": "",
    }
    pdu = to_dict(event_of(evt.EVT_PDU_SENT))["pdu"]
    assert (pdu["record"], pdu["called_ae_title"]) == ("A-ASSOCIATE-RQ", "CALLED")
    assert [item["record"] for item in pdu["user_information"]] == [
        "UserIdentity",
        "SOPClassExtended",
        "SOPClassCommonExtended",
    ]
    assert to_dict(event_of(evt.EVT_SOP_COMMON))["items"]["1.2.3"]["service_class_uid"] == "1.2.840.10008.4.2"


def test_what_a_message_tells() -> None:
    shown = to_dict(event_of(evt.EVT_N_GET))["request"]
    assert shown["name"] == "N-GET-RQ"
    assert shown["AttributeIdentifierList"] == ["00100010", "00100020"]
    assert shown["data"]["transfer_syntax_uid"] == EXPLICIT_VR_LITTLE_ENDIAN
    assert "CommandField" not in shown


def received_with(dataset: Dataset | Encoded) -> records.DIMSEReceived:
    data = dataset
    if isinstance(data, Dataset):
        data = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, encode(data, EXPLICIT_VR_LITTLE_ENDIAN))
    return received(Command.C_STORE_RQ, ASSOC, MessageID=1, data=data)


def test_pixels_stay_out_and_small_binaries_do_not() -> None:
    made, inner = Dataset(), Dataset()
    made.add_new(0x7FE00010, "OW", bytes(4096))
    inner.add_new(0x00420011, "OB", bytes(769))
    made.add_new(0x00420011, "OB", b"\1\2")
    made.ReferencedStudySequence = Sequence([inner])
    shown = to_dict(received_with(made), phi=True)["message"]["dataset"]
    assert shown["7FE00010"] == {"vr": "OW", "BulkDataURI": "about:blank#4096"}
    assert shown["00081110"]["Value"][0]["00420011"] == {"vr": "OB", "BulkDataURI": "about:blank#770"}
    assert shown["00420011"] == {"vr": "OB", "InlineBinary": "AQI="}


def test_numbers_that_json_cannot_have_are_text() -> None:
    made = Dataset()
    made.add_new(0x00186028, "FD", [float("nan"), float("inf"), -1.5])
    shown = to_dict(received_with(made), phi=True)["message"]["dataset"]
    assert json.loads(strict(shown))["00186028"]["Value"] == ["nan", "inf", -1.5]


def test_a_dataset_that_cannot_be_decoded_says_so() -> None:
    broken = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, b"\x10\0\x10\0PN\xff\xff")
    shown = to_dict(received_with(broken), phi=True)["message"]
    assert "dataset" not in shown
    assert "cut off" in shown["dataset_error"]
    gone = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, path="/nowhere/at/all", size=1000, temporary=True)
    assert "No such file" in to_dict(received_with(gone), phi=True)["message"]["dataset_error"]


def test_an_element_that_cannot_be_read_has_no_value() -> None:
    # Rows (0028,0010) as US with three bytes; a Patient ID behind it.
    data = b"\x28\0\x10\0US\x03\0abc" + b"\x28\0\x11\0US\x02\0\x05\0"
    shown = to_dict(received_with(Encoded(EXPLICIT_VR_LITTLE_ENDIAN, data)), phi=True)["message"]["dataset"]
    assert shown == {"00280010": {"vr": "UN"}, "00280011": {"vr": "US", "Value": [5]}}


@given(st.binary(max_size=200))
def test_with_phi_it_is_total_whatever_the_peer_sends(data: bytes) -> None:
    strict(to_dict(received_with(Encoded(EXPLICIT_VR_LITTLE_ENDIAN, data)), phi=True))


def test_what_operators_emit_is_json_too() -> None:
    activity = [
        opened(ASSOC),
        *store(ASSOC, 1, "1.1", "1.1.1"),
        *store(ASSOC, 2, "1.1", "1.1.2", status=0xA700),
        aborted(ASSOC),
        closed(ASSOC),
        rejected(ASSOC),
        released(ASSOC),
    ]
    answer = received(Command.C_MOVE_RSP, ASSOC, MessageIDBeingRespondedTo=1, Status=0xFF00)
    made = [
        *through(paired(), *activity),
        *through(progress(), answer),
        *through(failures(), *activity),
        *through(summaries(), *activity),
        *through(stored_instances(), *activity),
        *(item for _, item in run(lambda _: completed_studies(5), [(201, event) for event in activity]).items),
        *(item for _, item in run(lambda _: throughput(5), [], disposed=210).items),
    ]
    lines = through(to_jsonl(), *made)
    assert {json.loads(line)["record"] for line in lines} == {
        "Operation",
        "Progress",
        "Failure",
        "AssociationSummary",
        "StoredInstance",
        "CompletedStudy",
        "Throughput",
    }
    study = next(json.loads(line) for line in lines if "CompletedStudy" in line)
    assert study["instances"] == {"1.1.1": None}
    assert study["first"] == "2024-02-29T12:00:00+00:00"
    status = next(json.loads(line) for line in lines if '"kind": "status"' in line)
    assert status["status"] == 0xA700
    assert not any("\n" in line or "CITIZEN" in line for line in lines)


def test_what_is_no_record_is_json_as_well() -> None:
    assert to_dict((1, b"xyz", {2}, None, datetime(2024, 2, 29, tzinfo=UTC))) == {
        "record": "tuple",
        "value": [1, {"bytes": 3}, [2], None, "2024-02-29T00:00:00+00:00"],
    }
    assert to_dict(ValueError("CITIZEN^JANE")) == {"record": "ValueError", "value": "ValueError"}


def test_credentials_of_an_association_request_are_counted_only() -> None:
    pdu = AssociateRQ("CALLED", "CALLING", (UserIdentity(2, True, *SECRETS),))
    shown = to_dict(records.ACSEReceived(primitive=pdu))["primitive"]["user_information"][0]
    assert shown == {
        "record": "UserIdentity",
        "type": 2,
        "positive_response_requested": True,
        "primary": {"bytes": len(SECRETS[0])},
        "secondary": {"bytes": len(SECRETS[1])},
    }


def test_lines_are_made_on_the_way() -> None:
    message = Message({"CommandField": int(Command.C_ECHO_RQ), "MessageID": 1}, 1)
    (line,) = through(to_jsonl(), records.DIMSESent(message=message, assoc=ASSOC))
    assert json.loads(line)["message"] == {"name": "C-ECHO-RQ", "context_id": 1, "MessageID": 1}
