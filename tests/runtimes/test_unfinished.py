"""Association requests that never come whole: what they hold together is bounded, and those of others pass."""

import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from rxdicom import evt
from rxdicom.events.records import Aborted, DataReceived
from rxdicom.protocol.policy import Limits
from rxdicom.runtimes.unfinished import Unfinished
from rxdicom.wire.items import PresentationContextRQ
from rxdicom.wire.pdu import HEADER, AssociateAC, AssociateRQ, encode_pdu
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.contract.runtime import RUNTIMES
from tests.memory import Memory
from tests.runtimes.raw import DEADLINE, Raw, connect, request

ATTACKERS = 1000

BLOCKING = """
import sys
from rxdicom import AE

ae = AE()
ae.add_supported_context("1.2.840.10008.1.1")
with ae.start_server(("127.0.0.1", 0), block=False) as server:
    print(server.address[1], flush=True)
    sys.stdin.read()
"""
LOOP = """
import asyncio, sys
from rxdicom.aio import AE

async def main():
    ae = AE()
    ae.add_supported_context("1.2.840.10008.1.1")
    async with ae.start_server(("127.0.0.1", 0)) as server:
        print(server.address[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture(params=["threads", "aio"])
def scp(request: pytest.FixtureRequest) -> Generator[Any]:
    runtime = RUNTIMES[request.param]()
    try:
        ae = runtime.ae("VICTIM")
        ae.add_supported_context(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
        yield ae
    finally:
        runtime.close()


def _connected(port: int) -> Raw:
    return Raw(socket.create_connection(("127.0.0.1", port)))


def large_request() -> AssociateRQ:
    """One of nearly 512 kB: 128 contexts of 60 transfer syntaxes with long UIDs each."""
    asked = request()
    syntaxes = tuple(f"1.2.826.0.1.3680043.{number:040d}".replace(".0", ".1") for number in range(60))
    contexts = (
        PresentationContextRQ(2 * each + 1, VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN, *syntaxes)) for each in range(128)
    )
    return evolve(asked, presentation_contexts=tuple(contexts))


def all_but_the_last_byte(size: int) -> bytes:
    """An A-ASSOCIATE-RQ of so many bytes behind its header, which lacks one."""
    return HEADER.pack(1, size) + bytes(size - 1)


def closed(selector: selectors.BaseSelector, count: int) -> None:
    """Wait until so many of the sockets have been closed by the other side."""
    deadline = time.monotonic() + 3 * DEADLINE
    while count > 0:
        assert time.monotonic() < deadline, f"{count} more should have been closed"
        for key, _ in selector.select(0.1):
            selector.unregister(key.fileobj)
            count -= 1


@contextmanager
def serving(script: str) -> Generator[tuple[int, int]]:
    """A server in a process of its own that logs nothing; yields the process and the port."""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.communicate(timeout=DEADLINE)


@pytest.mark.parametrize("script", [BLOCKING, LOOP], ids=["threads", "aio"])
def test_a_thousand_unfinished_requests_hold_little(script: str) -> None:
    """Measured at the worst moment, beyond what a thousand idle connections need."""
    limits = Limits()
    with serving(script) as (pid, port), ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())
        peers = [opened.enter_context(_connected(port)) for _ in range(ATTACKERS)]
        for each in peers:
            selector.register(each.sock, selectors.EVENT_READ)
        with _connected(port) as raw:
            # They were accepted in their order: all the others are there.
            raw.associate()
        memory = Memory(pid)
        data = all_but_the_last_byte(limits.associate)
        for each in peers:
            with suppress(ConnectionError):
                each.send(data)
        closed(selector, ATTACKERS - limits.unfinished // limits.associate)
        assert memory.most() < 32
        # All the same an ordinary request passes, and a large one.
        for asked in (request(), large_request()):
            with _connected(port) as raw:
                assert isinstance(raw.associate(asked), AssociateAC)


def test_who_holds_the_most_is_cut_off_and_says_so(scp: Any) -> None:
    ended: list[Aborted] = []
    received: dict[Any, int] = {}
    arrived = threading.Event()

    def count(event: DataReceived) -> None:
        received[event.assoc] = received.get(event.assoc, 0) + len(event.data)
        if received[event.assoc] > 90_000:
            arrived.set()

    scp.limits = evolve(scp.limits, unfinished=100_000)
    handlers = [(evt.EVT_ABORTED, ended.append), (evt.EVT_DATA_RECV, count)]
    with scp.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers) as listening:
        with connect(listening) as small, connect(listening) as large, connect(listening) as last:
            whole = encode_pdu(request())
            small.send(whole[:-1])
            large.send(all_but_the_last_byte(90_000))
            assert arrived.wait(DEADLINE)
            last.send(all_but_the_last_byte(60_000))
            assert large.is_closed()
            assert _is_open(last)
            small.send(whole[-1:])
            assert isinstance(small.pdu(), AssociateAC)
        assert scp.shutdown() is None
    assert "unfinished requests" in ended[0].cause
    assert ended[0].by == "local"


def test_what_is_complete_or_over_is_not_counted(scp: Any) -> None:
    """One after the other, whether they end by themselves or not."""
    scp.limits = evolve(scp.limits, unfinished=100_000)
    with scp.start_server(("127.0.0.1", 0), block=False) as listening:
        whole = encode_pdu(request())
        with connect(listening) as first:
            first.send(whole[:-1])
            for _ in range(20):
                with connect(listening) as raw:
                    raw.send(all_but_the_last_byte(60_000))
                    raw.sock.shutdown(socket.SHUT_WR)
                    assert raw.is_closed()
                with connect(listening) as raw:
                    raw.associate()
            first.send(whole[-1:])
            assert isinstance(first.pdu(), AssociateAC)


def _is_open(raw: Raw) -> bool:
    raw.sock.setblocking(False)
    try:
        return raw.sock.recv(1) != b""
    except BlockingIOError:
        return True
    finally:
        raw.sock.settimeout(DEADLINE)


# ---- the account


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100))))
def test_together_they_never_hold_more(steps: list[tuple[int, int]]) -> None:
    unfinished = Unfinished[int](150)
    held: dict[int, int] = {}
    ending: set[int] = set()
    for holder, size in steps:
        if holder in ending:
            assert unfinished.hold(holder, size) == []
            ending -= {holder} if size == 0 else set[int]()
            continue
        held[holder] = size
        for largest in unfinished.hold(holder, size):
            assert held[largest] == max(held.values())
            del held[largest]
            ending.add(largest)
        assert sum(held.values()) <= 150


def test_of_equals_the_one_that_was_silent_for_longest() -> None:
    unfinished = Unfinished[str](100)
    for holder, size in (("a", 40), ("b", 40), ("a", 39), ("a", 40)):
        assert unfinished.hold(holder, size) == []
    assert unfinished.hold("c", 40) == ["b"]


def test_who_was_cut_off_counts_no_more_until_it_is_over() -> None:
    unfinished = Unfinished[str](100)
    assert unfinished.hold("a", 101) == ["a"]
    assert unfinished.hold("a", 1000) == unfinished.hold("b", 100) == []
    assert unfinished.hold("a", 0) == []
    assert unfinished.hold("a", 101) == ["a"]
    assert unfinished.hold("b", 101) == ["b"]
