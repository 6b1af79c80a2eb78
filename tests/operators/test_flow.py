"""Throughput over a window, and samples."""

from typing import Any

import pytest

from rxdicom.errors import ArgumentError
from rxdicom.events import records
from rxdicom.operators import Rate, sampled, throughput
from rxdicom.wire.dimse import Command
from rxdicom.wire.pdu import ReleaseRQ
from tests.operators.support import Assoc, Timed, received, run, sent

ASSOC = Assoc()
NONE = Rate(0, 0, 0)


def carried(when: int, size: int) -> Timed:
    return when, records.DataReceived(data=bytes(size))


def test_what_both_directions_carry_in_a_second() -> None:
    items: list[Timed] = [
        carried(201, 1000),
        carried(205, 500),
        (205, records.DataSent(data=bytes(50))),
        (206, records.PDUReceived(pdu=ReleaseRQ())),
        (206, records.PDUSent(pdu=ReleaseRQ())),
        (207, received(Command.C_ECHO_RQ, ASSOC, MessageID=1)),
        (207, sent(Command.C_ECHO_RSP, ASSOC, Status=0)),
        (208, sent(Command.C_ECHO_RQ, ASSOC, MessageID=1)),
        (209, records.Released()),
        carried(215, 100),
    ]
    done = run(lambda _: throughput(10), items, disposed=225)
    assert [(when, each.seconds, each.received, each.sent) for when, each in done.items] == [
        (210, 10, Rate(150, 0.1, 0.1), Rate(5, 0.1, 0.2)),
        (220, 10, Rate(10, 0, 0), NONE),
    ]
    assert done.items[0][1].timestamp.timestamp() == 210


def test_a_window_without_events_is_emitted_too() -> None:
    done = run(lambda _: throughput(10), [], disposed=225)
    assert [(when, each.received, each.sent) for when, each in done.items] == [(210, NONE, NONE), (220, NONE, NONE)]


def test_the_last_window_is_as_long_as_it_was() -> None:
    done = run(lambda _: throughput(10), [carried(211, 300)], completed=213)
    assert [(when, each.seconds, each.received.bytes) for when, each in done.items] == [(210, 10, 0), (213, 3, 100)]
    nothing_more = run(lambda _: throughput(10), [carried(209, 300)], completed=213)
    assert [when for when, _ in nothing_more.items] == [210]


def letters(*times: int) -> list[Timed]:
    return [(when, "abcdefgh"[index]) for index, when in enumerate(times)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((201, 203, 205), [(211, "c")]),
        ((201, 203, 212, 214), [(211, "b"), (222, "d")]),
        ((201, 230), [(211, "a"), (240, "b")]),
        ((), []),
    ],
)
def test_the_newest_of_each_period(times: tuple[int, ...], expected: list[Any]) -> None:
    done = run(lambda _: sampled(10), letters(*times))
    assert done.items == expected
    assert len(done.clock.ran) == len(expected)


def test_the_last_one_is_not_lost_at_the_end() -> None:
    done = run(lambda _: sampled(10), letters(201, 212, 214), completed=215)
    assert done.items == [(211, "a"), (215, "c")]
    assert done.ending == (215, None)
    assert run(lambda _: sampled(10), letters(201), completed=215).items == [(211, "a")]


@pytest.mark.parametrize("operator", [throughput, sampled])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_is_positive(operator: Any, seconds: float) -> None:
    with pytest.raises(ArgumentError, match="more than 0"):
        operator(seconds)
