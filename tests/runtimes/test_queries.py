"""C-FIND, C-GET, C-MOVE, C-CANCEL and the N services through the public API, in both roles."""

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import (
    AE,
    AssociationAborted,
    AssociationServer,
    LocalUsageError,
    NoAcceptedContext,
    StateError,
    Status,
    TimedOut,
    evt,
)
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind, CGet, CMove, CStore, NCreate
from rxdicom.sop_class import (
    BasicFilmSession,
    BasicGrayscalePrintManagementMeta,
    CTImageStorage,
    ModalityPerformedProcedureStep,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from rxdicom.wire.dimse import Command
from rxdicom.wire.uids import VERIFICATION
from tests.ports import free_port
from tests.support import DEADLINE, FILES, read

FIND, GET, MOVE = (
    str(StudyRootQueryRetrieveInformationModelFind),
    str(StudyRootQueryRetrieveInformationModelGet),
    str(StudyRootQueryRetrieveInformationModelMove),
)
MPPS = str(ModalityPerformedProcedureStep)
CT, MR = FILES / "CT_small.dcm", FILES / "MR_small.dcm"


def query() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.PatientName = "*"
    return identifier


def match(number: int) -> Dataset:
    identifier = query()
    identifier.PatientName = f"Patient^{number}"
    return identifier


@pytest.fixture
def ae() -> Generator[AE]:
    ae = AE("QR")
    for uid in (VERIFICATION, FIND, GET, MOVE, MPPS, str(BasicGrayscalePrintManagementMeta)):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    for uid in (CTImageStorage, MRImageStorage):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid, scu_role=True, scp_role=True)
    yield ae
    ae.shutdown()


def start(ae: AE, *handlers: EventHandler) -> AssociationServer:
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)


class Matches:
    """A C-FIND handler with so many matches; it counts what it gave, and says when it is over."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.given = 0
        self.cancelled = False
        self.over = threading.Event()

    def __call__(self, event: CFind) -> Iterator[tuple[int, Dataset | None]]:
        self.over.clear()
        try:
            for number in range(self.count):
                self.given = number + 1
                yield 0xFF00, match(number)
                self.cancelled = event.is_cancelled
        finally:
            self.over.set()


# ---- C-FIND


def test_find(ae: AE) -> None:
    server = start(ae, (evt.EVT_C_FIND, Matches(3)))
    with ae.associate(*server.address) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        assert responses.message_id == 1
        found = list(responses)
    assert [status for status, _ in found] == [0xFF00, 0xFF00, 0xFF00, 0x0000]
    assert [status.category for status, _ in found] == ["Pending"] * 3 + ["Success"]
    assert [identifier for _, identifier in found] == [match(0), match(1), match(2), None]


def test_the_handler_sees_the_query(ae: AE) -> None:
    seen: list[CFind] = []

    def on_find(event: CFind) -> list[tuple[int, Dataset | None]]:
        seen.append(event)
        return []

    with ae.associate(*start(ae, (evt.EVT_C_FIND, on_find)).address) as assoc:
        assert list(assoc.send_c_find(query(), FIND, priority=1)) == [(0x0000, None)]
    assert seen[0].identifier == query()
    assert seen[0].request.Priority == 1
    assert seen[0].context.abstract_syntax == FIND


def test_the_default_handlers_refuse(ae: AE) -> None:
    with ae.associate(*start(ae).address) as assoc:
        assert list(assoc.send_c_find(query(), FIND)) == [(0xC311, None)]
        assert list(assoc.send_c_get(query(), GET)) == [(0xC411, None)]
        assert list(assoc.send_c_move(query(), "THERE", MOVE)) == [(0xC511, None)]
        assert assoc.send_n_delete(MPPS, "1.2.3") == 0x0211
        assert assoc.send_n_get(None, str(BasicFilmSession), "1.2", meta_uid=BasicGrayscalePrintManagementMeta) == (
            0x0110,
            None,
        )


def test_leaving_the_loop_cancels_and_the_association_goes_on(ae: AE) -> None:
    matches = Matches(1_000_000)
    with ae.associate(*start(ae, (evt.EVT_C_FIND, matches)).address) as assoc:
        for number, _ in enumerate(assoc.send_c_find(query(), FIND)):
            if number == 4:
                break
        assert assoc.send_c_echo() == 0x0000
        assert matches.over.wait(DEADLINE)
        assert matches.given < 100_000
        assert assoc.send_c_echo() == 0x0000
    assert assoc.is_released


def leave_by_close(responses: Any) -> None:
    next(responses)
    responses.close()


def leave_by_with(responses: Any) -> None:
    with responses:
        next(responses)


def leave_by_generator(responses: Any) -> None:
    iterator = iter(responses)
    next(iterator)
    iterator.close()


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_with, leave_by_generator])
def test_every_way_to_leave(ae: AE, leave: Any) -> None:
    matches = Matches(1_000_000)
    with ae.associate(*start(ae, (evt.EVT_C_FIND, matches)).address) as assoc:
        sent: list[Any] = []
        assoc.bind(evt.EVT_DIMSE_SENT, lambda event: sent.append(event.message.kind))
        leave(assoc.send_c_find(query(), FIND))
        assert assoc.send_c_echo() == 0x0000
        assert matches.over.wait(DEADLINE)
    assert sent.count(Command.C_CANCEL_RQ) == 1


def test_take_costs_the_scp_about_as_many(ae: AE) -> None:
    matches = Matches(1_000_000)
    with ae.associate(*start(ae, (evt.EVT_C_FIND, matches)).address) as assoc:
        taken: list[Any] = []
        done = threading.Event()
        assoc.send_c_find(query(), FIND).pipe(ops.take(5)).subscribe(taken.append, on_completed=done.set)
        assert done.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000
        assert matches.over.wait(DEADLINE)
    assert [identifier for _, identifier in taken] == [match(number) for number in range(5)]
    assert matches.given < 100_000


def test_the_observable_completes_with_the_final_status(ae: AE) -> None:
    with ae.associate(*start(ae, (evt.EVT_C_FIND, Matches(3))).address) as assoc:
        seen: list[Any] = []
        done = threading.Event()
        assoc.send_c_find(query(), FIND).observable.subscribe(seen.append, on_completed=done.set)
        assert done.wait(DEADLINE)
        assert [status for status, _ in seen] == [0xFF00, 0xFF00, 0xFF00, 0x0000]


def test_disposing_from_another_thread_cancels(ae: AE) -> None:
    matches = Matches(1_000_000)
    with ae.associate(*start(ae, (evt.EVT_C_FIND, matches)).address) as assoc:
        first = threading.Event()
        running = assoc.send_c_find(query(), FIND).observable.subscribe(lambda pair: first.set())
        assert first.wait(DEADLINE)
        running.dispose()
        assert matches.over.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000


def test_responses_are_used_once_and_sent_when_used(ae: AE) -> None:
    matches = Matches(1)
    with ae.associate(*start(ae, (evt.EVT_C_FIND, matches)).address) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        assert matches.given == 0
        assert len(list(responses)) == 2
        with pytest.raises(StateError, match="consumed"):
            _ = responses.observable
        with pytest.raises(LocalUsageError, match="priority"):
            assoc.send_c_find(query(), FIND, priority=9)
        with pytest.raises(NoAcceptedContext):
            assoc.send_c_find(query(), "1.2.3")
        unused = assoc.send_c_find(query(), FIND)
        unused.close()
        assert assoc.send_c_echo() == 0x0000


def test_a_full_window_of_own_responses_is_an_error(ae: AE) -> None:
    with ae.associate(*start(ae, (evt.EVT_C_FIND, Matches(1_000_000))).address) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        next(responses)
        with pytest.raises(LocalUsageError, match="window"):
            assoc.send_c_echo()
        responses.close()
        assert assoc.send_c_echo() == 0x0000


def test_another_thread_waits_for_its_place(ae: AE) -> None:
    with ae.associate(*start(ae, (evt.EVT_C_FIND, Matches(200))).address) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        next(responses)
        echoed: list[Status] = []
        thread = threading.Thread(target=lambda: echoed.append(assoc.send_c_echo()))
        thread.start()
        assert len(list(responses)) == 200
        thread.join(DEADLINE)
    assert echoed == [0x0000]


def test_an_abort_in_the_middle_is_raised(ae: AE) -> None:
    server = start(ae, (evt.EVT_C_FIND, Matches(1_000_000)))
    assoc = ae.associate(*server.address)
    responses = assoc.send_c_find(query(), FIND)
    next(responses)
    server.active_associations[0].abort()
    with pytest.raises(AssociationAborted):
        list(responses)
    assert assoc.join(DEADLINE)


def test_an_abort_goes_to_on_error(ae: AE) -> None:
    server = start(ae, (evt.EVT_C_FIND, Matches(1_000_000)))
    assoc = ae.associate(*server.address)
    errors: list[Exception] = []
    over = threading.Event()

    def failed(error: Exception) -> None:
        errors.append(error)
        over.set()

    def abort(pair: Any) -> None:
        for association in server.active_associations:
            association.abort()

    assoc.send_c_find(query(), FIND).observable.subscribe(abort, failed)
    assert over.wait(DEADLINE)
    assert [type(error) for error in errors] == [AssociationAborted]


def test_a_peer_that_does_not_answer(ae: AE) -> None:
    go_on = threading.Event()

    def on_find(event: CFind) -> Iterator[Any]:
        go_on.wait(DEADLINE)
        yield 0x0000, None

    ae.dimse_timeout = 0.1
    server = start(ae, (evt.EVT_C_FIND, on_find))
    assoc = ae.associate(*server.address)
    with pytest.raises(TimedOut, match="response"):
        list(assoc.send_c_find(query(), FIND))
    # It was cancelled, and since it does not react to that either, the association is aborted.
    assert assoc.join(DEADLINE)
    assert assoc.is_aborted
    go_on.set()


def test_pending_responses_rearm_the_deadline(ae: AE) -> None:
    ae.dimse_timeout = 0.4
    pause = threading.Event()

    def on_find(event: CFind) -> Iterator[Any]:
        for number in range(6):
            pause.wait(0.15)
            yield 0xFF00, match(number)

    with ae.associate(*start(ae, (evt.EVT_C_FIND, on_find)).address) as assoc:
        assert len(list(assoc.send_c_find(query(), FIND))) == 7


# ---- C-CANCEL


def test_cancel_before_after_twice_and_for_another(ae: AE) -> None:
    matches = Matches(1_000_000)
    with ae.associate(*start(ae, (evt.EVT_C_FIND, matches)).address) as assoc:
        assoc.send_c_cancel(77, query_model=FIND)
        responses = assoc.send_c_find(query(), FIND)
        next(responses)
        assoc.send_c_cancel(78, query_model=FIND)
        next(responses)
        assert not matches.cancelled
        assoc.send_c_cancel(responses.message_id, query_model=FIND)
        assoc.send_c_cancel(responses.message_id, query_model=FIND)
        statuses = [status for status, _ in responses]
        assert statuses[-1] == 0xFE00
        assert set(statuses[:-1]) <= {0xFF00}
        assoc.send_c_cancel(responses.message_id, query_model=FIND)
        assert assoc.send_c_echo() == 0x0000
        with pytest.raises(LocalUsageError):
            assoc.send_c_cancel(1)
    assert matches.over.wait(DEADLINE)


# ---- C-GET and C-MOVE


def instances(number: int, *items: Any) -> Any:
    def on_get(event: CGet) -> Iterator[Any]:
        yield number
        for item in items:
            yield item if isinstance(item, tuple) else (0xFF00, item)

    return on_get


def collect(into: list[CStore], status: int = 0x0000) -> EventHandler:
    def on_store(event: CStore) -> int:
        into.append(event)
        return status

    return (evt.EVT_C_STORE, on_store)


def counters(status: Status) -> tuple[int | None, int | None, int | None, int | None]:
    return (
        status.NumberOfRemainingSuboperations,
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def test_get(ae: AE) -> None:
    stored: list[CStore] = []
    server = start(ae, (evt.EVT_C_GET, instances(2, str(CT), read(MR))))
    with ae.associate(*server.address, evt_handlers=[collect(stored)]) as assoc:
        responses = list(assoc.send_c_get(query(), GET))
        assert assoc.send_c_echo() == 0x0000
    assert [(status, counters(status)) for status, _ in responses] == [
        (0xFF00, (1, 1, 0, 0)),
        (0xFF00, (0, 2, 0, 0)),
        (0x0000, (None, 2, 0, 0)),
    ]
    assert [event.request.AffectedSOPInstanceUID for event in stored] == [
        read(CT).SOPInstanceUID,
        read(MR).SOPInstanceUID,
    ]
    assert stored[0].calling_ae_title == "ANY-SCP"
    assert [event.message_id for event in stored] == [1, 2]


@pytest.mark.parametrize(("status", "final"), [(0xA700, 0xA702), (0xB000, 0xB000)])
def test_get_whose_sub_operations_fail(ae: AE, status: int, final: int) -> None:
    server = start(ae, (evt.EVT_C_GET, instances(1, str(CT))))
    with ae.associate(*server.address, evt_handlers=[collect([], status)]) as assoc:
        answer, failed = list(assoc.send_c_get(query(), GET))[-1]
    assert answer == final
    if final == 0xA702:
        assert failed is not None
        assert failed.FailedSOPInstanceUIDList == read(CT).SOPInstanceUID
    else:
        assert failed is None


def test_get_what_no_context_carries(ae: AE, tmp_path: Path) -> None:
    items = [str(FILES / "reportsi.dcm"), str(tmp_path / "missing.dcm"), None, str(CT)]
    server = start(ae, (evt.EVT_C_GET, instances(4, *items)))
    with ae.associate(*server.address, evt_handlers=[collect([])]) as assoc:
        status, _ = list(assoc.send_c_get(query(), GET))[-1]
    assert (status, counters(status)) == (0xB000, (None, 1, 3, 0))


def moving(address: Any, number: int, *items: Any) -> EventHandler:
    def on_move(event: CMove) -> Iterator[Any]:
        yield address
        yield from instances(number, *items)(event)

    return (evt.EVT_C_MOVE, on_move)


def test_move(ae: AE) -> None:
    stored: list[CStore] = []
    destination = AE("DEST")
    destination.accept_any_storage = True
    connected: list[Any] = []
    with start(destination, collect(stored)) as receiver:
        receiver.bind(evt.EVT_ESTABLISHED, connected.append)
        server = start(ae, moving(receiver.address, 2, str(CT), read(MR)))
        with ae.associate(*server.address) as assoc:
            responses = list(assoc.send_c_move(query(), "DEST", MOVE, msg_id=42))
    assert [(status, counters(status)) for status, _ in responses] == [
        (0xFF00, (1, 1, 0, 0)),
        (0xFF00, (0, 2, 0, 0)),
        (0x0000, (None, 2, 0, 0)),
    ]
    assert len(connected) == 1
    assert [event.message_id for event in stored] == [1, 2]
    assert {event.request.MoveOriginatorApplicationEntityTitle for event in stored} == {"QR"}
    assert {event.request.MoveOriginatorMessageID for event in stored} == {42}
    assert {event.assoc.acceptor.ae_title for event in stored} == {"DEST"}
    assert {event.assoc.requestor.ae_title for event in stored} == {"QR"}


def test_move_derives_contexts_from_what_is_sent(ae: AE) -> None:
    stored: list[CStore] = []
    destination = AE("DEST")
    destination.accept_any_storage = True
    ae.requested_contexts = [context for context in ae.requested_contexts if context.abstract_syntax == MOVE]
    compressed = FILES / "JPEG2000.dcm"
    with start(destination, collect(stored)) as receiver:
        server = start(ae, moving(receiver.address, 2, str(compressed), str(CT)))
        with ae.associate(*server.address) as assoc:
            status, _ = list(assoc.send_c_move(query(), "DEST", MOVE))[-1]
    assert (status, counters(status)) == (0x0000, (None, 2, 0, 0))
    assert stored[0].context.transfer_syntax == "1.2.840.10008.1.2.4.91"


def test_moves_that_do_not_arrive(ae: AE) -> None:
    cases = [
        ((None, None), 1, 0xA801),
        (("127.0.0.1", free_port()), 2, 0xA702),
        (("127.0.0.1", free_port()), 0, 0x0000),
    ]
    for address, number, expected in cases:
        server = start(ae, moving(address, number, *[str(CT)] * number))
        with ae.associate(*server.address) as assoc:
            status, _ = list(assoc.send_c_move(query(), "NOWHERE", MOVE))[-1]
            assert status == expected
            assert assoc.send_c_echo() == 0x0000


def test_move_to_oneself(ae: AE) -> None:
    stored: list[CStore] = []
    receiver = start(ae, collect(stored))
    server = start(ae, moving(receiver.address, 1, str(CT)))
    with ae.associate(*server.address) as assoc:
        assert list(assoc.send_c_move(query(), "QR", MOVE))[-1][0] == 0x0000
    assert len(stored) == 1


# ---- N services


def test_n_create_names_the_instance(ae: AE) -> None:
    def on_create(event: NCreate) -> Any:
        created = Dataset()
        created.AffectedSOPInstanceUID = "1.2.3.4"
        created.PatientName = event.attribute_list.PatientName
        return 0x0000, created

    with ae.associate(*start(ae, (evt.EVT_N_CREATE, on_create)).address) as assoc:
        status, attributes = assoc.send_n_create(match(1), MPPS)
    assert (status, status.AffectedSOPInstanceUID) == (0x0000, "1.2.3.4")
    assert attributes is not None
    assert attributes.PatientName == "Patient^1"
    assert "AffectedSOPInstanceUID" not in attributes


def test_all_n_services(ae: AE) -> None:
    meta, session = str(BasicGrayscalePrintManagementMeta), str(BasicFilmSession)
    reply = match(7)
    events: dict[str, Any] = {}

    def handler(event: Any) -> Any:
        events[event.name] = event
        return 0x0000, reply

    def on_delete(event: Any) -> int:
        events[event.name] = event
        return 0x0000

    kinds = (evt.EVT_N_ACTION, evt.EVT_N_GET, evt.EVT_N_SET)
    server = start(ae, *((kind, handler) for kind in kinds), (evt.EVT_N_DELETE, on_delete))
    with ae.associate(*server.address) as assoc:
        assert assoc.send_n_action(match(1), 3, session, "1.2", meta_uid=meta) == (0x0000, reply)
        assert assoc.send_n_get([0x00100010], session, "1.2", meta_uid=meta) == (0x0000, reply)
        assert assoc.send_n_set(match(2), session, "1.2", meta_uid=meta) == (0x0000, reply)
        assert assoc.send_n_delete(session, "1.2", meta_uid=meta) == 0x0000
    assert events["EVT_N_ACTION"].action_type == 3
    assert events["EVT_N_ACTION"].action_information == match(1)
    assert events["EVT_N_GET"].attribute_identifiers == (0x00100010,)
    assert events["EVT_N_SET"].modification_list == match(2)
    assert events["EVT_N_DELETE"].request.RequestedSOPInstanceUID == "1.2"


def test_n_event_report_to_the_scu(ae: AE) -> None:
    reported: list[Any] = []

    def on_report(event: Any) -> Any:
        reported.append((event.event_type, event.event_information))
        return 0x0000, None

    server = start(ae)
    with ae.associate(*server.address, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)]):
        status, dataset = server.active_associations[0].send_n_event_report(
            match(5), 2, str(BasicFilmSession), "1.2", meta_uid=str(BasicGrayscalePrintManagementMeta)
        )
        assert (status, dataset) == (0x0000, None)
    assert reported == [(2, match(5))]


# ---- many at once


def test_no_cross_talk(ae: AE) -> None:
    """Ten associations at once, each asking again and again, each getting its own."""
    ae.maximum_associations = 10

    def on_find(event: CFind) -> Iterator[Any]:
        for number in range(3):
            identifier = query()
            identifier.PatientName = event.identifier.PatientName
            identifier.PatientID = str(number)
            yield 0xFF00, identifier

    server = start(ae, (evt.EVT_C_FIND, on_find))
    wrong: list[Any] = []

    def ask(name: str) -> None:
        with ae.associate(*server.address) as assoc:
            for number in range(20):
                wanted = query()
                wanted.PatientName = f"{name}^{number}"
                found = [identifier for _, identifier in assoc.send_c_find(wanted, FIND) if identifier is not None]
                ids = [(str(each.PatientName), each.PatientID) for each in found]
                if ids != [(f"{name}^{number}", str(index)) for index in range(3)]:
                    wrong.append(ids)

    threads = [threading.Thread(target=ask, args=[f"N{number}"]) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
