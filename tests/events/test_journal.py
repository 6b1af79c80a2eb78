"""What is logged of associations: each level's lines, in both roles; no patient data unless it is asked for."""

import logging
import re
import socket
import threading
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import AE, AssociationRejected, evt
from rxdicom.events.bindings import Bindings, EventHandler
from rxdicom.events.journal import observers
from rxdicom.events.kinds import EventKind
from rxdicom.events.records import (
    Aborted,
    ACSEReceived,
    ACSESent,
    CFind,
    ConnectionClosed,
    CStore,
    DIMSEReceived,
    DIMSESent,
    Established,
    Rejected,
    Released,
)
from rxdicom.log import LOG
from rxdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from rxdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from rxdicom.wire.dimse import Command, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import (
    ImplementationVersionName,
    PresentationContextRQ,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
)
from rxdicom.wire.pdu import Abort, AssociateAC, AssociateRJ, AssociateRQ
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.logged import Logged, logged
from tests.support import DEADLINE, FILES, dataset_bytes

FIND = str(StudyRootQueryRetrieveInformationModelFind)
CT = FILES / "CT_small.dcm"
NAME, PATIENT = "CompressedSamples", "1CT1"
"""Of the patient of that file."""
PASSCODE = b"PASSCODE"
EXPLICIT_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
HOSTILE = "\r\n\x1b[2JERROR x"


def identifier(**elements: str) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def matches(event: CFind) -> Iterator[tuple[int, Dataset | None]]:
    yield 0xFF00, identifier(PatientName="Hopper^Grace", PatientID="MATCH-4711")


def coerced(event: CStore) -> int:
    return 0xB000


@pytest.fixture
def ae() -> Generator[AE]:
    ae = AE("ME")
    for uid in (Verification, CTImageStorage, FIND):
        ae.add_requested_context(uid, [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
        ae.add_supported_context(uid, EXPLICIT_VR_LITTLE_ENDIAN)
    yield ae
    ae.shutdown()


def identity() -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = 2
    item.primary_field = b"florence"
    item.secondary_field = PASSCODE
    return item


def whole(ae: AE, *handlers: EventHandler, ext_neg: Any = ()) -> None:
    """An association with a C-ECHO, a C-STORE and a C-FIND, released; everything is over afterwards."""
    bound: list[EventHandler] = [(evt.EVT_C_FIND, matches), (evt.EVT_C_STORE, coerced), *handlers]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=bound)
    query = identifier(QueryRetrieveLevel="PATIENT", PatientName="Hopper*", PatientID="QUERY-4711")
    with ae.associate(*server.address, ae_title="YOU", ext_neg=ext_neg) as assoc:
        assoc.send_c_echo()
        assoc.send_c_store(CT)
        list(assoc.send_c_find(query, FIND))
    ae.shutdown()


def plain(lines: list[str]) -> list[str]:
    """The lines without what differs from run to run."""
    shown = [re.sub(r"\d+\.\d{3} s", "T s", re.sub(r"127\.0\.0\.1:\d+", "PEER", line)) for line in lines]
    return [line for line in shown if "Implementation" not in line]


# ---- what is bound


def test_what_is_off_is_not_bound() -> None:
    for level, count in ((logging.WARNING, 0), (logging.INFO, 4), (logging.DEBUG, 10)):
        with logged(level):
            bindings = Bindings()
            bindings.bind_all(observers())
            assert bindings.hub.mask.bit_count() == count
    with logged(logging.WARNING, phi=True):
        assert len(observers()) == 6
    assert observers() == []


def test_nothing_is_built_when_it_is_off(ae: AE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a single record of an event, in either role."""
    built: list[object] = []
    record = EventKind.record

    def counted(kind: EventKind[Any]) -> Any:
        if kind.is_notification:
            built.append(kind)
        return record.__get__(kind)

    monkeypatch.setattr(EventKind, "record", property(counted))
    with logged(logging.WARNING) as log:
        whole(ae)
    assert built == []
    assert log.records == []


# ---- INFO


ACCEPTED = "3 of 3 contexts accepted: 1.2.840.10008.1.1, 1.2.840.10008.5.1.4.1.1.2, 1.2.840.10008.5.1.4.1.2.2.1"


def test_at_info_how_it_began_and_ended(ae: AE) -> None:
    with logged(logging.INFO) as log:
        whole(ae)
    assert plain(log.of("ME-YOU-1")) == [f"INFO association with 'YOU' at PEER, {ACCEPTED}", "INFO released after T s"]
    assert plain(log.of("ME-1")) == [f"INFO association with 'ME' at PEER, {ACCEPTED}", "INFO released after T s"]
    assert len(log.records) == 4


def test_the_structured_fields_of_an_association(ae: AE) -> None:
    ae.add_requested_context(MRImageStorage)
    with logged(logging.INFO) as log:
        whole(ae)
    who = {"calling_ae_title": "ME", "called_ae_title": "YOU", "peer_address": "127.0.0.1"}
    for role, name in (("requestor", "ME-YOU-1"), ("acceptor", "ME-1")):
        for event in ("EVT_ESTABLISHED", "EVT_RELEASED"):
            fields = log.event(event, role=role)
            assert {**who, "association": name, "level": "INFO"}.items() <= fields.items()
            assert isinstance(fields["peer_port"], int)
        assert 0 <= log.event("EVT_RELEASED", role=role)["duration"] < DEADLINE
        established = log.event("EVT_ESTABLISHED", role=role)
        assert established["accepted_contexts"][0] == {
            "context_id": 1,
            "abstract_syntax": "1.2.840.10008.1.1",
            "transfer_syntax": [EXPLICIT_VR_LITTLE_ENDIAN],
            "result": 0,
        }
        (rejected,) = established["rejected_contexts"]
        assert (rejected["abstract_syntax"], rejected["result"]) == (MRImageStorage, 3)


def test_more_than_three_classes_are_counted(ae: AE) -> None:
    ae.add_requested_context(MRImageStorage)
    ae.add_supported_context(MRImageStorage)
    with logged(logging.INFO) as log:
        whole(ae)
    assert log.of("ME-1")[0].endswith(", 1.2.840.10008.5.1.4.1.2.2.1 and 1 more")


def test_a_rejection_in_words(ae: AE) -> None:
    ae.require_called_aet = True
    with logged(logging.DEBUG) as log:
        server = ae.start_server(("127.0.0.1", 0), block=False)
        with pytest.raises(AssociationRejected):
            ae.associate(*server.address, ae_title="NOBODY")
        ae.shutdown()
    words = "rejected permanently: called AE title not recognised (result 1, source 1, reason 7)"
    assert f"INFO {words}" in log.of("ME-NOBODY-1")
    assert f"INFO {words}" in log.of("ME-1")
    assert f"DEBUG received A-ASSOCIATE-RJ: {words}" in log.of("ME-NOBODY-1")
    assert f"DEBUG sent A-ASSOCIATE-RJ: {words}" in log.of("ME-1")
    codes = {"result": 1, "source": 1, "reason": 7, "called_ae_title": "NOBODY"}
    assert codes.items() <= log.event("EVT_REJECTED", role="acceptor").items()


def test_an_abort_in_words_on_both_sides(ae: AE) -> None:
    with logged(logging.DEBUG) as log:
        server = ae.start_server(("127.0.0.1", 0), block=False)
        assoc = ae.associate(*server.address, ae_title="YOU")
        (accepted,) = server.active_associations
        assoc.abort()
        assert accepted.join(DEADLINE)
        assert assoc.join(DEADLINE)
    assert "INFO aborted here: by the service user (source 0, reason 0)" in log.of("ME-YOU-1")
    assert "INFO aborted by the peer: by the service user (source 0, reason 0)" in log.of("ME-1")
    assert "DEBUG received A-ABORT: by the service user (source 0, reason 0)" in log.of("ME-1")
    fields = log.event("EVT_ABORTED", role="acceptor")
    assert (fields["by"], fields["source"], fields["reason"]) == ("peer", 0, 0)
    assert fields["duration"] >= 0


def test_the_cause_of_an_abort(ae: AE) -> None:
    """An association that was not there yet is named, and so is the deadline that passed."""
    ae.acse_timeout = 0.1
    with socket.create_server(("127.0.0.1", 0)) as silent, logged(logging.INFO) as log:
        with pytest.raises(TimeoutError):
            ae.associate(*silent.getsockname(), ae_title="YOU")
        ae.shutdown()
    assert log.of("ME-YOU-1") == ["INFO aborted here: timed out in phase 'association' (source 0, reason 0)"]
    assert log.event("EVT_ABORTED")["cause"] == "timed out in phase 'association'"


def test_no_connection_at_all(ae: AE) -> None:
    with socket.socket() as bound, logged(logging.DEBUG) as log:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError):
            ae.associate(*bound.getsockname(), ae_title="YOU")
    assert any("the connection was lost: cannot connect to 127.0.0.1" in line for line in log.of("ME-YOU-1"))
    assert log.event("EVT_ABORTED")["by"] == "transport"


def release(event: ConnectionClosed, semaphore: threading.Semaphore) -> None:
    semaphore.release()


def test_a_connection_that_asks_for_nothing_is_no_news(ae: AE) -> None:
    """The health check of a load balancer."""
    with logged(logging.INFO) as log:
        closed = threading.Semaphore(0)
        handlers: list[EventHandler] = [(evt.EVT_CONN_CLOSE, release, [closed])]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        for _ in range(3):
            socket.create_connection(server.address).close()
            assert closed.acquire(timeout=DEADLINE)
    assert log.records == []


# ---- DEBUG


EXPLICIT, IMPLICIT = (
    "Explicit VR Little Endian (1.2.840.10008.1.2.1)",
    "Implicit VR Little Endian (1.2.840.10008.1.2)",
)
ECHO, CT_CLASS, QUERY = (
    "Verification SOP Class (1.2.840.10008.1.1)",
    "CT Image Storage (1.2.840.10008.5.1.4.1.1.2)",
    "Study Root Query/Retrieve Information Model - FIND (1.2.840.10008.5.1.4.1.2.2.1)",
)
PROPOSED = f"""
DEBUG sent A-ASSOCIATE-RQ from 'ME' to 'YOU', 3 contexts
DEBUG   Application context          DICOM Application Context Name (1.2.840.10008.3.1.1.1)
DEBUG   Maximum length               131072 bytes
DEBUG   Operations window            4 invoked, 0 performed
DEBUG   Role selection               {CT_CLASS}: requestor SCU and SCP
DEBUG   User identity                type 2, user name and passcode: 8 and 8 bytes
DEBUG   Context 1                    {ECHO}
DEBUG                                  {IMPLICIT}
DEBUG                                  {EXPLICIT}
DEBUG   Context 3                    {CT_CLASS}
DEBUG                                  {IMPLICIT}
DEBUG                                  {EXPLICIT}
DEBUG   Context 5                    {QUERY}
DEBUG                                  {IMPLICIT}
DEBUG                                  {EXPLICIT}
"""
ANSWERED = f"""
DEBUG received A-ASSOCIATE-AC, 2 of 3 contexts accepted
DEBUG   Application context          DICOM Application Context Name (1.2.840.10008.3.1.1.1)
DEBUG   Maximum length               131072 bytes
DEBUG   Role selection               {CT_CLASS}: requestor SCP
DEBUG   Context 1                    Transfer Syntax(es) Not Supported: {ECHO}
DEBUG   Context 3                    Accepted: {CT_CLASS}
DEBUG                                  {EXPLICIT}; here SCP
DEBUG   Context 5                    Accepted: {QUERY}
DEBUG                                  {EXPLICIT}; here SCU
"""


def mirrored(lines: str) -> list[str]:
    """The same, seen from the acceptor."""
    for one, other in (("sent", "received"), ("here SCP", "here SCU")):
        lines = lines.replace(one, "\0").replace(other, one).replace("\0", other)
    return lines.strip().splitlines()


def test_at_debug_what_is_negotiated(ae: AE) -> None:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CTImageStorage, True, True
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 4, 0
    ae.remove_supported_context(Verification)
    ae.add_supported_context(Verification, "1.2.840.10008.1.2.2")
    ae.add_supported_context(CTImageStorage, EXPLICIT_VR_LITTLE_ENDIAN, scu_role=False, scp_role=True)
    with logged(logging.DEBUG) as log:
        server = ae.start_server(("127.0.0.1", 0), block=False)
        items = [role, window, identity()]
        ae.associate(*server.address, ae_title="YOU", ext_neg=items).release()
        ae.shutdown()
    requestor, acceptor = plain(log.of("ME-YOU-1")), plain(log.of("ME-1"))
    opening = [*PROPOSED.strip().splitlines(), *ANSWERED.strip().splitlines()]
    assert requestor[: len(opening) + 1] == ["DEBUG connection to PEER", *opening]
    assert acceptor[: len(opening) + 1] == [
        "DEBUG connection from PEER", *mirrored(PROPOSED), *mirrored(ANSWERED)
    ]  # fmt: skip
    assert [line for line in requestor[-4:] if line != "DEBUG connection closed"][-3:] == [
        "DEBUG sent A-RELEASE-RQ",
        "DEBUG received A-RELEASE-RP",
        "INFO released after T s",
    ]
    assert acceptor[-1] == "DEBUG connection closed"
    assert {"DEBUG received A-RELEASE-RQ", "DEBUG sent A-RELEASE-RP", "INFO released after T s"} <= set(acceptor[-4:])


MESSAGES = f"""
DEBUG sent C-ECHO-RQ 1 in context 1
DEBUG   AffectedSOPClassUID  {ECHO}
DEBUG received C-ECHO-RSP to 1 in context 1: 0x0000 Success, after T s
DEBUG   AffectedSOPClassUID  {ECHO}
DEBUG sent C-STORE-RQ 2 in context 3; dataset of 38850 bytes, {EXPLICIT}
DEBUG   AffectedSOPClassUID     {CT_CLASS}
DEBUG   Priority                low
DEBUG   AffectedSOPInstanceUID  1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322
DEBUG received C-STORE-RSP to 2 in context 3: 0xB000 Warning, stored, with data elements coerced, after T s
DEBUG   AffectedSOPClassUID     {CT_CLASS}
DEBUG   AffectedSOPInstanceUID  1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322
DEBUG sent C-FIND-RQ 3 in context 5; dataset of 50 bytes, {EXPLICIT}
DEBUG   AffectedSOPClassUID  {QUERY}
DEBUG   Priority             low
DEBUG received C-FIND-RSP to 3 in context 5: 0xFF00 Pending, one match; more may follow; dataset of 38 bytes, \
{EXPLICIT}, after T s
DEBUG   AffectedSOPClassUID  {QUERY}
DEBUG received C-FIND-RSP to 3 in context 5: 0x0000 Success, after T s
DEBUG   AffectedSOPClassUID  {QUERY}
"""


def test_at_debug_every_message(ae: AE) -> None:
    with logged(logging.DEBUG) as log:
        whole(ae)
    requestor, acceptor = plain(log.of("ME-YOU-1")), plain(log.of("ME-1"))
    begin, end = requestor.index("DEBUG sent C-ECHO-RQ 1 in context 1"), requestor.index("DEBUG sent A-RELEASE-RQ")
    sizes = re.compile(r"dataset of \d+ bytes")
    expected = [sizes.sub("dataset", line) for line in MESSAGES.strip().splitlines()]
    assert [sizes.sub("dataset", line) for line in requestor[begin:end]] == expected
    begin = acceptor.index("DEBUG received C-ECHO-RQ 1 in context 1")
    end = acceptor.index("DEBUG received A-RELEASE-RQ")
    mirror = [sizes.sub("dataset", line) for line in mirrored(MESSAGES)]
    assert [sizes.sub("dataset", line) for line in acceptor[begin:end]] == mirror


def test_the_structured_fields_of_messages(ae: AE) -> None:
    with logged(logging.DEBUG) as log:
        whole(ae)
    for role, sent, received in (
        ("requestor", "EVT_DIMSE_SENT", "EVT_DIMSE_RECV"),
        ("acceptor", "EVT_DIMSE_RECV", "EVT_DIMSE_SENT"),
    ):
        request = log.event(sent, role=role, message_type="C-STORE-RQ")
        assert {
            "direction": "sent" if role == "requestor" else "received",
            "message_id": 2,
            "context_id": 3,
            "sop_class_uid": CTImageStorage,
            "sop_instance_uid": "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322",
            "dataset_size": len(dataset_bytes(CT)),
            "transfer_syntax": EXPLICIT_VR_LITTLE_ENDIAN,
        }.items() <= request.items()
        assert "status" not in request
        response = log.event(received, role=role, message_type="C-STORE-RSP")
        assert {"message_id": 2, "status": 0xB000, "status_category": "Warning"}.items() <= response.items()
        assert 0 <= response["duration"] < DEADLINE
    details = [each for each in log.fields if each.get("detail")]
    assert details
    assert all(each["association"] and each["event"] and each["message"].count("\n") == 0 for each in details)


# ---- patient data


def failing(event: CFind) -> Iterator[Any]:
    yield 0xFF00, event.identifier
    raise KeyError(f"{event.identifier.PatientID} of {event.identifier.PatientName}")


def store(event: CStore) -> int:
    raise ValueError(f"{event.dataset.PatientName} {event.dataset.PatientID}")


def observing(event: DIMSEReceived) -> None:
    if event.dataset is not None:
        raise LookupError(str(event.dataset))


SECRETS = (NAME, PATIENT, "Hopper", "MATCH-4711", "QUERY-4711", "florence", PASSCODE.decode())


def test_no_patient_in_all_that_is_logged(ae: AE) -> None:
    """Not of datasets, identifiers, exceptions or identities, in both roles, in any form."""
    handlers: list[EventHandler] = [
        (evt.EVT_C_FIND, failing), (evt.EVT_C_STORE, store), (evt.EVT_DIMSE_RECV, observing)
    ]  # fmt: skip
    with logged(logging.DEBUG) as log:
        whole(ae, ext_neg=[identity()])
        whole(ae, *handlers, ext_neg=[identity()])
    assert [secret for secret in SECRETS if secret in log.everything] == []
    errors = [line for line in log.of("ME-1") if line.startswith("ERROR ")]
    assert [re.sub(r" at \S+:\d+", "", line) for line in errors] == [
        f"ERROR exception in observer {__name__}.observing",
        "ERROR the handler raised ValueError; answered 0xC211",
        f"ERROR exception in observer {__name__}.observing",
        "ERROR the handler raised KeyError; answered 0xC311",
    ]
    assert f"{__file__}:" in log.everything


def test_patients_are_shown_to_those_who_ask(ae: AE) -> None:
    with logged(logging.DEBUG, phi=True) as log:
        whole(ae, ext_neg=[identity()])
    shown = "\n".join(line for record in log.records if record.name == "rxdicom.phi" for line in [record.getMessage()])
    for secret in (NAME, PATIENT, "Hopper^Grace", "Hopper*", "MATCH-4711", "QUERY-4711"):
        assert shown.count(secret) == 2, secret
    assert "ME-1: user name: florence" in shown
    assert "ME-YOU-1:   (0010,0020) LO PatientID: 1CT1" in shown
    assert PASSCODE.decode() not in log.everything
    assert "7FE0" not in log.everything
    elsewhere = [repr(vars(record)) for record in log.records if record.name == "rxdicom"]
    assert not [secret for secret in SECRETS for text in elsewhere if secret in text]


def test_patients_are_shown_to_a_file_of_their_own(ae: AE) -> None:
    """With rxdicom.phi at DEBUG, and rxdicom not: nothing of the messages themselves."""
    with logged(logging.ERROR, phi=True) as log:
        whole(ae)
    assert {record.name for record in log.records} == {"rxdicom.phi"}
    assert "MATCH-4711" in log.everything


# ---- events by hand


class Stub:
    """What is compared by identity, as associations are."""


def stub(**fields: Any) -> Any:
    """An association, as far as its journal knows it."""

    peer = SimpleNamespace(ae_title="PEER", address="::1", port=104)
    made = Stub()
    made.__dict__ |= {"name": "ME-1", "is_requestor": False, "requestor": peer, "acceptor": peer, **fields}
    return made


def seen(*events: Any, level: int = logging.DEBUG, phi: bool = False) -> Logged:
    """What observers of these events log."""
    with logged(level, phi=phi) as log:
        bound = dict(observers())  # pyright: ignore
        for event in events:
            bound[event.event](event)  # pyright: ignore
    return log


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def test_durations() -> None:
    assoc, other = stub(accepted_contexts=(), rejected_contexts=()), stub(name="ME-2")
    find = message(Command.C_FIND_RQ, 1, Encoded("1.2", b""), MessageID=7, AffectedSOPClassUID=FIND, Priority=0)
    rsp = message(Command.C_FIND_RSP, 1, MessageIDBeingRespondedTo=7, Status=0xFE00)
    log = seen(
        Established(assoc=assoc, timestamp=at(0)),
        DIMSEReceived(assoc=assoc, message=find, timestamp=at(1)),
        DIMSESent(assoc=other, message=rsp, timestamp=at(1.5)),
        DIMSEReceived(assoc=assoc, message=rsp, timestamp=at(1.6)),
        DIMSESent(assoc=assoc, message=rsp, timestamp=at(3.25)),
        DIMSESent(assoc=assoc, message=rsp, timestamp=at(0.5)),
        Released(assoc=other, timestamp=at(4)),
        Released(assoc=assoc, timestamp=at(10)),
    )
    assert [each.get("duration") for each in log.fields if "detail" not in each] == [
        None, None, None, None, 2.25, 0.0, None, 10.0
    ]  # fmt: skip
    assert log.of("ME-2")[-1] == "INFO released"


def test_an_acceptor_that_accepts_nothing() -> None:
    context = SimpleNamespace(context_id=1, abstract_syntax="1.2", transfer_syntax=("1.3",), result=3)
    assoc = stub(accepted_contexts=(), rejected_contexts=(context,))
    log = seen(Established(assoc=assoc), level=logging.INFO)
    assert log.lines[0].endswith(", 0 of 1 contexts accepted")


def hostile_request(contexts: int = 1, syntaxes: int = 1) -> AssociateRQ:
    items = (
        ImplementationVersionName(HOSTILE),
        SOPClassExtended(HOSTILE, b"\r\n\x1b"),
        SOPClassCommonExtended(HOSTILE, HOSTILE, (HOSTILE,) * 100),
        UserIdentity(9, True, b"\r\nsecret"),
        UserIdentity(1, True, b"\r\nflorence\xff"),
    )
    proposed = tuple(
        PresentationContextRQ(2 * number + 1, HOSTILE, (HOSTILE * 100,) * syntaxes) for number in range(contexts)
    )
    return AssociateRQ(HOSTILE, HOSTILE, items, HOSTILE, 0x8000, presentation_contexts=proposed)


def hostile_events() -> list[Any]:
    peer = SimpleNamespace(ae_title=HOSTILE, address=HOSTILE, port=104)
    assoc = stub(name=f"ME{HOSTILE}", requestor=peer, acceptor=peer)
    command = {
        "CommandField": 0x8021,
        "MessageIDBeingRespondedTo": 1,
        "Status": 0xA801,
        "ErrorComment": HOSTILE * 1000,
        "AffectedSOPClassUID": HOSTILE,
        "AffectedSOPInstanceUID": HOSTILE,
        "OffendingElement": tuple(range(16000)),
        "MoveDestination": HOSTILE,
        "Priority": 9,
    }
    request = hostile_request(128, 300)
    answer = AssociateAC(HOSTILE, HOSTILE, request.user_information, HOSTILE)
    return [
        ACSEReceived(assoc=assoc, primitive=request),
        ACSESent(assoc=assoc, primitive=answer),
        DIMSEReceived(assoc=assoc, message=message_of(command)),
        Rejected(assoc=assoc, result=9, source=9, reason=9),
        Aborted(assoc=assoc, source=9, reason=9, by="peer", cause=HOSTILE * 1000),
        ACSEReceived(assoc=assoc, primitive=AssociateRJ(9, 9, 9)),
        ACSEReceived(assoc=assoc, primitive=Abort(9, 9)),
    ]


def message_of(command: dict[str, Any]) -> Any:
    from rxdicom.wire.dimse import Message

    return Message(command, 1, Encoded(HOSTILE, b"\r\n"))


def test_hostile_text_stays_in_its_line_and_is_bounded() -> None:
    for phi in (False, True):
        log = seen(*hostile_events(), phi=phi)
        for record in log.records:
            assert record.getMessage().isprintable(), record.getMessage()
            assert len(record.getMessage()) < 3000
            name = vars(record)["association"]
            assert (name, record.getMessage().startswith(f"{name}: ")) == ("ME\\r\\n\\x1b[2JERROR x", True)
            for value in vars(record).values():
                assert not isinstance(value, str) or value.isprintable(), value
        assert len(log.records) < 1500
        assert ("florence\\xff" in log.everything) == phi
        assert "secret" not in log.everything


def test_codes_that_no_table_has_are_shown_as_they_are() -> None:
    lines = seen(*hostile_events()).lines
    assert any("rejected with result 9: source 9, reason 9 (result 9, source 9, reason 9)" in line for line in lines)
    assert any("A-ABORT: reason 9 (source 9, reason 9)" in line for line in lines)


def test_an_answer_to_a_request_that_was_not_seen() -> None:
    """Observers that are bound in mid-association."""
    from rxdicom.wire.items import PresentationContextAC

    answer = AssociateAC("YOU", "ME", presentation_contexts=(PresentationContextAC(1, 0, "1.2.840.10008.1.2"),))
    lines = seen(ACSESent(assoc=stub(), primitive=answer)).lines
    assert lines[0] == "DEBUG ME-1: sent A-ASSOCIATE-AC, 1 of 1 contexts accepted"
    assert any(IMPLICIT in line for line in lines)


def excerpt_of(data: bytes | None, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, **fields: Any) -> list[str]:
    encoded = Encoded(syntax, data, **fields)
    sent = message(Command.C_FIND_RQ, 1, encoded, MessageID=1, AffectedSOPClassUID=FIND, Priority=0)
    log = seen(DIMSESent(assoc=stub(), message=sent), phi=True)
    lines = [record.getMessage() for record in log.records if record.name == "rxdicom.phi"]
    assert lines[0] == "ME-1: the dataset of C-FIND-RQ:"
    return [line.removeprefix("ME-1:   ") for line in lines[1:]]


def test_the_excerpt_of_a_dataset() -> None:
    from rxdicom.events.datasets import encode

    inner = identifier(PatientID="INNER")
    inner.add_new(0x7FE00010, "OW", b"\1\2" * 8)  # pyright: ignore[reportUnknownMemberType]
    made = identifier(PatientName=f"Hopper{'x' * 100}", PatientComments="two\nlines\x1b", StudyDescription="")
    made.OtherPatientIDsSequence = [inner]
    made.add_new(0x00091001, "OB", b"private!")  # pyright: ignore[reportUnknownMemberType]
    made.add_new(0x7FE00010, "OW", b"\1\2" * 8)  # pyright: ignore[reportUnknownMemberType]
    made.PatientAge = None
    shown = [
        "(0008,1030) LO StudyDescription: ",
        "(0009,1001) OB ? of 8 bytes",
        f"(0010,0010) PN PatientName: Hopper{'x' * 58}... (42 more characters)",
        "(0010,1002) SQ OtherPatientIDsSequence of 1 items",
        "  item 1",
        "  (0010,0020) LO PatientID: INNER",
        "(0010,1010) AS PatientAge: ",
        "(0010,4000) LT PatientComments: two\\nlines\\x1b",
    ]
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, *EXPLICIT_SYNTAXES):
        lines = excerpt_of(encode(made, syntax), syntax)
        assert [line.replace("UN ?", "OB ?") for line in lines] == shown, syntax


def test_an_excerpt_is_bounded_and_reads_the_head_only(tmp_path: Any) -> None:
    from rxdicom.events.datasets import encode

    many = Dataset()
    for number in range(300):
        many.add_new(0x00090000 + 0x1000 + number, "LO", f"value {number}")  # pyright: ignore
    assert len(excerpt_of(encode(many, EXPLICIT_VR_LITTLE_ENDIAN))) == 101
    assert excerpt_of(encode(many, EXPLICIT_VR_LITTLE_ENDIAN))[-1] == "and more"
    large = identifier(PatientID="4711")
    large.add_new(0x00420011, "OB", bytes(1 << 20))  # pyright: ignore[reportUnknownMemberType]
    data = encode(large, EXPLICIT_VR_LITTLE_ENDIAN)
    path = tmp_path / "spooled"
    path.write_bytes(b"head" + data)
    for lines in (
        excerpt_of(data),
        excerpt_of(None, path=str(path), offset=4, size=len(data)),
    ):
        assert lines[0] == "(0010,0020) LO PatientID: 4711"
        assert lines[-1] == "and more"


def test_an_excerpt_of_what_cannot_be_read_says_so() -> None:
    assert excerpt_of(None, error=OSError(28, "full")) == [
        "not readable: DatasetError: the dataset was not kept: [Errno 28] full"
    ]
    assert excerpt_of(None, path="/nowhere/x", size=4) == ["not readable: FileNotFoundError: No such file or directory"]
    (line,) = excerpt_of(b"\xff" * 9, "1.2.840.10008.1.2.1.99")
    assert line.startswith("not readable: error at ")
    for junk in (b"\x10\0\x10\0XX\4\0DOE^", b"\x08\0\x05\0CS\x04\0XXXX\x10\0\x10\0PN\4\0\xe4\xff\0\0", b"\x08\0"):
        assert all(line.isprintable() for line in excerpt_of(junk))


def test_logging_does_not_touch_what_handlers_see() -> None:
    from rxdicom.events.datasets import decode, encode

    encoded = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, encode(identifier(PatientName="Hopper"), EXPLICIT_VR_LITTLE_ENDIAN))
    sent = message(Command.C_FIND_RQ, 1, encoded, MessageID=1, AffectedSOPClassUID=FIND, Priority=0)
    seen(DIMSESent(assoc=stub(), message=sent), phi=True)
    element: Any = decode(encoded).get_item(0x00100010)
    assert element.is_raw
    assert LOG.level == logging.NOTSET
