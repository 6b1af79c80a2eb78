"""Scripts of faults: what becomes of bytes, whatever pieces they come in; the same in memory and over sockets."""

import socket
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdicom import AE, AssociationServer, evt
from rxdicom.errors import ArgumentError, AssociationAborted, ConnectionFailed
from rxdicom.testing import Corrupt, Cut, Delay, Fault, Faults, Reorder, Split, pair, relay
from rxdicom.testing.faults import Act, End, Pause, Script
from tests.ports import free_port
from tests.recording.support import configured, ct_file
from tests.support import DEADLINE, threads_and_descriptors
from tests.testing.test_pair import answering
from tests.wire.strategies import MANY

DATA = bytes(range(100))


def through(faults: Iterable[Fault], *parts: bytes) -> list[Act]:
    """What a script makes of bytes; those that are handed on one after the other in one piece."""
    script = Script(faults)
    acts = [act for part in parts for act in script.feed(part)]
    return [*acts, *filter(None, (script.finish(),))]


def handed_on(acts: Iterable[Act]) -> bytes:
    return b"".join(act for act in acts if isinstance(act, bytes))


def not_handed_on(acts: Iterable[Act]) -> list[Act]:
    return [act for act in acts if not isinstance(act, bytes)]


# ---- the script


def test_without_faults_everything_passes_as_it_comes():
    assert through([], b"abc", b"d") == [b"abc", b"d"]


def test_a_cut_ends_it_where_it_says():
    assert through([Cut(4)], b"abcdef", b"ghi") == [b"abcd", End(False)]
    assert through([Cut(4, reset=True)], b"abcd") == [b"abcd", End(True)]
    assert through([Cut(0)], b"abcd") == [End(False)]


def test_a_delay_holds_what_follows():
    assert through([Delay(2, 1.5)], b"abcd") == [b"ab", Pause(1.5), b"cd"]
    assert through([Delay(2)], b"ab", b"cd") == [b"ab", Pause(None), b"cd"]


def test_a_split_makes_two_of_one():
    assert through([Split(2)], b"abcd") == [b"ab", b"cd"]
    assert through([Split(1, every=2)], b"abcdef") == [b"a", b"bc", b"de", b"f"]


def test_corruption_replaces_bytes():
    assert through([Corrupt(1, b"XY")], b"abcd") == [b"aXYd"]
    assert through([Corrupt(1, b"XY")], b"ab", b"cd") == [b"aX", b"Yd"]
    assert through([Corrupt(3)], b"abcd") == [b"abc" + bytes([ord("d") ^ 0xFF])]


def test_reordering_exchanges_two_pieces():
    assert through([Reorder(1, 2)], b"abcdef") == [b"a", b"debc", b"f"]
    assert through([Reorder(1, 2)], *[bytes([each]) for each in b"abcdef"]) == [b"a", b"debc", b"f"]


def test_what_was_held_back_still_comes_at_the_end():
    assert through([Reorder(1, 4)], b"abc") == [b"a", b"bc"]


def test_faults_count_the_bytes_that_were_sent():
    faults = [Reorder(0, 2), Corrupt(2, b"X"), Split(6), Delay(7, 1.0), Cut(9)]
    assert through(faults, b"abcdefghijk") == [b"Xdab", b"ef", b"g", Pause(1.0), b"hi", End(False)]


def test_a_position_is_not_before_the_first_byte():
    with pytest.raises(ArgumentError, match="positions count from 0"):
        Script([Cut(-1)])


positions = st.integers(0, 110)
FAULTS = st.lists(
    st.one_of(
        st.builds(Cut, positions, st.booleans()),
        st.builds(Delay, positions, st.none() | st.just(1.0)),
        st.builds(Split, positions, st.integers(0, 9)),
        st.builds(Corrupt, positions, st.none() | st.binary(max_size=9)),
    ),
    max_size=6,
)


@MANY
@given(faults=FAULTS, reordered=st.none() | st.builds(Reorder, positions, st.integers(0, 40)), data=st.data())
def test_the_pieces_in_which_bytes_come_do_not_matter(
    faults: list[Fault], reordered: Reorder | None, data: st.DataObject
):
    every = [*faults, *([reordered] if reordered else [])]
    cuts = sorted(data.draw(st.lists(positions, max_size=9)))
    pieces = [DATA[start:stop] for start, stop in zip([0, *cuts], [*cuts, 100], strict=True)]
    whole, piecewise = through(every, DATA), through(every, *pieces)
    assert handed_on(whole) == handed_on(piecewise)
    assert [act for act in whole if not isinstance(act, bytes)] == [
        act for act in piecewise if not isinstance(act, bytes)
    ]


@MANY
@given(faults=FAULTS)
def test_only_cuts_lose_bytes(faults: list[Fault]):
    kept = handed_on(through(faults, DATA))
    cuts = [each.at for each in faults if isinstance(each, Cut)]
    assert len(kept) == min([100, *cuts])


# ---- the relay


@pytest.fixture
def server() -> Generator[AssociationServer]:
    ae = configured(AE("SCP"))
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answering(0))]) as running:
        yield running


@pytest.fixture
def scu() -> AE:
    return configured(AE("SCU"))


@contextmanager
def observed(server: AssociationServer) -> Generator[list[Any]]:
    """How the associations of the server ended, once the last one has."""
    ends: list[Any] = []
    over = threading.Event()

    def note(event: Any) -> None:
        ends.append(event)

    def note_end(event: Any) -> None:
        over.set()

    server.events.aborted.subscribe(note)
    server.events.released.subscribe(note)
    server.events.conn_close.subscribe(note_end)
    yield ends
    assert over.wait(DEADLINE)


def test_a_relay_without_faults_is_not_noticed(server: AssociationServer, scu: AE):
    with relay(server.address) as through_relay, scu.associate(*through_relay.address) as assoc:
        assert assoc.send_c_echo() == 0x0000
        assert assoc.send_c_store(ct_file()) == 0x0000
    assert assoc.is_released
    assert through_relay.connections == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_is_the_loss_of_the_connection(server: AssociationServer, scu: AE, reset: bool):
    with observed(server) as ends, relay(server.address, Faults(from_requestor=[Cut(20_000, reset)])) as cutting:
        assoc = scu.associate(*cutting.address)
        with pytest.raises(AssociationAborted, match="the connection was lost"):
            assoc.send_c_store(ct_file())
    assert [each.by for each in ends] == ["transport"]


def test_each_connection_has_faults_of_its_own(server: AssociationServer, scu: AE):
    with relay(server.address, Faults(from_requestor=[Cut(0)]), Faults(), Faults(from_acceptor=[Cut(0)])) as failing:
        outcomes: list[bool] = []
        for _ in range(4):
            try:
                with scu.associate(*failing.address) as assoc:
                    outcomes.append(assoc.send_c_echo() == 0x0000)
            except AssociationAborted:
                outcomes.append(False)
    assert outcomes == [False, True, False, False]


def test_a_delay_lasts_until_it_is_released(server: AssociationServer, scu: AE):
    with relay(server.address, Faults(from_acceptor=[Delay(0)])) as holding:
        assoc = scu.association(*holding.address)
        opened = threading.Event()

        def open_it() -> None:
            assoc.open()
            opened.set()

        requested = threading.Event()
        server.events.accepted.subscribe(lambda _: requested.set())
        thread = threading.Thread(target=open_it)
        thread.start()
        # The acceptor has answered; nobody hears of it.
        assert requested.wait(DEADLINE)
        assert not opened.is_set()
        holding.release()
        assert opened.wait(DEADLINE)
        assoc.release()
        thread.join(DEADLINE)


def test_a_delay_with_a_time_lasts_so_long(server: AssociationServer, scu: AE):
    with relay(server.address, Faults(from_acceptor=[Delay(0, 0.2)])) as delaying:
        begun = monotonic()
        scu.associate(*delaying.address).release()
        assert monotonic() - begun >= 0.2


def test_corruption_is_seen_by_the_receiver(server: AssociationServer, scu: AE):
    # The protocol version of the A-ASSOCIATE-RQ.
    with relay(server.address, Faults(from_requestor=[Corrupt(6, b"\0\0")])) as corrupting:
        with pytest.raises(Exception, match="protocol version not supported"):
            scu.associate(*corrupting.address)


def test_reordering_is_seen_by_the_receiver(server: AssociationServer, scu: AE):
    with relay(server.address, Faults(from_requestor=[Reorder(10, 16)])) as reordering:
        assoc = scu.associate(*reordering.address, ae_title="CALLED")
        (other,) = server.active_associations
        # The titles follow each other in the A-ASSOCIATE-RQ.
        assert (other.requestor.ae_title, other.acceptor.ae_title) == ("CALLED", "SCU")
        assoc.release()


def test_any_split_is_harmless(server: AssociationServer, scu: AE):
    splits = [Split(1, every=7)]
    with relay(server.address, Faults(splits, splits)) as splitting, scu.associate(*splitting.address) as assoc:
        assert assoc.send_c_store(ct_file()) == 0x0000


def test_a_target_that_is_not_there_closes_the_connection(scu: AE):
    with relay(("127.0.0.1", free_port())) as nowhere, pytest.raises((AssociationAborted, ConnectionFailed)):
        scu.associate(*nowhere.address)


def test_what_one_side_ends_the_other_does(server: AssociationServer):
    with relay(server.address) as between, socket.create_connection(between.address, DEADLINE) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_nothing_is_left_behind(server: AssociationServer, scu: AE):
    before = threads_and_descriptors()
    assocs: list[Any] = []
    with relay(server.address, Faults(from_acceptor=[Delay(10_000)])) as between:
        assocs += [scu.associate(*between.address) for _ in range(3)]
    for assoc in assocs:
        assert assoc.join(DEADLINE)
    # The acceptor's associations are over when their server says so.
    deadline = monotonic() + DEADLINE
    while threads_and_descriptors() != before:
        assert monotonic() < deadline, (threads_and_descriptors(), before)
        threading.Event().wait(0.01)


# ---- the same in memory


def lost_after(faults: Faults) -> int:
    """How many bytes of the requestor arrive in memory."""
    received: list[bytes] = []
    both = pair(configured(AE("SCU")), configured(AE("SCP")), faults=faults)

    def note(event: Any) -> None:
        received.append(event.data)

    both.server.bind(evt.EVT_DATA_RECV, note)
    with pytest.raises(AssociationAborted), both:
        both.requestor.send_c_store(ct_file())
    return len(b"".join(received))


@pytest.mark.parametrize("at", [0, 1, 100, 20_000])
def test_a_cut_in_memory_is_at_the_byte(at: int):
    assert lost_after(Faults(from_requestor=[Cut(at)])) == at


def test_splits_and_reordering_in_memory():
    splits = [Split(1, every=3)]
    with pair(configured(AE("SCU")), configured(AE("SCP")), faults=Faults(splits, splits)) as both:
        assert both.requestor.send_c_echo() == 0x0000
    with pair(configured(AE("SCU")), configured(AE("SCP")), faults=Faults([Reorder(10, 16)])) as both:
        assert both.acceptor.requestor.ae_title == "SCP"
