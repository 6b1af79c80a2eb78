"""``AE.send``: a batch over several associations, and what becomes of it when associations fail."""

import gc
import itertools
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from weakref import WeakSet

import pytest
from attrs import field, frozen
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import (
    AE,
    ArgumentError,
    Association,
    AssociationAborted,
    AssociationRejected,
    AssociationServer,
    ConnectionFailed,
    InvalidFile,
    LocalUsageError,
    NoAcceptedContext,
    TimedOut,
    evt,
)
from rxdicom.events.records import AsyncOps, CStore, Established, Event
from rxdicom.runtimes.batches import Sent, Totals
from rxdicom.runtimes.instances import AHEAD, AHEAD_IN_MEMORY, scan
from rxdicom.runtimes.threads import spreading
from rxdicom.runtimes.threads.spreading import MOST_WAITING, Delivery
from rxdicom.sop_class import CTImageStorage
from rxdicom.wire.pdu import Abort, AssociateRJ, ReleaseRP, ReleaseRQ
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import ARC, SECONDARY_CAPTURE, dicom_file
from tests.ports import free_port
from tests.runtimes.raw import DEADLINE, Raw, nothing_left
from tests.runtimes.test_batches import store_rsp
from tests.support import dataset_bytes, dcmtk, running

# ---- the peer


@frozen
class Receiver:
    """A Storage SCP in this process, and what it was sent."""

    server: AssociationServer
    stored: list[str] = field(factory=list[str])
    hashes: Counter[str] = field(factory=Counter[str])
    proposed: list[int] = field(factory=list[int])
    """How many contexts each association proposed."""
    windows: list[tuple[int, int]] = field(factory=list[tuple[int, int]])
    released: list[Event] = field(factory=list[Event])

    @property
    def peer(self) -> tuple[str, int]:
        return self.server.address


def instance_of(event: CStore) -> str:
    return event.request.AffectedSOPInstanceUID or ""


def as_asked(event: AsyncOps) -> tuple[int, int]:
    return event.nr_invoked, event.nr_performed


@contextmanager
def receiving(
    handler: Callable[[CStore], int] = lambda _: 0x0000, limit: int = 10, syntax: str | None = None
) -> Generator[Receiver]:
    """A server that accepts every storage class, or secondary capture in one transfer syntax only."""
    ae = AE("RECEIVER")
    ae.accept_any_storage = syntax is None
    ae.maximum_associations = limit
    ae.add_supported_context(SECONDARY_CAPTURE if syntax else "1.2.840.10008.1.1", syntax)
    with ae.start_server(("127.0.0.1", 0), block=False) as server:
        receiver = Receiver(server)

        def on_store(event: CStore) -> int:
            status = handler(event)
            if status in (0x0000, 0xB000):
                receiver.stored.append(instance_of(event))
                receiver.hashes[sha256(event.encoded_dataset(include_meta=False)).hexdigest()] += 1
            return status

        def on_established(event: Established) -> None:
            assoc: Association = event.assoc
            receiver.proposed.append(len(assoc.accepted_contexts) + len(assoc.rejected_contexts))
            receiver.windows.append(assoc.operations_window)

        server.bind(evt.EVT_C_STORE, on_store)
        server.bind(evt.EVT_ESTABLISHED, on_established)
        server.bind(evt.EVT_RELEASED, receiver.released.append)
        server.bind(evt.EVT_ASYNC_OPS, as_asked)
        yield receiver


def aborting(*fatal: str) -> Callable[[CStore], int]:
    """A handler that aborts the association, once for each time that an instance is listed."""
    left = list(fatal)

    def handler(event: CStore) -> int:
        if instance_of(event) in left:
            left.remove(instance_of(event))
            event.assoc.abort()
            return 0xA700
        return 0x0000

    return handler


class Gate:
    """A C-STORE handler that waits until it may go on, and tells when it has been entered."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, event: CStore) -> int:
        self.entered.set()
        self.open.wait(DEADLINE)
        return 0x0000


@contextmanager
def peers(*scripts: Callable[[Raw], None]) -> Generator[tuple[str, int]]:
    """A listening peer that does one thing after the other, a connection each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        failures: list[BaseException] = []

        def serve() -> None:
            try:
                for script in scripts:
                    with Raw(listener.accept()[0]) as raw:
                        script(raw)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
                failures.append(error)

        thread = threading.Thread(target=serve, name="peers")
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            thread.join(DEADLINE)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


# ---- what is sent


def image(number: int, size: int = 0) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    if size:
        dataset.PatientComments = "x" * size
    return dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        dicom_file(tmp_path / "study" / f"{number}.dcm", instance=f"1.2.{number}")
    return tmp_path / "study"


@pytest.fixture
def ae(monkeypatch: pytest.MonkeyPatch) -> Generator[AE]:
    """The sender, which waits for nothing between associations and leaves nothing behind."""
    monkeypatch.setattr(spreading, "PAUSES", (0.0, 0.0, 0.0))
    with nothing_left():
        yield AE("SENDER")


def errors(results: Iterable[Sent]) -> dict[str, type[Exception]]:
    """The failures, by the name of the file."""
    return {os.path.basename(str(each.instance)): type(each.error) for each in results if each.error is not None}


# ---- spreading


@pytest.mark.parametrize("associations", [1, 2, 8])
@pytest.mark.parametrize("window", [1, 4])
def test_everything_arrives_once_over_any_number_of_associations(
    ae: AE, tmp_path: Path, associations: int, window: int
) -> None:
    """Nothing is answered before all of the associations have been asked for something."""
    paths = [dicom_file(tmp_path / f"{number}", instance=f"1.2.{number}", filling=number * 20) for number in range(120)]
    expected = Counter(sha256(dataset_bytes(path)).hexdigest() for path in paths)
    together = threading.Event()
    seen = set[Association]()

    def store(event: CStore) -> int:
        seen.add(event.assoc)
        if len(seen) == associations:
            together.set()
        return 0x0000 if together.wait(DEADLINE) else 0xA700

    with receiving(store) as receiver:
        transfer = ae.send(*receiver.peer, paths, associations, window=window)
        results = list(transfer)
    assert sorted(map(str, paths)) == sorted(str(each.instance) for each in results)
    assert all(each.status == 0x0000 and each.attempts == 1 for each in results)
    assert sorted(receiver.stored) == sorted(f"1.2.{number}" for number in range(120))
    assert receiver.hashes == expected
    assert len(receiver.proposed) == len(receiver.released) == associations
    assert set(receiver.windows) == {(1, window) if window > 1 else (1, 1)}
    assert transfer.totals == Totals(stored=120, bytes=sum(each.size for each in results))


def test_no_more_associations_than_objects(ae: AE, folder: Path) -> None:
    with receiving() as receiver:
        assert len(list(ae.send(*receiver.peer, [folder / "0.dcm", folder / "1.dcm"], 8))) == 2
        assert len(receiver.proposed) <= 2
        assert list(ae.send(*receiver.peer, [], 8)) == []
    assert len(receiver.proposed) <= 2


def test_more_than_128_contexts_are_several_associations(ae: AE, tmp_path: Path) -> None:
    for number in range(150):
        dicom_file(tmp_path / f"{number:03d}.dcm", sop_class=f"{ARC}9999.{number}", instance=f"1.2.{number}")
    with receiving() as receiver:
        assert all(each.is_stored for each in ae.send(*receiver.peer, tmp_path))
        assert receiver.proposed == [128, 128, 44]
        assert receiver.stored == [f"1.2.{number}" for number in range(150)]
        receiver.stored.clear()
        assert all(each.is_stored for each in ae.send(*receiver.peer, tmp_path, 3))
        assert sorted(receiver.stored) == sorted(f"1.2.{number}" for number in range(150))


def test_a_kind_that_comes_late_gets_an_association_of_its_own(
    ae: AE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxdicom.runtimes.instances.AHEAD_IN_MEMORY", 3)
    given = [image(number) for number in range(9)]
    for each in given[6:]:
        each.SOPClassUID = f"{ARC}4"
    with receiving() as receiver:
        assert all(each.is_stored for each in ae.send(*receiver.peer, given))
    assert receiver.stored == [f"1.2.3.{number}" for number in range(9)]
    assert receiver.proposed == [1, 1]


def test_paths_folders_and_datasets_are_mixed(ae: AE, folder: Path, tmp_path: Path) -> None:
    (folder / "letter.txt").write_text("Dear colleague, " * 50)
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(bytes(1000))
    unnamed = Dataset()
    unnamed.SOPClassUID = CTImageStorage
    given = [image(1), folder, nonsense, tmp_path / "absent", unnamed, str(folder / "0.dcm"), image(2)]
    with receiving() as receiver:
        transfer = ae.send(*receiver.peer, given, 2, window=2)
        results = {id(each.instance): each for each in transfer}
    assert transfer.totals == Totals(stored=11, failed=3, bytes=transfer.totals.bytes)
    assert sorted(receiver.stored) == sorted(["1.2.3.1", "1.2.3.2", "1.2.0", *(f"1.2.{n}" for n in range(8))])
    found = [type(results[id(given[at])].error) for at in (2, 3, 4)]
    assert found == [InvalidFile, FileNotFoundError, ArgumentError]


def test_a_single_path_or_dataset_is_a_batch(ae: AE, folder: Path) -> None:
    with receiving() as receiver:
        for single in (str(folder / "0.dcm"), folder / "1.dcm", image(1)):
            (sent,) = ae.send(*receiver.peer, single)
            assert sent.instance is single
            assert sent.is_stored


def test_what_was_found_before_is_not_looked_at_again(ae: AE, folder: Path) -> None:
    found = list(scan([folder, folder / "absent"]))
    with receiving() as receiver:
        results = list(ae.send(*receiver.peer, found))  # pyright: ignore[reportArgumentType]
    assert len(receiver.stored) == 8
    assert errors(results) == {"absent": FileNotFoundError}


# ---- what fails alone


def test_refusals_warnings_and_files_that_vanish_do_not_stop_the_rest(ae: AE, folder: Path) -> None:
    answers = {"1.2.2": 0xB000, "1.2.3": 0xA700}

    def store(event: CStore) -> int:
        (folder / "5.dcm").unlink(missing_ok=True)
        return answers.get(instance_of(event), 0x0000)

    with receiving(store) as receiver:
        transfer = ae.send(*receiver.peer, folder)
        results = list(transfer)
    assert [each.status for each in results] == [0, 0, 0xB000, 0xA700, 0, None, 0, 0]
    assert errors(results) == {"5.dcm": FileNotFoundError}
    assert transfer.totals == Totals(stored=6, warnings=1, failed=2, bytes=transfer.totals.bytes)
    assert len(receiver.proposed) == 1


@pytest.mark.parametrize("associations", [1, 3])
def test_a_peer_that_accepts_no_context_at_all(ae: AE, folder: Path, associations: int) -> None:
    (folder / "9.dcm").write_bytes(dicom_file(folder / "x", sop_class=f"{ARC}2").read_bytes())
    ae.convert_datasets = False
    with receiving(syntax=IMPLICIT_VR_LITTLE_ENDIAN) as receiver:
        results = list(ae.send(*receiver.peer, folder, associations))
    assert len(results) == 10
    assert set(errors(results).values()) == {NoAcceptedContext}
    wanted = {str(each.error) for each in results}
    assert any(f"for {SECONDARY_CAPTURE} in transfer syntax {EXPLICIT_VR_LITTLE_ENDIAN}" in each for each in wanted)


def test_files_are_converted_where_the_peer_wants_it(ae: AE, folder: Path) -> None:
    with receiving(syntax=IMPLICIT_VR_LITTLE_ENDIAN) as receiver:
        assert all(each.is_stored for each in ae.send(*receiver.peer, folder, 2))
    assert sorted(receiver.stored) == [f"1.2.{number}" for number in range(8)]


# ---- associations that are lost


@pytest.mark.parametrize("lost", [("1.2.0",), ("1.2.7",), ("1.2.2", "1.2.5"), tuple(f"1.2.{n}" for n in range(8))])
@pytest.mark.parametrize("associations", [1, 3])
def test_what_was_on_its_way_is_tried_again_once(ae: AE, folder: Path, lost: Sequence[str], associations: int) -> None:
    with receiving(aborting(*lost)) as receiver:
        transfer = ae.send(*receiver.peer, folder, associations)
        results = list(transfer)
    assert [each.error for each in results] == [None] * 8
    assert sorted(receiver.stored) == [f"1.2.{number}" for number in range(8)]
    again = sorted(os.path.basename(str(each.instance)) for each in results if each.attempts == 2)
    assert again == [f"{uid[-1]}.dcm" for uid in lost]
    assert transfer.totals == Totals(stored=8, bytes=transfer.totals.bytes)


@pytest.mark.parametrize("lost", ["1.2.0", "1.2.3", "1.2.7"])
@pytest.mark.parametrize("associations", [1, 3])
def test_with_a_window_all_that_were_on_their_way_are(ae: AE, folder: Path, lost: str, associations: int) -> None:
    with receiving(aborting(lost)) as receiver:
        results = list(ae.send(*receiver.peer, folder, associations, window=4))
    assert [each.error for each in results] == [None] * 8
    assert set(receiver.stored) == {f"1.2.{number}" for number in range(8)}
    again = {os.path.basename(str(each.instance)) for each in results if each.attempts == 2}
    assert f"{lost[-1]}.dcm" in again
    assert len(again) <= 4


@pytest.mark.parametrize(("associations", "window"), [(1, 1), (1, 8), (4, 2)])
def test_an_instance_that_loses_two_associations_is_a_failure_and_no_other(
    ae: AE, folder: Path, associations: int, window: int
) -> None:
    """With a window it has others beside it, which must not be blamed for what it does."""
    with receiving(aborting("1.2.3", "1.2.3", "1.2.3")) as receiver:
        results = list(ae.send(*receiver.peer, folder, associations, window=window))
    assert errors(results) == {"3.dcm": AssociationAborted}
    (failed,) = (each for each in results if each.error)
    assert failed.attempts == 2
    assert set(receiver.stored) == {f"1.2.{number}" for number in range(8) if number != 3}


def test_any_number_of_fatal_instances_is_left_out_as_long_as_others_are_stored(ae: AE, folder: Path) -> None:
    fatal = ("1.2.1", "1.2.3", "1.2.5", "1.2.7")
    with receiving(aborting(*fatal, *fatal)) as receiver:
        results = list(ae.send(*receiver.peer, folder))
    assert receiver.stored == ["1.2.0", "1.2.2", "1.2.4", "1.2.6"]
    assert set(errors(results)) == {"1.dcm", "3.dcm", "5.dcm", "7.dcm"}
    assert len(receiver.proposed) == 8


def test_the_rest_is_given_up_when_nothing_is_stored_any_more(ae: AE, folder: Path) -> None:
    with receiving(aborting(*[f"1.2.{number}" for number in range(2, 8)] * 2)) as receiver:
        results = list(ae.send(*receiver.peer, folder))
    assert receiver.stored == ["1.2.0", "1.2.1"]
    assert len(receiver.proposed) == 4
    assert [(os.path.basename(str(each.instance)), each.attempts) for each in results] == [
        ("0.dcm", 1), ("1.dcm", 1), ("2.dcm", 2), ("3.dcm", 2), ("4.dcm", 0), ("5.dcm", 0), ("6.dcm", 0), ("7.dcm", 0),
    ]  # fmt: skip
    assert set(errors(results).values()) == {AssociationAborted}


@pytest.mark.parametrize("associations", [1, 4])
def test_a_peer_that_goes_away_for_good(ae: AE, folder: Path, associations: int) -> None:
    count = itertools.count(1)

    def leave(event: CStore) -> int:
        number = next(count)
        if number == 4:
            leaving.start()
        if number >= 4:
            event.assoc.abort()
        return 0x0000

    with receiving(leave) as receiver:
        leaving = threading.Thread(target=receiver.server.shutdown)
        transfer = ae.send(*receiver.peer, folder, associations)
        results = list(transfer)
        leaving.join(DEADLINE)
    assert transfer.totals == Totals(stored=3, failed=5, bytes=transfer.totals.bytes)
    assert set(errors(results).values()) <= {ConnectionFailed, AssociationAborted}


def test_the_pauses_grow_and_end_when_it_is_to_stop(ae: AE, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "PAUSES", (0.05, 600.0))
    with receiving(aborting(*["1.2.2"] * 9, *["1.2.3"] * 9)) as receiver:
        transfer = ae.send(*receiver.peer, folder)
        results: list[Sent] = []
        for sent in transfer:
            results.append(sent)
            if sent.error is not None:
                transfer.stop()
    assert receiver.stored == ["1.2.0", "1.2.1"]
    assert errors(results) == {"2.dcm": AssociationAborted}
    assert len(receiver.proposed) == 2


def test_a_raw_peer_that_resets_in_the_middle_of_a_dataset(ae: AE) -> None:
    """What did not arrive whole is sent again, and everything that was answered is not."""
    asked: list[str] = []
    turns = itertools.count()

    def answer(raw: Raw) -> None:
        raw.accept()
        stored = raw.message()
        asked.append(stored.AffectedSOPInstanceUID or "")
        if next(turns) == 0:
            raw.send(store_rsp(stored))
            raw.take(100_000)
            raw.reset()
            return
        raw.send(store_rsp(stored))
        assert isinstance(raw.pdu(), ReleaseRQ)
        raw.send(ReleaseRP())

    with peers(answer, answer) as address:
        results = list(ae.send(*address, [image(1), image(2, 1 << 20)]))
    assert [(each.is_stored, each.attempts) for each in results] == [(True, 1), (True, 2)]
    assert asked == ["1.2.3.1", "1.2.3.2"]


def test_a_peer_that_does_not_answer_loses_its_association(ae: AE) -> None:
    """Otherwise each of the others would be waited for in vain."""
    ae.dimse_timeout = 0.1
    asked: list[str] = []

    def mute(raw: Raw) -> None:
        raw.accept()
        asked.append(raw.message().AffectedSOPInstanceUID or "")
        assert isinstance(raw.pdu(), Abort)

    def answer(raw: Raw) -> None:
        raw.accept()
        for _ in range(2):
            stored = raw.message()
            asked.append(stored.AffectedSOPInstanceUID or "")
            raw.send(store_rsp(stored))
        assert isinstance(raw.pdu(), ReleaseRQ)
        raw.send(ReleaseRP())

    with peers(mute, mute, answer) as address:
        results = list(ae.send(*address, [image(number) for number in range(3)]))
    assert [type(each.error) for each in results] == [TimedOut, type(None), type(None)]
    assert [each.attempts for each in results] == [2, 1, 1]
    assert asked == ["1.2.3.0", "1.2.3.0", "1.2.3.1", "1.2.3.2"]


# ---- associations that are refused


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_of_the_peer_means_fewer_associations(ae: AE, limit: int) -> None:
    """Nothing is answered before all of the others have been refused.

    There are more objects than those that are admitted have ready: who is late finds none left, and does not ask.
    """
    gate = Gate()
    refused = itertools.count(limit + 1)

    def on_rejected(_: Event) -> None:
        if next(refused) == 6:
            gate.open.set()

    with receiving(gate, limit) as receiver:
        receiver.server.bind(evt.EVT_REJECTED, on_rejected)
        results = list(ae.send(*receiver.peer, map(image, range(16)), 6))
    assert gate.open.is_set()
    assert all(each.is_stored for each in results)
    assert sorted(receiver.stored) == sorted(f"1.2.3.{number}" for number in range(16))
    assert len(receiver.proposed) == limit


@pytest.mark.parametrize("associations", [1, 3])
def test_without_any_association_the_first_error_is_raised(ae: AE, folder: Path, associations: int) -> None:
    with receiving() as receiver:
        pass
    transfer = ae.send(*receiver.peer, folder, associations)
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        list(transfer)
    assert transfer.totals == Totals()

    def reject(raw: Raw) -> None:
        raw.pdu()
        raw.send(AssociateRJ(2, 3, 2))
        assert raw.is_closed()

    with peers(*[reject] * associations) as address:
        results: list[Sent] = []
        with pytest.raises(AssociationRejected, match="local limit"):
            results.extend(ae.send(*address, [folder, folder / "absent"], associations))
    assert errors(results) == {"absent": FileNotFoundError}


def test_a_file_that_cannot_be_sent_opens_no_association(ae: AE, tmp_path: Path) -> None:
    with receiving() as receiver:
        (sent,) = ae.send(*receiver.peer, tmp_path / "absent")
        assert isinstance(sent.error, FileNotFoundError)
        assert receiver.proposed == []


def test_who_waits_to_be_accepted_does_not_hold_up_the_end(ae: AE, folder: Path) -> None:
    """The peer answers one request for an association, and lets the others wait."""
    waiting: list[Raw] = []

    def answer(raw: Raw) -> None:
        raw.accept()
        for number in range(8):
            stored = raw.message()
            assert number or answered.wait(DEADLINE)
            raw.send(store_rsp(stored))
        assert isinstance(raw.pdu(), ReleaseRQ)
        raw.send(ReleaseRP())

    def let_wait(raw: Raw) -> None:
        waiting.append(raw)
        raw.pdu()
        answered.set()
        assert raw.is_closed()

    answered = threading.Event()
    with peers_at_once(answer, let_wait) as address:
        results = list(ae.send(*address, folder, 2))
    assert len(results) == 8
    assert all(each.is_stored for each in results)


@contextmanager
def peers_at_once(*scripts: Callable[[Raw], None]) -> Generator[tuple[str, int]]:
    """The same, with all connections at the same time."""
    threads: list[threading.Thread] = []

    def started(script: Callable[[Raw], None]) -> Callable[[Raw], None]:
        def start(raw: Raw) -> None:
            copied = Raw(raw.sock.dup())
            thread = threading.Thread(target=script, args=(copied,))
            threads.append(thread)
            thread.start()

        return start

    with peers(*map(started, scripts)) as address:
        yield address
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


# ---- leaving, and being slow


def leave_by_break(transfer: Delivery) -> Sent:
    for sent in transfer:
        return sent
    raise AssertionError


def leave_by_close(transfer: Delivery) -> Sent:
    sent = next(transfer)
    transfer.close()
    return sent


def leave_by_with(transfer: Delivery) -> Sent:
    with transfer:
        return next(transfer)


def leave_by_dispose(transfer: Delivery) -> Sent:
    over = threading.Event()
    seen: list[Sent] = []
    transfer.pipe(ops.take(1)).subscribe(seen.append, on_completed=over.set)
    assert over.wait(DEADLINE)
    (sent,) = seen
    return sent


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_close, leave_by_with, leave_by_dispose])
@pytest.mark.parametrize(("associations", "window"), [(1, 1), (3, 4)])
def test_who_leaves_early_waits_for_nothing_and_leaves_nothing(
    ae: AE, leave: Callable[[Delivery], Sent], associations: int, window: int
) -> None:
    """The associations are released once what was on its way has arrived; one that just begins is aborted."""
    gate = Gate()
    passed = itertools.count()

    def store(event: CStore) -> int:
        return 0x0000 if next(passed) == 0 else gate(event)

    gc.disable()
    try:
        with receiving(store) as receiver:
            released = threading.Event()
            receiver.server.bind(evt.EVT_RELEASED, lambda _: released.set())
            sent = leave(ae.send(*receiver.peer, map(image, itertools.count()), associations, window=window))
            assert sent.is_stored
            gate.open.set()
            assert released.wait(DEADLINE)
            assert len(receiver.stored) <= 1 + MOST_WAITING + associations * window
    finally:
        gc.enable()


def test_who_leaves_does_not_wait_for_a_peer_that_does_not_answer(ae: AE) -> None:
    asked = threading.Event()

    def say_nothing(raw: Raw) -> None:
        raw.pdu()
        asked.set()
        assert raw.is_closed()

    with peers(say_nothing) as address:
        over = threading.Event()
        transfer = ae.send(*address, [image(1)])
        subscription = transfer.observable.subscribe(on_error=lambda _: over.set(), on_completed=over.set)
        assert asked.wait(DEADLINE)
        subscription.dispose()
    with peers(say_nothing) as address:
        asked.clear()
        transfer = ae.send(*address, [image(1)])
        stopping = threading.Thread(target=lambda: asked.wait(DEADLINE) and transfer.stop())
        stopping.start()
        assert list(transfer) == []
        stopping.join(DEADLINE)


def test_what_is_on_its_way_arrives_when_it_is_stopped(ae: AE) -> None:
    gate = Gate()
    with receiving(gate) as receiver:
        transfer = ae.send(*receiver.peer, map(image, itertools.count()), 2, window=2)

        def stop() -> None:
            assert gate.entered.wait(DEADLINE)
            transfer.stop()
            gate.open.set()

        stopping = threading.Thread(target=stop)
        stopping.start()
        results = list(transfer)
        stopping.join(DEADLINE)
    assert receiver.released
    assert 1 <= len(results) <= 4
    assert all(each.is_stored for each in results)
    assert sorted(str(each.instance.SOPInstanceUID) for each in results) == sorted(receiver.stored)  # pyright: ignore


def test_what_is_stopped_before_it_begins_sends_nothing(ae: AE) -> None:
    with receiving() as receiver:
        transfer = ae.send(*receiver.peer, map(image, itertools.count()), 3)
        transfer.stop()
        assert list(transfer) == []
    assert receiver.proposed == []


def test_what_was_on_its_way_when_it_was_stopped_and_is_lost_is_accounted_for(ae: AE) -> None:
    gate = Gate()

    def store(event: CStore) -> int:
        gate(event)
        event.assoc.abort()
        return 0x0000

    with receiving(store) as receiver:
        transfer = ae.send(*receiver.peer, map(image, itertools.count()))

        def stop() -> None:
            assert gate.entered.wait(DEADLINE)
            transfer.stop()
            gate.open.set()

        stopping = threading.Thread(target=stop)
        stopping.start()
        (sent,) = transfer
        stopping.join(DEADLINE)
    assert isinstance(sent.error, AssociationAborted)
    assert sent.attempts == 1


def test_a_slow_consumer_slows_the_senders_down(ae: AE) -> None:
    drawn = 0

    def images() -> Iterator[Dataset]:
        nonlocal drawn
        for drawn in range(10_000):
            yield image(drawn)

    full = threading.Semaphore(0)
    with receiving(lambda _: full.release() or 0x0000) as receiver:
        with ae.send(*receiver.peer, images(), 2, window=2) as transfer:
            assert next(transfer).is_stored
            # What was on its way, what waits to be consumed, what is handed over at once, and what is known ahead.
            most = 4 + 2 * MOST_WAITING + AHEAD_IN_MEMORY + 2
            for _ in range(MOST_WAITING):
                assert full.acquire(timeout=DEADLINE)
            for count, sent in enumerate(transfer, 2):
                assert sent.is_stored
                assert drawn <= count + most
                if count == 500:
                    break


class Named:
    """A path of which it is known whether anybody still has it."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __fspath__(self) -> str:
        return self._path


def test_memory_is_bounded_however_long_the_batch_is(ae: AE, tmp_path: Path) -> None:
    path = dicom_file(tmp_path / "1.dcm")
    alive = WeakSet[Named]()
    most = 0

    def paths() -> Iterator[Named]:
        nonlocal most
        for _ in range(3 * AHEAD):
            each = Named(path)
            alive.add(each)
            most = max(most, len(alive))
            yield each

    with receiving() as receiver:
        transfer = ae.send(*receiver.peer, paths(), 2, window=4)
        assert sum(each.is_stored for each in transfer) == 3 * AHEAD
    # Known ahead; waiting for their consumer, or just handed over to it; on their way, or about to be.
    assert AHEAD <= most <= AHEAD + 2 * MOST_WAITING + 2 * 4 + 4


def test_what_the_batch_raises_comes_after_what_came_before(ae: AE) -> None:
    def images() -> Iterator[Dataset]:
        yield image(1)
        yield image(2)
        raise KeyError("no more")

    results: list[Sent] = []
    with receiving() as receiver:
        with pytest.raises(KeyError, match="no more"):
            results.extend(ae.send(*receiver.peer, images(), 2))
    assert sorted(receiver.stored) == ["1.2.3.1", "1.2.3.2"]
    assert len(results) == 2


# ---- the rest of the API


def test_results_flow_into_rx(ae: AE, folder: Path) -> None:
    over = threading.Event()
    seen: list[str] = []
    with receiving() as receiver:
        transfer = ae.send(*receiver.peer, folder, 2)
        stored = transfer.pipe(ops.filter(is_stored), ops.map(name_of))
        assert receiver.proposed == []
        stored.subscribe(seen.append, on_completed=over.set)
        assert over.wait(DEADLINE)
        with pytest.raises(LocalUsageError):
            iter(transfer)
    assert sorted(seen) == [f"{number}.dcm" for number in range(8)]
    assert transfer.totals.stored == 8
    failed: list[Exception] = []
    over.clear()
    ae.send(*receiver.peer, folder).observable.subscribe(on_error=lambda error: failed.append(error) or over.set())
    assert over.wait(DEADLINE)
    assert isinstance(failed[0], ConnectionFailed)


def is_stored(sent: Sent) -> bool:
    return sent.is_stored


def name_of(sent: Sent) -> str:
    return os.path.basename(str(sent.instance))


def test_handlers_and_events_are_those_of_all_its_associations(ae: AE, folder: Path) -> None:
    opened: list[Event] = []
    merged: list[Event] = []
    ae.events.established.subscribe(merged.append)
    with receiving(aborting("1.2.4")) as receiver:
        handlers = [(evt.EVT_ESTABLISHED, opened.append)]
        list(ae.send(*receiver.peer, folder, ae_title="STORE", max_pdu=4096, evt_handlers=handlers))
    assert len(opened) == len(merged) == 2
    assert opened[0].assoc.acceptor.ae_title == "STORE"


@pytest.mark.parametrize(("associations", "window"), [(0, 1), (1, 0), (1, 65536)])
def test_wrong_arguments_are_said_at_once(ae: AE, associations: int, window: int) -> None:
    with pytest.raises(ArgumentError, match="not possible"):
        ae.send("127.0.0.1", 11112, [], associations, window=window)


def test_what_cannot_be_requested_is_raised_and_not_retried(ae: AE, folder: Path) -> None:
    with pytest.raises(ArgumentError, match="not a TCP port"):
        list(ae.send("127.0.0.1", 0, folder, 3))


def test_observers_must_not_send(ae: AE) -> None:
    raised: list[type[Exception]] = []

    def observe(event: Event) -> None:
        try:
            ae.send("127.0.0.1", 11112, [])
        except LocalUsageError as error:
            raised.append(type(error))

    with receiving() as receiver:
        list(ae.send(*receiver.peer, image(1), evt_handlers=[(evt.EVT_ESTABLISHED, observe)]))
    assert len(raised) == 1


@pytest.mark.peer
@pytest.mark.parametrize(("associations", "window"), [(1, 1), (4, 8)])
def test_to_storescp(ae: AE, tmp_path: Path, associations: int, window: int) -> None:
    """DCMTK takes one association after the other, and has no window: the other three wait in vain."""
    paths = [
        dicom_file(tmp_path / f"{number}.dcm", instance=f"1.2.{number}", filling=number * 10) for number in range(40)
    ]
    received, port = tmp_path / "received", free_port()
    received.mkdir()
    with running(dcmtk("storescp"), "+B", "+xa", "-fe", ".dcm", "-od", received, port, port=port):
        transfer = ae.send("127.0.0.1", port, paths, associations, window=window)
        assert all(each.status == 0x0000 for each in transfer)
    hashes = Counter(sha256(dataset_bytes(path)).hexdigest() for path in paths)
    assert Counter(sha256(dataset_bytes(path)).hexdigest() for path in received.iterdir()) == hashes
