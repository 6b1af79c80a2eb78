"""C-FIND as a provider: what the handler yields, each way in which it can go wrong, and exactly one final response."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset

from rxdicom.errors import DatasetError
from rxdicom.events.datasets import decode
from rxdicom.events.dispatcher import DEFAULTS
from rxdicom.events.records import CFind
from rxdicom.services.query import find
from rxdicom.status import Status

from ..wire.strategies import MANY
from .scripted import (
    DEFLATED,
    EVR,
    EVR_BE,
    IVR,
    Handler,
    Played,
    dataset,
    event_of,
    identifier_of,
    play,
    raising,
    returning,
    status_dataset,
    yielding,
)

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
QUERY = dataset(QueryRetrieveLevel="STUDY", PatientName="DOE*", StudyInstanceUID="")
JUNK = b"\xff" * 10
"""Bytes that are no identifier."""


def match(number: int = 0) -> Dataset:
    return dataset(QueryRetrieveLevel="STUDY", PatientName=f"DOE^{number}", StudyInstanceUID=f"1.2.{number}")


def unencodable() -> Dataset:
    broken = match()
    broken["PatientName"]._value = object()  # pyright: ignore[reportPrivateUsage] - what no setter lets through
    return broken


def played(*items: Any, **script: Any) -> Played:
    return handled(yielding(*items), **script)


def handled(handler: Handler, data: Any = QUERY, syntax: str = EVR, cancelled_at: int | None = None) -> Played:
    event = event_of(CFind, STUDY_ROOT_FIND, data, syntax)
    return play(find, event, handler, cancelled_at=cancelled_at)


@pytest.mark.parametrize("syntax", [IVR, EVR, EVR_BE, DEFLATED])
def test_a_pending_response_per_match_then_success_without_identifier(syntax: str) -> None:
    done = played((0xFF00, match(1)), (0xFF01, match(2)), (Status.PENDING, match(3)), syntax=syntax)
    assert [each.Status for each in done.pending] == [0xFF00, 0xFF01, 0xFF00]
    sent = [each.data for each in done.pending]
    assert [data and data.transfer_syntax for data in sent] == [syntax] * 3
    assert [data and decode(data) for data in sent] == [match(1), match(2), match(3)]
    assert all(each.AffectedSOPClassUID == STUDY_ROOT_FIND for each in (*done.pending, done.response))
    assert (done.status, done.response.data, done.response.CommandDataSetType, done.fault) == (0, None, 0x0101, "")


def test_no_match() -> None:
    for handler in (yielding(), returning([]), returning(iter(()))):
        done = handled(handler)
        assert (done.status, done.pending, done.pulls, done.fault) == (0, [], 1, "")


def test_the_default() -> None:
    done = handled(DEFAULTS[CFind.event])
    assert (done.status, done.pending, done.fault) == (0xC311, [], "")


# ---- DESIGN §3, row by row

FAULTY_ITEMS = [
    pytest.param(ValueError("no"), 0xC311, id="raises"),
    pytest.param(OSError(28, "No space left on device"), 0xC311, id="raises an OSError"),
    pytest.param(DatasetError("cut off"), 0xC310, id="identifier that cannot be decoded"),
    pytest.param((0xFF00, None), 0xC312, id="match without an identifier"),
    pytest.param((0xFF00, unencodable()), 0xC312, id="match that cannot be encoded"),
    pytest.param((0xFF01, "DOE^JOHN"), 0xC312, id="text for an identifier"),
    pytest.param((0xFF00, {"PatientName": "DOE"}), 0xC312, id="dict for an identifier"),
    pytest.param((0xFF00, 0xFF00), 0xC312, id="number for an identifier"),
    pytest.param((Dataset(), match()), 0xC001, id="status dataset without Status"),
    pytest.param((dataset(ErrorComment="x"), None), 0xC001, id="a comment is no status"),
    pytest.param(("Pending", match()), 0xC002, id="text for a status"),
    pytest.param((None, match()), 0xC002, id="None for a status"),
    pytest.param((True, match()), 0xC002, id="bool for a status"),
    pytest.param((65280.0, match()), 0xC002, id="float for a status"),
    pytest.param((-1, match()), 0xC002, id="negative status"),
    pytest.param((0x10000, match()), 0xC002, id="status too large"),
    pytest.param((Status(0xFF00, ErrorID="x"), match()), 0xC002, id="status with an element that cannot be sent"),
    pytest.param(None, 0xC002, id="None"),
    pytest.param(0xFF00, 0xC002, id="status alone"),
    pytest.param(match(), 0xC002, id="dataset alone"),
    pytest.param((0xFF00, match(), None), 0xC002, id="three instead of a pair"),
    pytest.param((), 0xC002, id="nothing instead of a pair"),
    pytest.param("ab", 0xC002, id="text of two letters"),
]


@pytest.mark.parametrize(("item", "status"), FAULTY_ITEMS)
@pytest.mark.parametrize("before", [0, 2])
def test_a_faulty_item_ends_the_query(item: Any, status: int, before: int) -> None:
    """What was found before is sent, nothing after; the log learns why, but nothing of the patient."""
    matches = [(0xFF00, match(number)) for number in range(before)]
    done = played(*matches, item, (0xFF00, match()))
    assert (done.status, len(done.pending), done.pulls) == (status, before, before + 1)
    assert done.response.data is None
    assert done.fault
    assert "DOE" not in done.fault


def lazily_identifier_of(event: CFind) -> Iterator[Any]:
    yield 0xFF00, event.identifier


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (raising(ValueError("no")), 0xC311),
        (raising(KeyError()), 0xC311),
        (raising(DatasetError("cut off")), 0xC310),
        (returning(None), 0xC311),
        (returning(0xC000), 0xC311),
        (returning((0xFF00, match())), 0xC002),
        (identifier_of, 0xC310),
        (lazily_identifier_of, 0xC310),
    ],
)
def test_a_faulty_handler(handler: Handler, status: int) -> None:
    done = handled(handler, data=JUNK)
    assert (done.status, done.pending) == (status, [])
    assert done.fault


def test_a_handler_that_copes_with_an_undecodable_identifier() -> None:
    def handler(event: CFind) -> Any:
        try:
            yield 0xFF00, event.identifier
        except DatasetError:
            yield 0xA900, None

    assert (handled(handler, data=JUNK).status, handled(handler, data=JUNK).fault) == (0xA900, "")


def test_the_log_tells_a_missing_identifier_from_a_broken_one() -> None:
    assert "without an identifier" in played((0xFF00, None)).fault
    assert "cannot be sent" in played((0xFF00, unencodable())).fault


@pytest.mark.parametrize("status", [0x0000, 0x0001, 0x0005, 0x0122, 0xA700, 0xA900, 0xB001, 0xC000, 0xFE00, 0xFFFF])
@pytest.mark.parametrize("identifier", [None, match(), "surplus"])
def test_any_other_status_than_pending_ends_the_query(status: int, identifier: Any) -> None:
    done = played((0xFF00, match()), (status, identifier), ValueError("never reached"))
    assert (done.status, done.response.data, len(done.pending), done.pulls) == (status, None, 1, 2)
    assert done.fault == ""


@pytest.mark.parametrize("make", [Status, status_dataset])
def test_a_status_takes_its_elements_along(make: Any) -> None:
    done = played(
        (make(0xFF01, ErrorComment="no such key"), match()),
        (make(0xA900, ErrorComment="no", ErrorID=7, OffendingElement=[0x00100010, 0x00080052]), None),
    )
    assert done.pending[0].ErrorComment == "no such key"
    last = done.response
    assert (last.Status, last.ErrorComment, last.ErrorID) == (0xA900, "no", 7)
    assert last.OffendingElement == (0x00100010, 0x00080052)
    assert done.fault == ""


# ---- C-CANCEL


@pytest.mark.parametrize(
    ("item", "status"),
    [
        pytest.param((0xFF00, match()), 0xFE00, id="a match is dropped"),
        pytest.param((0xFF00, None), 0xFE00, id="so is a broken one"),
        pytest.param(("x", None), 0xFE00, id="and a broken status"),
        pytest.param(None, 0xFE00, id="and what is no pair"),
        pytest.param((0xFE00, None), 0xFE00, id="the handler says so itself"),
        pytest.param((0x0000, None), 0x0000, id="success stands"),
        pytest.param((0xA700, match()), 0xA700, id="failure stands"),
        pytest.param((dataset(Status=0xB001, ErrorComment="x"), None), 0xB001, id="a dataset stands"),
        pytest.param(ValueError("no"), 0xC311, id="raises"),
    ],
)
@pytest.mark.parametrize("at", [0, 2])
def test_after_a_cancel_the_next_item_is_the_last(item: Any, status: int, at: int) -> None:
    matches = [(0xFF00, match(number)) for number in range(at)]
    done = played(*matches, item, AssertionError("never reached"), cancelled_at=at)
    assert (done.status, len(done.pending), done.pulls) == (status, at, at + 1)
    assert done.response.data is None
    assert bool(done.fault) == isinstance(item, Exception)


def test_a_cancel_that_the_handler_answers_by_returning() -> None:
    assert played((0xFF00, match()), cancelled_at=1).status == 0xFE00
    assert played(cancelled_at=0).status == 0xFE00


def test_a_cancel_after_the_end_changes_nothing() -> None:
    assert played((0xFF00, match()), (0x0000, None), cancelled_at=2).status == 0x0000


# ---- any sequence whatever

Row = tuple[Any, int, str]
"""An item, the status that it ends the query with, and what it is: a match, a final status, a fault or a raise."""

ROWS: list[Row] = [
    ((0xFF00, match(1)), 0, "match"),
    ((dataset(Status=0xFF01), match(2)), 0, "match"),
    *(((Status(code), None), code, "status") for code in (0x0000, 0xA700, 0xB001, 0xC001, 0xFE00)),
    ((0xFF00, None), 0xC312, "fault"),
    ((0xFF00, "x"), 0xC312, "fault"),
    ((Dataset(), match()), 0xC001, "fault"),
    (("x", match()), 0xC002, "fault"),
    (7, 0xC002, "fault"),
    (ValueError("x"), 0xC311, "raise"),
    (DatasetError("x"), 0xC310, "raise"),
]


def expected(rows: list[Row], cancelled_at: int | None) -> tuple[int, int]:
    """The final status by the table of faults, and how many matches go before it."""
    for position, (_, code, kind) in enumerate(rows):
        if kind == "raise":
            return code, position
        if cancelled_at is not None and position >= cancelled_at:
            return code if kind == "status" else 0xFE00, position
        if kind != "match":
            return code, position
    cancelled = cancelled_at is not None and cancelled_at <= len(rows)
    return 0xFE00 if cancelled else 0x0000, len(rows)


AT_ONCE: list[tuple[Handler, int]] = [
    (raising(ValueError("x")), 0xC311),
    (raising(DatasetError("x")), 0xC310),
    (returning(None), 0xC311),
    (returning(0xFF00), 0xC311),
]
"""Handlers that fail before their first item, and the status of that."""
_rows = st.lists(st.sampled_from(ROWS[:2]), max_size=4).flatmap(
    lambda matches: st.lists(st.sampled_from(ROWS), max_size=3).map(lambda rest: matches + rest)
)


@MANY
@given(_rows, st.none() | st.integers(0, 7), st.none() | st.sampled_from(AT_ONCE), st.booleans())
@example([], 0, None, False)
@example([ROWS[0]], 1, None, True)
def test_one_final_response_whatever_the_handler_does(
    rows: list[Row], cancelled_at: int | None, at_once: tuple[Handler, int] | None, as_list: bool
) -> None:
    """It gives matches, statuses and faults one by one or in a list, raises at any point, is cancelled at any point."""
    items = [item for item, _, _ in rows]
    handler = returning(items) if as_list and not any(kind == "raise" for _, _, kind in rows) else yielding(*items)
    done = handled(handler if at_once is None else at_once[0], cancelled_at=cancelled_at)
    status, matches = expected(rows, cancelled_at) if at_once is None else (at_once[1], 0)
    assert (done.status, len(done.pending)) == (status, matches)
    assert all(each.has_dataset for each in done.pending)
    assert not done.response.has_dataset
