"""C-CANCEL (PS3.7 §9.3.2.3) in both roles, against our own peer and raw ones; leaving early, and what that costs."""

import gc
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import AE, Association, AssociationAborted, LocalUsageError, RxDicomError, StateError, TimedOut, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CFind
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.pdu import Abort, ReleaseRP, ReleaseRQ
from tests.runtimes.queries import (
    CONTEXT,
    FIND,
    GET,
    MODEL,
    MOVE,
    Counters,
    Heard,
    answer_to,
    cancel_rq,
    counters,
    ended_by,
    entity,
    instance,
    query,
    query_rq,
    raw_request,
    start,
    statuses,
    window,
)
from tests.runtimes.raw import Raw, associated, echo_rq, nothing_left, scripted
from tests.support import DEADLINE

KINDS = [Command.C_FIND_RQ, Command.C_GET_RQ, Command.C_MOVE_RQ]
EACH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.message_name)
NOTHING: Counters = (None, None, None, None)
WITHOUT_END = 1_000_000
"""More than anybody waits for."""


@pytest.fixture
def ae() -> Generator[AE]:
    with nothing_left():
        ae = entity()
        yield ae
        ae.shutdown()


@pytest.fixture
def asker_ae() -> Generator[AE]:
    """The other side, where that needs deadlines of its own or ends badly."""
    ae = entity("ASKER")
    yield ae
    ae.shutdown()


class Answering:
    """Handlers of C-FIND, C-GET and C-MOVE that give match after match, instance after instance; one at a time runs."""

    def __init__(self, count: int, *, held_at: int | None = None, size: int = 0) -> None:
        self.count = count
        self.size = size
        self.held_at = held_at
        """Before this item it waits until ``go_on`` is set."""
        self.go_on = threading.Event()
        self.given = 0
        self.cancelled: list[bool] = []
        """What ``is_cancelled`` said, item after item."""
        self.over = threading.Event()
        self.destination: Any = None

    def handlers(self, ae: AE) -> list[EventHandler]:
        """To be bound at a server; C-MOVE goes to one that takes everything."""
        self.destination = start(ae, (evt.EVT_C_STORE, stored)).address
        return [(kind, self) for kind in (evt.EVT_C_FIND, evt.EVT_C_GET, evt.EVT_C_MOVE)]

    def __call__(self, event: Any) -> Iterator[Any]:
        self.over.clear()
        self.given = 0
        retrieves = not isinstance(event, CFind)
        try:
            if event.event is evt.EVT_C_MOVE:
                yield self.destination
            if retrieves:
                yield min(self.count, 0xFFFF)
            for number in range(self.count):
                if number == self.held_at:
                    assert self.go_on.wait(DEADLINE)
                self.cancelled.append(event.is_cancelled)
                self.given = number + 1
                yield 0xFF00, instance(f"1.2.{number}", self.size) if retrieves else self.match(number)
        finally:
            self.over.set()

    def match(self, number: int) -> Dataset:
        found = query(str(number))
        if self.size:
            found.add_new(0x0040A160, "UT", "x" * self.size)
        return found


def stored(event: object) -> int:
    return 0x0000


# ---- our SCP and a raw peer


class RawAsker(Raw):
    """A peer that asks, answers C-STORE sub-operations, and keeps the responses that it has got."""

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw.sock)
        self.responses: list[Message] = []

    def next_response(self) -> Message:
        """The next response, to any of its requests."""
        while True:
            found = self.message()
            if found.is_response:
                self.responses.append(found)
                return found
            assert found.kind is Command.C_STORE_RQ
            self.send(answer_to(found, 0x0000, AffectedSOPClassUID=found.AffectedSOPClassUID))

    def barrier(self, message_id: int) -> None:
        """Everything that was sent before has been acted on when this returns."""
        self.send(echo_rq(message_id))
        while self.next_response().kind is not Command.C_ECHO_RSP:
            pass
        self.responses.pop()

    def final(self, kind: Command, message_id: int) -> Message:
        """The final response of an operation, the only one; the pending ones came before."""
        while not self._is_final(self.of(kind, message_id)[-1:]):
            self.next_response()
        found = self.of(kind, message_id)
        ended_by(found)
        return found[-1]

    def of(self, kind: Command, message_id: int) -> list[Message]:
        wanted = (Command(kind | 0x8000), message_id)
        return [each for each in self.responses if (each.kind, each.MessageIDBeingRespondedTo) == wanted]

    def _is_final(self, last: list[Message]) -> bool:
        return bool(last) and last[0].Status not in (0xFF00, 0xFF01)


def outcome(kind: Command, answer: Message) -> tuple[int | None, Counters]:
    """What the final response says; C-FIND counts nothing."""
    counted = counters(answer)
    assert (kind is not Command.C_FIND_RQ) or counted == NOTHING
    return answer.Status, counted


def completed(kind: Command, count: int, remaining: int | None = None) -> Counters:
    """The counters that a final response has after so many sub-operations."""
    return NOTHING if kind is Command.C_FIND_RQ else (remaining, count, 0, 0)


@pytest.fixture
def answering(ae: AE) -> Answering:
    return Answering(3, held_at=1)


@pytest.fixture
def asker(ae: AE, answering: Answering) -> Generator[RawAsker]:
    """A raw peer whose C-ECHO is answered while its query is performed."""
    server = start(ae, *answering.handlers(ae))
    with associated(server, raw_request(operations=2)) as raw:
        yield RawAsker(raw)


@EACH
def test_cancelled_before(asker: RawAsker, answering: Answering, kind: Command) -> None:
    """A C-CANCEL that is early is for nothing, and is not kept for what comes."""
    asker.send(cancel_rq(7, CONTEXT[MODEL[kind]]))
    answering.go_on.set()
    asker.send(query_rq(kind, 7))
    assert outcome(kind, asker.final(kind, 7)) == (0x0000, completed(kind, 3))
    assert answering.cancelled == [False] * 3


@EACH
@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_during(asker: RawAsker, answering: Answering, kind: Command, times: int) -> None:
    asker.send(query_rq(kind, 7))
    asker.next_response()
    asker.send(cancel_rq(7, CONTEXT[MODEL[kind]]) * times)
    asker.barrier(8)
    answering.go_on.set()
    assert outcome(kind, asker.final(kind, 7)) == (0xFE00, completed(kind, 1, remaining=2))
    assert answering.over.wait(DEADLINE)
    assert answering.cancelled == [False, True], "it is dropped, and the handler closed"
    # Once more, after the end: nothing is answered to that.
    asker.send(cancel_rq(7, CONTEXT[MODEL[kind]]))
    asker.barrier(9)
    ended_by(asker.of(kind, 7))


@EACH
def test_cancelled_in_one_breath(asker: RawAsker, answering: Answering, kind: Command) -> None:
    """Request and C-CANCEL in one write: final is what the handler does at its next item, whichever that is."""
    asker.send(query_rq(kind, 7) + cancel_rq(7, CONTEXT[MODEL[kind]]))
    asker.barrier(8)
    answering.go_on.set()
    assert asker.final(kind, 7).Status == 0xFE00
    assert answering.over.wait(DEADLINE)
    assert answering.given <= 2


@EACH
def test_cancelled_after(asker: RawAsker, answering: Answering, kind: Command) -> None:
    answering.go_on.set()
    asker.send(query_rq(kind, 7))
    assert asker.final(kind, 7).Status == 0x0000
    asker.send(cancel_rq(7, CONTEXT[MODEL[kind]]))
    asker.barrier(8)
    asker.send(query_rq(kind, 7))
    while len([each for each in asker.of(kind, 7) if each.Status == 0x0000]) < 2:
        assert asker.next_response().Status in (0x0000, 0xFF00), "the message ID may be used again"


@EACH
def test_cancelled_for_another_message(asker: RawAsker, answering: Answering, kind: Command) -> None:
    asker.send(query_rq(kind, 7))
    asker.next_response()
    for other in (0, 6, 8, 0xFFFF):
        asker.send(cancel_rq(other, CONTEXT[MODEL[kind]]))
    asker.barrier(8)
    answering.go_on.set()
    assert outcome(kind, asker.final(kind, 7)) == (0x0000, completed(kind, 3))
    assert answering.cancelled == [False] * 3


def test_each_of_two_queries_is_cancelled_alone(ae: AE) -> None:
    """Side by side in a window of three, with the third place for the C-ECHO."""
    first, second = Answering(3, held_at=1), Answering(3, held_at=1)
    server = start(ae, (evt.EVT_C_FIND, lambda event: (first if event.message_id == 1 else second)(event)))
    with associated(server, raw_request(operations=3)) as raw:
        asker = RawAsker(raw)
        asker.send(query_rq(Command.C_FIND_RQ, 1) + query_rq(Command.C_FIND_RQ, 2))
        while not all(asker.of(Command.C_FIND_RQ, number) for number in (1, 2)):
            asker.next_response()
        asker.send(cancel_rq(2))
        asker.barrier(3)
        for each in (first, second):
            each.go_on.set()
        assert asker.final(Command.C_FIND_RQ, 2).Status == 0xFE00
        assert asker.final(Command.C_FIND_RQ, 1).Status == 0x0000


# ---- our SCU, in every way to leave


def ask(assoc: Association, kind: Command) -> Any:
    model = MODEL[kind]
    if kind is Command.C_MOVE_RQ:
        return assoc.send_c_move(query(), "DEST", model)
    return (assoc.send_c_find if kind is Command.C_FIND_RQ else assoc.send_c_get)(query(), model)


def by_break(responses: Any) -> None:
    for number, _ in enumerate(responses):
        if number == 1:
            break
    # A loop over the result of the call itself has nobody who holds on to it.
    del responses


def by_close(responses: Any) -> None:
    next(responses)
    responses.close()
    responses.close()


def by_with(responses: Any) -> None:
    with responses:
        next(responses)


def by_an_exception(responses: Any) -> None:
    with pytest.raises(ZeroDivisionError), responses:
        divmod(next(responses)[0], 0)


def by_take(responses: Any) -> None:
    done = threading.Event()
    taken: list[Any] = []
    responses.pipe(ops.take(2)).subscribe(taken.append, on_completed=done.set)
    assert done.wait(DEADLINE)
    assert statuses(taken) == [0xFF00, 0xFF00]


def by_disposing(responses: Any) -> None:
    first = threading.Event()

    def on_next(pair: Any) -> None:
        first.set()

    running = responses.observable.subscribe(on_next)
    assert first.wait(DEADLINE)
    running.dispose()
    running.dispose()


WAYS = [by_break, by_close, by_with, by_an_exception, by_take, by_disposing]


@EACH
@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
def test_leaving_cancels_once_and_drains(ae: AE, kind: Command, leave: Callable[[Any], None]) -> None:
    answering = Answering(WITHOUT_END)
    server = start(ae, *answering.handlers(ae))
    sent, heard = Heard(), Heard()
    handlers = [(evt.EVT_C_STORE, stored), (evt.EVT_DIMSE_SENT, sent), (evt.EVT_DIMSE_RECV, heard)]
    with ae.associate(*server.address, evt_handlers=handlers) as assoc:
        leave(ask(assoc, kind))
        assert answering.over.wait(DEADLINE)
        assert assoc.send_c_echo() == 0x0000
        assert [each.MessageIDBeingRespondedTo for each in sent.of(Command.C_CANCEL_RQ)] == [1]
        assert ended_by(heard.of(Command(kind | 0x8000)))[1] == 0xFE00
        assert statuses(ask(assoc, kind).pipe(ops.take(1)).run() for _ in range(1)) == [0xFF00], "and again"
    assert assoc.is_released


@EACH
def test_reading_on_after_a_cancel_of_ones_own(ae: AE, kind: Command) -> None:
    answering = Answering(WITHOUT_END)
    server = start(ae, *answering.handlers(ae))
    sent = Heard()
    handlers = [(evt.EVT_C_STORE, stored), (evt.EVT_DIMSE_SENT, sent)]
    with ae.associate(*server.address, evt_handlers=handlers) as assoc:
        responses = ask(assoc, kind)
        next(responses)
        for _ in range(2):
            assoc.send_c_cancel(responses.message_id, query_model=MODEL[kind])
        *pending, final = statuses(responses)
        assert (set(pending) | {0xFF00}, final) == ({0xFF00}, 0xFE00)
        assert assoc.send_c_echo() == 0x0000
        responses.close()
        assert len(sent.of(Command.C_CANCEL_RQ)) == 2, "nothing is left to be cancelled"


@EACH
def test_leaving_at_the_end_or_before_the_beginning_sends_no_cancel(ae: AE, kind: Command) -> None:
    server = start(ae, *Answering(2).handlers(ae))
    sent = Heard()
    handlers = [(evt.EVT_C_STORE, stored), (evt.EVT_DIMSE_SENT, sent)]
    with ae.associate(*server.address, evt_handlers=handlers) as assoc:
        with ask(assoc, kind) as responses:
            assert statuses(responses) == [0xFF00, 0xFF00, 0x0000]
        done = threading.Event()
        running = ask(assoc, kind).observable.subscribe(on_completed=done.set)
        assert done.wait(DEADLINE)
        running.dispose()
        ask(assoc, kind).close()
        assert assoc.send_c_echo() == 0x0000
        requests = [each.kind for each in sent.messages if not each.is_response]
        assert requests == [kind, kind, Command.C_ECHO_RQ]


def test_a_cancel_that_crosses_the_final_response() -> None:
    """The peer had finished already: what it said stands, and the association goes on."""
    crossed: list[Message] = []

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        raw.send(answer_to(asked, 0xFF00, query("1")) + answer_to(asked, 0xFF00, query("2")) + answer_to(asked, 0x0000))
        while (found := raw.message()).kind is Command.C_CANCEL_RQ:
            crossed.append(found)
        raw.send(answer_to(found, 0x0000))
        released(raw)

    with scripted(script) as address, entity().associate(*address) as assoc:
        for _ in assoc.send_c_find(query(), FIND):
            break
        assert assoc.send_c_echo() == 0x0000
    assert len(crossed) <= 1


def released(raw: Raw) -> None:
    """Answer the A-RELEASE-RQ that comes next."""
    assert isinstance(raw.pdu(), ReleaseRQ)
    raw.send(ReleaseRP())


# ---- a peer that ignores C-CANCEL


@EACH
@pytest.mark.parametrize("leave", [by_break, by_close, by_take, by_disposing], ids=lambda way: way.__name__)
def test_a_peer_that_ignores_the_cancel_is_drained(kind: Command, leave: Callable[[Any], None]) -> None:
    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        identifier = query("1") if kind is Command.C_FIND_RQ else None
        pending = answer_to(asked, 0xFF00, identifier)
        raw.send(pending * 2)
        assert raw.message().kind is Command.C_CANCEL_RQ
        raw.send(pending * 1000 + answer_to(asked, 0x0000))
        raw.send(answer_to(raw.message(), 0x0000))
        released(raw)

    with scripted(script) as address, entity().associate(*address) as assoc:
        leave(ask(assoc, kind))
        assert assoc.send_c_echo() == 0x0000
    assert assoc.is_released


def silent(raw: Raw, pending: bytes) -> None:
    """Never anything more."""
    assert isinstance(raw.pdu(), Abort)


def dripping(raw: Raw, pending: bytes) -> None:
    """Another response now and then, sooner than any deadline, for ever."""
    pause = threading.Event()
    with suppress(ConnectionError):
        while not pause.wait(0.05):
            raw.send(pending)


def flooding(raw: Raw, pending: bytes) -> None:
    """More than anybody can read, for ever.

    Closed while its window was shut, Linux has who only writes learn of it after a minute: hence the time limit.
    """
    raw.sock.settimeout(2)
    with suppress(OSError):
        while True:
            raw.send(pending * 5000)


@pytest.mark.parametrize("then", [silent, dripping, flooding], ids=lambda way: way.__name__)
@pytest.mark.parametrize("leave", [by_close, by_take], ids=lambda way: way.__name__)
def test_a_peer_that_never_ends_is_aborted_at_the_deadline(
    then: Callable[[Raw, bytes], None], leave: Callable[[Any], None]
) -> None:
    def script(raw: Raw) -> None:
        raw.accept()
        pending = answer_to(raw.message(), 0xFF00, query("1"))
        raw.send(pending * 2)
        assert raw.message().kind is Command.C_CANCEL_RQ
        then(raw, pending)

    ae = entity()
    # It does not close the connection either, after the A-ABORT: ARTIM is what ends that.
    ae.dimse_timeout = ae.acse_timeout = 0.3
    with nothing_left(), scripted(script) as address:
        assoc = ae.associate(*address)
        try:
            leave(ask(assoc, Command.C_FIND_RQ))
            assert assoc.join(3)
            assert assoc.is_aborted
            with pytest.raises((TimedOut, AssociationAborted)):
                assoc.send_c_echo()
        finally:
            ae.shutdown()


def test_who_waits_for_a_place_behind_it_learns_why() -> None:
    """The operation that is being drained still fills the window: what comes behind it fails at its deadline."""

    def script(raw: Raw) -> None:
        raw.accept()
        raw.send(answer_to(raw.message(), 0xFF00, query("1")))
        assert raw.message().kind is Command.C_CANCEL_RQ
        assert isinstance(raw.pdu(), Abort)

    ae = entity()
    ae.dimse_timeout = 0.3
    with scripted(script) as address:
        assoc = ae.associate(*address)
        by_close(assoc.send_c_find(query(), FIND))
        with pytest.raises((TimedOut, AssociationAborted)):
            assoc.send_c_echo()
        assert assoc.join(DEADLINE)


# ---- what leaving early costs the SCP


def serve_apart(pipe: Any) -> None:
    """An SCP in a process of its own, which says where it listens, and after each query what its handler gave."""
    ae, answering = entity(), Answering(WITHOUT_END)
    pipe.send(start(ae, *answering.handlers(ae)).address)
    while pipe.recv():
        pipe.send(answering.given if answering.over.wait(DEADLINE) else None)
    ae.shutdown()


def test_taking_five_costs_about_five(asker_ae: AE) -> None:
    """It runs on until the C-CANCEL has come, a matter of milliseconds: see to the median of several attempts."""
    context = multiprocessing.get_context("spawn")
    pipe, other_end = context.Pipe()
    scp = context.Process(target=serve_apart, args=(other_end,), daemon=True)
    scp.start()
    assert pipe.poll(DEADLINE)
    given: list[int] = []
    with asker_ae.associate(*pipe.recv()) as assoc:
        for _ in range(11):
            taken: list[Any] = []
            done = threading.Event()
            assoc.send_c_find(query(), FIND).pipe(ops.take(5)).subscribe(taken.append, on_completed=done.set)
            assert done.wait(DEADLINE)
            assert assoc.send_c_echo() == 0x0000
            assert [identifier.PatientID for _, identifier in taken] == ["0", "1", "2", "3", "4"]
            pipe.send(True)
            given.append(pipe.recv())
    pipe.send(False)
    scp.join(DEADLINE)
    assert scp.exitcode == 0
    assert statistics.median(given) <= 100, given


@pytest.mark.parametrize(
    ("flowing", "size", "most"),
    [(False, 0, 8000), (True, 0, 8000), (True, 16384, 200)],
    ids=["iterated", "Rx", "large in Rx"],
)
def test_a_consumer_that_stands_still_after_five_stops_the_scp(
    ae: AE, asker_ae: AE, flowing: bool, size: int, most: int
) -> None:
    """The SCP gives what is under way in the peer's receive window, and not what a kernel would store besides.

    That it has come to a stop shows at its deadline of writing, when it gives the connection up.
    """
    answering = Answering(most + 1, size=size)
    ae.timeouts = evolve(ae.timeouts, write=0.5)
    server = start(ae, *answering.handlers(ae))
    responses = asker_ae.associate(*server.address).send_c_find(query(), FIND)
    if flowing:
        left = iter(range(4))

        def stand_still(pair: Any) -> None:
            if next(left, None) is None:
                answering.over.wait(DEADLINE)

        responses.observable.subscribe(stand_still, lambda error: None)
    else:
        for _ in range(5):
            next(responses)
    assert answering.over.wait(DEADLINE)
    assert answering.given <= most


# ---- once, and within its time


def test_responses_that_have_been_read_are_not_read_again(ae: AE) -> None:
    server = start(ae, *Answering(2).handlers(ae))
    with ae.associate(*server.address) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        assert len(list(responses)) == 3
        with pytest.raises(StateError, match="consumed"):
            iter(responses)
        with pytest.raises(StopIteration):
            next(responses)
        closed = assoc.send_c_find(query(), FIND)
        next(closed)
        closed.close()
        with pytest.raises(StateError, match="consumed"):
            iter(closed)
        begun = assoc.send_c_find(query(), FIND)
        next(begun)
        assert len(list(begun)) == 2, "what has begun goes on"


@pytest.mark.parametrize("flowing", [False, True], ids=["iterated", "Rx"])
def test_no_operation_outlives_its_cap(ae: AE, asker_ae: AE, flowing: bool) -> None:
    """However fast responses come, so that there always is one to be had."""
    server = start(ae, *Answering(WITHOUT_END).handlers(ae))
    asker_ae.timeouts = evolve(asker_ae.timeouts, operation=0.5)
    responses = asker_ae.associate(*server.address).send_c_find(query(), FIND)
    before = time.monotonic()
    if flowing:
        failed = threading.Event()
        errors: list[Exception] = []

        def on_error(error: Exception) -> None:
            errors.append(error)
            failed.set()

        responses.observable.subscribe(on_error=on_error)
        assert failed.wait(3)
        assert isinstance(errors[0], TimedOut)
    else:
        with pytest.raises(TimedOut):
            read_for(responses, 3)
    assert time.monotonic() - before > 0.4


@pytest.mark.parametrize("flowing", [False, True], ids=["iterated", "Rx"])
def test_the_cap_holds_against_a_flood(asker_ae: AE, flowing: bool) -> None:
    """The peer sends faster than we can read: nobody ever waits, and the cap holds all the same."""

    def script(raw: Raw) -> None:
        raw.accept()
        flooding(raw, answer_to(raw.message(), 0xFF00, query("1")))

    asker_ae.timeouts = evolve(asker_ae.timeouts, operation=0.5)
    failed = threading.Event()
    with scripted(script) as address:
        responses = asker_ae.associate(*address).send_c_find(query(), FIND)
        try:
            if flowing:
                responses.observable.subscribe(on_error=lambda error: failed.set())
                assert failed.wait(3)
            else:
                with pytest.raises(TimedOut):
                    read_for(responses, 3)
        finally:
            asker_ae.shutdown()


def test_the_cap_holds_for_what_lies_ready(asker_ae: AE) -> None:
    """The consumer comes late: what has come meanwhile does not hide that the operation is not at its end."""
    over = threading.Event()

    def script(raw: Raw) -> None:
        raw.accept()
        raw.send(answer_to(raw.message(), 0xFF00, query("1")) * 20)
        over.wait(DEADLINE)

    heard = Heard()
    asker_ae.timeouts = evolve(asker_ae.timeouts, operation=0.3)
    with scripted(script) as address:
        responses = asker_ae.associate(*address, evt_handlers=[(evt.EVT_DIMSE_RECV, heard)]).send_c_find(query(), FIND)
        try:
            next(responses)
            assert heard.wait_for(Command.C_FIND_RSP, 20, DEADLINE)
            pass_time(0.4)
            with pytest.raises(TimedOut):
                list(responses)
        finally:
            over.set()
            asker_ae.shutdown()


def test_who_comes_late_still_gets_what_came_in_time(asker_ae: AE) -> None:
    """All responses were there before the cap: reading them may take as long as it takes."""

    def script(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        raw.send(answer_to(asked, 0xFF00, query("1")) * 20 + answer_to(asked, 0x0000))
        released(raw)

    heard = Heard()
    asker_ae.timeouts = evolve(asker_ae.timeouts, operation=0.3, response=0.3)
    observers = [(evt.EVT_DIMSE_RECV, heard)]
    with scripted(script) as address, asker_ae.associate(*address, evt_handlers=observers) as assoc:
        responses = assoc.send_c_find(query(), FIND)
        next(responses)
        assert heard.wait_for(Command.C_FIND_RSP, 21, DEADLINE)
        pass_time(0.4)
        assert len(list(responses)) == 20


def read_for(responses: Any, seconds: float) -> None:
    """Read all there is, which must come to an end in time."""
    before = time.monotonic()
    for _ in responses:
        assert time.monotonic() - before < seconds


def pass_time(seconds: float) -> None:
    """Let a deadline pass: what is tested is that it does."""
    threading.Event().wait(seconds)


class Collecting(str):
    """A text that runs the garbage collector while it is encoded, which happens under the association's state lock."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        gc.collect()
        return super().encode(encoding, errors)


def test_responses_that_the_garbage_collector_finds_at_the_worst_moment(ae: AE) -> None:
    """Forgotten in a cycle, they are finalised by whichever thread collects: that must take no lock."""
    answering = Answering(WITHOUT_END)
    server = start(ae, *answering.handlers(ae), (evt.EVT_C_STORE, stored))
    stuck = ae.associate(*server.address, ext_neg=[window(4)])
    gc.collect()
    gc.disable()
    try:
        _forget_in_a_cycle(stuck.send_c_find(query(), FIND))
        echoed: list[Any] = []

        def send() -> None:
            echoed.append(stuck.send_c_store(instance("1.2.3"), originator_aet=Collecting("ME")))

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(DEADLINE / 10)
        assert echoed == [0x0000]
        assert answering.over.wait(DEADLINE)
        assert stuck.send_c_echo() == 0x0000
    finally:
        gc.enable()


def _forget_in_a_cycle(responses: Any) -> None:
    next(responses)
    cycle: list[Any] = [responses]
    cycle.append(cycle)


def test_a_cancel_of_what_cannot_be(ae: AE) -> None:
    with ae.associate(*start(ae).address) as assoc:
        with pytest.raises(LocalUsageError, match="context"):
            assoc.send_c_cancel(1)
        with pytest.raises(RxDicomError):
            assoc.send_c_cancel(1, query_model="1.2.3")
        assoc.send_c_cancel(1, query_model=GET)
        assoc.send_c_cancel(1, context_id=CONTEXT[MOVE])
        assert assoc.send_c_echo() == 0x0000
    with pytest.raises(RxDicomError):
        assoc.send_c_cancel(1, query_model=FIND)
