"""The life of an association through the public API: opening, requests, events, endings, in both roles."""

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import (
    AE,
    Association,
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    AssociationServer,
    ConnectionFailed,
    InvalidFile,
    LocalUsageError,
    NoAcceptedContext,
    StateError,
    build_role,
    evt,
)
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CStore, Event, UserID
from rxdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from rxdicom.sop_class import CTImageStorage, MRImageStorage
from rxdicom.wire.items import RoleSelection, SOPClassExtended, UserIdentityResponse
from rxdicom.wire.pdu import AssociateAC, AssociateRQ
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from tests.ports import free_port
from tests.support import DEADLINE, FILES, dataset_bytes, read

CT = FILES / "CT_small.dcm"


@pytest.fixture
def ae() -> Generator[AE]:
    """An AE that requests and supports C-ECHO and CT images."""
    ae = AE("ME")
    for uid in (VERIFICATION, CTImageStorage, MRImageStorage):
        ae.add_requested_context(uid, EXPLICIT_VR_LITTLE_ENDIAN)
        ae.add_supported_context(uid, [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
    yield ae
    ae.shutdown()


def start(ae: AE, *handlers: EventHandler, **options: Any) -> AssociationServer:
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers), workers=None, **options)


# ---- opening and ending


def test_open_echo_release(ae: AE) -> None:
    server = start(ae)
    with ae.associate(*server.address, ae_title="YOU") as assoc:
        assert assoc.is_established
        assert assoc.is_requestor
        assert assoc in ae.active_associations
        assert len(server.active_associations) == 1
        accepted = server.active_associations[0]
        assert accepted.is_acceptor
        assert (accepted.requestor.ae_title, accepted.acceptor.ae_title) == ("ME", "YOU")
        assert (assoc.requestor.ae_title, assoc.acceptor.ae_title) == ("ME", "YOU")
        assert assoc.acceptor.port == server.address[1] == accepted.acceptor.port
        assert [cx.abstract_syntax for cx in assoc.accepted_contexts] == [VERIFICATION, CTImageStorage, MRImageStorage]
        status = assoc.send_c_echo()
        assert status == 0x0000
        assert status
        assert status.category == "Success"
    assert assoc.is_released
    assert not assoc.is_established
    assert accepted.join(DEADLINE)
    assert accepted.is_released
    with pytest.raises(AssociationReleased):
        assoc.send_c_echo()


def test_leaving_by_an_exception_aborts(ae: AE) -> None:
    server = start(ae)
    aborted = threading.Event()
    server.bind(evt.EVT_ABORTED, lambda event: aborted.set())
    with pytest.raises(ZeroDivisionError), ae.associate(*server.address) as assoc:
        _ = 1 / 0
    assert assoc.is_aborted
    assert aborted.wait(DEADLINE)
    with pytest.raises(AssociationAborted):
        assoc.send_c_echo()


def test_release_and_abort_twice_do_nothing(ae: AE) -> None:
    server = start(ae)
    assoc = ae.associate(*server.address)
    assoc.release()
    assoc.release()
    assoc.abort()
    assert assoc.is_released
    assert not assoc.is_aborted


def test_the_peer_releases_or_aborts(ae: AE) -> None:
    server = start(ae)
    first, second = ae.associate(*server.address), ae.associate(*server.address)
    one, two = sorted(server.active_associations, key=lambda each: each.name)
    one.release()
    two.abort()
    assert first.join(DEADLINE)
    assert second.join(DEADLINE)
    assert first.is_released
    assert second.is_aborted
    with pytest.raises(AssociationAborted, match="by the peer"):
        second.send_c_echo()


def test_not_opened_twice(ae: AE) -> None:
    server = start(ae)
    assoc = ae.association(*server.address)
    with pytest.raises(StateError, match="open"):
        assoc.send_c_echo()
    with assoc:
        assert assoc.send_c_echo() == 0
    with pytest.raises(StateError):
        assoc.open()


def test_connection_failures_are_typed(ae: AE) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        ae.associate("127.0.0.1", free_port())
    with pytest.raises(ConnectionFailed, match="unknown host"):
        ae.associate("host.invalid", 104)
    with pytest.raises(LocalUsageError, match="port"):
        ae.associate("127.0.0.1", 0)
    assert not ae.active_associations


def test_rejections(ae: AE) -> None:
    ae.require_called_aet = True
    server = start(ae)
    rejected: list[Any] = []
    with pytest.raises(AssociationRejected, match="called AE title") as caught:
        ae.associate(*server.address, ae_title="WRONG", evt_handlers=[(evt.EVT_REJECTED, rejected.append)])
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 1, 7)
    assert [(each.result, each.source, each.reason) for each in rejected] == [(1, 1, 7)]
    assert rejected[0].assoc.is_rejected
    ae.require_called_aet = False
    ae.require_calling_aet = ["OTHER"]
    with pytest.raises(AssociationRejected, match="calling AE title"):
        ae.associate(*start(ae).address)


def test_no_accepted_context(ae: AE) -> None:
    other = AE()
    other.add_requested_context("1.2.3")
    server = start(ae)
    with pytest.raises(NoAcceptedContext, match=r"1\.2\.3") as caught:
        other.associate(*server.address)
    assert caught.value.proposed == ("1.2.3",)
    with ae.associate(*server.address) as assoc, pytest.raises(NoAcceptedContext):
        assoc.send_c_store(FILES / "reportsi.dcm")


def test_nothing_requested_nothing_supported() -> None:
    with pytest.raises(LocalUsageError, match="requested"):
        AE().associate("127.0.0.1", 104)
    with pytest.raises(LocalUsageError, match="supported"):
        AE().start_server(("127.0.0.1", 0), block=False)


# ---- C-STORE


def collect(into: list[CStore], status: Any = 0x0000) -> Any:
    def on_store(event: CStore) -> Any:
        into.append(event)
        return status

    return (evt.EVT_C_STORE, on_store)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_store(ae: AE, as_dataset: bool) -> None:
    events: list[CStore] = []
    server = start(ae, collect(events))
    with ae.associate(*server.address) as assoc:
        status = assoc.send_c_store(read(CT) if as_dataset else CT, priority=1, originator_aet="THEM", originator_id=9)
    assert status == 0x0000
    event = events[0]
    assert event.dataset == read(CT)
    assert event.dataset is event.dataset
    assert event.request.Priority == 1
    assert event.request.MoveOriginatorApplicationEntityTitle == "THEM"
    assert event.request.MoveOriginatorMessageID == 9
    assert event.context.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN
    assert event.file_meta.SourceApplicationEntityTitle == "ME"
    assert event.assoc.requestor.ae_title == "ME"
    assert event.timestamp.tzinfo is not None


def test_a_path_is_sent_as_it_lies(ae: AE, tmp_path: Path) -> None:
    def save(event: CStore) -> int:
        event.save(tmp_path / "stored.dcm")
        return 0x0000

    with ae.associate(*start(ae, (evt.EVT_C_STORE, save)).address) as assoc:
        assert assoc.send_c_store(str(CT)) == 0x0000
    assert dataset_bytes(tmp_path / "stored.dcm") == dataset_bytes(CT)
    assert [path.name for path in tmp_path.iterdir()] == ["stored.dcm"]
    assert read(tmp_path / "stored.dcm") == read(CT)


@pytest.mark.parametrize("memory", [0, 100, 1 << 20])
def test_large_ones_are_spooled_and_saving_is_a_rename(ae: AE, tmp_path: Path, memory: int) -> None:
    from attrs import evolve

    ae.limits = evolve(ae.limits, memory=memory)
    ae.spool_folder = str(tmp_path)
    paths: list[str | None] = []

    def save(event: CStore) -> int:
        paths.append(event.path)
        assert event.dataset == read(CT)
        if event.message_id % 2:
            event.save(tmp_path / "stored.dcm")
        return 0x0000

    with ae.associate(*start(ae, (evt.EVT_C_STORE, save)).address) as assoc:
        for message_id in (1, 2):
            assert assoc.send_c_store(CT, msg_id=message_id) == 0x0000
    assert [path is not None for path in paths] == [memory < 1000] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["stored.dcm"]
    assert dataset_bytes(tmp_path / "stored.dcm") == dataset_bytes(CT)


@pytest.mark.parametrize(
    "accepted", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]
)
@pytest.mark.parametrize("as_dataset", [False, True])
def test_conversion_to_what_was_accepted(accepted: str, as_dataset: bool) -> None:
    events: list[CStore] = []
    ae = AE()
    ae.add_requested_context(CTImageStorage, accepted)
    ae.accept_any_storage = True
    with start(ae, collect(events)) as server:
        with ae.associate(*server.address) as assoc:
            assert assoc.send_c_store(read(CT) if as_dataset else CT) == 0x0000
        assert events[0].context.transfer_syntax == accepted
        received = events[0].dataset
        received.file_meta = events[0].file_meta
        assert (received.pixel_array == read(CT).pixel_array).all()
        assert received.PatientName == read(CT).PatientName
        ae.convert_datasets = False
        with ae.associate(*server.address) as assoc, pytest.raises(NoAcceptedContext, match=EXPLICIT_VR_LITTLE_ENDIAN):
            assoc.send_c_store(read(CT) if as_dataset else CT)


def test_what_cannot_be_stored(ae: AE, tmp_path: Path) -> None:
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM at all")
    with ae.associate(*start(ae, collect([])).address) as assoc:
        with pytest.raises(InvalidFile, match=r"text\.dcm"):
            assoc.send_c_store(text)
        with pytest.raises(FileNotFoundError):
            assoc.send_c_store(tmp_path / "missing.dcm")
        with pytest.raises(LocalUsageError, match="SOPClassUID"):
            assoc.send_c_store(Dataset())
        with pytest.raises(LocalUsageError, match="priority"):
            assoc.send_c_store(CT, priority=7)
        assert assoc.send_c_store(CT) == 0x0000


DEFAULT = object()


def failing(event: CStore) -> int:
    raise KeyError(event.name)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (DEFAULT, 0xC211),
        (None, 0xC002),
        (failing, 0xC211),
        (0xB000, 0xB000),
        ("done", 0xC002),
        (1.5, 0xC002),
        (True, 0xC002),
        (-1, 0xC002),
        (65536, 0xC002),
        (Dataset(), 0xC001),
    ],
)
def test_what_a_handler_does_wrong_is_a_status(ae: AE, answer: Any, status: int) -> None:
    handlers = [collect([], answer)]
    if answer is DEFAULT:
        handlers = []
    elif callable(answer):
        handlers = [(evt.EVT_C_STORE, answer)]
    server = start(ae, *handlers)
    with ae.associate(*server.address) as assoc:
        assert assoc.send_c_store(CT) == status
        assert assoc.send_c_echo() == 0x0000


def test_a_status_dataset_brings_its_elements(ae: AE) -> None:
    status = Dataset()
    status.Status = 0xA900
    status.ErrorComment = "no such patient"
    status.OffendingElement = [0x00100020]
    with ae.associate(*start(ae, collect([], status)).address) as assoc:
        answer = assoc.send_c_store(CT)
    assert (answer, answer.category, answer.ErrorComment) == (0xA900, "Failure", "no such patient")
    assert answer.OffendingElement == (0x00100020,)
    assert answer.AffectedSOPInstanceUID == read(CT).SOPInstanceUID
    assert answer.description


def test_message_ids(ae: AE) -> None:
    ids: list[int] = []

    def on_echo(event: Any) -> int:
        ids.append(event.message_id)
        return 0x0000

    with ae.associate(*start(ae, (evt.EVT_C_ECHO, on_echo)).address) as assoc:
        for msg_id in (None, None, 77, None):
            assoc.send_c_echo(msg_id)
        with pytest.raises(LocalUsageError, match="65536"):
            assoc.send_c_echo(65536)
    assert ids == [1, 2, 77, 3]


# ---- events


def names(events: list[Event], *kinds: Any) -> list[str]:
    return [event.name.removeprefix("EVT_") for event in events if event.event in kinds]


def record_all(into: list[Any]) -> list[Any]:
    return [(kind, into.append) for kind in evt.NOTIFICATION_KINDS]


def test_all_events_fire_in_both_roles_in_order(ae: AE) -> None:
    requestor: list[Any] = []
    acceptor: list[Any] = []
    server = start(ae, *record_all(acceptor), collect([]))
    with ae.associate(*server.address, evt_handlers=record_all(requestor)) as assoc:
        assoc.send_c_echo()
        peer = server.active_associations[0]
    assert assoc.join(DEADLINE)
    assert peer.join(DEADLINE)
    never = {evt.EVT_REJECTED, evt.EVT_ABORTED}
    for events in (requestor, acceptor):
        assert {event.event for event in events} == set(evt.NOTIFICATION_KINDS) - never
        milestones = names(
            events, evt.EVT_CONN_OPEN, evt.EVT_REQUESTED, evt.EVT_ACCEPTED, evt.EVT_ESTABLISHED, evt.EVT_DIMSE_RECV,
            evt.EVT_DIMSE_SENT, evt.EVT_RELEASED, evt.EVT_CONN_CLOSE,
        )  # fmt: skip
        messages = ["DIMSE_SENT", "DIMSE_RECV"] if events is requestor else ["DIMSE_RECV", "DIMSE_SENT"]
        assert milestones == [
            "CONN_OPEN", "REQUESTED", "ACCEPTED", "ESTABLISHED", *messages, "RELEASED", "CONN_CLOSE",
        ]  # fmt: skip
        assert [event.timestamp for event in events] == sorted(event.timestamp for event in events)
    transitions = [event for event in requestor if event.event is evt.EVT_FSM_TRANSITION]
    steps = [(each.current_state, each.fsm_event, each.action, each.next_state) for each in transitions]
    assert steps == [
        ("Sta1", "Evt1", "AE-1", "Sta4"),
        ("Sta4", "Evt2", "AE-2", "Sta5"),
        ("Sta5", "Evt3", "AE-3", "Sta6"),
        ("Sta6", "Evt9", "DT-1", "Sta6"),
        ("Sta6", "Evt10", "DT-2", "Sta6"),
        ("Sta6", "Evt11", "AR-1", "Sta7"),
        ("Sta7", "Evt13", "AR-3", "Sta1"),
    ]
    # What one side sent is what the other received: as bytes, and as PDUs.
    for here, there in ((requestor, acceptor), (acceptor, requestor)):
        sent = b"".join(event.data for event in here if event.event is evt.EVT_DATA_SENT)
        received = b"".join(event.data for event in there if event.event is evt.EVT_DATA_RECV)
        assert sent == received
        pdus_sent = [event.pdu for event in here if event.event is evt.EVT_PDU_SENT]
        assert pdus_sent == [event.pdu for event in there if event.event is evt.EVT_PDU_RECV]


def test_rejected_and_aborted_fire(ae: AE) -> None:
    events: list[Event] = []
    server = start(ae)
    ae.require_called_aet = True
    strict = start(ae)
    with pytest.raises(AssociationRejected):
        ae.associate(*strict.address, evt_handlers=record_all(events))
    assoc = ae.associate(*server.address, evt_handlers=record_all(events))
    assoc.abort()
    assert assoc.join(DEADLINE)
    assert names(events, evt.EVT_REJECTED, evt.EVT_ABORTED) == ["REJECTED", "ABORTED"]


def test_streams_compose_and_complete(ae: AE) -> None:
    server = start(ae)
    seen: list[Any] = []
    done: list[str] = []
    assoc = ae.association(*server.address)
    assoc.events.pdu_recv.pipe(ops.filter(lambda event: isinstance(event.pdu, AssociateAC))).subscribe(
        seen.append, on_completed=lambda: done.append("composed")
    )
    assoc.events[evt.EVT_PDU_SENT].subscribe(seen.append, on_completed=lambda: done.append("plain"))
    with assoc:
        assoc.send_c_echo()
    assert assoc.join(DEADLINE)
    assert [type(event.pdu).__name__ for event in seen] == ["AssociateRQ", "AssociateAC", "PDataTF", "ReleaseRQ"]
    assert sorted(done) == ["composed", "plain"]
    assoc.events.pdu_recv.subscribe(on_completed=lambda: done.append("late"))
    assert done[-1] == "late"


def test_server_and_ae_streams_merge(ae: AE) -> None:
    server = start(ae)
    connected: list[Association] = []
    at_server: list[Event] = []
    at_ae: list[Event] = []
    server.associations.subscribe(connected.append)
    server.events.dimse_recv.subscribe(at_server.append)
    ae.events.dimse_recv.subscribe(at_ae.append)
    for _ in range(3):
        with ae.associate(*server.address) as assoc:
            assoc.send_c_echo()
    assert len(connected) == len({id(each) for each in connected}) == 3
    assert len(at_server) == 3
    assert len(at_ae) == 6


def test_a_raising_observer_changes_nothing(ae: AE) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("broken observer")

    handlers = [(kind, broken) for kind in evt.NOTIFICATION_KINDS]
    seen: list[Event] = []
    server = start(ae, *handlers, (evt.EVT_DIMSE_RECV, seen.append))
    with ae.associate(*server.address, evt_handlers=handlers) as assoc:
        assert [assoc.send_c_echo() for _ in range(3)] == [0, 0, 0]
    assert assoc.is_released
    assert len(seen) == 3


def test_observers_must_not_wait_for_the_network(ae: AE) -> None:
    server = start(ae)
    errors: list[Exception] = []

    def greedy(event: Any) -> None:
        for call in (
            event.assoc.send_c_echo,
            lambda: ae.associate(*server.address),
            ae.association(*server.address).open,
        ):
            try:
                call()
            except LocalUsageError as error:
                errors.append(error)

    with ae.associate(*server.address, evt_handlers=[(evt.EVT_DIMSE_RECV, greedy)]) as assoc:
        assert assoc.send_c_echo() == 0
    assert len(errors) == 3


def test_observers_may_release_and_abort(ae: AE) -> None:
    server = start(ae)
    for action in ("release", "abort"):

        def act(event: Any, action: str = action) -> None:
            getattr(event.assoc, action)()

        assoc = ae.associate(*server.address, evt_handlers=[(evt.EVT_DIMSE_RECV, act)])
        assert assoc.send_c_echo() == 0
        assert assoc.join(DEADLINE)
        assert (assoc.is_released, assoc.is_aborted) == (action == "release", action == "abort")


def test_who_shuts_down_while_an_association_starts(ae: AE, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until the thread of the association runs, and then for its end."""
    server = start(ae)
    assoc = ae.association(*server.address)
    start_thread = threading.Thread.start
    outcome: list[Any] = []

    def join() -> None:
        try:
            outcome.append(assoc.join(DEADLINE))
        except RuntimeError as error:
            outcome.append(error)

    other = threading.Thread(target=join)

    def start_late(thread: threading.Thread) -> None:
        if thread.name == f"rxdicom-{assoc.name}":
            start_thread(other)
            other.join(0.1)
        start_thread(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    with assoc:
        assert assoc.send_c_echo() == 0
    other.join(DEADLINE)
    assert outcome == [True]


def test_bind_and_unbind(ae: AE) -> None:
    server = start(ae)
    seen: list[Any] = []

    def refuse(event: Any, code: int) -> int:
        seen.append(event)
        return code

    with ae.associate(*server.address) as assoc:
        assert assoc.send_c_echo() == 0x0000
        server.bind(evt.EVT_C_ECHO, refuse, [0x0110])
        assert assoc.send_c_echo() == 0x0110
        peer = server.active_associations[0]
        peer.bind(evt.EVT_C_ECHO, refuse, [0x0122])
        assert assoc.send_c_echo() == 0x0122
        server.unbind(evt.EVT_C_ECHO, refuse)
        assert assoc.send_c_echo() == 0x0122
        peer.unbind(evt.EVT_C_ECHO, refuse)
        assert assoc.send_c_echo() == 0x0000
        assoc.bind(evt.EVT_DIMSE_SENT, seen.append)
        assoc.send_c_echo()
        assoc.unbind(evt.EVT_DIMSE_SENT, seen.append)
        assoc.send_c_echo()
    assert len(seen) == 4


# ---- negotiation through the handlers


def identity(kind: int = 2, *, response: bool = True) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.positive_response_requested = response
    item.primary_field = b"radiologist"
    if kind == 2:
        item.secondary_field = b"secret"
    return item


@pytest.mark.parametrize(("answer", "reply"), [((True, None), b""), ((True, b"ticket"), b"ticket")])
def test_user_identity(ae: AE, answer: Any, reply: bytes) -> None:
    asked: list[UserID] = []

    def on_user_id(event: UserID) -> Any:
        asked.append(event)
        return answer

    server = start(ae, (evt.EVT_USER_ID, on_user_id))
    with ae.associate(*server.address, ext_neg=[identity(3)]) as assoc:
        answers = [item for item in assoc.acceptor.user_information if isinstance(item, UserIdentityResponse)]
        assert [item.server_response for item in answers] == [reply]
        assert server.active_associations[0].requestor.user_identity == identity(3).freeze()
    assert (asked[0].user_id_type, asked[0].primary_field, asked[0].secondary_field) == (3, b"radiologist", None)


@pytest.mark.parametrize("answer", [(False, None), None, "yes", (1, None), (True, "text")])
def test_user_identity_fails_closed(ae: AE, answer: Any) -> None:
    server = start(ae, (evt.EVT_USER_ID, lambda event: answer))
    with pytest.raises(AssociationRejected) as caught:
        ae.associate(*server.address, ext_neg=[identity()])
    assert (caught.value.result, caught.value.source, caught.value.reason) == (1, 2, 1)


def test_required_user_identity(ae: AE) -> None:
    ae.require_user_identity = True
    server = start(ae, (evt.EVT_USER_ID, lambda event: (True, None)))
    with pytest.raises(AssociationRejected):
        ae.associate(*server.address)
    with ae.associate(*server.address, ext_neg=[identity()]) as assoc:
        assert assoc.send_c_echo() == 0


def test_window_extended_and_common_extended(ae: AE) -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    window.maximum_number_operations_performed = 7
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = CTImageStorage
    extended.service_class_application_information = b"\x02\x00"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid = CTImageStorage
    common.service_class_uid = "1.2.840.10008.4.2"
    seen: dict[str, Any] = {}

    def on_window(event: Any) -> tuple[int, int]:
        seen["window"] = (event.nr_invoked, event.nr_performed)
        return 3, 9

    def on_extended(event: Any) -> dict[str, bytes]:
        seen["extended"] = event.app_info
        return {CTImageStorage: b"\x01", "1.2.3": b"not asked"}

    def on_common(event: Any) -> Any:
        seen["common"] = event.items
        return event.items

    handlers = ((evt.EVT_ASYNC_OPS, on_window), (evt.EVT_SOP_EXTENDED, on_extended), (evt.EVT_SOP_COMMON, on_common))
    server = start(ae, *handlers)
    with ae.associate(*server.address, ext_neg=[window, extended, common]) as assoc:
        assert seen["window"] == (5, 7)
        assert seen["extended"] == {CTImageStorage: b"\x02\x00"}
        assert set(seen["common"]) == {CTImageStorage}
        assert assoc.operations_window == (3, 7)
        assert server.active_associations[0].operations_window == (7, 3)
        infos = [item for item in assoc.acceptor.user_information if isinstance(item, SOPClassExtended)]
        assert infos == [SOPClassExtended(CTImageStorage, b"\x01")]


def test_role_selection(ae: AE) -> None:
    ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    server = start(ae)
    roles = [build_role(CTImageStorage, scp_role=True), build_role(MRImageStorage, scp_role=True)]
    with ae.associate(*server.address, ext_neg=roles) as assoc:
        answered = [item for item in assoc.acceptor.user_information if isinstance(item, RoleSelection)]
        assert answered == [RoleSelection(CTImageStorage, False, True)]
        by_uid = {cx.abstract_syntax: (cx.as_scu, cx.as_scp) for cx in assoc.accepted_contexts}
        assert by_uid[CTImageStorage] == (False, True)
        assert by_uid[MRImageStorage] == (True, False)
        with pytest.raises(NoAcceptedContext):
            assoc.send_c_store(CT)


def test_ext_neg_is_frozen_when_associating(ae: AE) -> None:
    role = build_role(CTImageStorage, scu_role=True, scp_role=True)
    server = start(ae)
    assoc = ae.association(*server.address, ext_neg=[role])
    role.scp_role = False
    requested: list[AssociateRQ] = []
    assoc.bind(evt.EVT_ACSE_SENT, lambda event: requested.append(event.primitive))
    with assoc:
        pass
    assert requested[0].items_of(RoleSelection) == (RoleSelection(CTImageStorage, True, True),)


# ---- servers


def test_shutdown_with_open_associations(ae: AE) -> None:
    server = start(ae)
    assocs = [ae.associate(*server.address) for _ in range(3)]
    server.shutdown()
    for assoc in assocs:
        assert assoc.join(DEADLINE)
        assert assoc.is_aborted
    with pytest.raises(ConnectionFailed):
        ae.associate(*server.address)
    server.shutdown()


def test_shutdown_can_drain(ae: AE) -> None:
    server = start(ae)
    assoc = ae.associate(*server.address)
    stopping = threading.Thread(target=server.shutdown, args=[DEADLINE])
    stopping.start()
    assert assoc.send_c_echo() == 0
    assoc.release()
    stopping.join(DEADLINE)
    assert not stopping.is_alive()
    assert assoc.is_released


def test_blocking_server(ae: AE) -> None:
    port = free_port()
    opened = threading.Event()

    def serve() -> None:
        ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_ESTABLISHED, lambda event: opened.set())])

    thread = threading.Thread(target=serve)
    thread.start()
    other = AE()
    other.add_requested_context(VERIFICATION)
    for _ in range(1000):
        try:
            with other.associate("127.0.0.1", port) as assoc:
                assert assoc.send_c_echo() == 0
            break
        except ConnectionFailed:
            opened.wait(0.01)
    assert opened.is_set()
    ae.shutdown()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_several_titles_and_policies_in_one_process(ae: AE) -> None:
    ae.require_called_aet = True
    one = start(ae, ae_title="ONE")
    two = start(ae, ae_title="TWO")
    for server, title in ((one, "ONE"), (two, "TWO")):
        with ae.associate(*server.address, ae_title=title) as assoc:
            assert assoc.send_c_echo() == 0
    with pytest.raises(AssociationRejected):
        ae.associate(*one.address, ae_title="TWO")


def test_ipv6_and_all_interfaces(ae: AE) -> None:
    for host, peers in (("::1", ["::1"]), ("", ["127.0.0.1", "::1", "localhost"])):
        server = ae.start_server((host, 0), block=False)
        for peer in peers:
            with ae.associate(peer, server.address[1]) as assoc:
                assert assoc.send_c_echo() == 0
                assert server.active_associations[0].requestor.address in ("127.0.0.1", "::1")
            for each in server.active_associations:
                each.join(DEADLINE)


def test_evt_handler_is_an_alias(ae: AE) -> None:
    seen: list[Any] = []
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handler=[(evt.EVT_ESTABLISHED, seen.append)])
    with ae.associate(*server.address, evt_handler=[(evt.EVT_ESTABLISHED, seen.append)]):
        pass
    assert len(seen) == 2
