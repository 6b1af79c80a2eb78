"""Two Protocols connected in memory: whatever both users, the network and the clock do, both come to one clean end."""

from collections.abc import Callable, Sequence

import pytest
from attrs import Factory, define, evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rxdicom.errors import ArgumentError, StateError
from rxdicom.protocol.fsm import TRANSITIONS, Event, State
from rxdicom.protocol.notices import Notice, Produced
from rxdicom.protocol.protocol import Protocol
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.encoded import BytesSource
from rxdicom.wire.items import MaximumLength
from rxdicom.wire.pdata import RUN_SIZE
from rxdicom.wire.pdu import Abort, PDataTF, ReleaseRP, ReleaseRQ, encode_pdu

from .harness import (
    ANSWER,
    EVENTS,
    EVERYTHING,
    LIMITS,
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
    in_state,
    messages,
    of,
    receive,
    sent,
    store_rq,
    stream,
)

PENDING = 0xFF00


class Watched(BytesSource):
    """A source that knows whether it was closed, and fails when it is read at ``fails_at`` or behind it."""

    def __init__(self, data: bytes, fails_at: int | None = None, error: Exception | None = None) -> None:
        super().__init__(data)
        self.fails_at = fails_at
        self.error = error or OSError("unreadable")
        self.closed = 0

    def read_into(self, offset: int, views: Sequence[memoryview]) -> None:
        if self.fails_at is not None and offset + sum(map(len, views)) > self.fails_at:
            raise self.error
        super().read_into(offset, views)

    def close(self) -> None:
        self.closed += 1


@define
class Side:
    """One application entity: its protocol, the bytes that it has on the wire, and what it did and was told."""

    protocol: Protocol
    wire: bytearray = Factory(bytearray)
    told: list[Produced] = Factory(list[Produced])
    submitted: list[Message] = Factory(list[Message])
    sources: list[Watched] = Factory(list[Watched])
    connected: bool = True

    @property
    def delivered(self) -> list[Message]:
        return messages(self.told)

    def note(self, produced: list[Produced]) -> None:
        self.told += produced
        failed = [values[0] for _, values in of(produced, Notice.SEND_FAILED)]
        self.submitted = [each for each in self.submitted if not any(each is other for other in failed)]


def content(sent: Message) -> tuple[object, ...]:
    data = None if sent.data is None else bytes(sent.data.data or b"")
    return sent.CommandField, sent.MessageID, sent.MessageIDBeingRespondedTo, sent.Status, sent.context_id, data


def finals(responses: list[Message]) -> set[int | None]:
    def is_final(each: Message) -> bool:
        return each.is_response and (each.kind is not Command.C_FIND_RSP or each.Status != PENDING)

    return {each.MessageIDBeingRespondedTo for each in responses if is_final(each)}


def requests(found: list[Message]) -> set[int | None]:
    return {each.MessageID for each in found if not each.is_response}


SIDES = st.sampled_from([0, 1])


class Pair(RuleBasedStateMachine):
    """The requestor is side 0, the acceptor side 1."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.last_id = 0
        self.sides = [
            Side(Protocol(is_requestor=is_requestor, limits=LIMITS, timeouts=TIMEOUTS))
            for is_requestor in (True, False)
        ]
        for side in self.sides:
            side.protocol.watched = EVERYTHING
        self.sides[0].note(self.sides[0].protocol.connect(REQUEST, self.now))
        for side in self.sides:
            side.note(side.protocol.connection_made(self.now))

    @initialize(steps=st.sampled_from([0, 1, 2, 3, 3, 3, 3, 3]))
    def begin(self, steps: int) -> None:
        """Most of what is interesting comes once the association is there."""
        for _ in range(steps):
            self.step(releasing=False)

    def primitive(self, side: Side, event: Event, call: Callable[[], list[Produced]]) -> bool:
        """A local primitive: possible where table 9-10 has it, and otherwise without any effect."""
        before = (side.protocol.state, side.protocol.next_deadline(), side.protocol.wants_to_send)
        if (before[0], event) in TRANSITIONS:
            side.note(call())
            return True
        with pytest.raises(StateError):
            call()
        assert (side.protocol.state, side.protocol.next_deadline(), side.protocol.wants_to_send) == before
        return False

    # ---- the users

    @rule()
    def accept(self) -> None:
        side = self.sides[1]
        self.primitive(side, Event.ASSOCIATE_ACCEPT, lambda: side.protocol.accept(ANSWER, self.now))

    @rule(number=SIDES)
    def reject(self, number: int) -> None:
        side = self.sides[number]
        self.primitive(side, Event.ASSOCIATE_REJECT, lambda: side.protocol.reject(REJECTION, self.now))

    @rule(
        number=SIDES,
        size=st.none() | st.sampled_from([0, 1, 50, 40_000]),
        make=st.sampled_from([store_rq, find_rq]),
        fails=st.booleans(),
    )
    def request(self, number: int, size: int | None, make: Callable[[bytes, int], Message], fails: bool) -> None:
        self.last_id += 1
        data = None if size is None else bytes(size)
        rq = echo_rq(self.last_id) if data is None else make(data, self.last_id)
        self.send(self.sides[number], rq, None if data is None else Watched(data, 0 if fails and size else None))

    @precondition(lambda self: any(self.unanswered(side) for side in self.sides))
    @rule(number=SIDES, status=st.sampled_from([0, 0, PENDING]), which=st.integers(0, 3))
    def answer(self, number: int, status: int, which: int) -> None:
        side = self.sides[number]
        waiting = self.unanswered(side)
        if waiting:
            self.send(side, self.response(waiting[which % len(waiting)], status), None)

    def unanswered(self, side: Side) -> list[Message]:
        done = finals(side.submitted)
        return [each for each in side.delivered if not each.is_response and each.MessageID not in done]

    def response(self, rq: Message, status: int) -> Message:
        kind = Command(rq.kind | 0x8000)
        return message(kind, rq.context_id, MessageIDBeingRespondedTo=rq.MessageID, Status=status)

    def send(self, side: Side, out: Message, source: Watched | None) -> None:
        if self.primitive(side, Event.P_DATA_REQUEST, lambda: side.protocol.send(out, source, self.now)):
            side.submitted.append(out)
            if source is not None:
                side.sources.append(source)

    @rule(number=SIDES)
    def release(self, number: int) -> None:
        side = self.sides[number]
        self.primitive(side, Event.RELEASE_REQUEST, lambda: side.protocol.release(self.now))

    @rule(number=SIDES)
    def release_response(self, number: int) -> None:
        side = self.sides[number]
        self.primitive(side, Event.RELEASE_RESPONSE, lambda: side.protocol.release_response(self.now))

    @rule(number=SIDES, sure=st.integers(0, 9))
    def abort(self, number: int, sure: int) -> None:
        if sure == 9:
            self.sides[number].note(self.sides[number].protocol.abort(self.now, "enough"))

    # ---- the network

    @rule(number=SIDES)
    def write(self, number: int) -> None:
        self.written(self.sides[number])

    @rule(number=SIDES)
    def transmit(self, number: int) -> None:
        """All that a side has to say reaches the other one."""
        while self.written(self.sides[number]):
            pass
        self.arrived(1 - number, 1 << 20)

    @rule(number=SIDES, size=st.sampled_from([1, 6, 7, 11, 200, 5000, 1 << 20]))
    def deliver(self, number: int, size: int = 1 << 20) -> None:
        self.arrived(number, size)

    def written(self, side: Side) -> bool:
        """A run of PDUs goes out; whether there was one."""
        data, produced = side.protocol.data_to_send(self.now)
        side.note(produced)
        if data is not None and side.connected:
            side.wire += data
        if side.protocol.closing and not side.protocol.wants_to_send and side.connected:
            self.close(side)
        return data is not None

    def arrived(self, number: int, size: int) -> bool:
        """To a side, what the other one has on the wire; behind that, that it is closed. Whether anything did."""
        side, other = self.sides[number], self.sides[1 - number]
        data = bytes(other.wire[:size])
        if not side.connected or not (data or not other.connected):
            return False
        if data:
            del other.wire[: len(data)]
            side.note(receive(side.protocol, data, now=self.now))
        else:
            self.close(side)
        return True

    @rule(sure=st.integers(0, 9))
    def cut(self, sure: int) -> None:
        """The connection breaks, and what is on its way is lost."""
        if sure == 9:
            for side in self.sides:
                side.wire.clear()
                if side.connected:
                    self.close(side)

    def close(self, side: Side) -> None:
        side.connected = False
        side.note(side.protocol.receive_eof(self.now))

    # ---- the clock

    @rule(number=SIDES, sure=st.integers(0, 9))
    def expire(self, number: int, sure: int = 9) -> None:
        deadline = self.sides[number].protocol.next_deadline()
        if deadline is not None and sure == 9:
            self.now = max(self.now, deadline)
            self.sides[number].note(self.sides[number].protocol.handle_timeout(self.now))

    # ---- what holds always

    @invariant()
    def one_end_and_nothing_behind_it(self) -> None:
        for side in self.sides:
            ends = [at for at, (notice, _) in enumerate(side.told) if notice in TERMINAL]
            assert len(ends) <= 1
            if ends:
                behind = (Notice.DIMSE_RECV, Notice.REQUESTED, Notice.ACCEPTED, Notice.ESTABLISHED, Notice.DIMSE_SENT)
                late = of(side.told[ends[0] :], *behind, Notice.RELEASE_INDICATED)
                released = side.told[ends[0]][0] is Notice.RELEASED
                assert not late or (released and all(notice is Notice.DIMSE_SENT for notice, _ in late))

    @invariant()
    def what_arrives_is_what_was_sent(self) -> None:
        for side, other in (self.sides, self.sides[::-1]):
            arrived = list(map(content, side.delivered))
            assert arrived == list(map(content, other.submitted))[: len(arrived)]

    @invariant()
    def the_windows_are_known(self) -> None:
        for side in self.sides:
            assert side.protocol.invoked == requests(side.submitted) - finals(side.delivered)
            assert side.protocol.performing == requests(side.delivered) - finals(side.submitted)

    @invariant()
    def every_step_is_in_the_table(self) -> None:
        for side in self.sides:
            state = "Sta1"
            for _, (before, event, action, after) in of(side.told, Notice.FSM_TRANSITION):
                assert before == state
                assert TRANSITIONS[State(int(before[3:])), Event(int(event[3:]))][0] == action
                state = after
            assert state == side.protocol.state.label

    # ---- the end

    def teardown(self) -> None:
        """From here on both users behave: accept, answer, release; then nothing is left to happen."""
        for _ in range(200):
            if all(not side.connected for side in self.sides):
                break
            if not self.step():
                self.time_goes_by()
        self.check_end()

    def step(self, *, releasing: bool = True) -> bool:
        for number, side in enumerate(self.sides):
            match side.protocol.state:
                case State.AWAITING_LOCAL_RESPONSE:
                    self.accept()
                case State.ESTABLISHED | State.AWAITING_LOCAL_RELEASE if self.unanswered(side):
                    self.send(side, self.response(self.unanswered(side)[0], 0), None)
                case State.AWAITING_LOCAL_RELEASE | State.COLLISION_REQUESTOR_LOCAL | State.COLLISION_ACCEPTOR_LOCAL:
                    self.release_response(number)
                case _:
                    pass
        moved = [self.written(side) for side in self.sides] + [self.arrived(number, 1 << 20) for number in (0, 1)]
        if not any(moved) and releasing and all(side.protocol.state is State.ESTABLISHED for side in self.sides):
            self.release(0)
            return True
        return any(moved)

    def time_goes_by(self) -> None:
        deadlines = [side.protocol.next_deadline() for side in self.sides]
        self.expire(min((0, 1), key=lambda number: deadlines[number] or 1e9))

    def check_end(self) -> None:
        for side in self.sides:
            assert not side.connected
            assert side.protocol.state is State.IDLE
            assert side.protocol.next_deadline() is None
            assert not side.protocol.wants_to_send
            assert all(source.closed for source in side.sources)
        requestor, acceptor = self.sides
        assert len(of(requestor.told, *TERMINAL)) == 1
        assert len(of(acceptor.told, *TERMINAL)) == 1 or not of(acceptor.told, Notice.REQUESTED)
        self.one_end_and_nothing_behind_it()
        self.what_arrives_is_what_was_sent()
        if all(of(side.told, Notice.RELEASED) for side in self.sides):
            for side, other in (self.sides, self.sides[::-1]):
                assert list(map(content, side.delivered)) == list(map(content, other.submitted))


def test_any_two_users_come_to_one_end() -> None:
    run_state_machine_as_test(
        Pair,
        settings=settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None),
    )


def test_a_good_conversation() -> None:
    """Associate, both ways requests, release: nothing but the machine's own good behaviour."""
    pair = Pair()
    for _ in range(6):
        pair.write(0)
        pair.deliver(1)
        pair.write(1)
        pair.deliver(0)
        if pair.sides[1].protocol.state is State.AWAITING_LOCAL_RESPONSE:
            pair.accept()
    for number, size in ((0, None), (0, 300_001), (1, None), (1, 0)):
        pair.request(number, size, store_rq, fails=False)
    pair.teardown()
    for side, other in (pair.sides, pair.sides[::-1]):
        assert of(side.told, Notice.RELEASED)
        assert len(side.delivered) == 4
        assert list(map(content, side.delivered)) == list(map(content, other.submitted))
        assert (side.protocol.invoked, side.protocol.performing) == (set(), set())


# ---- sending


def test_what_is_told_of_a_message_that_leaves() -> None:
    protocol = established(True)
    source = Watched(bytes(RUN_SIZE))
    protocol.send(store_rq(bytes(RUN_SIZE)), source, 0.0)
    told: list[list[Notice]] = []
    while protocol.wants_to_send:
        data, produced = protocol.data_to_send(0.0)
        assert bool(data) or not protocol.wants_to_send
        told.append([notice for notice, _ in produced if notice is not Notice.PDU_SENT])
        assert len(of(produced, Notice.PDU_SENT)) == len(data or b"") // 16384 + bool(data)
    assert told == [[Notice.DIMSE_SENT, Notice.DATA_SENT], [Notice.DATA_SENT], [Notice.MESSAGE_SENT]]
    assert source.closed


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("bad"), TypeError("worse"), RuntimeError("worst")])
def test_a_dataset_that_cannot_be_read_at_all(error: Exception) -> None:
    """Nothing of it has left: the request fails alone."""
    protocol = established(True)
    source = Watched(bytes(100), 0, error)
    protocol.send(store_rq(bytes(100), 4), source, 0.0)
    protocol.send(echo_rq(5), None, 0.0)
    data, produced = protocol.data_to_send(1.0)
    assert of(produced, Notice.SEND_FAILED) == [(Notice.SEND_FAILED, (store_rq(bytes(100), 4), error))]
    assert data == stream(echo_rq(5))
    assert protocol.invoked == {5}
    assert source.closed
    assert of(produced, Notice.MESSAGE_SENT, *TERMINAL) == [(Notice.MESSAGE_SENT, (echo_rq(5),))]
    assert not of(protocol.data_to_send(1.0)[1], Notice.SEND_FAILED)


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("worst")])
def test_a_dataset_that_cannot_be_read_to_its_end(error: Exception) -> None:
    """Half of it has left, and that cannot be taken back: the association is aborted."""
    protocol = established(True)
    source = Watched(bytes(2 * RUN_SIZE), RUN_SIZE, error)
    protocol.send(store_rq(bytes(2 * RUN_SIZE), 4), source, 0.0)
    protocol.send(echo_rq(5), None, 0.0)
    assert protocol.data_to_send(0.0)[0]
    data, produced = protocol.data_to_send(1.0)
    assert data == encode_pdu(Abort(0, 0))
    assert len(of(produced, Notice.SEND_FAILED)) == 1
    assert aborts(produced) == [(0, 0, "local")]
    assert source.closed


def test_a_dataset_that_fails_after_the_release_was_answered() -> None:
    """In Sta13 there is nothing to abort any more: the connection is closed."""
    protocol = in_state(State.AWAITING_LOCAL_RELEASE, False)
    protocol.send(store_rq(bytes(2 * RUN_SIZE), 4), Watched(bytes(2 * RUN_SIZE), RUN_SIZE), 0.0)
    protocol.release_response(0.0)
    assert protocol.data_to_send(0.0)[0]
    data, produced = protocol.data_to_send(1.0)
    assert (data, protocol.closing) == (None, True)
    assert len(of(produced, Notice.SEND_FAILED)) == 1
    assert not of(produced, *TERMINAL)


def test_a_peer_without_room_for_data() -> None:
    """A maximum length of fewer than eight bytes: every request fails, none is half sent."""
    protocol = in_state(State.AWAITING_AC_OR_RJ, True)
    receive(protocol, evolve(ANSWER, user_information=(MaximumLength(7),)))
    protocol.send(echo_rq(1), None, 0.0)
    data, produced = protocol.data_to_send(0.0)
    assert data is None
    [(_, (_, error))] = of(produced, Notice.SEND_FAILED)
    assert isinstance(error, ArgumentError)


@pytest.mark.parametrize("end", [Event.ABORT_RECEIVED, Event.TRANSPORT_CLOSED, Event.ABORT_REQUEST, Event.INVALID_PDU])
def test_nothing_is_sent_to_a_peer_that_is_gone(end: Event) -> None:
    """What is queued when the association ends is dropped, its file closed; an A-ABORT goes out if one is due."""
    protocol = established(True)
    begun, waiting = Watched(bytes(2 * RUN_SIZE)), Watched(bytes(100))
    protocol.send(store_rq(bytes(2 * RUN_SIZE), 1), begun, 0.0)
    protocol.send(store_rq(bytes(100), 2), waiting, 0.0)
    assert protocol.data_to_send(0.0)[0]
    EVENTS[end](protocol, 1.0)
    due = end in (Event.ABORT_REQUEST, Event.INVALID_PDU)
    assert [type(pdu) for pdu in sent(protocol)] == [Abort] * due
    assert begun.closed
    assert waiting.closed
    assert not protocol.wants_to_send


def test_what_is_queued_before_the_last_word_still_leaves() -> None:
    """A second abort, or one after the release was answered, must not swallow the PDU that the peer waits for."""
    protocol = in_state(State.AWAITING_LOCAL_RELEASE, False)
    protocol.send(echo_rsp(1), None, 0.0)
    protocol.release_response(0.0)
    protocol.abort(0.0)
    assert protocol.closing
    assert [type(pdu) for pdu in sent(protocol)] == [PDataTF, ReleaseRP]
    protocol = established()
    protocol.abort(0.0)
    protocol.abort(0.0)
    assert sent(protocol) == [Abort(0, 0)]


def test_a_release_collision() -> None:
    """PS3.8 §7.2.2.7: the acceptor of the association waits for the requestor's response before it gives its own."""
    requestor, acceptor = established(True), established(False)
    requestor.release(0.0)
    acceptor.release(0.0)
    assert (sent(requestor), sent(acceptor)) == ([ReleaseRQ()], [ReleaseRQ()])
    assert of(receive(requestor, ReleaseRQ()), Notice.RELEASE_INDICATED)
    assert not of(receive(acceptor, ReleaseRQ()), Notice.RELEASE_INDICATED)
    with pytest.raises(StateError):
        acceptor.release_response(0.0)
    requestor.release_response(0.0)
    assert of(receive(acceptor, *sent(requestor)), Notice.RELEASE_INDICATED)
    assert of(acceptor.release_response(0.0), Notice.RELEASED)
    assert of(receive(requestor, *sent(acceptor)), Notice.RELEASED)
    assert requestor.closing
    assert acceptor.state is State.AWAITING_CLOSE


def test_what_cannot_be_encoded_changes_nothing() -> None:
    request, answer = evolve(REQUEST, calling_ae_title="A" * 17), evolve(ANSWER, calling_ae_title="A" * 17)
    protocol = in_state(State.IDLE, True)
    with pytest.raises(ArgumentError, match="17"):
        protocol.connect(request, 0.0)
    assert (protocol.state, protocol.request) == (State.IDLE, None)
    protocol = in_state(State.AWAITING_LOCAL_RESPONSE, False)
    with pytest.raises(ArgumentError, match="17"):
        protocol.accept(answer, 0.0)
    assert (protocol.state, protocol.wants_to_send) == (State.AWAITING_LOCAL_RESPONSE, False)
    protocol.accept(ANSWER, 0.0)
    assert sent(protocol) == [ANSWER]


@pytest.mark.parametrize(("state", "is_requestor"), REACHABLE)
def test_a_refused_primitive_is_forgotten(state: State, is_requestor: bool) -> None:
    """Its PDU must not be what the next step sends or tells."""
    protocol = in_state(state, is_requestor)
    before = (protocol.request, protocol.answer)
    other = evolve(REQUEST, calling_ae_title="OTHER")
    for event, call in (
        (Event.ASSOCIATE_REQUEST, lambda: protocol.connect(other, 0.0)),
        (Event.ASSOCIATE_ACCEPT, lambda: protocol.accept(ANSWER, 0.0)),
        (Event.ASSOCIATE_REJECT, lambda: protocol.reject(REJECTION, 0.0)),
    ):
        if (state, event) not in TRANSITIONS:
            with pytest.raises(StateError):
                call()
    assert (protocol.request, protocol.answer) == before
    if state is State.AWAITING_TRANSPORT:
        protocol.connection_made(0.0)
        assert sent(protocol) == [REQUEST]
