"""``AE.send``: a batch over several associations, whichever runtime sends and whichever receives."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset

from rxdicom import (
    ArgumentError,
    AssociationAborted,
    AssociationRejected,
    ConnectionFailed,
    InvalidFile,
    NoAcceptedContext,
    TimedOut,
    evt,
)
from rxdicom.events.records import Aborted, CStore, Established, Rejected
from rxdicom.runtimes.aio import spreading as aio_spreading
from rxdicom.runtimes.batches import Sent, Totals
from rxdicom.runtimes.spreading import MOST_WAITING
from rxdicom.runtimes.threads import spreading as threads_spreading
from tests.contract.conftest import Sides
from tests.ports import free_port
from tests.runtimes.queries import META, instance
from tests.support import DEADLINE

NUMBER = 8


class Receiver:
    """A Storage SCP; what it was sent, and over how many associations."""

    def __init__(self, sides: Sides, handler: Callable[[CStore], int] = lambda _: 0x0000) -> None:
        self.stored: list[str] = []
        self.established: list[Any] = []
        self.released: list[Any] = []
        self.aborted: list[Any] = []
        self.used: set[Any] = set()
        """The associations over which something was stored."""
        self.windows: list[tuple[int, int]] = []
        self._handler = handler
        self.server = sides.start(
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_RELEASED, lambda event: self.released.append(event.assoc)),
            (evt.EVT_ABORTED, lambda event: self.aborted.append(event.assoc)),
        )
        self.peer: tuple[str, int] = self.server.address

    def _store(self, event: CStore) -> int:
        status = self._handler(event)
        if status in (0x0000, 0xB000):
            self.stored.append(uid_of(event))
            self.used.add(event.assoc)
        return status

    def _established(self, event: Established) -> None:
        self.established.append(event.assoc)
        self.windows.append(event.assoc.operations_window)

    @property
    def associations(self) -> int:
        return len(self.established)


def uid_of(event: CStore) -> str:
    return event.request.AffectedSOPInstanceUID or ""


def aborting(*fatal: str) -> Callable[[CStore], int]:
    """A handler that aborts the association, once for each time that an instance is listed."""
    left, lock = list(fatal), threading.Lock()

    def handler(event: CStore) -> int:
        with lock:
            is_fatal = uid_of(event) in left
            if is_fatal:
                left.remove(uid_of(event))
        if is_fatal:
            event.assoc.abort()
        return 0xA700 if is_fatal else 0x0000

    return handler


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    for runtime in (threads_spreading, aio_spreading):
        monkeypatch.setattr(runtime, "PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight files, 0.dcm to 7.dcm."""
    folder = tmp_path / "batch"
    folder.mkdir()
    for number in range(NUMBER):
        stored = instance(f"1.2.{number}", size=5000)
        stored.save_as(folder / f"{number}.dcm", enforce_file_format=True)  # pyright: ignore[reportUnknownMemberType]
    return folder


def uids(numbers: Iterable[int]) -> list[str]:
    return [f"1.2.{number}" for number in numbers]


def errors(results: list[Sent]) -> dict[str, type[Exception]]:
    """The failures, by the name of the file."""
    return {os.path.basename(str(each.instance)): type(each.error) for each in results if each.error}


@pytest.mark.parametrize(("associations", "window"), [(1, 1), (1, 4), (3, 1), (3, 2), (20, 1)])
def test_everything_arrives_once(sides: Sides, folder: Path, associations: int, window: int) -> None:
    receiver = Receiver(sides)
    transfer = sides.scu.send(*receiver.peer, folder, associations, window=window)
    results = list(transfer)
    assert Counter(receiver.stored) == Counter(uids(range(NUMBER)))
    assert [int(each.status or 0) for each in results] == [0] * NUMBER
    assert transfer.totals == Totals(stored=NUMBER, bytes=sum(each.size for each in results))
    assert 0 < receiver.associations <= min(associations, NUMBER)
    assert set(receiver.windows) == {(1, window)} if window > 1 else {(1, 1)}
    assert not sides.scu.active_associations
    sides.scp.shutdown()
    assert receiver.released
    assert all(each in receiver.released or each in receiver.aborted for each in receiver.established)
    # One that is still being opened when there is nothing left to send is given up.
    assert receiver.used.isdisjoint(receiver.aborted)
    assert associations > 1 or not receiver.aborted


def test_what_fails_does_not_stop_the_rest(sides: Sides, folder: Path) -> None:
    """Refused, stored with a warning, vanished, no DICOM, a dataset without a SOP class."""

    def handler(event: CStore) -> int:
        return {"1.2.1": 0xA700, "1.2.2": 0xB000}.get(uid_of(event), 0x0000)

    (folder / "3.dcm").write_bytes(bytes(128) + b"DICM" + b"junk")
    receiver = Receiver(sides, handler)
    batch = [folder, folder / "none.dcm", Dataset(), instance("1.2.8")]
    transfer = sides.scu.send(*receiver.peer, batch, 2)
    results = list(transfer)
    assert errors(results) == {"3.dcm": InvalidFile, "none.dcm": FileNotFoundError, str(Dataset()): ArgumentError}
    assert Counter(receiver.stored) == Counter(uids([0, 2, 4, 5, 6, 7, 8]))
    totals = transfer.totals
    assert (totals.stored, totals.warnings, totals.failed, totals.done) == (7, 1, 4, 11)


@pytest.mark.parametrize(("associations", "window"), [(1, 1), (1, 4), (3, 2)])
def test_what_was_on_its_way_is_tried_again_once(sides: Sides, folder: Path, associations: int, window: int) -> None:
    receiver = Receiver(sides, aborting("1.2.3"))
    results = list(sides.scu.send(*receiver.peer, folder, associations, window=window))
    assert [each.error for each in results] == [None] * NUMBER
    assert set(receiver.stored) == set(uids(range(NUMBER)))
    again = {os.path.basename(str(each.instance)) for each in results if each.attempts == 2}
    assert "3.dcm" in again
    assert len(again) <= window


@pytest.mark.parametrize(("associations", "window"), [(1, 1), (1, 8), (4, 2)])
def test_an_instance_that_loses_two_associations_is_a_failure_and_no_other(
    sides: Sides, folder: Path, associations: int, window: int
) -> None:
    receiver = Receiver(sides, aborting("1.2.3", "1.2.3", "1.2.3"))
    results = list(sides.scu.send(*receiver.peer, folder, associations, window=window))
    assert errors(results) == {"3.dcm": AssociationAborted}
    assert set(receiver.stored) == set(uids([0, 1, 2, 4, 5, 6, 7]))


def test_the_rest_is_given_up_when_nothing_is_stored_any_more(sides: Sides, folder: Path) -> None:
    receiver = Receiver(sides, aborting(*uids(range(2, NUMBER)) * 2))
    results = list(sides.scu.send(*receiver.peer, folder))
    assert receiver.stored == uids([0, 1])
    assert receiver.associations == 4
    attempts = [(os.path.basename(str(each.instance)), each.attempts) for each in results]
    assert attempts == [(f"{number}.dcm", made) for number, made in enumerate([1, 1, 2, 2, 0, 0, 0, 0])]
    assert set(errors(results).values()) == {AssociationAborted}


def test_a_limit_of_the_peer_means_fewer_associations(sides: Sides, folder: Path) -> None:
    """Nothing is answered before the others have been refused."""
    refused = threading.Semaphore(0)

    def handler(event: CStore) -> int:
        if uid_of(event) == "1.2.0":
            for _ in range(3):
                assert refused.acquire(timeout=DEADLINE)
        return 0x0000

    def on_rejected(event: Rejected) -> None:
        refused.release()

    sides.scp.maximum_associations = 1
    receiver = Receiver(sides, handler)
    handlers = [(evt.EVT_REJECTED, on_rejected)]
    results = list(sides.scu.send(*receiver.peer, folder, 4, evt_handlers=handlers))
    assert [each.error for each in results] == [None] * NUMBER
    assert receiver.associations == 1


def test_a_peer_that_accepts_no_context(sides: Sides, folder: Path) -> None:
    server = sides.scp.start_server(("127.0.0.1", 0), block=False, ae_title="SCP")
    without = [each for each in sides.scp.supported_contexts if each.abstract_syntax == META]
    other = sides.scp.start_server(("127.0.0.1", 0), block=False, contexts=without)
    assert len(list(sides.scu.send(*server.address, folder))) == NUMBER
    results = list(sides.scu.send(*other.address, folder, 2))
    assert set(errors(results).values()) == {NoAcceptedContext}
    assert len(results) == NUMBER


@pytest.mark.parametrize("associations", [1, 3])
def test_without_any_association_the_first_error_is_raised(sides: Sides, folder: Path, associations: int) -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        list(sides.scu.send("127.0.0.1", free_port(), folder, associations))
    sides.scp.require_called_aet = True
    with pytest.raises(AssociationRejected):
        list(sides.scu.send(*Receiver(sides).peer, folder, associations, ae_title="WRONG"))


def test_a_peer_that_does_not_answer_loses_its_association(sides: Sides, folder: Path) -> None:
    aborted = threading.Semaphore(0)

    def handler(event: CStore) -> int:
        if uid_of(event) == "1.2.2":
            assert aborted.acquire(timeout=DEADLINE)
        return 0x0000

    def on_aborted(event: Aborted) -> None:
        aborted.release()

    sides.scu.timeouts = evolve(sides.scu.timeouts, response=0.3)
    receiver = Receiver(sides, handler)
    handlers = [(evt.EVT_ABORTED, on_aborted)]
    results = list(sides.scu.send(*receiver.peer, folder, evt_handlers=handlers))
    assert errors(results) == {"2.dcm": TimedOut}
    assert receiver.associations == 3


def test_what_is_on_its_way_arrives_when_it_is_stopped(sides: Sides) -> None:
    came, go_on = threading.Event(), threading.Event()

    def handler(event: CStore) -> int:
        came.set()
        go_on.wait(DEADLINE)
        return 0x0000

    receiver = Receiver(sides, handler)
    transfer = sides.scu.send(*receiver.peer, (instance(f"1.2.{number}") for number in range(1000)))
    results: list[Sent] = []
    consuming = threading.Thread(target=lambda: results.extend(transfer))
    consuming.start()
    assert came.wait(DEADLINE)
    transfer.stop()
    go_on.set()
    consuming.join(DEADLINE)
    assert not consuming.is_alive()
    assert receiver.stored == ["1.2.0"]
    assert [int(each.status or 0) for each in results] == [0]
    sides.scp.shutdown()
    assert len(receiver.released) == 1


def test_a_slow_consumer_slows_the_senders_down(sides: Sides) -> None:
    """Nothing grows: the results wait for it, and so do the instances."""
    found: list[int] = []

    def batch() -> Iterator[Dataset]:
        for number in range(2000):
            found.append(number)
            yield instance(f"1.2.{number}")

    receiver = Receiver(sides)
    results = iter(sides.scu.send(*receiver.peer, batch(), 2))
    for _ in range(3):
        next(results)
    results.close()  # pyright: ignore[reportAttributeAccessIssue]
    sides.scp.shutdown()
    # What had been taken, what waits, and what each of the two workers had in hand.
    assert len(receiver.stored) <= 3 + 2 * MOST_WAITING + 4
    assert len(found) <= 2 * 128 + len(receiver.stored)


def test_what_the_batch_raises_comes_after_what_came_before(sides: Sides) -> None:
    def batch() -> Iterator[Dataset]:
        yield instance("1.2.0")
        yield instance("1.2.1")
        raise ZeroDivisionError

    results: list[Sent] = []
    sending = iter(sides.scu.send(*Receiver(sides).peer, batch()))
    with pytest.raises(ZeroDivisionError):
        results.extend(iter(lambda: next(sending), None))
    assert [each.is_stored for each in results] == [True, True]


def test_results_flow_into_rx(sides: Sides, folder: Path) -> None:
    over = threading.Event()
    results: list[Sent] = []
    observable = sides.scu.send(*Receiver(sides).peer, folder, 2).observable
    sides.scu_runtime.subscribe(observable, on_next=results.append, on_completed=over.set)
    assert over.wait(DEADLINE)
    assert sum(each.is_stored for each in results) == NUMBER


@pytest.mark.parametrize(("associations", "window"), [(0, 1), (1, 0), (1, 65536), (-1, 1)])
def test_wrong_arguments_are_said_at_once(sides: Sides, associations: int, window: int) -> None:
    with pytest.raises(ArgumentError, match="window"):
        sides.scu.send("127.0.0.1", 104, [], associations, window=window)
