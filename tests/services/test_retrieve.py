"""C-GET and C-MOVE as a provider: the account of the sub-operations, and every fault, to exactly one final response."""

from collections.abc import Iterator
from itertools import product
from time import process_time
from typing import Any

import pytest
from attrs import evolve, frozen
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset

from rxdicom.errors import ConnectionFailed, DatasetError
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.records import CGet, CMove
from rxdicom.services.effects import Open, Raised, SubOperation, SubStore
from rxdicom.services.retrieve import get, move
from rxdicom.status import Status

from ..wire.strategies import MANY
from .scripted import (
    DEFLATED,
    EVR,
    EVR_BE,
    IVR,
    Handler,
    Played,
    counters,
    dataset,
    event_of,
    identifier_of,
    play,
    raising,
    returning,
    status_dataset,
    yielding,
)

QUERY = dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2")
JUNK = b"\xff" * 10  # No identifier.
HERE = ("127.0.0.1", 11112)
HUGE = 10**5000  # Python refuses to print it.
FATAL = AssertionError("never reached")


@frozen
class Kind:
    """One of the two services, and what is its own in the table of faults."""

    service: Any
    record: Any
    sop_class: str
    start: tuple[Any, ...]
    """What the handler gives before the number."""
    raises: int
    undecodable: int
    bad_number: int
    too_many: int
    elements: tuple[tuple[str, str], ...] = ()

    def handled(self, handler: Handler, data: Any = QUERY, syntax: str = EVR, **script: Any) -> Played:
        event = event_of(self.record, self.sop_class, data, syntax, **dict(self.elements))
        return play(self.service, event, handler, **script)

    def played(self, *items: Any, **script: Any) -> Played:
        """What comes of a handler that gives what is before the number as it should be, then ``items``."""
        return self.handled(yielding(*self.start, *items), **script)


_TO = (("MoveDestination", "ELSEWHERE"),)
GET = Kind(get, CGet, "1.2.840.10008.5.1.4.1.2.2.3", (), 0xC411, 0xC410, 0xC413, 0xC416)
MOVE = Kind(move, CMove, "1.2.840.10008.5.1.4.1.2.2.2", (HERE,), 0xC511, 0xC510, 0xC513, 0xC516, _TO)
BOTH = pytest.mark.parametrize("kind", [GET, MOVE], ids=["C-GET", "C-MOVE"])


def instance(number: int) -> Dataset:
    return dataset(SOPInstanceUID=f"1.2.{number}", PatientName="DOE^JOHN")


def pairs(count: int) -> list[Any]:
    return [(0xFF00, instance(number)) for number in range(count)]


def ended(*statuses: int) -> list[SubOperation]:
    """How sub-operations ended, instance after instance."""
    return [SubOperation(status, f"1.2.{number}") for number, status in enumerate(statuses)]


# ---- the account

ALL_OR_SOME = {
    # (any completed, any failed, any warned)
    (False, False, False): 0x0000,
    (True, False, False): 0x0000,
    (False, True, False): 0xA702,
    (False, False, True): 0xB000,
    (True, True, False): 0xB000,
    (True, False, True): 0xB000,
    (False, True, True): 0xB000,
    (True, True, True): 0xB000,
}


def final_status(completed: int, failed: int, warned: int) -> int:
    return ALL_OR_SOME[bool(completed), bool(failed), bool(warned)]


@BOTH
@pytest.mark.parametrize(("completed", "failed", "warned"), [*product((0, 1, 3), repeat=3)])
def test_the_final_status_follows_from_all_some_or_none(kind: Kind, completed: int, failed: int, warned: int) -> None:
    statuses = [0xA700] * failed + [0xB007] * warned + [0x0000] * completed
    number = len(statuses)
    done = kind.played(number, *pairs(number), FATAL, stored=ended(*statuses))
    assert done.status == final_status(completed, failed, warned)
    assert counters(done.response) == (None, completed, failed, warned)
    assert done.failed_list == [f"1.2.{each}" for each in range(failed)]
    assert done.response.has_dataset == bool(failed)
    assert done.stored == [instance(each) for each in range(number)]
    assert bool(done.fault) == bool(failed)


@BOTH
def test_a_pending_response_after_each_sub_operation(kind: Kind) -> None:
    statuses = (0x0000, 0xB000, 0xC000, 0x0000)
    done = kind.played(4, *pairs(4), stored=ended(*statuses))
    assert [each.Status for each in done.pending] == [0xFF00] * 4
    assert [counters(each) for each in done.pending] == [(3, 1, 0, 0), (2, 1, 0, 1), (1, 1, 1, 1), (0, 2, 1, 1)]
    assert not any(each.has_dataset for each in done.pending)
    assert {each.AffectedSOPClassUID for each in (*done.pending, done.response)} == {kind.sop_class}
    kinds = [type(effect).__name__ for effect in done.effects[-12:]]
    assert kinds == ["Pull", "SubStore", "Send"] * 4
    assert done.opened == ([Open(*HERE)] if kind is MOVE else [])


@BOTH
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, "completed"),
        *((code, "warned") for code in (0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xBFFF)),
        *((code, "failed") for code in (0x0110, 0x0122, 0x0211, 0xA700, 0xA900, 0xC000, 0xCFFF)),
        *((code, "failed") for code in (0x0005, 0xFE00, 0xFF00, 0xFF01, 0xFFFF)),
    ],
)
def test_what_a_sub_operation_counts_as(kind: Kind, status: int, outcome: str) -> None:
    """Only success and warnings mean that the instance has arrived."""
    done = kind.played(1, *pairs(1), stored=ended(status))
    wanted = {"completed": (1, 0, 0), "failed": (0, 1, 0), "warned": (0, 0, 1)}[outcome]
    assert (done.status, counters(done.response)) == (final_status(*wanted), (None, *wanted))


@BOTH
def test_no_sub_operations_need_no_association(kind: Kind) -> None:
    done = kind.played(0, FATAL)
    assert (done.status, done.opened, done.stored, done.pending, done.fault) == (0x0000, [], [], [], "")
    assert counters(done.response) == (None, 0, 0, 0)
    assert done.data is None
    assert done.pulls == len(kind.start) + 1


@BOTH
@pytest.mark.parametrize("last", [(0xFF00, instance(9)), (0xC000, None), None, 3, FATAL])
def test_surplus_is_not_even_pulled(kind: Kind, last: Any) -> None:
    done = kind.played(2, *pairs(2), last, stored=ended(0, 0))
    assert (done.status, len(done.stored), done.fault) == (0x0000, 2, "")
    assert done.pulls == len(kind.start) + 3


@BOTH
@pytest.mark.parametrize("statuses", [(), (0x0000,), (0xB000,), (0xA700,), (0x0000, 0xA700), (0xA700, 0xA700)])
@pytest.mark.parametrize("last", [(), ((0x0000, None),)])
def test_fewer_than_announced(kind: Kind, statuses: tuple[int, ...], last: tuple[Any, ...]) -> None:
    """The status follows from what was sent, whether the handler returns or says Success; the log learns of it."""
    done = kind.played(5, *pairs(len(statuses)), *last, stored=ended(*statuses))
    count = statuses.count
    outcomes = count(0x0000), count(0xA700), count(0xB000)
    assert done.status == final_status(*outcomes)
    assert counters(done.response) == (None, *outcomes)
    assert len(done.failed_list) == count(0xA700)
    assert f"announced 5 sub-operations and gave {len(statuses)}" in done.fault


@BOTH
@pytest.mark.parametrize("syntax", [IVR, EVR, EVR_BE, DEFLATED])
def test_the_failed_list_is_in_the_transfer_syntax_of_the_context(kind: Kind, syntax: str) -> None:
    done = kind.played(2, *pairs(2), stored=ended(0xA700, 0xC000), syntax=syntax)
    assert done.response.data is not None
    assert done.response.data.transfer_syntax == syntax
    assert done.failed_list == ["1.2.0", "1.2.1"]


@BOTH
def test_the_failed_list_has_what_can_be_in_it(kind: Kind) -> None:
    """A UID can be unknown, and it can come from a peer: nothing of that prevents the final response."""
    uids = ["1.2.0", "", "1.2\\1.3", "1.\N{SNOWMAN}", "1.é", "9" * 70, "1.2.6"]
    outcomes = [SubOperation(0xA700, uid) for uid in uids]
    done = kind.played(7, *pairs(7), stored=outcomes)
    assert (done.status, counters(done.response)) == (0xA702, (None, 0, 7, 0))
    assert done.failed_list == ["1.2.0", "9" * 70, "1.2.6"]
    alone = kind.played(1, *pairs(1), stored=[SubOperation(0x0110, "", "the file does not exist")])
    assert (alone.status, alone.data) == (0xA702, None)
    assert "the file does not exist" in alone.fault


def test_tens_of_thousands_of_failures() -> None:
    """All are in the list, for a cost that does not grow with the square of their number, as it once did."""
    number = 50000
    account = [SubOperation(0xA700, f"2.25.{each}") for each in range(number)]
    started = process_time()
    done = GET.played(number, *pairs(1) * number, stored=account, syntax=IVR, checked=False)
    assert process_time() - started < 7
    assert (done.status, counters(done.response)) == (0xA702, (None, 0, number, 0))
    assert done.failed_list == [each.sop_instance_uid for each in account]


@BOTH
def test_an_instance_may_be_anything(kind: Kind) -> None:
    """A dataset, a path, or nonsense, which the sub-operation then fails at: it is handed on as it is."""
    instances = [instance(1), "ct.dcm", None, 7]
    done = kind.played(4, *((0xFF00, each) for each in instances), stored=ended(0, 0, 0x0110, 0x0110))
    assert done.stored == instances
    assert (done.status, done.failed_list) == (0xB000, ["1.2.2", "1.2.3"])


# ---- DESIGN §3, row by row


@BOTH
@pytest.mark.parametrize(
    "number",
    [
        *(None, -1, pytest.param(-HUGE, id="-huge"), 1.0, "2", True, False, [2], Dataset(), Status.SUCCESS, Status(1)),
        *((0xFF00, instance(1)), ("x", None), (None, None), (Dataset(), None), (0, 2), (0, "x"), (1, 2, 3)),
    ],
)
def test_a_bad_number(kind: Kind, number: Any) -> None:
    done = kind.played(number, FATAL)
    assert (done.status, done.opened, done.pending, done.stored) == (kind.bad_number, [], [], [])
    assert done.pulls == len(kind.start) + 1
    assert counters(done.response) == (None,) * 4
    assert done.fault
    assert "DOE" not in done.fault


@BOTH
@pytest.mark.parametrize("number", [65536, pytest.param(HUGE, id="huge")])
def test_a_number_that_no_response_can_count(kind: Kind, number: int) -> None:
    done = kind.played(number, FATAL)
    assert (done.status, bool(done.fault), done.opened) == (kind.too_many, True, [])
    most = kind.played(65535, *pairs(1), stored=ended(0))
    assert counters(most.pending[0]) == (65534, 1, 0, 0)


def lazily_identifier_of(event: CGet | CMove) -> Iterator[int]:
    yield len(event.identifier)


@BOTH
def test_a_handler_that_fails_at_once(kind: Kind) -> None:
    faults: list[tuple[Handler, Any, int]] = [
        (raising(ValueError("no")), QUERY, kind.raises),
        (raising(OSError(5, "EIO")), QUERY, kind.raises),
        (raising(DatasetError("cut off")), QUERY, kind.undecodable),
        (returning(None), QUERY, kind.raises),
        (returning(0xA701), QUERY, kind.raises),
        (identifier_of, JUNK, kind.undecodable),
        (lazily_identifier_of, JUNK, kind.undecodable),
    ]
    for handler, data, status in faults:
        done = kind.handled(handler, data)
        assert (done.status, done.pending, done.opened) == (status, [], [])
        assert counters(done.response) == (None,) * 4
        assert done.fault


@BOTH
def test_the_default(kind: Kind) -> None:
    done = kind.handled(DEFAULTS[kind.record.event])
    assert (done.status, done.opened, done.stored, done.fault) == (kind.raises, [], [], "")


@BOTH
@pytest.mark.parametrize(
    ("item", "status"),
    [
        pytest.param(ValueError("no"), "raises", id="raises"),
        pytest.param(DatasetError("cut off"), "undecodable", id="dataset that cannot be decoded"),
        pytest.param((Dataset(), instance(1)), 0xC001, id="status dataset without Status"),
        pytest.param(("x", instance(1)), 0xC002, id="text for a status"),
        pytest.param((None, instance(1)), 0xC002, id="None for a status"),
        pytest.param((-1, instance(1)), 0xC002, id="negative status"),
        pytest.param(instance(1), 0xC002, id="instance alone"),
        pytest.param("ct.dcm", 0xC002, id="path alone"),
        pytest.param(0xFF00, 0xC002, id="status alone"),
        pytest.param((0xFF00, instance(1), None), 0xC002, id="three instead of a pair"),
        pytest.param(None, 0xC002, id="None"),
    ],
)
@pytest.mark.parametrize("before", [(), (0x0000, 0xB000, 0xA700)])
def test_a_faulty_item(kind: Kind, item: Any, status: int | str, before: tuple[int, ...]) -> None:
    """It ends the retrieval, with the account of what was done before and its failures."""
    done = kind.played(5, *pairs(len(before)), item, FATAL, stored=ended(*before))
    assert done.status == (getattr(kind, status) if isinstance(status, str) else status)
    assert counters(done.response) == ((None, 1, 1, 1) if before else (None, 0, 0, 0))
    assert done.failed_list == (["1.2.2"] if before else [])
    assert len(done.stored) == len(before)
    assert done.fault
    assert "DOE" not in done.fault


@BOTH
@pytest.mark.parametrize("status", [0x0001, 0x0122, 0xA701, 0xA702, 0xB000, 0xC000, 0xFE00, 0xFFFF])
@pytest.mark.parametrize("make", [int, Status, status_dataset])
def test_any_other_status_than_pending_ends_the_retrieval(kind: Kind, status: int, make: Any) -> None:
    done = kind.played(4, *pairs(2), (make(status), instance(7)), FATAL, stored=ended(0x0000, 0xA700))
    remaining = 2 if status == 0xFE00 else None
    assert (done.status, counters(done.response)) == (status, (remaining, 1, 1, 0))
    assert done.failed_list == ["1.2.1"]
    assert len(done.stored) == 2


@BOTH
@pytest.mark.parametrize("status", [0x0000, 0xA701, 0xA900, 0xAA00, 0xC000, 0xFE00])
@pytest.mark.parametrize("beside", [None, instance(1)])
def test_a_first_item_with_a_status_is_the_final_response(kind: Kind, status: int, beside: Any) -> None:
    """Also in the place of the number; there is no account, because nothing was announced."""
    for make in (int, Status, status_dataset):
        for start in {(), kind.start}:
            done = kind.handled(yielding(*start, (make(status), beside), FATAL))
            assert (done.status, done.opened, done.stored, done.pending) == (status, [], [], [])
            assert (counters(done.response), done.data, done.fault) == ((None,) * 4, None, "")


@BOTH
def test_a_status_takes_its_elements_along(kind: Kind) -> None:
    for last in (
        Status(0xA701, ErrorComment="no", ErrorID=3, NumberOfFailedSuboperations=9),
        dataset(Status=0xA701, ErrorComment="no", ErrorID=3, NumberOfRemainingSuboperations=9),
    ):
        sent = kind.played(3, *pairs(1), (last, None), stored=ended(0)).response
        assert (sent.Status, sent.ErrorComment, sent.ErrorID, counters(sent)) == (0xA701, "no", 3, (None, 1, 0, 0))


# ---- the destination of a C-MOVE


GOOD_DESTINATIONS: list[tuple[Any, Open]] = [
    (("127.0.0.1", 104), Open("127.0.0.1", 104)),
    (["::1", 65535], Open("::1", 65535)),
    (("pacs", 1, {}), Open("pacs", 1)),
    (("pacs", 11112, {"contexts": [], "max_pdu": 0}), Open("pacs", 11112, {"contexts": [], "max_pdu": 0})),
]
HOSTS: list[Any] = [None, "", b"h", 5, 0, True]
PORTS: list[Any] = [None, "104", 104.0, 0, -1, 65536, HUGE, True]
OPTIONS: list[Any] = [None, 5, [("ae_title", "X")]]
NO_DESTINATIONS: list[Any] = [None, 5, "127.0.0.1", "ab", Dataset(), (), ("h",), ("h", 1, {}, 4), {"h": 1}]
WRONG_DESTINATIONS: list[Any] = [
    *[(host, 104) for host in HOSTS],
    *[("h", port) for port in PORTS],
    *[("h", 104, options) for options in OPTIONS],
    *[(104, "h"), ["h", 0], (0xFF00, instance(1))],
]


@pytest.mark.parametrize(("destination", "wanted"), GOOD_DESTINATIONS)
def test_the_destination_is_opened_once_and_before_all_else(destination: Any, wanted: Open) -> None:
    done = MOVE.handled(yielding(destination, 2, *pairs(2)), stored=ended(0, 0))
    assert done.opened == [wanted]
    assert done.effects[3] == wanted
    assert isinstance(done.effects[5], SubStore)
    assert done.status == 0


@pytest.mark.parametrize("unknown", [(None, None), (None, None, {}), [None, None]])
def test_an_unknown_destination(unknown: Any) -> None:
    done = MOVE.handled(yielding(unknown, FATAL))
    assert (done.status, done.opened, done.pulls, done.fault) == (0xA801, [], 1, "")
    assert counters(done.response) == (None,) * 4


@pytest.mark.parametrize(("items", "status"), [(NO_DESTINATIONS, 0xC514), (WRONG_DESTINATIONS, 0xC515)])
def test_a_bad_destination(items: list[Any], status: int) -> None:
    for item in items:
        done = MOVE.handled(yielding(item, FATAL))
        assert (done.status, done.opened, done.pulls, counters(done.response)) == (status, [], 1, (None,) * 4)
        assert done.fault
        assert "DOE" not in done.fault


@BOTH
def test_nothing_at_all(kind: Kind) -> None:
    """Neither a destination nor a number, and then a destination without one."""
    for start, status in (((), 0xC514 if kind is MOVE else 0xC413), (kind.start, kind.bad_number)):
        done = kind.handled(yielding(*start))
        assert (done.status, bool(done.fault), done.opened) == (status, True, [])


def test_a_destination_that_cannot_be_reached() -> None:
    """All that were announced have failed; the handler is not asked for them."""
    refused = Raised(ConnectionFailed("127.0.0.1 port 104: connection refused"))
    done = MOVE.played(3, FATAL, opened=refused)
    assert (done.status, counters(done.response), done.data) == (0xA702, (None, 0, 3, 0), None)
    assert (done.pulls, done.stored, done.pending) == (2, [], [])
    assert "connection refused" in done.fault


def test_a_destination_that_is_lost() -> None:
    """What failed by that is in the list, and the log learns why."""
    lost = [SubOperation(0x0110, f"1.2.{each}", "timed out") for each in (1, 2)]
    done = MOVE.played(3, *pairs(3), stored=[*ended(0x0000), *lost])
    assert (done.status, counters(done.response), done.failed_list) == (0xB000, (None, 1, 2, 0), ["1.2.1", "1.2.2"])
    assert "2 sub-operations failed" in done.fault
    assert "timed out" in done.fault


# ---- C-CANCEL


@BOTH
@pytest.mark.parametrize(
    ("item", "status"),
    [
        pytest.param((0xFF00, instance(9)), 0xFE00, id="an instance is dropped"),
        pytest.param(("x", None), 0xFE00, id="so is a broken status"),
        pytest.param(None, 0xFE00, id="and what is no pair"),
        pytest.param((0xFE00, None), 0xFE00, id="the handler says so itself"),
        pytest.param((0xC000, None), 0xC000, id="failure stands"),
        pytest.param((dataset(Status=0xA701), None), 0xA701, id="a dataset stands"),
        pytest.param((0x0000, None), 0xB000, id="success is what the account says"),
        pytest.param(ValueError("no"), None, id="raises"),
    ],
)
def test_after_a_cancel_the_next_item_is_the_last(kind: Kind, item: Any, status: int | None) -> None:
    at = len(kind.start) + 3
    done = kind.played(5, *pairs(2), item, FATAL, stored=ended(0x0000, 0xA700), cancelled_at=at)
    assert done.status == (kind.raises if status is None else status)
    assert counters(done.response) == (3 if done.status == 0xFE00 else None, 1, 1, 0)
    assert done.failed_list == ["1.2.1"]
    assert (len(done.stored), done.pulls) == (2, at + 1)
    assert "announced" not in done.fault, "that the rest is missing is no fault"


@BOTH
def test_a_cancel_that_the_handler_answers_by_returning(kind: Kind) -> None:
    done = kind.played(5, *pairs(1), stored=ended(0), cancelled_at=len(kind.start) + 2)
    assert (done.status, counters(done.response), done.data) == (0xFE00, (4, 1, 0, 0), None)


@BOTH
@pytest.mark.parametrize("items", [(), (5, FATAL), (65536,), ("x",), (None,), ((0xFF00, None),)])
def test_a_cancel_before_the_number(kind: Kind, items: tuple[Any, ...]) -> None:
    done = kind.played(*items, cancelled_at=len(kind.start))
    assert (done.status, counters(done.response), done.opened, done.fault) == (0xFE00, (None,) * 4, [], "")
    for item in ((HERE, FATAL), ((None, None),), ((0, 104),), ("x",)):
        assert kind.handled(yielding(*item), cancelled_at=0).status == 0xFE00


@BOTH
def test_a_final_status_stands_before_the_number_too(kind: Kind) -> None:
    for status in (0x0000, 0xA701):
        assert kind.handled(yielding((status, None)), cancelled_at=0).status == status


@BOTH
def test_a_cancel_after_the_last_sub_operation_comes_too_late(kind: Kind) -> None:
    done = kind.played(1, *pairs(1), FATAL, stored=ended(0), cancelled_at=len(kind.start) + 2)
    assert (done.status, counters(done.response)) == (0x0000, (None, 1, 0, 0))


# ---- any sequence whatever

Row = tuple[Any, int, str]
"""An item, the status that it ends the retrieval with, and what it is: good, a final status, a fault or a raise."""
Expected = tuple[int, tuple[int | None, ...], int]
"""Final status, counters, and how many sub-operations there were."""

FINAL: list[Row] = [((code, None), code, "status") for code in (0x0000, 0xA701, 0xB000, 0xC000, 0xFE00)]
INSTANCES: list[Row] = [((0xFF00, instance(1)), 0, "good"), ((Status(0xFF01), "ct.dcm"), 0, "good")]
FAULTY: list[Row] = [((Dataset(), None), 0xC001, "fault"), (("x", None), 0xC002, "fault"), (7, 0xC002, "fault")]
DESTINATIONS: list[Row] = [(HERE, 0, "good"), (("h", 104, {}), 0, "good")]
BAD_DESTINATIONS: list[Row] = [
    ((None, None), 0xA801, "fault"),
    (("h", 0), 0xC515, "fault"),
    ((0, 104), 0xC515, "fault"),
    (5, 0xC514, "fault"),
]
ENDINGS = {0x0000: 0, 0xA700: 1, 0xFF00: 1, 0x0122: 1, 0xB000: 2, 0x0107: 2}  # Completed, failed, warned.


@frozen
class Script:
    kind: Kind
    start: tuple[Row, ...]
    """What the handler gives, destination and number first."""
    outcomes: tuple[int, ...]
    cancelled_at: int | None
    reachable: bool
    at_once: Row | None = None
    """What it does instead of giving anything."""
    as_list: bool = False

    @property
    def handler(self) -> Handler:
        if self.at_once is not None:
            failing, _, _ = self.at_once
            return failing
        items = [item for item, _, _ in self.start]
        listed = self.as_list and not any(what == "raise" for _, _, what in self.start)
        return returning(items) if listed else yielding(*items)

    @property
    def announced(self) -> int:
        """The number that the handler gave, where it came to that."""
        at = 1 if self.kind is MOVE else 0
        return self.start[at][0]

    def cancelled(self, position: int) -> bool:
        return self.cancelled_at is not None and position >= self.cancelled_at


def before_the_account(script: Script) -> Expected | None:
    """By the table of faults; None if it comes to an account."""
    nothing: tuple[int | None, ...] = (None,) * 4
    if script.at_once is not None:
        return script.at_once[1], nothing, 0
    missing = [0xC514, 0xC513] if script.kind is MOVE else [0xC413]
    for position, without in enumerate(missing):
        if position == len(script.start):
            return 0xFE00 if script.cancelled(position) else without, nothing, 0
        _, code, what = script.start[position]
        if what == "raise":
            return code, nothing, 0
        if script.cancelled(position):
            return code if what == "status" else 0xFE00, nothing, 0
        if what != "good":
            return code, nothing, 0
    if script.announced and script.kind is MOVE and not script.reachable:
        return 0xA702, (None, 0, script.announced, 0), 0
    return None


def expected(script: Script) -> Expected:
    early = before_the_account(script)
    if early is not None:
        return early
    first = 2 if script.kind is MOVE else 1
    account = [0, 0, 0]

    def end(code: int) -> Expected:
        code = final_status(*account) if code == 0x0000 else code
        remaining = script.announced - sum(account)
        return code, (remaining if code == 0xFE00 else None, *account), sum(account)

    for position in range(first, first + script.announced):
        if position >= len(script.start):
            return end(0xFE00 if script.cancelled(position) else 0x0000)
        _, code, what = script.start[position]
        if what == "raise":
            return end(code)
        if script.cancelled(position):
            return end(code if what == "status" else 0xFE00)
        if what != "good":
            return end(code)
        account[ENDINGS[script.outcomes[sum(account)]]] += 1
    return end(0x0000)


def failing_at_once(kind: Kind) -> list[Row]:
    """Handlers that fail when they are called."""
    return [
        (raising(ValueError("x")), kind.raises, "raise"),
        (raising(DatasetError("x")), kind.undecodable, "raise"),
        (returning(None), kind.raises, "fault"),
        (returning(3), kind.raises, "fault"),
    ]


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Good beginnings most of the time, so that it comes to sub-operations."""
    kind = draw(st.sampled_from([GET, MOVE]))
    raises: list[Row] = [(ValueError("x"), kind.raises, "raise"), (DatasetError("x"), kind.undecodable, "raise")]
    good: list[Row] = [(number, 0, "good") for number in (0, 1, 2, 3, 4)]
    bad: list[Row] = [
        *((item, kind.bad_number, "fault") for item in (None, True, -1, "x", (0xFF00, None), (Dataset(), None))),
        (65536, kind.too_many, "fault"),
    ]
    stages = [(good, [*bad, *FINAL, *raises])]
    if kind is MOVE:
        stages = [(DESTINATIONS, [*BAD_DESTINATIONS, *FINAL, *raises]), *stages]
    rows: list[Row] = []
    for usual, unusual in stages:
        rows.append(draw(st.sampled_from([*usual * 4, *unusual])))
    rows += draw(st.lists(st.sampled_from([*INSTANCES * 10, *FINAL, *FAULTY, *raises]), max_size=6))
    rows = rows[: draw(st.sampled_from([0, 1, *[99] * 12]))]
    outcomes = draw(st.lists(st.sampled_from(sorted(ENDINGS)), min_size=6, max_size=6))
    cancelled_at = draw(st.none() | st.integers(0, 7))
    reachable = draw(st.sampled_from([True, True, True, False]))
    at_once = draw(st.sampled_from([None] * 9 + [*failing_at_once(kind)]))
    return Script(kind, tuple(rows), tuple(outcomes), cancelled_at, reachable, at_once, draw(st.booleans()))


_ALL_GOOD = Script(
    MOVE, (DESTINATIONS[0], (2, 0, "good"), INSTANCES[0], INSTANCES[1]), (0, 0xA700, 0, 0, 0, 0), None, True
)


@MANY
@given(scripts())
@example(_ALL_GOOD)
@example(evolve(_ALL_GOOD, reachable=False))
@example(evolve(_ALL_GOOD, cancelled_at=3))
def test_one_final_response_whatever_happens(script: Script) -> None:
    opened = None if script.reachable else Raised(ConnectionFailed("refused"))
    stored = ended(*script.outcomes)
    done = script.kind.handled(script.handler, stored=stored, cancelled_at=script.cancelled_at, opened=opened)
    status, wanted, performed = expected(script)
    assert (done.status, counters(done.response), len(done.stored)) == (status, wanted, performed)
    assert done.failed_list == [each.sop_instance_uid for each in stored[:performed] if ENDINGS[each.status] == 1]
    for number, each in enumerate(done.pending, 1):
        remaining, *others = counters(each)
        assert (remaining, sum(count or 0 for count in others)) == (script.announced - number, number)
    assert len(done.pending) == performed
