"""Table 9-10 of PS3.8: against a transcription of its own and against pynetdicom, and cell by cell in motion."""

import pytest
from attrs import evolve, frozen
from pynetdicom import fsm as peer

from rxdicom.errors import StateError
from rxdicom.protocol.fsm import ACTIONS, ALTERNATIVES, TRANSITIONS, Event, State
from rxdicom.protocol.notices import Notice
from rxdicom.protocol.protocol import Protocol
from rxdicom.wire.pdu import Abort, AssociateRJ, PDataTF, ReleaseRP, ReleaseRQ

from .harness import (
    ANSWER,
    EVENTS,
    PATIENT,
    REACHABLE,
    REJECTION,
    REQUEST,
    aborts,
    in_state,
    of,
    receive,
    sent,
)

# PS3.8 table 9-10 by event: which action and next state in which states. What is named nowhere is a blank cell.
_TO_6_12 = "6 7 8 9 10 11 12"
STANDARD: dict[int, dict[str, str]] = {
    1: {"AE-1 Sta4": "1"},
    2: {"AE-2 Sta5": "4"},
    3: {"AA-1 Sta13": "2", "AA-8 Sta13": f"3 {_TO_6_12}", "AE-3 Sta6": "5", "AA-6 Sta13": "13"},
    4: {"AA-1 Sta13": "2", "AA-8 Sta13": f"3 {_TO_6_12}", "AE-4 Sta1": "5", "AA-6 Sta13": "13"},
    5: {"AE-5 Sta2": "1"},
    6: {"AE-6 Sta3/13": "2", "AA-8 Sta13": f"3 5 {_TO_6_12}", "AA-7 Sta13": "13"},
    7: {"AE-7 Sta6": "3"},
    8: {"AE-8 Sta13": "3"},
    9: {"DT-1 Sta6": "6", "AR-7 Sta8": "8"},
    10: {
        "AA-1 Sta13": "2",
        "DT-2 Sta6": "6",
        "AR-6 Sta7": "7",
        "AA-8 Sta13": "3 5 8 9 10 11 12",
        "AA-6 Sta13": "13",
    },
    11: {"AR-1 Sta7": "6"},
    12: {
        "AA-1 Sta13": "2",
        "AR-2 Sta8": "6",
        "AR-8 Sta9/10": "7",
        "AA-8 Sta13": "3 5 8 9 10 11 12",
        "AA-6 Sta13": "13",
    },
    13: {
        "AA-1 Sta13": "2",
        "AR-3 Sta1": "7 11",
        "AR-10 Sta12": "10",
        "AA-8 Sta13": "3 5 6 8 9 12",
        "AA-6 Sta13": "13",
    },
    14: {"AR-4 Sta13": "8 12", "AR-9 Sta11": "9"},
    15: {"AA-2 Sta1": "4", "AA-1 Sta13": f"3 5 {_TO_6_12}"},
    16: {"AA-2 Sta1": "2 13", "AA-3 Sta1": f"3 5 {_TO_6_12}"},
    17: {"AA-5 Sta1": "2", "AA-4 Sta1": f"3 4 5 {_TO_6_12}", "AR-5 Sta1": "13"},
    18: {"AA-2 Sta1": "2 13"},
    19: {"AA-1 Sta13": "2", "AA-8 Sta13": f"3 5 {_TO_6_12}", "AA-7 Sta13": "13"},
}


def _standard(state: int, event: int) -> tuple[str, tuple[int, ...]] | None:
    for outcome, states in STANDARD[event].items():
        if str(state) in states.split():
            action, following = outcome.split(" Sta")
            return action, tuple(map(int, following.split("/")))
    return None


def test_the_table_is_that_of_the_standard() -> None:
    assert (len(State), len(Event)) == (13, 19)
    for state in State:
        for event in Event:
            cell = TRANSITIONS.get((state, event))
            ours = None
            if cell is not None:
                alternative = (int(ALTERNATIVES[cell[0]]),) if cell[0] in ALTERNATIVES else ()
                ours = (cell[0], (int(cell[1]), *alternative))
            assert ours == _standard(state, event), (state.label, event.label)
    assert {action for action, _ in TRANSITIONS.values()} == set(ACTIONS)


def test_the_table_is_that_of_pynetdicom() -> None:
    theirs = {(int(state[3:]), int(event[3:])): action for (event, state), action in peer.TRANSITION_TABLE.items()}
    assert theirs == {(int(state), int(event)): action for (state, event), (action, _) in TRANSITIONS.items()}
    for action, following in TRANSITIONS.values():
        expected = peer.ACTIONS[action][2]
        ours = (following.label, *((ALTERNATIVES[action].label,) if action in ALTERNATIVES else ()))
        # pynetdicom names the states in any order, and only one where there is one.
        assert set(ours) == {expected} if isinstance(expected, str) else set(ours) == set(expected), action


# ---- every cell in motion

_UNTOUCHED = -1.0


@frozen
class Effects:
    """What an action does: the PDUs it sends, what it indicates, whether it closes, the deadline it leaves behind."""

    pdus: tuple[object, ...] = ()
    indicated: tuple[Notice, ...] = ()
    closing: bool = False
    deadline: float | None = _UNTOUCHED


NOW = 1000.0
ARTIM, RELEASE, IDLE = NOW + 30, NOW + 20, NOW + 60
_UP = (Notice.ACCEPTED, Notice.ESTABLISHED)
EFFECTS = {
    "AE-1": Effects(),
    "AE-2": Effects((REQUEST,), deadline=ARTIM),
    "AE-3": Effects((), _UP, deadline=IDLE),
    "AE-4": Effects((), (Notice.REJECTED,), closing=True, deadline=None),
    "AE-5": Effects(deadline=ARTIM),
    "AE-6": Effects((), (Notice.REQUESTED,), deadline=None),
    "AE-7": Effects((ANSWER,), _UP, deadline=IDLE),
    "AE-8": Effects((REJECTION,), (Notice.REJECTED,), deadline=ARTIM),
    "DT-1": Effects((PDataTF,), deadline=None),
    "DT-2": Effects((), (Notice.DIMSE_RECV,), deadline=None),
    "AR-1": Effects((ReleaseRQ(),), deadline=RELEASE),
    "AR-2": Effects((), (Notice.RELEASE_INDICATED,), deadline=None),
    "AR-3": Effects((), (Notice.RELEASED,), closing=True, deadline=None),
    "AR-4": Effects((ReleaseRP(),), (Notice.RELEASED,), deadline=ARTIM),
    "AR-5": Effects(deadline=None),
    "AR-6": Effects((), (Notice.DIMSE_RECV,)),
    "AR-7": Effects((PDataTF,)),
    "AR-8": Effects((), (Notice.RELEASE_INDICATED,)),
    "AR-9": Effects((ReleaseRP(),)),
    "AR-10": Effects((), (Notice.RELEASE_INDICATED,)),
    "AA-1": Effects((Abort,), (Notice.ABORTED,), deadline=ARTIM),
    "AA-2": Effects((), (Notice.ABORTED,), closing=True, deadline=None),
    "AA-3": Effects((), (Notice.ABORTED,), closing=True, deadline=None),
    "AA-4": Effects((), (Notice.ABORTED,), deadline=None),
    "AA-5": Effects(deadline=None),
    "AA-6": Effects(),
    "AA-7": Effects((Abort,)),
    "AA-8": Effects((Abort,), (Notice.ABORTED,), deadline=ARTIM),
}
"""PS3.8 tables 9-6 to 9-9. The wait for an AC, RJ or RP has a deadline as well, which the standard leaves open."""

_INDICATIONS = (
    Notice.REQUESTED,
    Notice.ACCEPTED,
    Notice.REJECTED,
    Notice.ESTABLISHED,
    Notice.RELEASED,
    Notice.ABORTED,
    Notice.RELEASE_INDICATED,
    Notice.DIMSE_RECV,
)
_LOCAL = (1, 7, 8, 9, 11, 14)
"""The primitives of the local user but for A-ABORT, which is possible always."""
_BY_ROLE = {Event.TRANSPORT_CONFIRMED: True, Event.TRANSPORT_INDICATED: False}
"""The two that ``connection_made`` is, depending on the role."""

CELLS = [
    pytest.param(state, is_requestor, event, id=f"{state.label}-{event.label}-{'requestor' * is_requestor}")
    for state, is_requestor in REACHABLE
    for event in Event
    if _BY_ROLE.get(event, is_requestor) == is_requestor
]


def _expected(action: str, state: State, is_requestor: bool, event: Event) -> Effects:
    effects = EFFECTS[action]
    if action == "AR-8" and not is_requestor:
        # The acceptor of the association waits for the answer to its own request first (PS3.8 §9.2.3, Sta10).
        return evolve(effects, indicated=())
    if state is State.AWAITING_CLOSE:
        return evolve(effects, indicated=())
    if state is State.AWAITING_TRANSPORT and event is Event.ABORT_REQUEST:
        return evolve(effects, indicated=(Notice.ABORTED,))
    return effects


@pytest.mark.parametrize(("state", "is_requestor", "event"), CELLS)
def test_every_cell_in_motion(state: State, is_requestor: bool, event: Event) -> None:
    cell = _standard(state, event)
    protocol = in_state(state, is_requestor)
    before = protocol.next_deadline()
    if cell is None:
        _check_blank(state, is_requestor, event)
        return
    action, following = cell
    now = NOW if event is not Event.ARTIM_EXPIRED else before
    assert now is not None
    produced = EVENTS[event](protocol, now)
    next_state = State(following[0] if action != "AR-8" or is_requestor else following[1])
    assert protocol.state is next_state
    assert of(produced, Notice.FSM_TRANSITION) == [
        (Notice.FSM_TRANSITION, (state.label, event.label, action, next_state.label))
    ]
    effects = _expected(action, state, is_requestor, event)
    assert [notice for notice, _ in of(produced, *_INDICATIONS)] == list(effects.indicated)
    assert protocol.closing == effects.closing
    deadline = before if effects.deadline == _UNTOUCHED else effects.deadline
    assert protocol.next_deadline() == deadline
    out = sent(protocol, now)
    assert len(out) == len(effects.pdus)
    for pdu, wanted in zip(out, effects.pdus, strict=True):
        assert isinstance(pdu, wanted) if isinstance(wanted, type) else pdu == wanted


def _check_blank(state: State, is_requestor: bool, event: Event) -> None:
    protocol = in_state(state, is_requestor, timeouts=PATIENT)
    if event in _LOCAL:
        with pytest.raises(StateError, match=state.label):
            EVENTS[event](protocol, NOW)
    elif event is Event.ABORT_REQUEST:
        # A-ABORT is never refused: where there is no association yet, or no more, it closes.
        indicated = aborts(EVENTS[event](protocol, NOW))
        assert indicated == ([(0, 0, "local")] if state is State.AWAITING_RQ else [])
        assert protocol.closing == (state is not State.IDLE)
    else:
        produced = EVENTS[event](protocol, NOW)
        assert not of(produced, Notice.FSM_TRANSITION, *_INDICATIONS)
        assert not protocol.closing
    assert protocol.state is state
    assert protocol.next_deadline() is None
    assert sent(protocol, NOW) == []


@pytest.mark.parametrize("event", [each for each in Event if each not in _LOCAL])
def test_what_comes_out_of_turn_is_not_remembered(event: Event) -> None:
    """A PDU in a blank cell leaves nothing behind that a later step would use."""
    protocol = in_state(State.AWAITING_TRANSPORT, True)
    if (State.AWAITING_TRANSPORT, event) not in TRANSITIONS:
        EVENTS[event](protocol, 0.0)
        protocol.connection_made(NOW)
        assert sent(protocol) == [REQUEST]


def test_the_service_provider_refuses_another_protocol_version() -> None:
    """AE-6, the second outcome."""
    for version, state in ((0, 13), (2, 13), (1, 3), (3, 3), (0xFFFF, 3)):
        protocol = in_state(State.AWAITING_RQ, False)
        produced = receive(protocol, evolve(REQUEST, protocol_version=version), now=NOW)
        assert protocol.state == state
        assert protocol.next_deadline() == (ARTIM if state == 13 else None)
        rejected = of(produced, Notice.REJECTED)
        assert rejected == ([(Notice.REJECTED, (1, 2, 2))] if state == 13 else [])
        assert sent(protocol) == ([AssociateRJ(1, 2, 2)] if state == 13 else [])
        assert not of(produced, Notice.REQUESTED) or state == 3
        assert of(produced, Notice.FSM_TRANSITION)[0][1] == ("Sta2", "Evt6", "AE-6", f"Sta{state}")


def _codes(protocol: Protocol) -> list[tuple[int, int]]:
    return [(pdu.source, pdu.reason) for pdu in sent(protocol) if isinstance(pdu, Abort)]


def test_abort_codes() -> None:
    """(0,0) before there is an association, and for the user; the provider's reason afterwards (PS3.8 table 9-26)."""
    unexpected, unrecognised = (2, 2), (2, 1)
    for state, is_requestor in REACHABLE:
        for event in Event:
            cell = _standard(state, event)
            if cell is None or cell[0] not in ("AA-1", "AA-8"):
                continue
            protocol = in_state(state, is_requestor)
            codes = aborts(EVENTS[event](protocol, NOW))
            if event is Event.ABORT_REQUEST or state is State.AWAITING_RQ:
                wanted = (0, 0)
            else:
                wanted = unrecognised if event is Event.INVALID_PDU else unexpected
            assert _codes(protocol) == [wanted], (state, event)
            assert codes == [(*wanted, "local")]


def test_who_ended_it() -> None:
    for state, is_requestor in REACHABLE:
        if state in (State.IDLE, State.AWAITING_RQ, State.AWAITING_TRANSPORT, State.AWAITING_CLOSE):
            continue
        peer_aborts = EVENTS[Event.ABORT_RECEIVED](in_state(state, is_requestor), NOW)
        assert aborts(peer_aborts) == [(2, 5, "peer")]
        assert of(peer_aborts, Notice.ACSE_RECV) == [(Notice.ACSE_RECV, (Abort(2, 5),))]
        lost = EVENTS[Event.TRANSPORT_CLOSED](in_state(state, is_requestor), NOW)
        assert of(lost, Notice.ABORTED) == [(Notice.ABORTED, (2, 0, "transport", "cable"))]


def test_only_what_is_wanted_is_told() -> None:
    for watched in (0, 1 << Notice.FSM_TRANSITION, 1 << Notice.PDU_RECV):
        protocol = in_state(State.ESTABLISHED, False, watched=watched)
        produced = EVENTS[Event.P_DATA_RECEIVED](protocol, NOW)
        optional = (Notice.FSM_TRANSITION, Notice.PDU_RECV, Notice.DATA_RECV, Notice.ACSE_RECV)
        assert [1 << notice for notice, _ in of(produced, *optional)] == [watched] * bool(watched)
        assert of(produced, Notice.DIMSE_RECV)
