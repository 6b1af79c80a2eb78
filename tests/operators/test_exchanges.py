"""Requests paired with their responses, the progress of retrievals, failures with their causes."""

from typing import Any

import pytest

from rxdicom.errors import ArgumentError
from rxdicom.events import records
from rxdicom.operators import Failure, Operation, failures, paired, progress
from rxdicom.operators.exchanges import Outstanding
from rxdicom.status import STATUS_CANCEL, STATUS_WARNING
from rxdicom.wire.dimse import Command
from tests.operators.support import (
    CT,
    Assoc,
    Context,
    aborted,
    at,
    closed,
    received,
    rejected,
    released,
    sent,
    store,
    through,
)

ONE, TWO = Assoc("STORE-1"), Assoc("STORE-2")
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def find(assoc: Any, message_id: int, second: float = 0) -> records.DIMSESent:
    return sent(Command.C_FIND_RQ, assoc, second, MessageID=message_id, AffectedSOPClassUID=FIND)


def found(assoc: Any, message_id: int, status: int, second: float = 0, **more: Any) -> records.DIMSEReceived:
    return received(Command.C_FIND_RSP, assoc, second, MessageIDBeingRespondedTo=message_id, Status=status, **more)


# ---- paired


def test_a_request_with_its_response_and_the_time_between() -> None:
    request, _ = store(ONE, 7, "1", "1.1", 10)
    _, response = store(ONE, 7, "1", "1.1", 12.5, status=0xB007)
    (operation,) = through(paired(), request, response)
    assert operation.name == "C-STORE"
    assert (operation.request, operation.response) == (request.message, response.message)
    assert operation.duration == 2.5
    assert operation.timestamp == at(12.5)
    assert operation.is_performed
    assert operation.message_id == 7
    assert (operation.sop_class_uid, operation.sop_instance_uid) == (CT, "1.1")
    assert "does not match its SOP class" in operation.status.description
    assert operation.status == 0xB007
    assert (operation.association, operation.calling_ae_title, operation.called_ae_title) == (
        "STORE-1",
        "MODALITY",
        "STORE",
    )
    assert operation.assoc is ONE


def test_what_this_side_asked_with_pending_responses() -> None:
    events = [find(ONE, 1), found(ONE, 1, 0xFF00), found(ONE, 1, 0xFF01), found(ONE, 1, 0x0000, 3)]
    (operation,) = through(paired(), *events)
    assert not operation.is_performed
    assert (operation.pending, operation.duration) == (2, 3)


def test_both_directions_and_many_associations_have_message_ids_of_their_own() -> None:
    store_one, stored_one = store(ONE, 1, "1", "1.1")
    store_two, stored_two = store(TWO, 1, "1", "1.2")
    events = [find(ONE, 1), store_one, store_two, stored_two, found(ONE, 1, 0), stored_one]
    operations: list[Operation] = through(paired(), *events)
    assert [(each.name, each.association) for each in operations] == [
        ("C-STORE", "STORE-2"),
        ("C-FIND", "STORE-1"),
        ("C-STORE", "STORE-1"),
    ]


def test_responses_out_of_the_order_of_their_requests() -> None:
    one, two = store(ONE, 1, "1", "1.1"), store(ONE, 2, "1", "1.2")
    assert [each.message_id for each in through(paired(), one[0], two[0], two[1], one[1])] == [2, 1]


def test_a_pending_status_of_another_service_is_its_final_response() -> None:
    """PS3.7 §9.1.1: a C-STORE has one response, whatever its status says."""
    (operation,) = through(paired(), *store(ONE, 1, "1", "1.1", status=0xFF00))
    assert operation.status == 0xFF00


def test_what_is_not_paired() -> None:
    request, response = store(ONE, 1, "1", "1.1")
    cancel = sent(Command.C_CANCEL_RQ, ONE, MessageIDBeingRespondedTo=1)
    assert through(paired(), response) == []
    assert through(paired(), request, released(ONE), response) == []
    assert through(paired(), request, aborted(ONE), response) == []
    assert through(paired(), request, closed(ONE), response) == []
    assert len(through(paired(), request, released(TWO), cancel, response, response)) == 1


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    (operation,) = through(paired(), store(ONE, 1, "1", "1.1", 10)[0], store(ONE, 1, "1", "1.1", 5)[1])
    assert operation.duration == 0


def test_nothing_is_kept_of_what_is_over() -> None:
    outstanding = Outstanding[str]()
    for number in range(70_000):
        request, response = received(Command.C_ECHO_RQ, ONE, MessageID=number % 65536), None
        outstanding.request(request, "noted")
    assert len(outstanding) == 65536
    response = sent(Command.C_ECHO_RSP, ONE, MessageIDBeingRespondedTo=5, Status=0)
    assert outstanding.response(response, final=True) == "noted"
    assert outstanding.response(response, final=True) is None
    outstanding.forget(ONE)
    assert len(outstanding) == 0


# ---- progress


def test_progress_of_a_move() -> None:
    def answer(status: int, **counters: int) -> records.DIMSEReceived:
        return received(Command.C_MOVE_RSP, ONE, MessageIDBeingRespondedTo=3, Status=status, **counters)

    steps = through(
        progress(),
        received(Command.C_ECHO_RSP, ONE, MessageIDBeingRespondedTo=1, Status=0),
        answer(
            0xFF00,
            NumberOfRemainingSuboperations=2,
            NumberOfCompletedSuboperations=1,
            NumberOfFailedSuboperations=0,
            NumberOfWarningSuboperations=1,
        ),
        answer(0xB000, NumberOfCompletedSuboperations=2, NumberOfFailedSuboperations=1, NumberOfWarningSuboperations=1),
    )
    assert [(each.done, each.total, each.remaining, each.failed) for each in steps] == [(2, 4, 2, 0), (4, 4, 0, 1)]
    assert [each.is_final for each in steps] == [False, True]
    assert {(each.name, each.message_id, each.association) for each in steps} == {("C-MOVE", 3, "STORE-1")}
    assert steps[1].status.NumberOfFailedSuboperations == 1
    assert steps[1].status == 0xB000


def test_progress_of_a_get_that_this_side_performs() -> None:
    (step,) = through(progress(), sent(Command.C_GET_RSP, ONE, MessageIDBeingRespondedTo=3, Status=0xA702))
    assert (step.name, step.total, step.is_final) == ("C-GET", 0, True)


# ---- failures


def test_failures_have_their_causes() -> None:
    refused = store(ONE, 1, "1", "1.1", 3, status=0xA700)
    seen: list[Failure] = through(
        failures(), rejected(TWO, 1), aborted(ONE, 2), *refused, *store(ONE, 2, "1", "1.2"), released(ONE)
    )
    assert [(each.kind, each.by, each.timestamp) for each in seen] == [
        ("rejected", "local", at(1)),
        ("aborted", "peer", at(2)),
        ("status", "local", at(3)),
    ]
    assert [each.cause for each in seen] == [
        "called AE title not recognised",
        "unexpected PDU",
        "refused: out of resources",
    ]
    assert seen[0].assoc is TWO
    assert (seen[2].status, seen[2].name, seen[2].sop_class_uid) == (0xA700, "C-STORE", CT)


@pytest.mark.parametrize(
    ("event", "by", "cause"),
    [
        (aborted(ONE, by="transport"), "transport", "the connection was lost"),
        (aborted(ONE, by="transport", cause="reset by peer"), "transport", "reset by peer"),
        (aborted(ONE, by="local", cause="timed out in phase 'idle'"), "local", "timed out in phase 'idle'"),
        (rejected(Assoc(is_acceptor=False)), "peer", "called AE title not recognised"),
        (rejected(None), "peer", "called AE title not recognised"),
    ],
)
def test_who_ended_it_and_why(event: Any, by: str, cause: str) -> None:
    (failure,) = through(failures(), event)
    assert (failure.by, failure.cause) == (by, cause)


def test_a_status_of_the_peer_with_its_comment() -> None:
    answer = found(Assoc(accepted_contexts=[Context(1, FIND)]), 1, 0xC001, ErrorComment="no index")
    (failure,) = through(failures(), answer)
    assert failure.by == "peer"
    assert failure.cause == "unable to process: no index"
    assert failure.sop_class_uid == FIND


def test_an_unknown_status_is_a_failure() -> None:
    (failure,) = through(failures(), *store(ONE, 1, "1", "1.1", status=0x7777))
    assert failure.cause == "status 0x7777"


def test_warnings_and_cancellations_where_asked_for() -> None:
    events = [*store(ONE, 1, "1", "1.1", status=0xB000), *store(ONE, 2, "1", "1.2", status=0xA700)]
    cancelled = found(ONE, 3, 0xFE00)
    assert [each.status for each in through(failures(), *events, cancelled)] == [0xA700]
    both = failures(STATUS_WARNING, STATUS_CANCEL)
    assert [each.status for each in through(both, *events, cancelled)] == [0xB000, 0xFE00]
    with pytest.raises(ArgumentError):
        failures("warning")
