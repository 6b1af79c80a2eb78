"""Whatever a handler does: exactly one final response, with the status of the table of faults, over a real connection.

One association carries all examples, so that each also shows that the one before left it usable.
"""

import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pytest
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset

from rxdicom import Association, AssociationServer, evt
from rxdicom.errors import DatasetError
from rxdicom.events.records import CStore, ServiceEvent
from rxdicom.status import Status
from rxdicom.wire.dimse import Command
from tests.runtimes.queries import (
    FIND,
    GET,
    META,
    MOVE,
    SESSION,
    Counters,
    Heard,
    counters,
    ended_by,
    entity,
    instance,
    query,
    start,
    statuses,
    window,
)
from tests.wire.strategies import MANY


@frozen
class Row:
    """What a handler does at one place: its item (an exception is raised), and the final status that this leads to."""

    item: Any
    code: int = 0
    kind: str = "good"
    """good, final (a status that ends the operation), fault, or raise."""


@frozen
class Service:
    """One of the three services, and what is its own in the table of faults."""

    command: Command
    model: str
    places: tuple[str, ...]
    """What the handler gives before its pairs."""
    missing: tuple[int, ...]
    """The statuses if it ends before it has given these."""
    raises: int
    undecodable: int


SERVICES = [
    Service(Command.C_FIND_RSP, FIND, (), (), 0xC311, 0xC310),
    Service(Command.C_GET_RSP, GET, ("number",), (0xC413,), 0xC411, 0xC410),
    Service(Command.C_MOVE_RSP, MOVE, ("destination", "number"), (0xC514, 0xC513), 0xC511, 0xC510),
]
HERE, CLOSED = "the destination", "an address where nobody listens"


@frozen
class Script:
    """What the handler of one request does, and what becomes of its sub-operations."""

    service: Service
    rows: tuple[Row, ...]
    at_once: Row | None = None
    """Instead of giving items one by one: what the call itself raises, or returns."""
    cancelled_at: int | None = None
    """C-CANCEL has come before the handler gives its item of this number."""
    stores: tuple[int, ...] = ()
    """The statuses of the sub-operations, one after the other; then it is 0x0000."""


# ---- what must come of it, by DESIGN §3


def predicted(script: Script) -> tuple[int, Counters]:
    """The final status and the counters of its response."""
    if script.at_once is not None:
        return script.at_once.code, _NOTHING
    service, places = script.service, script.service.places
    for position, missing in enumerate(service.missing):
        code = _outcome(script, position, missing)
        if code is not None:
            return code, _NOTHING
    if not places:
        return _find_outcome(script), _NOTHING
    announced: int = script.rows[len(places) - 1].item
    if announced and "destination" in places and script.rows[0].item == CLOSED:
        return 0xA702, (None, 0, announced, 0)
    return _retrieval_outcome(script, announced)


def _find_outcome(script: Script) -> int:
    position = 0
    while (code := _outcome(script, position, 0x0000)) is None:
        position += 1
    return code


def _retrieval_outcome(script: Script, announced: int) -> tuple[int, Counters]:
    first = len(script.service.places)
    performed = {"completed": 0, "failed": 0, "warned": 0}
    code: int | None = None
    for number in range(announced):
        code = _outcome(script, first + number, 0x0000)
        if code is not None:
            break
        stored = script.stores[number] if number < len(script.stores) else 0x0000
        performed[ENDINGS[stored]] += 1
    if not code:
        # As many as were announced, or Success before that: what was sent counts.
        code = 0x0000 if not (performed["failed"] or performed["warned"]) else 0xB000
        if performed["failed"] and not (performed["completed"] or performed["warned"]):
            code = 0xA702
    remaining = announced - sum(performed.values()) if code == 0xFE00 else None
    return code, (remaining, performed["completed"], performed["failed"], performed["warned"])


def _outcome(script: Script, position: int, exhausted: int) -> int | None:
    """The final status that the item at ``position`` means; None if it goes on."""
    cancelled = script.cancelled_at is not None and position >= script.cancelled_at
    if position >= len(script.rows):
        return 0xFE00 if cancelled else exhausted
    row = script.rows[position]
    if row.kind == "raise":
        return row.code
    if cancelled:
        return row.code if row.kind == "final" else 0xFE00
    return None if row.kind == "good" else row.code


_NOTHING: Counters = (None, None, None, None)
ENDINGS = {
    0x0000: "completed",
    0xB000: "warned",
    0xB007: "warned",
    0xA700: "failed",
    0xC000: "failed",
    0x0122: "failed",
}


# ---- what handlers do


def status_dataset(code: int, **elements: str) -> Dataset:
    made = Dataset()
    made.Status = code
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def unencodable() -> Dataset:
    broken = query()
    broken["PatientID"]._value = object()  # pyright: ignore[reportPrivateUsage] - what no setter lets through
    return broken


def raising(service: Service) -> list[Row]:
    errors = [ValueError("no"), KeyError(), OSError(28, "full"), RuntimeError(), StopIteration(), SystemExit(3)]
    return [
        *(Row(error, service.raises, "raise") for error in errors),
        Row(DatasetError("cut"), service.undecodable, "raise"),
    ]


FINAL = [
    *(Row((code, None), code, "final") for code in (0x0000, 0xA700, 0xA900, 0xC000, 0xFE00, 0xFFFF)),
    Row((Status(0xA701, ErrorComment="full"), None), 0xA701, "final"),
    Row((status_dataset(0xB000, ErrorComment="some"), None), 0xB000, "final"),
]
BAD_STATUS = [
    *(Row((status, None), 0xC002, "fault") for status in (None, "Pending", True, 65280.0, -1, 0x10000)),
    Row((Status(0xFF00, ErrorID="x"), None), 0xC002, "fault"),
    *(Row((status, None), 0xC001, "fault") for status in (Dataset(), query())),
    *(Row(item, 0xC002, "fault") for item in (None, 0xFF00, query(), (), (0xFF00,), (0xFF00, query(), None))),
]
MATCHES = [Row((0xFF00, query("1"))), Row((Status(0xFF01), query("2"))), Row((status_dataset(0xFF00), query("3")))]
NO_MATCHES = [
    Row((0xFF00, identifier), 0xC312, "fault") for identifier in (None, "DOE", 7, {"PatientID": "1"}, unencodable())
]
INSTANCES = [
    Row((0xFF00, instance("1.2.1"))),
    Row((Status(0xFF00), instance("1.2.2"))),
    Row((0xFF01, instance("1.2.3"))),
]
NUMBERS = [Row(number) for number in (0, 1, 2, 3)]
BAD_NUMBERS = [None, -1, 1.0, "2", True, [2], Dataset(), (0xFF00, None), ("x", None), (Status.SUCCESS,)]
DESTINATIONS = [Row(HERE), Row(HERE), Row(HERE), Row(CLOSED)]
BAD_DESTINATIONS = [
    Row((None, None), 0xA801, "fault"),
    *(Row(item, 0xC515, "fault") for item in (("", 104), ("127.0.0.1", 0), ("127.0.0.1", 65536), ("127.0.0.1", "x"))),
    *(Row(item, 0xC514, "fault") for item in (None, 5, "127.0.0.1", query())),
]


def _place(service: Service, place: str) -> tuple[list[Row], list[Row]]:
    """The good rows for a place before the pairs, and the others."""
    if place == "destination":
        return DESTINATIONS, [*BAD_DESTINATIONS, *FINAL]
    bad, many = (0xC413, 0xC416) if service.model == GET else (0xC513, 0xC516)
    faults = [*(Row(item, bad, "fault") for item in BAD_NUMBERS), Row(65536, many, "fault")]
    return NUMBERS, [*faults, *FINAL]


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Good beginnings most of the time, so that it comes to responses and sub-operations."""
    service = draw(st.sampled_from(SERVICES))
    raises = raising(service)
    if draw(st.integers(0, 15)) == 0:
        returned = [Row(value, service.raises, "fault") for value in (None, 0xA700, 1.0, object())]
        return Script(service, (), draw(st.sampled_from([*raises, *returned])))
    rows: list[Row] = []
    for place in service.places:
        usual, unusual = _place(service, place)
        rows.append(draw(st.sampled_from([*usual * 8, *unusual, *raises])))
    usual, unusual = (MATCHES, NO_MATCHES) if service.model == FIND else (INSTANCES, [])
    pairs = st.sampled_from([*usual * 8, *unusual, *BAD_STATUS, *FINAL, *raises])
    rows += draw(st.lists(st.sampled_from(usual), max_size=3)) + draw(st.lists(pairs, max_size=2))
    rows = rows[: draw(st.sampled_from([0, 1, *[99] * 12]))]
    return Script(
        service,
        tuple(rows),
        cancelled_at=draw(st.none() | st.integers(0, 6)),
        stores=tuple(draw(st.lists(st.sampled_from(sorted(ENDINGS)), max_size=4))),
    )


# ---- where it happens


class World:
    """An SCP whose handlers do what the script says, a C-MOVE destination, and an SCU with one association."""

    def __init__(self) -> None:
        self.script = Script(SERVICES[0], ())
        self.answer: Callable[[], Any] = int
        """What an N handler does."""
        self.opened = self.closed = 0
        """How often a handler was entered, and how often it was left."""
        self.stores: Iterator[int] = iter(())
        self.asker, self.performer = entity("ASKER"), entity("PERFORMER")
        store = (evt.EVT_C_STORE, self.on_store)
        kinds = (evt.EVT_N_ACTION, evt.EVT_N_CREATE, evt.EVT_N_DELETE, evt.EVT_N_GET, evt.EVT_N_SET)
        handlers = [(kind, self.perform) for kind in (evt.EVT_C_FIND, evt.EVT_C_GET, evt.EVT_C_MOVE)]
        normalized = [(kind, self.on_normalized) for kind in kinds]
        self.destination: AssociationServer = start(self.performer, store)
        self.server: AssociationServer = start(self.performer, *handlers, *normalized)
        # Taken, and nobody listens there.
        self.nobody = socket.socket()
        self.nobody.bind(("127.0.0.1", 0))
        self._assoc: Association | None = None

    @property
    def assoc(self) -> Association:
        """The association of the asker; another one if that is over."""
        if self._assoc is None or not self._assoc.is_established:
            self._assoc = self._associate()
        return self._assoc

    def _associate(self) -> Association:
        handlers = [(evt.EVT_C_STORE, self.on_store), (evt.EVT_N_EVENT_REPORT, self.on_normalized)]
        return self.asker.associate(*self.server.address, ext_neg=[window(3)], evt_handlers=handlers)

    def close(self) -> None:
        self.asker.shutdown()
        self.performer.shutdown()
        self.nobody.close()

    # -- the handlers

    def on_store(self, event: CStore) -> int:
        return next(self.stores, 0x0000)

    def on_normalized(self, event: ServiceEvent) -> Any:
        return self.answer()

    def perform(self, event: Any) -> Any:
        at_once = self.script.at_once
        if at_once is None:
            return self._items(event)
        if isinstance(at_once.item, BaseException):
            raise at_once.item
        return at_once.item

    def _items(self, event: Any) -> Iterator[Any]:
        self.opened += 1
        try:
            for position in range(len(self.script.rows) + 1):
                if position == self.script.cancelled_at:
                    self._cancel(event)
                if position == len(self.script.rows):
                    return
                item = self.script.rows[position].item
                if isinstance(item, BaseException):
                    raise item
                yield self._address(item) if isinstance(item, str) else item
        finally:
            self.closed += 1

    def _address(self, item: str) -> Any:
        addresses = {HERE: self.destination.address, CLOSED: self.nobody.getsockname()}
        return addresses.get(item, item)

    def _cancel(self, event: Any) -> None:
        """C-CANCEL, and a C-ECHO behind it: once that is answered the cancel has arrived."""
        assert not event.is_cancelled
        self.assoc.send_c_cancel(event.message_id, query_model=self.script.service.model)
        assert self.assoc.send_c_echo() == 0x0000
        assert event.is_cancelled

    # -- the asker

    def run(self, script: Script) -> tuple[int, Counters, int]:
        """The final status of a request, its counters, and how many responses were pending before it."""
        self.script, self.stores = script, iter(script.stores)
        heard = Heard()
        self.assoc.bind(evt.EVT_DIMSE_RECV, heard)
        entered, left = self.opened, self.closed
        ask = {FIND: self.assoc.send_c_find, GET: self.assoc.send_c_get, MOVE: self._send_c_move}
        responses = ask[script.service.model](query(), script.service.model)
        answers = list(responses)
        assert self.closed - left == self.opened - entered == (script.at_once is None), "left before the final response"
        assert self.assoc.send_c_echo() == 0x0000
        self.assoc.unbind(evt.EVT_DIMSE_RECV, heard)
        on_the_wire = heard.of(script.service.command, responses.message_id)
        assert [each.Status for each in on_the_wire] == [status for status, _ in answers]
        pending, code = ended_by(on_the_wire)
        return code, counters(on_the_wire[-1]), pending

    def _send_c_move(self, identifier: Dataset, model: str) -> Any:
        return self.assoc.send_c_move(identifier, "DEST", model)


@pytest.fixture(scope="module")
def world() -> Generator[World]:
    world = World()
    yield world
    world.close()


# ---- C-FIND, C-GET, C-MOVE

_FIND, _GET, _MOVE = SERVICES
_TWO = (Row(HERE), Row(2), *INSTANCES[:2])


@MANY
@given(scripts())
@example(Script(_FIND, tuple(MATCHES)))
@example(Script(_FIND, tuple(MATCHES), cancelled_at=1))
@example(Script(_FIND, (*MATCHES, NO_MATCHES[-1])))
@example(Script(_GET, _TWO[1:], stores=(0x0000, 0xA700)))
@example(Script(_GET, _TWO[1:], cancelled_at=2, stores=(0xB000,)))
@example(Script(_MOVE, _TWO, stores=(0xA700, 0xC000)))
@example(Script(_MOVE, _TWO, cancelled_at=3))
@example(Script(_MOVE, (Row(CLOSED), *_TWO[1:])))
@example(Script(_MOVE, (Row(CLOSED), Row(0))))
def test_exactly_one_final_response(world: World, script: Script) -> None:
    code, counted, pending = world.run(script)
    assert (code, counted) == predicted(script)
    if script.service.places:
        assert pending == sum(count or 0 for count in counted[1:]) or code == 0xA702
    else:
        assert pending <= len(script.rows)


class Interruption(BaseException):
    """What is no :class:`Exception`, as the cancellations of asyncio and trio and pytest's failures are not."""


def interrupted_at_once(event: Any) -> Any:
    raise Interruption


def interrupted_in_the_middle(event: Any) -> Iterator[Any]:
    yield 0xFF00, query("1")
    raise Interruption


def interrupted_at_the_end(event: Any) -> Iterator[Any]:
    try:
        yield 0xC311, None
    finally:
        raise Interruption


@pytest.mark.parametrize(
    "handler", [interrupted_at_once, interrupted_in_the_middle, interrupted_at_the_end], ids=lambda each: each.__name__
)
def test_a_handler_that_raises_what_is_no_exception(monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    escaped: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", escaped.append)
    ae = entity()
    ae.dimse_timeout = 0.5
    try:
        with ae.associate(*start(ae, (evt.EVT_C_FIND, handler)).address) as assoc:
            assert statuses(assoc.send_c_find(query(), FIND))[-1] == 0xC311
            assert assoc.send_c_echo() == 0x0000
    finally:
        ae.shutdown()
    assert escaped == []


def test_a_handler_whose_end_raises(world: World) -> None:
    """What its ``finally`` raises, or yields, changes nothing any more."""

    def raises(event: Any) -> Iterator[Any]:
        try:
            yield 0xFF00, query("1")
            yield 0xA700, None
        finally:
            raise ValueError("late")

    def yields(event: Any) -> Iterator[Any]:
        try:
            yield 0xFF00, query("1")
            yield 0xA700, None
        finally:
            yield 0xFF00, query("2")

    for handler in (raises, yields):
        with entity("ASKER").associate(*start(world.performer, (evt.EVT_C_FIND, handler)).address) as assoc:
            assert statuses(assoc.send_c_find(query(), FIND)) == [0xFF00, 0xA700]
            assert assoc.send_c_echo() == 0x0000


# ---- the N services

REPLY = query("reply")
GOOD_ANSWERS: list[tuple[Any, int]] = [
    *((code, code) for code in (0x0000, 0x0107, 0xB000, 0x0112, 0xC300, 0xFE00, 0xFFFF)),
    (Status(0x0000), 0x0000),
    (status_dataset(0x0116), 0x0116),
    ((0x0000, None), 0x0000),
    ((0x0000, REPLY), 0x0000),
    ((Status(0x0110, ErrorComment="no"), REPLY), 0x0110),
]
BAD_DATASETS: list[Any] = [(0x0000, "x"), (0x0000, unencodable())]
BAD_ANSWERS: list[Any] = [
    *(None, "Success", 0.0, True, -1, 0x10000, (), (0x0000,), (0x0000, None, None), Dataset(), REPLY),
    *(("x", None), (Dataset(), None), Status(0x0000, ErrorID="x"), *BAD_DATASETS),
]
ERRORS = [ValueError("no"), KeyError(), OSError(5, "EIO"), DatasetError("cut"), SystemExit(1)]


def _send(world: World, service: str) -> tuple[Any, Dataset | None]:
    """One request; N-EVENT-REPORT goes the other way."""
    assoc, report = world.assoc, world.server.active_associations[-1]
    requests: dict[str, Callable[[], Any]] = {
        "N-ACTION": lambda: assoc.send_n_action(REPLY, 1, SESSION, "1.2", meta_uid=META),
        "N-CREATE": lambda: assoc.send_n_create(REPLY, SESSION, "1.2", meta_uid=META),
        "N-DELETE": lambda: (assoc.send_n_delete(SESSION, "1.2", meta_uid=META), None),
        "N-EVENT-REPORT": lambda: report.send_n_event_report(REPLY, 1, SESSION, "1.2", meta_uid=META),
        "N-GET": lambda: assoc.send_n_get(None, SESSION, "1.2", meta_uid=META),
        "N-SET": lambda: assoc.send_n_set(REPLY, SESSION, "1.2", meta_uid=META),
    }
    return requests[service]()


def _answers(sequence: Sequence[Any]) -> Callable[[], Any]:
    """A handler of the N services that gives, or raises, one after the other."""
    left = iter(sequence)

    def answer() -> Any:
        item = next(left)
        if isinstance(item, BaseException):
            raise item
        return item

    return answer


_results = st.sampled_from(
    [*GOOD_ANSWERS, *((answer, 0x0110) for answer in BAD_ANSWERS), *((error, 0x0110) for error in ERRORS)]
)
_services = st.sampled_from(["N-ACTION", "N-CREATE", "N-DELETE", "N-EVENT-REPORT", "N-GET", "N-SET"])


@MANY
@given(st.lists(st.tuples(_services, _results), min_size=1, max_size=4))
@example([("N-DELETE", (BAD_DATASETS[0], 0x0110))])
def test_one_response_of_an_n_service(world: World, asked: list[tuple[str, tuple[Any, int]]]) -> None:
    """Any sequence of requests, each with its own answer."""
    world.answer = _answers([value for _, (value, _) in asked])
    heard = Heard()
    world.assoc.bind(evt.EVT_DIMSE_RECV, heard)
    for service, (value, code) in asked:
        # A dataset that could not be sent matters only where one is sent.
        unsent = service == "N-DELETE" and any(value is each for each in BAD_DATASETS)
        status, dataset = _send(world, service)
        assert status == (0x0000 if unsent else code), (service, value)
        carried = value == (0x0000, REPLY) and service != "N-DELETE"
        assert dataset == (REPLY if carried else None)
    assert world.assoc.send_c_echo() == 0x0000
    world.assoc.unbind(evt.EVT_DIMSE_RECV, heard)
    answered = [each for each in heard.messages if each.is_response and each.kind is not Command.C_ECHO_RSP]
    assert len(answered) == sum(service != "N-EVENT-REPORT" for service, _ in asked)
