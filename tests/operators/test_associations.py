"""Each association as one record at its end, however it ended."""

from typing import Any

import pytest

from rxdicom.events import records
from rxdicom.operators import AssociationSummary, summaries
from rxdicom.wire.dimse import Command
from tests.operators.support import (
    START,
    Assoc,
    aborted,
    at,
    closed,
    opened,
    received,
    rejected,
    released,
    run,
    sent,
    store,
    through,
)

ONE, TWO = Assoc("STORE-1", "CT1"), Assoc("STORE-2", "MR1")


def test_who_how_much_and_how_it_ended() -> None:
    events = [
        opened(ONE, 1),
        records.DataReceived(assoc=ONE, timestamp=at(2), data=bytes(700)),
        *store(ONE, 1, "1", "1.1", 3),
        *store(ONE, 2, "1", "1.2", 4, status=0xA700),
        *store(ONE, 3, "1", "1.3", 4, status=0xB000),
        records.DataSent(assoc=ONE, timestamp=at(5), data=bytes(80)),
        records.DataReceived(assoc=ONE, timestamp=at(6), data=bytes(300)),
        released(ONE, 7),
        closed(ONE, 8.5),
    ]
    (summary,) = through(summaries(), *events)
    assert summary == AssociationSummary(
        association="STORE-1",
        calling_ae_title="CT1",
        called_ae_title="STORE",
        address=("192.0.2.1", 104),
        began=at(1),
        timestamp=at(8.5),
        ended="released",
        messages_received={"C-STORE-RQ": 3},
        messages_sent={"C-STORE-RSP": 3},
        failures=1,
        bytes_received=1000,
        bytes_sent=80,
    )
    assert summary.duration == 7.5


def test_failures_of_the_peer_count_too() -> None:
    echo = sent(Command.C_ECHO_RQ, ONE, MessageID=1)
    answer = received(Command.C_ECHO_RSP, ONE, MessageIDBeingRespondedTo=1, Status=0x0122)
    (summary,) = through(summaries(), opened(ONE), echo, answer, closed(ONE))
    assert (summary.failures, summary.messages_sent, summary.messages_received) == (
        1,
        {"C-ECHO-RQ": 1},
        {"C-ECHO-RSP": 1},
    )


@pytest.mark.parametrize(
    ("events", "ended", "cause", "by"),
    [
        ([opened(ONE), released(ONE), closed(ONE)], "released", "", ""),
        ([opened(ONE), rejected(ONE), closed(ONE)], "rejected", "called AE title not recognised", "local"),
        ([opened(ONE), aborted(ONE), closed(ONE)], "aborted", "unexpected PDU", "peer"),
        ([opened(ONE), aborted(ONE, by="transport"), closed(ONE)], "aborted", "the connection was lost", "transport"),
        ([opened(ONE), closed(ONE)], "closed", "", ""),
        ([aborted(ONE, by="transport", cause="refused")], "aborted", "refused", "transport"),
        ([released(ONE), closed(ONE)], "released", "", ""),
        ([aborted(ONE), closed(ONE)], "aborted", "unexpected PDU", "peer"),
    ],
)
def test_every_end(events: list[Any], ended: str, cause: str, by: str) -> None:
    (summary,) = through(summaries(), *events)
    assert (summary.ended, summary.cause, summary.by) == (ended, cause, by)


def test_without_events_of_bytes_their_number_is_not_known() -> None:
    (summary,) = through(summaries(), opened(ONE), closed(ONE))
    assert (summary.bytes_received, summary.bytes_sent) == (None, None)


def test_a_connection_of_which_nothing_was_seen_is_nothing() -> None:
    assert through(summaries(), closed(ONE)) == []


def test_each_when_it_is_over_and_the_rest_at_the_end() -> None:
    events = [opened(ONE, 1), opened(TWO, 2), released(TWO, 3), closed(TWO, 4), opened(TWO, 5)]
    items = [(START + 1 + index, event) for index, event in enumerate(events)]
    done = run(lambda _: summaries(), items, completed=START + 50)
    assert [(when, each.association, each.ended) for when, each in done.items] == [
        (START + 4, "STORE-2", "released"),
        (START + 50, "STORE-1", "unknown"),
        (START + 50, "STORE-2", "unknown"),
    ]


def test_a_summary_cannot_be_changed() -> None:
    (summary,) = through(summaries(), opened(ONE), *store(ONE, 1, "1", "1.1"), closed(ONE))
    with pytest.raises(TypeError):
        summary.messages_received["C-STORE-RQ"] = 2
