"""How bytes travel: nothing waits for Nagle's algorithm, not ours and not that of a peer."""

import socket
import sys
import time
from collections.abc import Callable

import pytest

from rxdicom.runtimes.threads.transport import Transport
from rxdicom.wire.pdu import ReleaseRP, ReleaseRQ
from tests.runtimes.raw import DEADLINE, Raw, echo_rq, echo_rsp, entity, nothing_left, scripted, victim

MANY = 40
DELAYED = 0.04
"""Seconds by which a kernel delays an acknowledgement, and a peer with Nagle's algorithm what it sends next."""


def in_two(raw: Raw, message: bytes) -> None:
    """Send in two pieces, as a peer does that writes the header of a PDU, or its command set, by itself."""
    raw.send(message[:20])
    raw.send(message[20:])


def within_half_of_the_delays(work: Callable[[], None]) -> None:
    before = time.monotonic()
    work()
    assert time.monotonic() - before < MANY * DELAYED / 2


needs_quickack = pytest.mark.skipif(sys.platform != "linux", reason="TCP_QUICKACK is Linux's")


@needs_quickack
def test_requests_of_a_peer_with_nagles_algorithm_are_acknowledged_at_once() -> None:
    with victim() as attacked, Raw(socket.create_connection(attacked.server.address, timeout=DEADLINE)) as raw:
        raw.associate()

        def ask() -> None:
            for number in range(1, MANY + 1):
                in_two(raw, echo_rq(number))
                assert raw.message().MessageIDBeingRespondedTo == number

        within_half_of_the_delays(ask)


@needs_quickack
def test_responses_of_a_peer_with_nagles_algorithm_are_acknowledged_at_once() -> None:
    def answer(raw: Raw) -> None:
        raw.accept()
        for _ in range(MANY):
            in_two(raw, echo_rsp(raw.message()))
        assert raw.pdu() == ReleaseRQ()
        raw.send(ReleaseRP())

    with nothing_left(), scripted(answer) as address, entity().associate(*address) as assoc:

        def ask() -> None:
            for _ in range(MANY):
                assert assoc.send_c_echo() == 0x0000

        within_half_of_the_delays(ask)


def test_what_we_send_does_not_wait_for_acknowledgements() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock, listener.accept()[0]:
            assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            Transport(sock)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
