"""The services, whichever runtime asks and whichever answers."""

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import DatasetError, InvalidFile, NoAcceptedContext, StateError, TimedOut, aio, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CEcho, CFind, CGet, CMove, CStore, DIMSEReceived, NEventReport
from rxdicom.runtimes.batches import Sent
from rxdicom.status import Status
from rxdicom.wire.dimse import Command
from tests.contract.conftest import Sides, entity
from tests.contract.runtime import LoopRuntime
from tests.runtimes.queries import FIND, GET, META, MOVE, SESSION, counters, instance, query, statuses, window
from tests.support import DEADLINE, FILES, dataset_bytes, read


def matches(number: int, seen: list[CFind] | None = None) -> EventHandler:
    """Answers a C-FIND with so many matches."""

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset | None]]:
        if seen is not None:
            seen.append(event)
        for index in range(number):
            yield 0xFF00, query(str(index))

    return evt.EVT_C_FIND, on_find


class Endless:
    """Answers a C-FIND for ever, until it is cancelled; each match is let go one by one."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.given = 0

    @property
    def handler(self) -> EventHandler:
        def on_find(event: CFind) -> Iterator[tuple[int, Dataset | None]]:
            try:
                while not event.is_cancelled:
                    self.given += 1
                    yield 0xFF00, query(str(self.given))
                yield 0xFF00, query("late")
            finally:
                self.closed.set()

        return evt.EVT_C_FIND, on_find


# ---- C-ECHO and C-STORE


def test_echo(sides: Sides) -> None:
    seen: list[CEcho] = []

    def on_echo(event: CEcho) -> int:
        seen.append(event)
        return 0x0000

    with sides.associate(sides.start((evt.EVT_C_ECHO, on_echo))) as assoc:
        status = assoc.send_c_echo(msg_id=7)
        assert (status, status.category, type(status)) == (0, "Success", Status)
        assert assoc.send_c_echo() == 0
    assert [each.message_id for each in seen] == [7, 1]
    assert seen[0].assoc.requestor.ae_title == "SCU"


@pytest.mark.parametrize("memory", [0, 1 << 20])
@pytest.mark.parametrize("as_dataset", [False, True])
def test_store(sides: Sides, tmp_path: Path, memory: int, as_dataset: bool) -> None:
    sides.scp.limits = evolve(sides.scp.limits, memory=memory)
    sides.scp.spool_folder = str(tmp_path)
    stored = instance("1.2.3", size=300_001)
    stored.save_as(tmp_path / "sent.dcm", enforce_file_format=True)  # pyright: ignore[reportUnknownMemberType]
    seen: list[Dataset] = []

    def on_store(event: CStore) -> int:
        seen.append(event.dataset)
        assert (event.path is None) == (memory > 0)
        event.save(tmp_path / "stored.dcm")
        return 0x0000

    with sides.associate(sides.start((evt.EVT_C_STORE, on_store))) as assoc:
        assert assoc.send_c_store(stored if as_dataset else tmp_path / "sent.dcm", originator_aet="THEM") == 0x0000
    assert seen == [read(tmp_path / "sent.dcm")]
    assert dataset_bytes(tmp_path / "stored.dcm") == dataset_bytes(tmp_path / "sent.dcm")
    # Nothing else: the spool file became the stored one.
    assert sorted(each.name for each in tmp_path.iterdir()) == ["sent.dcm", "stored.dcm"]


def raises(error: Exception) -> Any:
    def handler(event: Any) -> int:
        raise error

    return handler


def returns(value: Any) -> Any:
    def handler(event: Any) -> Any:
        return value

    return handler


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (returns(0xA700), 0xA700),
        (returns("stored"), 0xC002),
        (raises(ZeroDivisionError()), 0xC211),
        (raises(OSError("full")), 0xA700),
        (raises(DatasetError("bad")), 0xC210),
    ],
)
def test_what_a_handler_does_wrong_is_a_defined_failure(sides: Sides, answer: Any, status: int) -> None:
    with sides.associate(sides.start((evt.EVT_C_STORE, answer))) as assoc:
        assert assoc.send_c_store(instance()) == status
        assert assoc.send_c_echo() == 0x0000


def test_a_status_that_the_service_does_not_have_is_sent_and_logged_once(
    sides: Sides, caplog: pytest.LogCaptureFixture
) -> None:
    """For each operation, whatever its table knows goes without a word."""
    caplog.set_level(logging.WARNING, logger="rxdicom")
    answered = iter((0xD000, 0xB000, 0xD000, 0xD001, 0xD000))

    def on_store(event: CStore) -> int:
        return next(answered)

    handlers: tuple[EventHandler, ...] = (
        (evt.EVT_C_STORE, on_store),
        (evt.EVT_C_FIND, returns([(0xFF00, query()), (0xD000, None)])),
    )
    with sides.associate(sides.start(*handlers)) as assoc:
        answers = [int(assoc.send_c_store(instance())) for _ in range(5)]
        for _ in range(2):
            assert [int(status) for status, _ in assoc.send_c_find(query(), FIND)] == [0xFF00, 0xD000]
    assert answers == [0xD000, 0xB000, 0xD000, 0xD001, 0xD000]
    logged = [record.getMessage() for record in caplog.records if "is none of" in record.getMessage()]
    assert [line.partition(" is none of ")[0].partition(": ")[2] for line in logged] == [
        "C-STORE: status 0xD000",
        "C-STORE: status 0xD001",
        "C-FIND: status 0xD000",
    ]


def test_what_cannot_be_sent_is_raised(sides: Sides, tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_bytes(b"text")
    with sides.associate(sides.start()) as assoc:
        with pytest.raises(InvalidFile):
            assoc.send_c_store(tmp_path / "text.dcm")
        with pytest.raises(FileNotFoundError):
            assoc.send_c_store(tmp_path / "absent.dcm")
        with pytest.raises(NoAcceptedContext):
            assoc.send_c_store(FILES / "reportsi.dcm")
        with pytest.raises(ValueError, match="priority"):
            assoc.send_c_store(instance(), priority=5)
        assert assoc.send_c_echo() == 0x0000


def test_many_are_stored_with_a_full_window(sides: Sides, tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_bytes(b"text")
    running, most, lock = 0, 0, threading.Lock()
    everybody = threading.Barrier(3)

    def on_store(event: CStore) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        everybody.wait(DEADLINE)
        with lock:
            running -= 1
        return 0xB000 if event.request.AffectedSOPInstanceUID == "1.2.5" else 0x0000

    server = sides.start((evt.EVT_C_STORE, on_store))
    objects: list[Any] = [instance(f"1.2.{index}") for index in range(6)]
    with sides.associate(server, ext_neg=[window(3)]) as assoc:
        assert assoc.operations_window == (3, 3)
        transfer = assoc.send_many([*objects, tmp_path / "text.dcm"])
        sent: list[Sent] = list(transfer)
    assert most == 3
    assert (transfer.totals.stored, transfer.totals.warnings, transfer.totals.failed) == (6, 1, 1)
    failed = [each for each in sent if not each.is_stored]
    assert [type(each.error) for each in failed] == [InvalidFile]
    assert {id(each.instance) for each in sent if each.is_stored} == {id(each) for each in objects}


# ---- C-FIND and C-CANCEL


def test_find(sides: Sides) -> None:
    seen: list[CFind] = []
    with sides.associate(sides.start(matches(100, seen))) as assoc:
        answers = list(assoc.send_c_find(query("D*"), FIND))
    assert statuses(answers) == [0xFF00] * 100 + [0x0000]
    assert [identifier.PatientID for _, identifier in answers[:-1]] == [str(index) for index in range(100)]
    assert answers[-1][1] is None
    assert seen[0].identifier == query("D*")


def test_a_list_of_matches(sides: Sides) -> None:
    def on_find(event: CFind) -> list[tuple[int, Dataset | None]]:
        return [(0xFF00, query("1")), (0xFF01, query("2"))]

    with sides.associate(sides.start((evt.EVT_C_FIND, on_find))) as assoc:
        assert statuses(assoc.send_c_find(query(), FIND)) == [0xFF00, 0xFF01, 0x0000]


def test_leaving_early_cancels(sides: Sides) -> None:
    endless = Endless()
    with sides.associate(sides.start(endless.handler)) as assoc:
        for number, (status, _) in enumerate(assoc.send_c_find(query(), FIND)):
            assert status == 0xFF00
            if number == 4:
                break
        assert endless.closed.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000


def test_cancelling_by_message_id(sides: Sides) -> None:
    endless = Endless()
    with sides.associate(sides.start(endless.handler)) as assoc:
        answers = assoc.send_c_find(query(), FIND, msg_id=9)
        assert answers.message_id == 9
        received: list[int] = []
        for status, _ in answers:
            received.append(int(status))
            if len(received) == 3:
                assoc.send_c_cancel(9, query_model=FIND)
    assert set(received[:-1]) == {0xFF00}
    assert received[-1] == 0xFE00
    assert endless.closed.wait(DEADLINE)


def test_responses_flow_into_rx(sides: Sides) -> None:
    endless, over = Endless(), threading.Event()
    taken: list[Any] = []
    with sides.associate(sides.start(endless.handler)) as assoc:
        five = assoc.send_c_find(query(), FIND).pipe(ops.take(5))
        sides.scu_runtime.subscribe(five, on_next=taken.append, on_completed=over.set)
        assert over.wait(DEADLINE)
        assert statuses(taken) == [0xFF00] * 5
        assert endless.closed.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000


def test_a_disposed_subscription_cancels(sides: Sides) -> None:
    endless, came = Endless(), threading.Event()

    def on_next(answer: Any) -> None:
        came.set()

    with sides.associate(sides.start(endless.handler)) as assoc:
        observable = assoc.send_c_find(query(), FIND).observable
        subscription = sides.scu_runtime.subscribe(observable, on_next=on_next)
        assert came.wait(DEADLINE)
        subscription.dispose()
        assert endless.closed.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000


def test_results_are_consumed_once(sides: Sides) -> None:
    with sides.associate(sides.start(matches(1))) as assoc:
        answers = assoc.send_c_find(query(), FIND)
        assert len(list(answers)) == 2
        with pytest.raises(StateError):
            next(iter(answers))


# ---- C-GET and C-MOVE


def gives(number: int, *, destination: Any = None) -> Any:
    """Answers a C-GET, or with a destination a C-MOVE, with so many instances."""

    def on_retrieve(event: CGet | CMove) -> Iterator[Any]:
        if destination is not None:
            yield destination
        yield number
        for index in range(number):
            yield 0xFF00, instance(f"1.2.{index}", size=1000)

    return on_retrieve


def test_get(sides: Sides) -> None:
    stored: list[str | None] = []

    def on_store(event: CStore) -> int:
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0xA700 if event.request.AffectedSOPInstanceUID == "1.2.1" else 0x0000

    server = sides.start((evt.EVT_C_GET, gives(3)))
    with sides.associate(server, (evt.EVT_C_STORE, on_store)) as assoc:
        answers = list(assoc.send_c_get(query(), GET))
    assert stored == ["1.2.0", "1.2.1", "1.2.2"]
    assert statuses(answers) == [0xFF00] * 3 + [0xB000]
    assert counters(answers[-1][0]) == (None, 2, 1, 0)
    assert answers[-1][1].FailedSOPInstanceUIDList == "1.2.1"


def test_move(sides: Sides) -> None:
    stored: list[tuple[str, str, int | None]] = []

    def on_store(event: CStore) -> int:
        request = event.request
        title = event.assoc.requestor.ae_title
        stored.append((title, request.AffectedSOPInstanceUID or "", request.MoveOriginatorMessageID))
        return 0x0000

    third = entity(sides.scp_runtime, "THIRD")
    handlers = sides.scp_runtime.handlers(((evt.EVT_C_STORE, on_store),))
    destination = third.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    server = sides.start((evt.EVT_C_MOVE, gives(3, destination=destination.address)))
    with sides.associate(server) as assoc:
        answers = list(assoc.send_c_move(query(), "THIRD", MOVE, msg_id=5))
    assert statuses(answers) == [0xFF00] * 3 + [0x0000]
    assert counters(answers[-1][0]) == (None, 3, 0, 0)
    assert stored == [("SCP", f"1.2.{index}", 5) for index in range(3)]


@pytest.mark.parametrize(("destination", "status"), [((None, None), 0xA801), (("127.0.0.1", 1), 0xA702)])
def test_a_destination_that_is_unknown_or_away(sides: Sides, destination: Any, status: int) -> None:
    server = sides.start((evt.EVT_C_MOVE, gives(2, destination=destination)))
    with sides.associate(server) as assoc:
        answers = list(assoc.send_c_move(query(), "AWAY", MOVE))
    assert answers[-1][0] == status


@pytest.mark.parametrize("service", ["get", "move"])
def test_cancelled_retrieval(sides: Sides, service: str) -> None:
    """What was not sent yet is not; the final response counts it as remaining."""
    cancelled = threading.Event()

    def on_cancel(event: DIMSEReceived) -> None:
        if event.message.kind is Command.C_CANCEL_RQ:
            cancelled.set()

    def on_retrieve(event: CGet | CMove) -> Iterator[Any]:
        if service == "move":
            yield destination.address
        yield 5
        yield 0xFF00, instance("1.2.0")
        assert cancelled.wait(DEADLINE)
        yield 0xFF00, instance("1.2.1")

    stored = (evt.EVT_C_STORE, returns(0x0000))
    third = entity(sides.scp_runtime, "THIRD")
    handlers = sides.scp_runtime.handlers((stored,))
    destination = third.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    kind = evt.EVT_C_GET if service == "get" else evt.EVT_C_MOVE
    server = sides.start((kind, on_retrieve), (evt.EVT_DIMSE_RECV, on_cancel))
    with sides.associate(server, stored) as assoc:
        model, to = (GET, ()) if service == "get" else (MOVE, ("THIRD",))
        answers: list[Any] = []
        for answer in getattr(assoc, f"send_c_{service}")(query(), *to, model, msg_id=3):
            answers.append(answer)
            if len(answers) == 1:
                assoc.send_c_cancel(3, query_model=model)
        assert assoc.send_c_echo() == 0x0000
    assert statuses(answers) == [0xFF00, 0xFE00]
    assert counters(answers[-1][0]) == (4, 1, 0, 0)


# ---- what handlers do wrong, and the defaults


def fails_after(*items: Any) -> Any:
    """An iterating handler that gives these, and then raises."""

    def handler(event: Any) -> Iterator[Any]:
        yield from items
        raise ZeroDivisionError

    return handler


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (None, [0xC311]),
        (raises(ZeroDivisionError()), [0xC311]),
        (returns([]), [0x0000]),
        (returns(7), [0xC311]),
        (fails_after((0xFF00, query("1"))), [0xFF00, 0xC311]),
        (returns([(0xFF00, "no dataset")]), [0xC312]),
        (returns([(0xFF00, query("1")), (0xA700, None), (0xFF00, query("2"))]), [0xFF00, 0xA700]),
        (returns([("what", None)]), [0xC002]),
    ],
)
def test_what_a_find_handler_does_wrong(sides: Sides, handler: Any, expected: list[int]) -> None:
    handlers: list[EventHandler] = [] if handler is None else [(evt.EVT_C_FIND, handler)]
    with sides.associate(sides.start(*handlers)) as assoc:
        assert statuses(assoc.send_c_find(query(), FIND)) == expected
        assert assoc.send_c_echo() == 0x0000


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (None, 0xC411),
        (("many",), 0xC413),
        ((70000,), 0xC416),
        ((), 0xC413),
        ((2, (0xFF00, instance()), ZeroDivisionError), 0xC411),
        ((2, (0xA701, None)), 0xA701),
        ((0,), 0x0000),
    ],
)
def test_what_a_get_handler_does_wrong(sides: Sides, items: Any, expected: int) -> None:
    def on_get(event: CGet) -> Iterator[Any]:
        for item in items:
            if item is ZeroDivisionError:
                raise ZeroDivisionError
            yield item

    handlers: list[EventHandler] = [] if items is None else [(evt.EVT_C_GET, on_get)]
    with sides.associate(sides.start(*handlers), (evt.EVT_C_STORE, returns(0x0000))) as assoc:
        assert statuses(assoc.send_c_get(query(), GET))[-1] == expected
        assert assoc.send_c_echo() == 0x0000


@pytest.mark.parametrize(
    ("items", "expected"),
    [(None, 0xC511), ((), 0xC514), (("nowhere",), 0xC514), ((("127.0.0.1", 1), "many"), 0xC513)],
)
def test_what_a_move_handler_does_wrong(sides: Sides, items: Any, expected: int) -> None:
    def on_move(event: CMove) -> Iterator[Any]:
        yield from items

    handlers: list[EventHandler] = [] if items is None else [(evt.EVT_C_MOVE, on_move)]
    with sides.associate(sides.start(*handlers)) as assoc:
        assert statuses(assoc.send_c_move(query(), "AWAY", MOVE)) == [expected]
        assert assoc.send_c_echo() == 0x0000


@pytest.mark.parametrize("handler", [None, raises(ZeroDivisionError()), returns("junk"), returns((0x0000, "junk"))])
def test_what_an_n_handler_does_wrong(sides: Sides, handler: Any) -> None:
    handlers: list[EventHandler] = [] if handler is None else [(evt.EVT_N_GET, handler)]
    with sides.associate(sides.start(*handlers)) as assoc:
        assert assoc.send_n_get(None, SESSION, "1.2.3", meta_uid=META) == (0x0110, None)
        assert assoc.send_c_echo() == 0x0000


def test_unbinding_puts_the_default_back(sides: Sides) -> None:
    (handler,) = sides.scp_runtime.handlers(((evt.EVT_C_STORE, returns(0x0000)),))
    server = sides.start()
    with sides.associate(server) as assoc:
        assert assoc.send_c_store(instance()) == 0xC211
        server.bind(*handler)
        assert assoc.send_c_store(instance()) == 0x0000
        server.unbind(*handler)
        assert assoc.send_c_store(instance()) == 0xC211


# ---- N services


def attributes(text: str) -> Dataset:
    dataset = Dataset()
    dataset.PatientID = text
    return dataset


@pytest.mark.parametrize("service", ["get", "set", "action", "create"])
def test_normalized(sides: Sides, service: str) -> None:
    asked: list[Any] = []

    def on_request(event: Any) -> tuple[int, Dataset]:
        asked.append(event)
        return 0x0000, attributes("back")

    kind = getattr(evt, f"EVT_N_{service.upper()}")
    sent = attributes("there")
    calls: dict[str, tuple[Any, ...]] = {
        "get": ([(0x0010, 0x0020)],),
        "set": (sent,),
        "action": (sent, 3),
        "create": (sent,),
    }
    with sides.associate(sides.start((kind, on_request))) as assoc:
        send = getattr(assoc, f"send_n_{service}")
        status, answer = send(*calls[service], SESSION, "1.2.3", meta_uid=META)
    assert status == 0x0000
    assert answer == attributes("back")
    if service == "get":
        assert asked[0].attribute_identifiers == (0x00100020,)
    else:
        name = {"set": "modification_list", "action": "action_information", "create": "attribute_list"}[service]
        assert getattr(asked[0], name) == sent


def test_delete(sides: Sides) -> None:
    with sides.associate(sides.start((evt.EVT_N_DELETE, returns(0x0112)))) as assoc:
        assert assoc.send_n_delete(SESSION, "1.2.3", meta_uid=META) == 0x0112


def test_the_scp_reports_an_event_over_the_same_association(sides: Sides) -> None:
    reported = threading.Event()
    seen: list[NEventReport] = []

    def on_report(event: NEventReport) -> int:
        seen.append(event)
        reported.set()
        return 0x0000

    server = sides.start()
    with sides.associate(server, (evt.EVT_N_EVENT_REPORT, on_report)) as assoc:
        assert assoc.send_c_echo() == 0x0000
        accepted = server.active_associations[0]
        status, reply = accepted.send_n_event_report(attributes("news"), 2, SESSION, "1.2.3", meta_uid=META)
        assert (status, reply) == (0x0000, None)
        assert reported.wait(DEADLINE)
    assert (seen[0].event_type, seen[0].event_information) == (2, attributes("news"))


# ---- deadlines of requests, and the window


def test_a_response_that_does_not_come_in_time(sides: Sides) -> None:
    go_on = threading.Event()

    def on_store(event: CStore) -> int:
        go_on.wait(DEADLINE)
        return 0x0000

    sides.scu.dimse_timeout = 0.3
    with sides.associate(sides.start((evt.EVT_C_STORE, on_store)), ext_neg=[window(2)]) as assoc:
        with pytest.raises(TimedOut) as caught:
            assoc.send_c_store(instance())
        assert caught.value.phase == "response"
        assert assoc.is_established
        go_on.set()
        assert assoc.send_c_echo() == 0x0000


def test_own_unfinished_responses_fill_the_window(sides: Sides) -> None:
    endless = Endless()
    with sides.associate(sides.start(endless.handler)) as assoc:
        if isinstance(sides.scu_runtime, LoopRuntime):
            # Both by one task there, as both by one thread here.
            sides.scu_runtime.loop.do(_echo_amid_responses, assoc.target)
        else:
            answers = iter(assoc.send_c_find(query(), FIND))
            next(answers)
            with pytest.raises(StateError, match="window"):
                assoc.send_c_echo()
            answers.close()
        assert endless.closed.wait(DEADLINE)


async def _echo_amid_responses(assoc: aio.Association) -> None:
    async with assoc.send_c_find(query(), FIND) as answers:
        await anext(answers)
        with pytest.raises(StateError, match="window"):
            await assoc.send_c_echo()


def test_a_message_id_that_is_outstanding(sides: Sides) -> None:
    endless = Endless()
    with sides.associate(sides.start(endless.handler)) as assoc:
        with pytest.raises(ValueError, match="out of range"):
            assoc.send_c_echo(msg_id=70000)
        answers = iter(assoc.send_c_find(query(), FIND, msg_id=4))
        next(answers)
        with pytest.raises(ValueError, match="outstanding"):
            assoc.send_c_echo(msg_id=4)
        answers.close()
        assert endless.closed.wait(DEADLINE)


def test_what_a_handler_was_given_is_freed_without_the_garbage_collector(sides: Sides) -> None:
    """Its dataset would wait for that, with those of hundreds of others."""
    events: list[weakref.ref[Any]] = []

    def note(event: Any) -> int:
        events.append(weakref.ref(event))
        return 0x0000

    with sides.associate(sides.start((evt.EVT_C_STORE, note), (evt.EVT_C_ECHO, note))) as assoc:
        gc.disable()
        try:
            for _ in range(2):
                assoc.send_c_store(instance("1.2.3"))
                assoc.send_c_echo()
            # Those before the last may be on their way out.
            assert [each() for each in events[:2]] == [None, None]
        finally:
            gc.enable()
