"""Associations in memory: the public words, both sides on one thread, and the same events as over sockets."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import AE, Status, evt
from rxdicom.errors import (
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    ConnectionFailed,
    InvalidFile,
    LocalUsageError,
    NoAcceptedContext,
    StateError,
)
from rxdicom.events.records import CMove, CStore, Event
from rxdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, UserIdentityNegotiation
from rxdicom.recording import RecordedAssociation
from rxdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)
from rxdicom.testing import MemoryAE, Network, Pair, pair
from tests.recording.support import content, ct_file
from tests.support import DEADLINE, read, threads_and_descriptors

CT = str(CTImageStorage)
FIND, GET, MOVE = (
    str(each)
    for each in (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    )
)
MPPS = str(ModalityPerformedProcedureStep)


def entity(title: str) -> AE:
    """An AE that asks for everything that the tests use, and supports it in both roles."""
    ae = AE(title)
    for uid in (Verification, CT, FIND, GET, MOVE, MPPS):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid, scu_role=True, scp_role=True)
    return ae


def connected(*handlers: Any, **options: Any) -> Pair:
    return pair(entity("SCU"), entity("SCP"), acceptor_handlers=handlers, **options)


def query(**keys: str) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def answering(answer: Any) -> Callable[[Any], Any]:
    """A handler that always gives the same answer."""

    def handler(event: Any) -> Any:
        return answer

    return handler


def message_id(event: Any) -> int:
    return event.message_id


def as_proposed(event: Any) -> tuple[int, int]:
    return event.nr_invoked, event.nr_performed


def aborting(event: Any) -> int:
    event.assoc.abort()
    return 0x0000


def requesting(event: Any) -> None:
    event.assoc.send_c_echo()


def noted(stream: Any) -> list[str]:
    """Who aborted, and that a stream has completed."""
    told: list[str] = []

    def note(event: Any) -> None:
        told.append(event.by)

    def end() -> None:
        told.append("over")

    stream.subscribe(note, on_completed=end)
    return told


# ---- one response


def test_an_association_is_opened_used_and_released():
    with connected() as both:
        assert both.requestor.is_established
        assert both.acceptor.is_established
        assert both.acceptor.requestor.ae_title == "SCU"
        assert both.requestor.acceptor.port == both.acceptor.acceptor.port == 104
        assert both.requestor.requestor.port == both.acceptor.requestor.port > 1023
        assert both.requestor.acceptor.implementation_version_name == "RXDICOM_010"
        assert both.server.active_associations == [both.acceptor]
        status = both.requestor.send_c_echo()
        assert isinstance(status, Status)
        assert (status, status.category) == (0x0000, "Success")
    assert both.requestor.is_released
    assert both.acceptor.is_released
    with pytest.raises(AssociationReleased):
        both.requestor.send_c_echo()


def test_a_handler_sees_what_was_sent():
    stored: list[Dataset] = []

    def on_store(event: CStore) -> int:
        assert event.assoc.is_acceptor
        assert event.calling_ae_title == "SCU"
        stored.append(event.dataset)
        return 0xB000

    with connected((evt.EVT_C_STORE, on_store)) as both:
        assert both.requestor.send_c_store(read(ct_file())) == 0xB000
        assert both.requestor.send_c_store(ct_file()).category == "Warning"
    assert [each.PatientName for each in stored] == ["CompressedSamples^CT1"] * 2


def test_a_handler_can_save_what_it_receives(tmp_path: Path):
    def on_store(event: CStore) -> int:
        event.save(tmp_path / "saved.dcm")
        return 0x0000

    scp = entity("SCP")
    scp.spool_folder = str(tmp_path)
    scp.limits = scp.limits.__class__(memory=1000)
    with pair(entity("SCU"), scp, acceptor_handlers=[(evt.EVT_C_STORE, on_store)]) as both:
        assert both.requestor.send_c_store(ct_file()) == 0x0000
    assert [each.name for each in tmp_path.iterdir()] == ["saved.dcm"]
    assert read(tmp_path / "saved.dcm").PixelData == read(ct_file()).PixelData


def test_n_services():
    def on_create(event: Any) -> tuple[int, Dataset]:
        answer = Dataset()
        answer.AffectedSOPInstanceUID, answer.PatientName = "1.2.3", event.attribute_list.PatientName
        return 0x0000, answer

    with connected((evt.EVT_N_CREATE, on_create), (evt.EVT_N_SET, answering(0x0110))) as both:
        status, reply = both.requestor.send_n_create(query(PatientName="X"), MPPS)
        assert reply is not None
        assert (status, status.AffectedSOPInstanceUID, reply.PatientName) == (0, "1.2.3", "X")
        status, reply = both.requestor.send_n_set(query(), MPPS, "1.2.3")
        assert (status, reply) == (0x0110, None)


def test_a_handler_that_raises_is_a_defined_failure():
    def on_store(event: CStore) -> int:
        raise KeyError("mine")

    with connected((evt.EVT_C_STORE, on_store)) as both:
        assert both.requestor.send_c_store(ct_file()) == 0xC211
        assert both.requestor.send_c_echo() == 0x0000


def test_the_acceptor_may_send_requests_too():
    with connected() as both:
        # As C-GET wants it, the requestor is SCP of storage as well; its default handler refuses.
        assert both.acceptor.send_c_store(ct_file()) == 0xC211
        with pytest.raises(NoAcceptedContext):
            both.acceptor.send_c_echo()


def test_a_handler_may_send_requests_over_its_own_association():
    def on_echo(event: Any) -> int:
        return max(event.assoc.send_c_store(ct_file()) for _ in range(3))

    handlers = [(evt.EVT_C_STORE, message_id)]
    with connected((evt.EVT_C_ECHO, on_echo), evt_handlers=handlers) as both:
        assert both.requestor.send_c_echo() == 3


# ---- several responses


class Archive:
    """A C-FIND handler that never ends by itself, and what became of it."""

    def __init__(self) -> None:
        self.given = 0
        self.ended: list[bool] = []

    def __call__(self, event: Any) -> Iterator[tuple[int, Dataset]]:
        try:
            while True:
                self.given += 1
                yield 0xFF00, query(PatientID=str(self.given))
        finally:
            self.ended.append(event.is_cancelled)


def test_matches_are_computed_as_they_are_consumed():
    archive = Archive()
    with connected((evt.EVT_C_FIND, archive)) as both:
        responses = both.requestor.send_c_find(query(), FIND)
        assert (archive.given, responses.message_id) == (0, 1)
        for number in range(1, 4):
            status, match = next(responses)
            assert match is not None
            assert (status, match.PatientID) == (0xFF00, str(number))
            assert archive.given <= number + 1
        responses.close()
        # The peer has seen the C-CANCEL, and answered it, by now.
        assert archive.ended == [True]
        assert both.requestor.send_c_echo() == 0x0000


def test_take_cancels():
    archive = Archive()
    with connected((evt.EVT_C_FIND, archive)) as both:
        got: list[Any] = []
        find = both.requestor.send_c_find(query(), FIND)
        find.pipe(ops.take(5)).subscribe(got.append, on_completed=lambda: got.append("completed"))
        assert [match.PatientID for _, match in got[:-1]] == ["1", "2", "3", "4", "5"]
        assert got[-1] == "completed"
        assert archive.given <= 7
        assert archive.ended == [True]
        with pytest.raises(StateError, match="consumed already"):
            list(find)


def test_an_observable_ends_with_what_went_wrong():
    archive = Archive()
    with connected((evt.EVT_C_FIND, archive)) as both:
        errors: list[Exception] = []
        network, requestor = both.network, both.requestor

        def cut(pair: tuple[Status, Dataset | None]) -> None:
            if pair[1] is not None and pair[1].PatientID == "3":
                network.cut(requestor)

        both.requestor.send_c_find(query(), FIND).observable.subscribe(cut, errors.append)
    assert [type(each) for each in errors] == [AssociationAborted]
    assert archive.ended == [True]


def test_a_consumer_that_is_behind_holds_the_provider_back():
    archive = Archive()
    with connected((evt.EVT_C_FIND, archive)) as both:
        responses = both.requestor.send_c_find(query(), FIND)
        next(responses)
        both.network.settle()
        assert archive.given < 100
        responses.close()


def test_a_retrieval_comes_over_the_same_association():
    stored: list[str] = []

    def on_get(event: Any) -> Iterator[Any]:
        yield 2
        yield 0xFF00, str(ct_file())
        yield 0xFF00, read(ct_file())

    def on_store(event: CStore) -> int:
        stored.append(str(event.dataset.PatientName))
        return 0x0000

    with connected((evt.EVT_C_GET, on_get), evt_handlers=[(evt.EVT_C_STORE, on_store)]) as both:
        *pending, (final, _) = both.requestor.send_c_get(query(), GET)
    assert [status.NumberOfCompletedSuboperations for status, _ in pending] == [1, 2]
    assert (final, final.NumberOfFailedSuboperations) == (0x0000, 0)
    assert stored == ["CompressedSamples^CT1"] * 2


def test_a_move_goes_to_another_entity_of_the_network():
    network, stored = Network(), list[tuple[str, str]]()

    def on_store(event: CStore) -> int:
        stored.append((event.assoc.requestor.ae_title, event.request.MoveOriginatorApplicationEntityTitle or ""))
        return 0x0000

    def on_move(event: CMove) -> Iterator[Any]:
        yield ("viewer", 104) if event.move_destination == "VIEWER" else (None, None)
        yield 1
        yield 0xFF00, str(ct_file())

    network.entity(entity("VIEWER")).start_server(("viewer", 104), False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    network.entity(entity("ARCHIVE")).start_server(("archive", 104), False, evt_handlers=[(evt.EVT_C_MOVE, on_move)])
    with network.entity(entity("WORKSTATION")).associate("archive", 104, ae_title="ARCHIVE") as assoc:
        assert [int(status) for status, _ in assoc.send_c_move(query(), "VIEWER", MOVE)] == [0xFF00, 0x0000]
        assert [int(status) for status, _ in assoc.send_c_move(query(), "NOBODY", MOVE)] == [0xA801]
    assert stored == [("ARCHIVE", "WORKSTATION")]


# ---- batches and windows


def window(invoked: int) -> AsynchronousOperationsWindowNegotiation:
    made = AsynchronousOperationsWindowNegotiation()
    made.maximum_number_operations_invoked, made.maximum_number_operations_performed = invoked, 1
    return made


def test_a_batch_keeps_its_window_full(tmp_path: Path):
    (tmp_path / "junk").write_bytes(b"junk")
    outstanding, most = 0, 0

    def count(event: Any) -> None:
        nonlocal outstanding, most
        outstanding += 1 if event.event is evt.EVT_DIMSE_SENT else -1
        most = max(most, outstanding)

    handlers = [
        (evt.EVT_C_STORE, answering(0x0000)),
        (evt.EVT_ASYNC_OPS, as_proposed),
    ]
    with connected(*handlers, ext_neg=[window(4)]) as both:
        for kind in (evt.EVT_DIMSE_SENT, evt.EVT_DIMSE_RECV):
            both.requestor.bind(kind, count)
        transfer = both.requestor.send_many([ct_file()] * 6 + [tmp_path / "junk"])
        sent = list(transfer)
        assert both.requestor.operations_window == (4, 1)
    assert [each.is_stored for each in sent].count(True) == 6
    assert isinstance(next(each for each in sent if not each.is_stored).error, InvalidFile)
    assert (transfer.totals.stored, transfer.totals.failed) == (6, 1)
    assert most == 4


def test_a_batch_can_be_left():
    with connected((evt.EVT_C_STORE, answering(0x0000))) as both:
        got: list[Any] = []
        both.requestor.send_many([ct_file()] * 50).pipe(ops.take(2)).subscribe(got.append)
        assert [each.is_stored for each in got] == [True, True]
        assert both.requestor.send_c_echo() == 0x0000


def test_requests_beyond_the_window_are_a_mistake_of_this_thread():
    with connected((evt.EVT_C_FIND, Archive())) as both:
        with both.requestor.send_c_find(query(), FIND) as responses:
            next(responses)
            with pytest.raises(LocalUsageError, match="fill the window"):
                both.requestor.send_c_echo()
        with pytest.raises(LocalUsageError, match="out of range"):
            both.requestor.send_c_echo(msg_id=70_000)


# ---- opening and ending


def test_contexts_and_refusals_are_negotiated():
    scp = AE("SCP")
    scp.add_supported_context(Verification)
    with pair(entity("SCU"), scp) as both:
        assert [each.abstract_syntax for each in both.requestor.accepted_contexts] == [str(Verification)]
        with pytest.raises(NoAcceptedContext):
            both.requestor.send_c_store(ct_file())
    other = AE("SCP")
    other.add_supported_context(CT)
    scu = AE("SCU")
    scu.add_requested_context(Verification)
    refused = pair(scu, other)
    with pytest.raises(NoAcceptedContext):
        refused.requestor.open()
    assert refused.requestor.is_aborted
    assert refused.acceptor.is_aborted


def test_a_user_identity_is_decided_by_its_handler():
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"eve"
    with pytest.raises(AssociationRejected) as raised:
        connected((evt.EVT_USER_ID, answering((False, None))), ext_neg=[identity]).requestor.open()
    assert (raised.value.result, raised.value.source, raised.value.reason) == (1, 2, 1)


def test_more_associations_than_allowed_are_rejected():
    network = Network()
    scp = entity("SCP")
    scp.maximum_associations = 1
    network.entity(scp).start_server(("h", 104), block=False)
    scu = network.entity(entity("SCU"))
    with scu.associate("h", 104):
        with pytest.raises(AssociationRejected, match="local limit exceeded"):
            scu.associate("h", 104)
    scu.associate("h", 104).release()


def test_nobody_listens_somewhere_else():
    network = Network()
    scu = network.entity(entity("SCU"))
    assoc = scu.association("h", 104)
    closed = noted(assoc.events.aborted)
    with pytest.raises(ConnectionFailed, match="nobody listens there in this network"):
        assoc.open()
    assert closed == ["transport", "over"]
    assert scu.active_associations == []
    with pytest.raises(StateError, match="make a new one"):
        assoc.open()


def test_leaving_by_an_exception_aborts():
    both = connected()
    with pytest.raises(KeyError), both:
        raise KeyError("mine")
    assert both.requestor.is_aborted
    assert both.acceptor.is_aborted


def test_either_side_may_release_or_abort():
    both = connected()
    both.requestor.open()
    both.acceptor.release()
    assert both.requestor.is_released
    other = connected()
    other.requestor.open()
    other.acceptor.abort()
    assert (other.requestor.is_aborted, other.acceptor.is_aborted) == (True, True)
    with pytest.raises(AssociationAborted):
        other.requestor.send_c_echo()


def test_a_handler_may_abort_and_release():
    both = connected((evt.EVT_C_ECHO, aborting))
    with pytest.raises(AssociationAborted), both:
        both.requestor.send_c_echo()
    assert both.acceptor.is_aborted


def test_observers_must_not_wait_for_the_network(caplog: pytest.LogCaptureFixture):
    with connected() as both:
        both.requestor.bind(evt.EVT_DIMSE_RECV, requesting)
        assert both.requestor.send_c_echo() == 0x0000
        assert "a request waits for the network and cannot be called by an observer" in caplog.text


def test_an_observer_may_abort():
    both = connected()
    both.requestor.bind(evt.EVT_ESTABLISHED, aborting)
    with pytest.raises(AssociationAborted):
        both.requestor.open()
    assert both.acceptor.is_aborted


def test_a_connection_that_is_cut_is_lost_for_both():
    both = connected()
    both.requestor.open()
    both.cut(reset=True)
    with pytest.raises(AssociationAborted, match="the connection was lost"):
        both.requestor.send_c_echo()
    assert both.requestor.is_aborted
    assert both.acceptor.is_aborted


def test_a_server_that_is_shut_down_is_found_no_more():
    network = Network()
    server = network.entity(entity("SCP")).start_server(("h", 104), block=False)
    scu = network.entity(entity("SCU"))
    ends = noted(server.events.aborted)
    assoc = scu.associate("h", 104)
    server.shutdown()
    assert assoc.is_aborted
    assert ends == ["local", "over"]
    with pytest.raises(ConnectionFailed):
        scu.associate("h", 104)


def test_entities_have_what_they_were_configured_with():
    network, ae = Network(), entity("ME")
    ae.acse_timeout, ae.maximum_pdu_size = 5, 4096
    made = network.entity(ae)
    ae.add_requested_context("1.2.3")
    assert isinstance(made, MemoryAE)
    assert (made.ae_title, made.acse_timeout, made.maximum_pdu_size) == ("ME", 5, 4096)
    assert len(made.requested_contexts) == len(ae.requested_contexts) - 1
    assert network.entity("BY-TITLE").requested_contexts == []


@pytest.mark.parametrize(
    ("call", "arguments", "error", "said"),
    [
        ("start_server", {}, StateError, "give block=False"),
        ("start_server", {"block": False, "ssl_context": object()}, ValueError, "no TLS in memory"),
        ("associate", {"tls_args": object()}, ValueError, "no TLS in memory"),
    ],
)
def test_what_memory_does_not_have_is_said(call: str, arguments: dict[str, Any], error: type[Exception], said: str):
    ae = Network().entity(entity("ME"))
    address = {"address": ("h", 104)} if call == "start_server" else {"addr": "h", "port": 104}
    with pytest.raises(error, match=said):
        getattr(ae, call)(**address, **arguments)


def test_a_server_supports_something():
    with pytest.raises(ValueError, match="no presentation contexts are supported"):
        Network().entity("ME").start_server(("h", 104), block=False)


def test_an_address_is_taken_once():
    ae = Network().entity(entity("ME"))
    with ae.start_server(("h", 104), block=False), pytest.raises(OSError, match="another server listens at h:104"):
        ae.start_server(("h", 104), block=False)
    ports = {ae.start_server(("", 0), block=False).address[1] for _ in range(3)}
    assert len(ports) == 3


def test_nothing_is_left_behind_and_no_thread_is_started():
    before = threads_and_descriptors()
    with connected((evt.EVT_C_STORE, answering(0x0000))) as both:
        both.requestor.send_c_store(ct_file())
        assert threads_and_descriptors() == before
    assert both.requestor.is_gone
    assert both.acceptor.is_gone


# ---- the same as over sockets


def three(event: Any) -> Iterator[tuple[int, Dataset]]:
    for number in range(3):
        yield 0xFF00, query(PatientID=str(number))


HANDLERS: list[Any] = [(evt.EVT_C_STORE, answering(0x0000)), (evt.EVT_C_FIND, three)]


def comparable(events: list[Event]) -> list[tuple[Any, ...]]:
    """What events say, but for times, names and ports; and where the bytes of the wire were cut."""
    unlike = ("EVT_DATA_RECV", "EVT_CONN_OPEN", "EVT_CONN_CLOSE")
    return [(each[0], *each[3:]) for each in map(content, events) if each[0] not in unlike]


def driven(scu: Any, scp: Any) -> tuple[list[Event], list[Event]]:
    """What the two sides of a session observe."""
    requestor: list[Event] = []
    acceptor: list[Event] = []
    over = threading.Event()

    def note_end(event: Event) -> None:
        over.set()

    with scp.start_server(("127.0.0.1", 0), block=False, evt_handlers=HANDLERS) as server:
        server.events.all.subscribe(acceptor.append)
        server.events.conn_close.subscribe(note_end)
        assoc = scu.association(*server.address, ae_title="SCP")
        assoc.events.all.subscribe(requestor.append)
        with assoc:
            assoc.send_c_echo()
            assoc.send_c_store(ct_file())
            list(assoc.send_c_find(query(), FIND))
        assert over.wait(DEADLINE)
    return requestor, acceptor


def test_memory_and_sockets_give_the_same_events():
    network = Network()
    in_memory = driven(network.entity(entity("SCU")), network.entity(entity("SCP")))
    over_sockets = driven(entity("SCU"), entity("SCP"))
    assert comparable(in_memory[0]) == comparable(over_sockets[0])
    # What is received and what is sent are told side by side while a C-FIND is performed by a thread of its own.
    assert sorted(map(repr, comparable(in_memory[1]))) == sorted(map(repr, comparable(over_sockets[1])))


def test_runs_are_alike_to_the_last_event():
    runs: list[list[tuple[Any, ...]]] = []
    for _ in range(2):
        both = connected(*HANDLERS)
        seen: list[Event] = []
        for events in (both.requestor.events, both.server.events):
            events.all.subscribe(seen.append)
        drive_pair(both)
        runs.append([content(event) for event in seen])
    assert runs[0] == runs[1]
    assert len(runs[0]) > 100


def drive_pair(both: Pair) -> None:
    with both:
        both.requestor.send_c_store(ct_file())
        both.clock.advance(7)
        list(both.requestor.send_c_find(query(), FIND))


def test_stand_ins_have_the_words_of_associations():
    with connected() as both:
        names = {name for name in dir(RecordedAssociation) if not name.startswith("_")} - {"damage", "hub"}
        assert names <= set(dir(both.acceptor))


def test_one_server_answers_for_two_titles() -> None:
    network = Network()
    asker, archive, other = (network.entity(entity(title)) for title in ("ASKER", "ARCHIVE", "OTHER"))
    server = archive.start_server(("h", 104), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0xA700)])
    server.also_serve(other, [(evt.EVT_C_STORE, lambda _: 0x0000)])
    statuses: dict[str, int] = {}
    for title in ("ARCHIVE", "OTHER"):
        with asker.associate("h", 104, ae_title=title) as assoc:
            statuses[title] = int(assoc.send_c_store(ct_file()))
    assert statuses == {"ARCHIVE": 0xA700, "OTHER": 0x0000}
