"""Deadlines on a virtual clock: they are absolute, there is one at a time, and each ends what it guards."""

import pytest
from attrs import evolve

from rxdicom.protocol.fsm import State
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.policy import Timeouts
from rxdicom.protocol.protocol import Protocol
from rxdicom.wire.encoded import BytesSource
from rxdicom.wire.pdu import Abort, ReleaseRP, ReleaseRQ, encode_pdu

from .harness import (
    ANSWER,
    LIMITS,
    PATIENT,
    REACHABLE,
    REJECTION,
    REQUEST,
    TERMINAL,
    TIMEOUTS,
    aborts,
    echo_rq,
    echo_rsp,
    established,
    find_rq,
    find_rsp,
    in_state,
    of,
    receive,
    sent,
    store_rq,
    stream,
)


def fresh(is_requestor: bool, timeouts: Timeouts = TIMEOUTS) -> Protocol:
    return Protocol(is_requestor=is_requestor, limits=LIMITS, timeouts=timeouts)


def drip(protocol: Protocol, data: bytes, start: float) -> float:
    """One byte a second until the deadline of the beginning, which must stay what it is. Returns it."""
    deadline = protocol.next_deadline()
    assert deadline is not None
    now = start
    for byte in data:
        now += 1
        if now >= deadline:
            break
        assert receive(protocol, bytes([byte]), now=now) == []
        assert protocol.next_deadline() == deadline
        assert protocol.handle_timeout(now) == []
    assert protocol.handle_timeout(deadline - 0.001) == []
    return deadline


def test_artim_is_not_rearmed_by_a_dripping_request() -> None:
    protocol = fresh(False)
    protocol.connection_made(100.0)
    assert drip(protocol, encode_pdu(REQUEST), 100.0) == 130.0
    produced = protocol.handle_timeout(130.0)
    assert protocol.state is State.IDLE
    assert protocol.closing
    assert [values for _, values in of(produced, Notice.ABORTED)] == [
        (0, 0, "local", "no A-ASSOCIATE-RQ before ARTIM expired")
    ]
    assert (protocol.next_deadline(), sent(protocol)) == (None, [])


def test_the_answer_to_a_request_has_a_deadline() -> None:
    protocol = fresh(True)
    protocol.connect(REQUEST, 0.0)
    assert protocol.next_deadline() is None, "connecting is the runtime's"
    protocol.connection_made(5.0)
    sent(protocol)
    assert drip(protocol, encode_pdu(ANSWER), 5.0) == 35.0
    assert aborts(protocol.handle_timeout(35.0)) == [(0, 0, "local")]
    assert protocol.timed_out == "association"
    assert protocol.state is State.AWAITING_CLOSE
    assert sent(protocol) == [Abort(0, 0)]
    assert protocol.next_deadline() == 65.0


def test_a_request_that_came_ends_artim() -> None:
    protocol = fresh(False)
    protocol.connection_made(0.0)
    receive(protocol, REQUEST, now=29.9)
    assert protocol.next_deadline() is None, "the local user may think as long as it likes"
    assert protocol.handle_timeout(1e9) == []


@pytest.mark.parametrize("is_requestor", [True, False])
def test_release_is_not_rearmed_by_data(is_requestor: bool) -> None:
    protocol = established(is_requestor)
    protocol.release(50.0)
    assert sent(protocol) == [ReleaseRQ()]
    assert protocol.next_deadline() == 70.0
    for second in range(51, 70):
        assert of(receive(protocol, stream(echo_rq(second)), now=second), Notice.DIMSE_RECV)
        assert protocol.next_deadline() == 70.0
    assert aborts(protocol.handle_timeout(70.0)) == [(0, 0, "local")]
    assert protocol.timed_out == "release"
    assert sent(protocol) == [Abort(0, 0)]


@pytest.mark.parametrize("is_requestor", [True, False])
def test_a_release_collision_has_the_deadline_of_the_release(is_requestor: bool) -> None:
    protocol = established(is_requestor)
    protocol.release(50.0)
    receive(protocol, ReleaseRQ(), now=60.0)
    if is_requestor:
        protocol.release_response(61.0)
    assert protocol.next_deadline() == 70.0
    assert aborts(protocol.handle_timeout(70.0)) == [(0, 0, "local")]
    assert protocol.timed_out == "release"


_TO_CLOSE = [(state, is_requestor) for state, is_requestor in REACHABLE if state is State.AWAITING_CLOSE]


@pytest.mark.parametrize(("state", "is_requestor"), _TO_CLOSE)
def test_who_does_not_close_is_closed(state: State, is_requestor: bool) -> None:
    """Sta13 for ever, because the peer keeps the socket open and talks."""
    protocol = in_state(state, is_requestor)
    for second in range(1, 30):
        produced = receive(protocol, stream(echo_rq()), encode_pdu(ReleaseRQ()), now=second)
        assert not of(produced, *TERMINAL, Notice.DIMSE_RECV)
        assert protocol.next_deadline() == 30.0
    assert not of(protocol.handle_timeout(30.0), *TERMINAL)
    assert protocol.state is State.IDLE
    assert protocol.closing
    assert protocol.next_deadline() is None


def test_requests_in_sta13_are_answered_without_a_queue() -> None:
    """AA-7 answers each second A-ASSOCIATE-RQ; a peer that reads none of it must not fill our memory."""
    protocol = in_state(State.AWAITING_CLOSE, False)
    for _ in range(1000):
        receive(protocol, REQUEST, now=1.0)
    assert [type(pdu) for pdu in sent(protocol)] == [Abort]


# ---- idle


def test_idle() -> None:
    protocol = established()
    assert protocol.next_deadline() == 60.0
    receive(protocol, stream(echo_rq())[:5], now=40.0)
    assert protocol.next_deadline() == 100.0, "any byte counts"
    assert protocol.handle_timeout(99.9) == []
    assert aborts(protocol.handle_timeout(100.0)) == [(0, 0, "local")]
    assert protocol.timed_out == "idle"
    assert sent(protocol) == [Abort(0, 0)]
    assert protocol.next_deadline() == 130.0


def test_a_request_being_performed_is_not_idle() -> None:
    protocol = established()
    receive(protocol, stream(find_rq(message_id=1)), stream(find_rq(message_id=2)), now=10.0)
    assert protocol.performing == {1, 2}
    for status, message_id in ((0xFF00, 1), (0xFF01, 2), (0x0000, 1)):
        protocol.send(find_rsp(message_id, status), None, 5000.0)
        assert protocol.next_deadline() is None
        assert protocol.handle_timeout(6000.0) == []
    protocol.send(find_rsp(2), None, 7000.0)
    assert protocol.performing == set()
    assert protocol.next_deadline() == 7060.0, "it starts again where the long work ends"


def test_a_request_outstanding_is_not_idle() -> None:
    protocol = established(True)
    protocol.send(find_rq(message_id=3), BytesSource(b"query "), 10.0)
    assert protocol.invoked == {3}
    assert protocol.next_deadline() is None
    receive(protocol, stream(find_rsp(3, 0xFF00)), now=4000.0)
    assert protocol.next_deadline() is None, "pending is not the end"
    receive(protocol, stream(find_rsp(9)), now=4500.0)
    assert protocol.invoked == {3}, "an answer to something else"
    receive(protocol, stream(find_rsp(3)), now=5000.0)
    assert protocol.invoked == set()
    assert protocol.next_deadline() == 5060.0


@pytest.mark.parametrize("status", [0xFF00, 0xFF01])
def test_pending_means_nothing_where_there_is_one_response(status: int) -> None:
    """A C-ECHO that is answered so is over; otherwise the association would never be idle again."""
    protocol = established()
    receive(protocol, stream(echo_rq(1)), now=1.0)
    protocol.send(echo_rsp(1, status), None, 2.0)
    assert protocol.performing == set()
    protocol.send(echo_rq(2), None, 3.0)
    receive(protocol, stream(echo_rsp(2, status)), now=4.0)
    assert protocol.invoked == set()
    assert protocol.next_deadline() == 64.0


def test_a_request_that_could_not_be_sent_is_not_outstanding() -> None:
    protocol = established(True)
    protocol.send(evolve(echo_rq(3), command={**echo_rq(3).command, "Priority": "high"}), None, 10.0)
    [_, produced] = protocol.data_to_send(500.0)
    assert of(produced, Notice.SEND_FAILED)
    assert protocol.invoked == set()
    assert protocol.next_deadline() == 560.0


def test_a_slow_decision_is_not_idleness() -> None:
    """The idle clock starts with the association, not with the request for it."""
    protocol = in_state(State.AWAITING_LOCAL_RESPONSE, False)
    protocol.accept(ANSWER, 1000.0)
    assert protocol.next_deadline() == 1060.0


# ---- two at once


def test_two_deadlines_at_once() -> None:
    """The release starts in the instant in which the association became idle: one deadline holds, the later one."""
    protocol = established()
    assert protocol.next_deadline() == 60.0
    protocol.release(60.0)
    assert protocol.handle_timeout(60.0) == []
    assert protocol.next_deadline() == 80.0
    assert not of(receive(protocol, ReleaseRP(), now=80.0), Notice.ABORTED)
    assert protocol.handle_timeout(80.0) == [], "the answer came in the same instant, before"
    assert protocol.closing


@pytest.mark.parametrize(("state", "is_requestor"), REACHABLE)
def test_everything_expires_at_once(state: State, is_requestor: bool) -> None:
    """With deadlines of no time at all: one terminal notice at most, and never a loop."""
    protocol = in_state(state, is_requestor, timeouts=Timeouts(association=0, idle=0, release=0))
    produced: list[Produced] = []
    for _ in range(5):
        produced += protocol.handle_timeout(0.0)
    untimed = (State.IDLE, State.AWAITING_TRANSPORT, State.AWAITING_LOCAL_RESPONSE, State.AWAITING_LOCAL_RELEASE)
    if state in untimed:
        assert protocol.state is state
        assert produced == []
    else:
        assert protocol.closing
        over_before = state is State.AWAITING_CLOSE
        assert len(of(produced, *TERMINAL)) == (0 if over_before else 1)
    assert protocol.next_deadline() is None


def test_no_deadline_where_none_is_wanted() -> None:
    for state, is_requestor in REACHABLE:
        protocol = in_state(state, is_requestor, timeouts=PATIENT)
        assert protocol.next_deadline() is None
        assert protocol.handle_timeout(1e12) == []
        assert protocol.state is state


def test_a_connection_that_comes_too_late_arms_nothing() -> None:
    """The user aborted while the runtime was connecting."""
    protocol = in_state(State.AWAITING_TRANSPORT, True)
    protocol.abort(1.0)
    assert protocol.connection_made(2.0) == []
    assert protocol.next_deadline() is None
    assert (protocol.state, protocol.closing) == (State.IDLE, True)


def test_a_rejection_waits_for_the_close_with_artim() -> None:
    protocol = in_state(State.AWAITING_LOCAL_RESPONSE, False)
    protocol.reject(REJECTION, 200.0)
    assert protocol.next_deadline() == 230.0
    protocol.receive_eof(210.0)
    assert protocol.next_deadline() is None


def test_a_stalled_dataset_is_idle() -> None:
    """Half a message is no request yet: the peer that stops in it is closed after the idle time."""
    protocol = established()
    receive(protocol, stream(store_rq(bytes(1000)))[:400], now=7.0)
    assert protocol.next_deadline() == 67.0
    assert aborts(protocol.handle_timeout(67.0)) == [(0, 0, "local")]
