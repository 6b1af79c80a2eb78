"""Filters in the terms of the standard, the stream of activity, and what pyright makes of their types."""

from typing import Any, assert_type

import pytest
from reactivex import Observable
from reactivex import operators as ops

from rxdicom import evt
from rxdicom.errors import ArgumentError
from rxdicom.events import records
from rxdicom.events.hub import Hub
from rxdicom.events.kinds import NOTIFICATION_KINDS
from rxdicom.events.streams import EventStreams
from rxdicom.operators import (
    AsyncEventIterator,
    CompletedStudy,
    EventIterator,
    Operation,
    activity,
    buffered,
    completed_studies,
    from_ae,
    of_message,
    of_pdu,
    of_sop_class,
    of_status,
    paired,
    sampled,
    to_ae,
    to_async_iterator,
    to_iterator,
    to_jsonl,
)
from rxdicom.operators.filters import ACTIVITY
from rxdicom.status import STATUS_FAILURE, STATUS_PENDING, STATUS_SUCCESS, STATUS_WARNING
from rxdicom.wire.dimse import Command
from rxdicom.wire.pdu import Abort, AssociateRQ, PDataTF, ReleaseRQ
from tests.operators.support import CT, Assoc, Context, received, sent, store, through
from tests.support import DEADLINE

ASSOC = Assoc()
MR = "1.2.840.10008.5.1.4.1.1.4"


def test_of_pdu_in_pdu_and_acse_streams() -> None:
    request, data, release = AssociateRQ("A", "B"), PDataTF(()), ReleaseRQ()
    events = [records.PDUReceived(pdu=request), records.PDUSent(pdu=data), records.PDUSent(pdu=release)]
    assert through(of_pdu(AssociateRQ, ReleaseRQ), *events) == [events[0], events[2]]
    control = [records.ACSEReceived(primitive=request), records.ACSESent(primitive=Abort(0, 0))]
    assert through(of_pdu(Abort), *control) == control[1:]


def test_of_message() -> None:
    request, response = store(ASSOC, 1, "1", "1.1")
    echo = received(Command.C_ECHO_RQ, ASSOC, MessageID=2)
    assert through(of_message(Command.C_STORE_RQ, Command.C_STORE_RSP), request, echo, response) == [request, response]


def test_of_sop_class_of_messages() -> None:
    request, response = store(ASSOC, 1, "1", "1.1")
    other = received(Command.C_STORE_RQ, ASSOC, MessageID=2, AffectedSOPClassUID=MR)
    requested = sent(Command.N_GET_RQ, ASSOC, MessageID=3, RequestedSOPClassUID=MR)
    assert response.message.AffectedSOPClassUID is None
    assert through(of_sop_class(CT), request, other, requested, response) == [request, response]
    assert through(of_sop_class(MR), request, other, requested, response) == [other, requested]


def test_a_sop_class_that_nobody_tells_is_none() -> None:
    _, response = store(Assoc(accepted_contexts=[Context(3, CT)]), 1, "1", "1.1")
    by_hand = sent(Command.C_STORE_RSP, None, Status=0)
    assert through(of_sop_class(CT), response, by_hand) == []


def test_of_sop_class_of_requests_and_of_what_is_made_of_them() -> None:
    request, response = store(ASSOC, 1, "1", "1.1")
    handled = records.CStore(request=request.message, context=records.EventContext(1, CT, "1.2.840.10008.1.2"))
    assert through(of_sop_class(CT), handled) == [handled]
    operations = through(paired(), request, response)
    assert through(of_sop_class(CT), *operations) == operations
    assert through(of_sop_class(MR), *operations) == []


def test_of_status() -> None:
    answers = [store(ASSOC, 1, "1", "1.1", status=status) for status in (0x0000, 0xB000, 0xA700, 0xFF00)]
    events = [event for pair in answers for event in pair]
    responses = events[1::2]
    assert through(of_status(STATUS_SUCCESS, STATUS_WARNING), *events) == responses[:2]
    assert through(of_status(STATUS_FAILURE), *events) == [responses[2]]
    assert through(of_status(STATUS_PENDING), *events) == [responses[3]]
    failed = through(paired(), *answers[2])
    assert through(of_status(STATUS_FAILURE), *failed) == failed
    assert through(of_status(STATUS_SUCCESS), *failed) == []


def test_of_status_knows_its_categories() -> None:
    with pytest.raises(ArgumentError, match="failure: no category"):
        of_status("failure")


def test_by_ae_title() -> None:
    one, two = Assoc(calling="CT1", called="STORE"), Assoc(calling="MR1", called="QR")
    events = [records.Released(assoc=one), records.Released(assoc=two), records.Released()]
    assert through(from_ae("CT1", "MR1"), *events) == events[:2]
    assert through(from_ae("MR1"), *events) == [events[1]]
    assert through(to_ae("STORE"), *events) == [events[0]]
    operations = through(paired(), *store(one, 1, "1", "1.1"), *store(two, 1, "1", "1.2"))
    assert through(from_ae("CT1"), *operations) == operations[:1]
    assert through(to_ae("QR"), *operations) == operations[1:]


@pytest.mark.parametrize("operator", [of_pdu, of_message, of_sop_class, of_status, from_ae, to_ae])
def test_a_filter_for_nothing_is_a_mistake(operator: Any) -> None:
    with pytest.raises(ArgumentError, match="lets nothing through"):
        operator()


# ---- activity


@pytest.fixture
def hub() -> Hub:
    return Hub()


def emit(hub: Hub, *kinds: evt.EventKind[Any]) -> None:
    for kind in kinds:
        hub.append(kind.number, kind.name)
    assert hub.drain(DEADLINE)


def test_activity_is_in_order_and_leaves_out_what_costs(hub: Hub) -> None:
    seen: list[Any] = []
    left: list[Any] = []
    subscription = activity(EventStreams(hub)).subscribe(seen.append, on_completed=lambda: left.append("over"))
    assert {kind.name for kind in NOTIFICATION_KINDS if hub.mask >> kind.number & 1} == {kind.name for kind in ACTIVITY}
    emit(hub, *reversed(NOTIFICATION_KINDS))
    assert seen == [kind.name for kind in reversed(NOTIFICATION_KINDS) if kind in ACTIVITY]
    subscription.dispose()
    assert hub.mask == 0
    assert left == []


def test_activity_with_more_kinds_each_of_them_once(hub: Hub) -> None:
    seen: list[Any] = []
    activity(EventStreams(hub), evt.EVT_DATA_RECV, evt.EVT_RELEASED).subscribe(seen.append)
    emit(hub, evt.EVT_RELEASED, evt.EVT_DATA_RECV, evt.EVT_DATA_SENT)
    assert seen == ["EVT_RELEASED", "EVT_DATA_RECV"]


def test_activity_guards_its_subscribers_and_those_of_pipes(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    def fail(event: Any) -> None:
        raise LookupError("at an event")

    shared = activity(EventStreams(hub)).pipe(ops.share())
    shared.subscribe(fail)
    shared.subscribe(seen.append)
    emit(hub, evt.EVT_RELEASED, evt.EVT_CONN_CLOSE)
    assert seen == ["EVT_RELEASED", "EVT_CONN_CLOSE"]
    assert caplog.text.count("exception in observer") == 2


def test_activity_completes(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Any] = []

    def fail(event: Any) -> None:
        calls.append(event)
        raise LookupError("at an event")

    activity(EventStreams(hub)).pipe(sampled(1e9)).subscribe(fail)
    activity(EventStreams(hub)).subscribe(fail, on_completed=lambda: calls.append("over"))
    emit(hub, evt.EVT_RELEASED, evt.EVT_CONN_CLOSE)
    hub.complete()
    assert hub.drain(DEADLINE)
    assert sorted(calls) == ["EVT_CONN_CLOSE", "EVT_CONN_CLOSE", "EVT_RELEASED", "over"]
    assert caplog.text.count("exception in observer") == 3


# ---- types, which pyright checks


def test_types_are_inferred(hub: Hub) -> None:
    events = EventStreams(hub)
    assert_type(events.pdu_recv.pipe(of_pdu(AssociateRQ)), Observable[records.PDUReceived])
    assert_type(events.pdu_recv.pipe(of_pdu(AssociateRQ), from_ae("CT1")), Observable[records.PDUReceived])
    assert_type(
        events.dimse_sent.pipe(of_message(Command.C_STORE_RSP), of_sop_class(CT), of_status(STATUS_FAILURE)),
        Observable[records.DIMSESent],
    )
    assert_type(activity(events), Observable[records.Event])
    assert_type(activity(events).pipe(paired(), of_sop_class(CT), to_ae("QR")), Observable[Operation])
    assert_type(activity(events).pipe(completed_studies(30), buffered(10)), Observable[CompletedStudy])
    assert_type(events.released.pipe(sampled(1)), Observable[records.Released])
    assert_type(events.released.pipe(to_jsonl()), Observable[str])
    iterator = events.released.pipe(to_iterator(1))
    assert_type(iterator, EventIterator[records.Released])
    iterator.close()
    loop = events.released.pipe(to_async_iterator(1))
    assert_type(loop, AsyncEventIterator[records.Released])
    assert hub.mask == 1 << evt.EVT_RELEASED.number
    del loop
    emit(hub, evt.EVT_RELEASED)
    assert hub.mask == 0
