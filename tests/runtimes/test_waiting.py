"""Threads that wait for a socket and to be woken: what they are woken for is not lost, whichever comes first."""

import select
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from pydicom import Dataset

from rxdicom import evt
from rxdicom.events.records import CGet, CStore
from rxdicom.runtimes.threads import waiting
from rxdicom.runtimes.threads.waiting import Waiting
from tests.runtimes.queries import GET, entity, instance, query, start
from tests.runtimes.raw import SOON, nothing_left


@contextmanager
def pair() -> Generator[tuple[Waiting, socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    waits = Waiting()
    with ours, theirs:
        yield waits, ours, theirs
    waits.close()


def test_a_socket_that_is_ready() -> None:
    with pair() as (waits, ours, theirs):
        assert not waits.wait(ours.fileno(), select.POLLIN, 0.0)
        theirs.send(b"x")
        assert waits.wait(ours.fileno(), select.POLLIN, None)
        assert not waits.wait(ours.fileno(), 0, 0.0)


def test_what_it_is_woken_for_goes_first() -> None:
    with pair() as (waits, ours, theirs):
        theirs.send(b"x")
        waits.wake()
        waits.wake()
        assert not waits.wait(ours.fileno(), select.POLLIN, None)
        assert waits.wait(ours.fileno(), select.POLLIN, None)


class LatePoll:
    """The poll of a reader that comes back from it late: woken twice since the socket became ready."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._wake = 0

    def register(self, fd: int, events: int) -> None:
        self._wake = self._wake or fd
        self._poll.register(fd, events)

    def unregister(self, fd: int) -> None:
        self._poll.unregister(fd)

    def poll(self, timeout: int | None) -> list[tuple[int, int]]:
        ready = self._poll.poll(timeout)
        # The reader of the association that asks; its peer's is another one of this process.
        if "-ANY-SCP-" in threading.current_thread().name and [fd for fd, _ in ready if fd != self._wake]:
            woken = select.poll()
            woken.register(self._wake, select.POLLIN)
            if woken.poll(300):
                return [(self._wake, select.POLLIN), ready[-1]]
        return ready


def test_a_sub_operation_that_comes_while_the_reader_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller of C-GET reads it and leaves it to the reader, which the peer then waits for."""
    monkeypatch.setattr(waiting, "select", SimpleNamespace(poll=LatePoll, POLLIN=select.POLLIN))
    stored: list[str | None] = []

    def on_get(event: CGet) -> Generator[int | tuple[int, Dataset]]:
        yield 3
        for number in range(3):
            yield 0xFF00, instance(f"1.2.{number}")

    def on_store(event: CStore) -> int:
        stored.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    with nothing_left():
        ae = entity()
        ae.dimse_timeout = 3 * SOON
        server = start(ae, (evt.EVT_C_GET, on_get))
        with ae.associate(*server.address, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as assoc:
            statuses = [status for status, _ in assoc.send_c_get(query(), GET)]
        ae.shutdown()
    assert stored == ["1.2.0", "1.2.1", "1.2.2"]
    assert statuses[-1] == 0x0000
