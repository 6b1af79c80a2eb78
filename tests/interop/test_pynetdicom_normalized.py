"""pynetdicom in both roles: every N service of every SOP class that has them, and storage commitment."""

import itertools
from collections.abc import Generator
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import build_role as their_role
from pynetdicom import evt as their_evt

from rxdicom import AE, Association, AssociationServer, build_role, evt
from rxdicom.service_class import (
    ApplicationEventLoggingServiceClass,
    DisplaySystemManagementServiceClass,
    InstanceAvailabilityNotificationServiceClass,
    MediaCreationManagementServiceClass,
    PrintManagementServiceClass,
    ProcedureStepServiceClass,
    RTMachineVerificationServiceClass,
    StorageCommitmentServiceClass,
    StorageManagementServiceClass,
    UnifiedProcedureStepServiceClass,
)
from rxdicom.sop_class import (
    BasicFilmSession,
    BasicGrayscalePrintManagementMeta,
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    sop_classes,
    uid_to_sop_class,
)
from tests.interop.memory import identifier
from tests.interop.theirs import associated, serving, settle

# How many SOP classes each service has.
SERVICES = {
    ApplicationEventLoggingServiceClass: 2,
    DisplaySystemManagementServiceClass: 1,
    InstanceAvailabilityNotificationServiceClass: 1,
    MediaCreationManagementServiceClass: 1,
    PrintManagementServiceClass: 11,
    ProcedureStepServiceClass: 3,
    RTMachineVerificationServiceClass: 2,
    StorageCommitmentServiceClass: 1,
    StorageManagementServiceClass: 1,
    UnifiedProcedureStepServiceClass: 5,
}
CLASSES = {str(uid): service.operations for service in SERVICES for uid in sop_classes(service)}
"""The operations of each SOP class, C-FIND of Unified Procedure Step among them."""
EVERY = [pytest.param(uid, id=uid_to_sop_class(uid).keyword) for uid in CLASSES]

COMMITMENT = str(StorageCommitmentPushModel)
MPPS = str(ModalityPerformedProcedureStep)
INSTANCE = "1.2.3.4"
GIVEN, REPLY = identifier(PatientName="Given^One"), identifier(PatientName="Reply^One")
TAGS = [0x00100010, 0x00100020]

# ---- the six services, by names and elements that are the same on both sides


def call_all(assoc: Any, uid: str) -> dict[str, tuple[int, Dataset | None]]:
    """Send, over an association of either side, all that the SOP class has its SCU ask for; the answers."""
    answers: dict[str, tuple[int, Dataset | None]] = {}
    calls: dict[str, Any] = {
        "N-CREATE": lambda: assoc.send_n_create(GIVEN, uid, INSTANCE),
        "N-GET": lambda: assoc.send_n_get(TAGS, uid, INSTANCE),
        "N-SET": lambda: assoc.send_n_set(GIVEN, uid, INSTANCE),
        "N-ACTION": lambda: assoc.send_n_action(GIVEN, 3, uid, INSTANCE),
        "N-DELETE": lambda: (assoc.send_n_delete(uid, INSTANCE), None),
    }
    for name in CLASSES[uid]:
        if name in calls:
            status, given = calls[name]()
            answers[name] = number(status), given
            between(assoc)
    return answers


def between(assoc: Any) -> None:
    """What has to be done between two requests over an association of either side."""
    if not isinstance(assoc, Association):
        settle(assoc)


def number(status: Any) -> int:
    return int(status.Status)


def seen(event: Any) -> Any:
    """What a handler of either side is told."""
    request = event.request
    match event.event.name:
        case "EVT_N_GET":
            return [int(tag) for tag in event.attribute_identifiers]
        case "EVT_N_DELETE":
            return request.RequestedSOPInstanceUID
        case "EVT_N_ACTION":
            return event.action_type, event.action_information
        case "EVT_N_SET":
            return event.modification_list
        case "EVT_N_EVENT_REPORT":
            return event.event_type, event.event_information
        case _:
            return request.AffectedSOPInstanceUID, event.attribute_list


SEEN = {
    "N-CREATE": (INSTANCE, GIVEN),
    "N-GET": TAGS,
    "N-SET": GIVEN,
    "N-ACTION": (3, GIVEN),
    "N-DELETE": INSTANCE,
    "N-EVENT-REPORT": (5, GIVEN),
}


def handlers(events: Any, noted: dict[str, Any]) -> list[Any]:
    """Handlers for all six services, of either side."""

    def answer(event: Any) -> Any:
        name = event.event.name.removeprefix("EVT_").replace("_", "-")
        noted[name] = seen(event)
        return 0x0000 if name == "N-DELETE" else (0x0000, REPLY)

    return [(getattr(events, f"EVT_{name.replace('-', '_')}"), answer) for name in SEEN]


def expected(uid: str) -> dict[str, tuple[int, Dataset | None]]:
    """The answers to all requests of a SOP class."""
    names = [name for name in CLASSES[uid] if name.startswith("N-") and name != "N-EVENT-REPORT"]
    return {name: (0x0000, None if name == "N-DELETE" else REPLY) for name in names}


def test_they_are_all_here() -> None:
    assert {service: len(sop_classes(service)) for service in SERVICES} == SERVICES
    assert {name for names in CLASSES.values() for name in names} == {*SEEN, "C-FIND"}


# ---- ours to theirs


@pytest.fixture(scope="module")
def theirs() -> Generator[tuple[Any, dict[str, Any]]]:
    """A server of theirs, and what its handlers were told."""
    noted: dict[str, Any] = {}
    with serving(handlers(their_evt, noted), *CLASSES) as server:
        yield server, noted


@pytest.mark.parametrize("uid", EVERY)
def test_ours_to_theirs(theirs: tuple[Any, dict[str, Any]], uid: str) -> None:
    """All that an SCU asks for; then they report an event to it."""
    server, noted = theirs
    noted.clear()
    own: dict[str, Any] = {}
    ae = AE()
    ae.add_requested_context(uid)
    with ae.associate(*server.server_address, evt_handlers=handlers(evt, own)) as assoc:
        assert call_all(assoc, uid) == expected(uid)
        if "N-EVENT-REPORT" in CLASSES[uid]:
            status, reply = server.active_associations[-1].send_n_event_report(GIVEN, 5, uid, INSTANCE)
            assert (number(status), reply) == (0x0000, REPLY)
            assert own == {"N-EVENT-REPORT": SEEN["N-EVENT-REPORT"]}
    assert noted == {name: SEEN[name] for name in expected(uid)}


# ---- theirs to ours


@pytest.fixture(scope="module")
def ours() -> Generator[tuple[AssociationServer, dict[str, Any]]]:
    """A server of ours, and what its handlers were told."""
    noted: dict[str, Any] = {}
    ae = AE()
    for uid in CLASSES:
        ae.add_supported_context(uid)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers(evt, noted)) as server:
        yield server, noted


@pytest.mark.parametrize("uid", EVERY)
def test_theirs_to_ours(ours: tuple[AssociationServer, dict[str, Any]], uid: str) -> None:
    """All that an SCU asks for; then we report an event to it."""
    server, noted = ours
    noted.clear()
    own: dict[str, Any] = {}
    with associated(server.address, uid, evt_handlers=handlers(their_evt, own)) as assoc:
        assert call_all(assoc, uid) == expected(uid)
        if "N-EVENT-REPORT" in CLASSES[uid]:
            [mine] = server.active_associations
            assert mine.send_n_event_report(GIVEN, 5, uid, INSTANCE) == (0x0000, REPLY)
            assert own == {"N-EVENT-REPORT": SEEN["N-EVENT-REPORT"]}
    assert noted == {name: SEEN[name] for name in expected(uid)}


# ---- what is particular


def test_meta_sop_classes(theirs: tuple[Any, dict[str, Any]], ours: tuple[AssociationServer, dict[str, Any]]) -> None:
    """The context of a meta SOP class carries requests for those that it is made of."""
    meta, session = str(BasicGrayscalePrintManagementMeta), str(BasicFilmSession)
    ae = AE()
    ae.add_requested_context(meta)
    with associated(ours[0].address, meta) as their_one, ae.associate(*theirs[0].server_address) as our_one:
        associations: tuple[Any, ...] = (their_one, our_one)
        for assoc in associations:
            status, reply = assoc.send_n_create(GIVEN, session, INSTANCE, meta_uid=meta)
            assert (number(status), reply) == (0x0000, REPLY)
            between(assoc)
            assert number(assoc.send_n_delete(session, INSTANCE, meta_uid=meta)) == 0x0000


def own(*sop_classes: str) -> AE:
    """An AE of ours that requests and supports these."""
    ae = AE()
    for uid in sop_classes:
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    return ae


def test_the_performer_names_the_instance() -> None:
    """An N-CREATE without SOP instance: each side's handler gives one, in its own way."""

    def on_create(event: Any) -> tuple[int, Dataset]:
        assert event.request.AffectedSOPInstanceUID is None
        return 0x0000, identifier(AffectedSOPInstanceUID="1.2.9", PatientName="Reply^One")

    given: list[str] = []

    def on_message(event: Any) -> None:
        given.append(str(event.message.command_set.AffectedSOPInstanceUID))

    ae = own(MPPS)
    handler = (evt.EVT_N_CREATE, on_create)
    with (
        serving([(their_evt.EVT_N_CREATE, on_create)], MPPS) as their_server,
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[handler]) as our_server,
    ):
        with associated(our_server.address, MPPS, evt_handlers=[(their_evt.EVT_DIMSE_RECV, on_message)]) as assoc:
            assert number(assoc.send_n_create(GIVEN, MPPS)[0]) == 0x0000
        with ae.associate(*their_server.server_address) as assoc:
            status, reply = assoc.send_n_create(GIVEN, MPPS)
    assert given == ["1.2.9"]
    assert (status, status.AffectedSOPInstanceUID) == (0x0000, "1.2.9")
    assert reply is not None
    assert reply.PatientName == "Reply^One"


FAILURES = [0x0105, 0x0112, 0x0213, 0x0110]


def test_failures_with_a_comment() -> None:
    """A status dataset of a handler arrives with its comment, and without a dataset, on both sides."""

    def fail(event: Any) -> tuple[Dataset, None]:
        return identifier(Status=int(event.modification_list.InstanceNumber), ErrorComment="on purpose"), None

    ae = own(MPPS)
    with (
        serving([(their_evt.EVT_N_SET, fail)], MPPS) as their_server,
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_SET, fail)]) as our_server,
        associated(our_server.address, MPPS) as their_one,
        ae.associate(*their_server.server_address) as our_one,
    ):
        associations: tuple[Any, ...] = (their_one, our_one)
        for assoc, code in itertools.product(associations, FAILURES):
            status, reply = assoc.send_n_set(identifier(InstanceNumber=code), MPPS, INSTANCE)
            assert (number(status), status.ErrorComment, reply) == (code, "on purpose", None)
            between(assoc)


# ---- storage commitment with reversed roles


def commitment() -> Dataset:
    item = identifier(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.2", ReferencedSOPInstanceUID="1.2.3")
    return identifier(TransactionUID="1.2.3.4.5", ReferencedSOPSequence=[item])


def agree(event: Any) -> tuple[int, None]:
    """An N-ACTION handler of either side."""
    assert event.action_information == commitment()
    return 0x0000, None


def test_storage_commitment_of_theirs_over_another_association() -> None:
    """We ask them and are over; they associate with us as SCP, and report."""
    reports: list[Any] = []

    def on_report(event: Any) -> tuple[int, None]:
        reports.append((event.event_type, event.event_information, event.context.as_scu, event.context.as_scp))
        return 0x0000, None

    ae = AE()
    ae.add_requested_context(COMMITMENT)
    ae.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    well_known = str(StorageCommitmentPushModelInstance)
    with (
        serving([(their_evt.EVT_N_ACTION, agree)], COMMITMENT) as their_server,
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]) as server,
    ):
        with ae.associate(*their_server.server_address) as assoc:
            assert assoc.send_n_action(commitment(), 1, COMMITMENT, well_known) == (0x0000, None)
        with associated(server.address, COMMITMENT, ext_neg=[their_role(COMMITMENT, scp_role=True)]) as reporting:
            status, _ = reporting.send_n_event_report(commitment(), 1, COMMITMENT, well_known)
    assert number(status) == 0x0000
    assert reports == [(1, commitment(), True, False)]


def test_storage_commitment_of_ours_over_another_association() -> None:
    """They ask us and are over; we associate with them as SCP, and report."""
    reports: list[Any] = []

    def on_report(event: Any) -> tuple[int, None]:
        reports.append((event.event_type, event.event_information))
        return 0x0000, None

    ae = own(COMMITMENT)
    well_known = str(StorageCommitmentPushModelInstance)
    roles = {COMMITMENT: (False, True)}
    with (
        serving([(their_evt.EVT_N_EVENT_REPORT, on_report)], roles=roles) as their_server,
        ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, agree)]) as server,
    ):
        with associated(server.address, COMMITMENT) as asking:
            status, _ = asking.send_n_action(commitment(), 1, COMMITMENT, well_known)
        role = build_role(COMMITMENT, scp_role=True)
        with ae.associate(*their_server.server_address, ext_neg=[role]) as assoc:
            assert [(each.as_scu, each.as_scp) for each in assoc.accepted_contexts] == [(False, True)]
            assert assoc.send_n_event_report(commitment(), 1, COMMITMENT, well_known) == (0x0000, None)
    assert number(status) == 0x0000
    assert reports == [(1, commitment())]
