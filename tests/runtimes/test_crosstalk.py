"""Many operations at once, requests in both directions, several in one read: each gets what is its own, in order."""

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset
from pydicom.uid import JPEG2000
from reactivex import operators as ops

from rxdicom import AE, Association, AssociationServer, Status, build_context, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind, CGet, CMove, CStore, NEventReport
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.items import AsyncOperationsWindow
from rxdicom.wire.pdu import AssociateRQ, ReleaseRP, ReleaseRQ
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.runtimes.queries import (
    CT,
    FIND,
    GET,
    META,
    MOVE,
    SESSION,
    Counters,
    answer_to,
    counters,
    entity,
    instance,
    query,
    query_rq,
    raw_request,
    report_rq,
    start,
    statuses,
    store_rq,
    window,
)
from tests.runtimes.raw import Raw, accepting, associated, echo_rq, nothing_left, scripted
from tests.support import DEADLINE

ROOT = "1.2.826.0.1"


@pytest.fixture
def ae() -> Generator[AE]:
    with nothing_left():
        ae = entity("QR")
        yield ae
        ae.shutdown()


def released(raw: Raw) -> None:
    """Answer the A-RELEASE-RQ that comes next."""
    assert isinstance(raw.pdu(), ReleaseRQ)
    raw.send(ReleaseRP())


# ---- many associations at once

ASSOCIATIONS, ROUNDS, MOVED = 10, 500, 1
"""So many C-FINDs, C-STOREs and instances moved on each association; a C-MOVE moves so many of them together: one."""
Asked = Counter[tuple[str, str, int, str]]
"""AE title of the asker, service, message ID and what was asked for."""
Received = Counter[tuple[str, str | None, int | None]]
"""Instance, move originator and its message ID."""


class Archive:
    """An SCP that answers with what was asked for, and remembers who asked for what under which message ID."""

    def __init__(self, ae: AE, destinations: dict[str, tuple[str, int]]) -> None:
        self.destinations = destinations
        self.asked: Asked = Counter()
        self._lock = threading.Lock()
        kinds = (evt.EVT_C_FIND, evt.EVT_C_GET, evt.EVT_C_MOVE)
        handlers: list[EventHandler] = [(kind, self.retrieve) for kind in kinds]
        self.server = start(ae, *handlers, (evt.EVT_C_STORE, self.store))

    def _note(self, event: CFind | CGet | CMove | CStore, asked: str) -> None:
        with self._lock:
            self.asked[event.assoc.requestor.ae_title, event.event.name, event.message_id, asked] += 1

    def store(self, event: CStore) -> int:
        self._note(event, event.dataset.PatientID)
        return 0x0000 if event.dataset.SOPInstanceUID == event.request.AffectedSOPInstanceUID else 0xC000

    def retrieve(self, event: CFind | CGet | CMove) -> Iterator[Any]:
        """A match, or so many instances, of the patient who was asked for."""
        patient = event.identifier.PatientID
        self._note(event, patient)
        if isinstance(event, CFind):
            yield 0xFF00, query(patient)
            return
        if isinstance(event, CMove):
            yield self.destinations[event.move_destination]
        yield MOVED
        for number in range(MOVED):
            yield 0xFF00, instance(uid_of(patient, number), patient=patient)


def uid_of(patient: str, number: int = 0) -> str:
    return f"{ROOT}.{patient}.{number}"


def pending_then_success(count: int) -> list[tuple[int, Counters]]:
    """The statuses and counters of a retrieval without a failure."""
    return [*((0xFF00, (count - n, n, 0, 0)) for n in range(1, count + 1)), (0x0000, (None, count, 0, 0))]


def accounts(responses: Iterable[tuple[Status, Any]]) -> list[tuple[int, Counters]]:
    return [(status, counters(status)) for status, _ in responses]


class Station:
    """An asker, and the Storage SCP that it has things moved to, under one AE title."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ae = entity(f"STATION{number}")
        self.received: Received = Counter()
        self.faults: list[Any] = []
        self.server = start(self.ae, (evt.EVT_C_STORE, self.store))

    def store(self, event: CStore) -> int:
        asked, uid = event.request, event.dataset.SOPInstanceUID
        if uid != asked.AffectedSOPInstanceUID or not uid.startswith(f"{ROOT}.{event.dataset.PatientID}."):
            self.faults.append(event)
        self.received[uid, asked.MoveOriginatorApplicationEntityTitle, asked.MoveOriginatorMessageID] += 1
        return 0x0000

    def work(self, archive: AssociationServer) -> tuple[Asked, Received]:
        """Ask for all of it over one association. Returns what the archive, and this station, must have seen."""
        asked: Asked = Counter()
        moved: Received = Counter()
        title = self.ae.ae_title
        with self.ae.associate(*archive.address, ae_title="ARCHIVE") as assoc:
            for number in range(1, ROUNDS + 1):
                find, store, move = (f"{self.number + 1}.{kind}.{number}" for kind in (1, 2, 3))
                asked[title, "EVT_C_FIND", self.find(assoc, find), find] += 1
                asked[title, "EVT_C_STORE", self.send(assoc, store, 40_000 + number), store] += 1
                if number % MOVED == 0:
                    message_id = self.move(assoc, move)
                    asked[title, "EVT_C_MOVE", message_id, move] += 1
                    moved.update((uid_of(move, each), title, message_id) for each in range(MOVED))
        return asked, moved

    def find(self, assoc: Association, patient: str) -> int:
        responses = assoc.send_c_find(query(patient), FIND)
        found = list(responses)
        if found != [(0xFF00, query(patient)), (0x0000, None)]:
            self.faults.append((patient, found))
        return responses.message_id

    def send(self, assoc: Association, patient: str, message_id: int | None = None) -> int:
        if assoc.send_c_store(instance(uid_of(patient), patient=patient), msg_id=message_id) != 0x0000:
            self.faults.append(patient)
        return message_id or 0

    def move(self, assoc: Association, patient: str) -> int:
        responses = assoc.send_c_move(query(patient), self.ae.ae_title, MOVE)
        if accounts(responses) != pending_then_success(MOVED):
            self.faults.append(patient)
        return responses.message_id


@pytest.mark.timeout(180)
def test_ten_associations_with_everything_at_once() -> None:
    """Whatever is asked for is unique, and is counted at both ends; nothing is left behind."""
    with nothing_left():
        ae = entity("ARCHIVE")
        stations = [Station(number) for number in range(ASSOCIATIONS)]
        try:
            archive = Archive(ae, {each.ae.ae_title: each.server.address for each in stations})
            with ThreadPoolExecutor(ASSOCIATIONS) as pool:
                worked = list(pool.map(Station.work, stations, [archive.server] * ASSOCIATIONS))
            assert [each.faults for each in stations] == [[]] * ASSOCIATIONS
            assert archive.asked == sum((asked for asked, _ in worked), Asked())
            assert archive.asked.total() == len(archive.asked) == ASSOCIATIONS * (2 * ROUNDS + ROUNDS // MOVED)
            assert [each.received for each in stations] == [moved for _, moved in worked]
            assert {each.received.total() for each in stations} == {ROUNDS}
        finally:
            for each in (ae, *(station.ae for station in stations)):
                each.shutdown()


def test_one_association_shared_by_threads(ae: AE) -> None:
    """In a window of eight: every response finds the thread that asked, C-GET's sub-operations among them."""
    threads, rounds = 8, 15
    archive, station = Archive(ae, {}), Station(0)
    handlers = [(evt.EVT_C_STORE, station.store)]
    patients = [[f"{thread}.{number}" for number in range(1, rounds + 1)] for thread in range(1, threads + 1)]
    with ae.associate(*archive.server.address, ext_neg=[window(threads)], evt_handlers=handlers) as assoc:

        def work(mine: list[str]) -> None:
            for patient in mine:
                station.find(assoc, patient)
                if accounts(assoc.send_c_get(query(patient), GET)) != pending_then_success(MOVED):
                    station.faults.append(patient)
                station.send(assoc, patient)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, patients))
    station.ae.shutdown()
    assert station.faults == []
    assert station.received == Counter(
        (uid_of(patient, number), None, None) for mine in patients for patient in mine for number in range(MOVED)
    )


# ---- C-MOVE to oneself


@pytest.mark.parametrize("alone", [True, False], ids=["one AE", "station and archive"])
def test_three_moves_to_oneself_side_by_side(ae: AE, alone: bool) -> None:
    """One AE asks for the moves and takes what comes; alone it also is the one who sends it."""
    count = 20
    received: Counter[tuple[str, str, int]] = Counter()
    together = threading.Barrier(3)

    def on_store(event: CStore) -> int:
        asked = event.request
        originator = (asked.MoveOriginatorApplicationEntityTitle or "", asked.MoveOriginatorMessageID or 0)
        received[event.dataset.PatientID, *originator] += 1
        return 0x0000

    def on_move(event: CMove) -> Iterator[Any]:
        patient = event.identifier.PatientID
        assert event.move_destination == "QR"
        yield station.address
        yield count
        # None of the three ends before all are under way.
        together.wait(DEADLINE)
        for number in range(count):
            yield 0xFF00, instance(f"{ROOT}.{patient}.{number}", patient=patient)

    archive = ae if alone else entity("ARCHIVE")
    station = start(ae, (evt.EVT_C_STORE, on_store), (evt.EVT_C_MOVE, on_move))
    source = station if alone else start(archive, (evt.EVT_C_MOVE, on_move))

    def move(number: int) -> list[tuple[Status, Dataset | None]]:
        with ae.associate(*source.address) as assoc:
            return list(assoc.send_c_move(query(str(number)), "QR", MOVE, msg_id=100 + number))

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(move, range(3)))
    assert [accounts(responses) for responses in answers] == [pending_then_success(count)] * 3
    assert received == {(str(number), "QR", 100 + number): count for number in range(3)}
    archive.shutdown()


def test_the_associations_of_a_move_are_few_and_released(ae: AE) -> None:
    """A destination that takes nothing of what there is, instance after instance, is not asked without end."""
    count = 30
    opened: list[Association] = []
    open_now: set[Association] = set()
    at_once: list[int] = []
    endings: list[str] = []

    def on_established(event: Any) -> None:
        opened.append(event.assoc)
        open_now.add(event.assoc)
        at_once.append(len(open_now))

    destination = AE("DEST")
    destination.add_supported_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
    destination.maximum_associations = 2 * count
    observers: list[EventHandler] = [
        (evt.EVT_ESTABLISHED, on_established),
        (evt.EVT_CONN_CLOSE, lambda event: open_now.discard(event.assoc)),
        (evt.EVT_RELEASED, lambda event: endings.append("released")),
        (evt.EVT_ABORTED, lambda event: endings.append("aborted")),
    ]
    receiver = destination.start_server(("127.0.0.1", 0), block=False, evt_handlers=observers)

    def on_move(event: CMove) -> Iterator[Any]:
        yield *receiver.address, {"contexts": [build_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)]}
        yield count
        for number in range(count):
            compressed = instance(f"{ROOT}.{number}")
            compressed.file_meta.TransferSyntaxUID = JPEG2000
            yield 0xFF00, compressed

    ae.convert_datasets = False
    with ae.associate(*start(ae, (evt.EVT_C_MOVE, on_move)).address) as assoc:
        status, _ = list(assoc.send_c_move(query(), "DEST", MOVE))[-1]
        assert (status, counters(status)) == (0xA702, (None, 0, count, 0))
        assert assoc.send_c_echo() == 0x0000
    destination.shutdown()
    assert not open_now
    assert max(at_once) <= 4
    assert len(opened) <= 4
    assert endings == ["released"] * len(opened)


# ---- N-EVENT-REPORT at any time


class Reports:
    """A handler of N-EVENT-REPORT that remembers what was reported; all has arrived after ``count`` of them."""

    def __init__(self, count: int = 1) -> None:
        self.types: list[int | None] = []
        self.count = count
        self.arrived = threading.Event()

    def __call__(self, event: NEventReport) -> tuple[int, None]:
        self.types.append(event.event_type)
        if len(self.types) == self.count:
            self.arrived.set()
        return 0x0000, None


def reported(raw: Raw, message_id: int) -> None:
    """Report, and see to the answer; it must be the next thing that comes."""
    raw.send(report_rq(message_id, event_type=message_id))
    answered(raw.message(), message_id)


def answered(found: Message, message_id: int) -> None:
    assert (found.kind, found.MessageIDBeingRespondedTo) == (Command.N_EVENT_REPORT_RSP, message_id)
    assert found.Status == 0x0000


def listening(address: tuple[str, int], reports: Reports, *handlers: EventHandler, **options: Any) -> Association:
    """An association that takes reports."""
    observers = [(evt.EVT_N_EVENT_REPORT, reports), *handlers]
    return entity().associate(*address, evt_handlers=observers, **options)


def test_a_report_to_an_scu_that_is_idle() -> None:
    reports = Reports(3)
    answers = threading.Event()

    def script(raw: Raw) -> None:
        raw.accept()
        for number in (1, 2, 3):
            reported(raw, number)
        answers.set()
        raw.send(answer_to(raw.message(), 0x0000))
        released(raw)

    with scripted(script) as address, listening(address, reports) as assoc:
        assert answers.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000
    assert reports.types == [1, 2, 3]


@pytest.mark.parametrize("flowing", [False, True], ids=["iterated", "Rx"])
def test_a_report_in_the_middle_of_a_query(flowing: bool) -> None:
    """The message ID is that of the query, in the other direction: the two have nothing to do with each other."""
    reports = Reports()

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        assert asked.MessageID == 1
        raw.send(answer_to(asked, 0xFF00, query("1")))
        reported(raw, 1)
        raw.send(answer_to(asked, 0xFF00, query("2")))
        reported(raw, 2)
        raw.send(answer_to(asked, 0x0000))
        released(raw)

    with scripted(script) as address, listening(address, reports) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        found = responses.pipe(ops.to_list()).run() if flowing else list(responses)
    assert [identifier and identifier.PatientID for _, identifier in found] == ["1", "2", None]
    assert statuses(found) == [0xFF00, 0xFF00, 0x0000]
    assert reports.types == [1, 2]


def test_a_report_in_the_same_write_as_the_responses() -> None:
    reports = Reports()

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        match = [answer_to(asked, 0xFF00, query(str(number))) for number in range(3)]
        raw.send(
            report_rq(1, 1), match[0], report_rq(2, 2), match[1], match[2], answer_to(asked, 0x0000), report_rq(3, 3)
        )
        for number in (1, 2, 3):
            answered(raw.message(), number)
        released(raw)

    with scripted(script) as address, listening(address, reports, ext_neg=[window(3)]) as assoc:
        found = [identifier and identifier.PatientID for _, identifier in assoc.send_c_find(query(), FIND)]
    assert found == ["0", "1", "2", None]
    assert reports.types == [1, 2, 3]


def test_a_report_while_a_response_to_c_store_is_awaited() -> None:
    reports = Reports()

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        assert asked.kind is Command.C_STORE_RQ
        reported(raw, 1)
        raw.send(answer_to(asked, 0x0000))
        released(raw)

    with scripted(script) as address, listening(address, reports) as assoc:
        assert assoc.send_c_store(instance()) == 0x0000
        assert reports.types == [1]


@pytest.mark.parametrize("count", [1, 3])
def test_a_report_while_the_scu_is_releasing(count: int) -> None:
    """Sta7 takes P-DATA and sends none (PS3.8 table 9-10): it is handled, not answered, and the release goes on."""
    reports = Reports(count)
    left: list[bytes] = []

    def script(raw: Raw) -> None:
        raw.accept()
        assert isinstance(raw.pdu(), ReleaseRQ)
        for number in range(count):
            raw.send(report_rq(number + 1, event_type=number + 1))
        assert reports.arrived.wait(DEADLINE)
        raw.send(ReleaseRP())
        left.append(raw.sock.recv(1024))

    with scripted(script) as address:
        with listening(address, reports) as assoc:
            pass
    assert (assoc.is_released, assoc.is_aborted) == (True, False)
    assert reports.types == list(range(1, count + 1))
    assert left == [b""], "it is closed, and nothing else came"


def test_a_report_behind_the_scps_own_release() -> None:
    """No P-DATA-TF may follow an A-RELEASE-RQ (Sta8): that aborts the association, and nobody hears of the report."""
    reports = Reports()
    established, aborted = threading.Event(), threading.Event()

    def script(raw: Raw) -> None:
        raw.accept()
        assert established.wait(DEADLINE)
        raw.send(ReleaseRQ(), report_rq(1))
        assert raw.aborted() == (2, 2)

    with scripted(script) as address:
        assoc = listening(address, reports, (evt.EVT_ABORTED, lambda event: aborted.set()))
        established.set()
        assert aborted.wait(DEADLINE)
        assert assoc.join(DEADLINE)
    assert (assoc.is_aborted, reports.types) == (True, [])


def test_a_report_from_our_own_scp_meets_a_query_of_ours(ae: AE) -> None:
    """Both sides ask at the same time, again and again, each under its own message IDs."""
    reports = Reports()

    def on_find(event: CFind) -> Iterator[Any]:
        for number in range(20):
            assert event.assoc.send_n_event_report(None, number, SESSION, "1.2", meta_uid=META)[0] == 0x0000
            yield 0xFF00, query(str(number))

    server = start(ae, (evt.EVT_C_FIND, on_find))
    with ae.associate(*server.address, evt_handlers=[(evt.EVT_N_EVENT_REPORT, reports)]) as assoc:
        for _ in range(3):
            found = [identifier and identifier.PatientID for _, identifier in assoc.send_c_find(query(), FIND)]
            assert found == [*map(str, range(20)), None]
    assert reports.types == [*range(20)] * 3


# ---- several in one read, and a handler that asks itself


def test_a_handler_that_asks_does_not_change_the_order() -> None:
    """The handler waits for an answer of its own: what came before that is handed over before what comes meanwhile."""
    associations: list[Association] = []

    def on_report(event: NEventReport) -> tuple[int, None]:
        assert associations[0].send_c_echo() == 0x0000
        return 0x0000, None

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        match = [answer_to(asked, 0xFF00, query(str(number))) for number in range(4)]
        raw.send(report_rq(1), match[0], match[1])
        echo = raw.message()
        assert echo.kind is Command.C_ECHO_RQ
        raw.send(match[2], answer_to(echo, 0x0000), match[3])
        answered(raw.message(), 1)
        raw.send(answer_to(asked, 0x0000))
        released(raw)

    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    with scripted(windowed(script)) as address:
        with entity().associate(*address, ext_neg=[window(4)], evt_handlers=handlers) as assoc:
            associations.append(assoc)
            found = [identifier and identifier.PatientID for _, identifier in assoc.send_c_find(query(), FIND)]
    assert found == ["0", "1", "2", "3", None]


class WindowedRaw(Raw):
    """A raw acceptor that accepts the proposed window too."""

    def accept(self, maximum_length: int = 16384) -> Any:
        asked = self.pdu()
        assert isinstance(asked, AssociateRQ)
        answer = accepting(asked, maximum_length)
        items = (*answer.user_information, *asked.items_of(AsyncOperationsWindow))
        self.send(evolve(answer, user_information=items))
        return asked


def windowed(script: Callable[[Raw], None]) -> Callable[[Raw], None]:
    return lambda raw: script(WindowedRaw(raw.sock))


class Performing:
    """Handlers that say when they run, to see what runs side by side; each waits a little for company."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.most = 0
        self._running = 0
        self._changed = threading.Condition()

    def _enter(self, message_id: int) -> None:
        with self._changed:
            self._running += 1
            self.most = max(self.most, self._running)
            self.order.append(message_id)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._running > 1, 0.2)

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1

    def status(self, event: Any) -> int:
        self._enter(event.message_id)
        self._leave()
        return 0x0000

    def matches(self, event: CFind) -> Iterator[Any]:
        self._enter(event.message_id)
        yield 0xFF00, query("1")
        self._leave()

    @property
    def handlers(self) -> list[EventHandler]:
        return [(evt.EVT_C_STORE, self.status), (evt.EVT_C_ECHO, self.status), (evt.EVT_C_FIND, self.matches)]


def requests(which: Sequence[str]) -> bytes:
    """Requests of these kinds, numbered from 1 on, in one write."""
    makers = {"find": partial(query_rq, Command.C_FIND_RQ), "store": store_rq, "echo": echo_rq}
    return b"".join(makers[kind](number) for number, kind in enumerate(which, 1))


@pytest.mark.parametrize(
    "which",
    [["store", "store"], ["store", "echo", "store"], ["find", "store"], ["find", "echo"], ["find", "find"]],
    ids="+".join,
)
def test_what_exceeds_the_window_is_not_performed_side_by_side(ae: AE, which: list[str]) -> None:
    """Nothing is negotiated, so one at a time: each is answered, in order, or refused (0xA700), never begun early."""
    performing = Performing()
    with associated(start(ae, *performing.handlers), raw_request(operations=1)) as raw:
        raw.send(requests(which))
        finals: list[tuple[int | None, int | None]] = []
        while len(finals) < len(which):
            found = raw.message()
            if found.Status != 0xFF00:
                finals.append((found.MessageIDBeingRespondedTo, found.Status))
    assert performing.most == 1
    performed = [number or 0 for number, status in finals if status == 0x0000]
    assert performed == performing.order == sorted(performed)
    assert {status for _, status in finals} <= {0x0000, 0xA700}
    if "find" not in which:
        assert len(performed) == len(which)


def test_a_window_lets_as_many_run_side_by_side(ae: AE) -> None:
    performing = Performing()
    with associated(start(ae, *performing.handlers), raw_request(operations=2)) as raw:
        raw.send(requests(["find", "find"]))
        finals = [found for found in (raw.message() for _ in range(4)) if found.Status == 0x0000]
    assert (performing.most, len(finals)) == (2, 2)


def test_two_writers_and_a_peer_that_does_not_read(ae: AE) -> None:
    """In a window of two: the one that cannot write waits as the other does, and neither fills the memory."""
    given: Counter[int] = Counter()
    over = threading.Semaphore(0)
    most = 2000

    def on_find(event: CFind) -> Iterator[Any]:
        match = query()
        match.add_new(0x0040A160, "UT", "x" * 8192)
        try:
            for _ in range(most):
                given[event.message_id] += 1
                yield 0xFF00, match
        finally:
            over.release()

    ae.timeouts = evolve(ae.timeouts, write=0.5)
    with associated(start(ae, (evt.EVT_C_FIND, on_find)), raw_request(operations=2)) as raw:
        raw.send(query_rq(Command.C_FIND_RQ, 1), query_rq(Command.C_FIND_RQ, 2))
        for _ in range(2):
            assert over.acquire(timeout=DEADLINE)
    assert sum(given.values()) < most, given
