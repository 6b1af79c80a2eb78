"""The asynchronous-operations window, really used, and the bulk call, through the public API."""

import gc
import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset
from reactivex import operators as ops

from rxdicom import AE, Association, AssociationAborted, InvalidFile, LocalUsageError, NoAcceptedContext, TimedOut, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import AsyncOps, CStore
from rxdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation
from rxdicom.runtimes.batches import Sent, Totals
from rxdicom.sop_class import CTImageStorage, MRImageStorage
from rxdicom.wire.dimse import Command, Message, message
from rxdicom.wire.items import AsyncOperationsWindow
from rxdicom.wire.pdu import AssociateRQ, ReleaseRP
from tests.runtimes.raw import (
    DEADLINE,
    Raw,
    accepting,
    associated,
    nothing_left,
    pdus,
    request,
    scripted,
    store_rq,
    victim,
)
from tests.support import FILES

CT, MR = FILES / "CT_small.dcm", FILES / "MR_small.dcm"


def image(number: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.PatientID = str(number)
    return dataset


def window(invoked: int, performed: int = 1) -> AsynchronousOperationsWindowNegotiation:
    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked = invoked
    item.maximum_number_operations_performed = performed
    return item


def as_asked(event: AsyncOps) -> tuple[int, int]:
    return event.nr_invoked, event.nr_performed


@pytest.fixture
def ae() -> Generator[AE]:
    ae = AE("BATCH")
    for uid in (CTImageStorage, MRImageStorage):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    with nothing_left():
        yield ae
        ae.shutdown()


def connect(ae: AE, wanted: int, *handlers: EventHandler) -> Association:
    handlers = (*handlers, (evt.EVT_ASYNC_OPS, as_asked))
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    return ae.associate(*server.address, ext_neg=[window(wanted)] if wanted != 1 else None)


def store_rsp(asked: Message) -> bytes:
    return pdus(
        message(Command.C_STORE_RSP, asked.context_id, MessageIDBeingRespondedTo=asked.MessageID, Status=0x0000)
    )


class Side:
    """A C-STORE handler that counts how many of it run side by side, and keeps what it was given."""

    def __init__(self, together: int = 1) -> None:
        self.barrier = threading.Barrier(together)
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.stored: list[str] = []

    def __call__(self, event: CStore) -> int:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.barrier.wait(DEADLINE)
        with self.lock:
            self.running -= 1
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000


# ---- the window


@pytest.mark.parametrize("size", [2, 8])
def test_as_many_are_performed_side_by_side_as_the_window_allows(ae: AE, size: int) -> None:
    """The handlers wait for each other: with fewer at a time none would ever return."""
    handler = Side(size)
    with connect(ae, size, (evt.EVT_C_STORE, handler)) as assoc:
        assert assoc.operations_window == (size, 1)
        sent = list(assoc.send_many(image(number) for number in range(4 * size)))
    assert all(each.status == 0x0000 for each in sent)
    assert handler.most == size
    assert sorted(handler.stored) == sorted(f"1.2.3.{number}" for number in range(4 * size))


def test_an_unlimited_window_has_a_limit_of_ours(ae: AE) -> None:
    handler = Side()
    with connect(ae, 0, (evt.EVT_C_STORE, handler)) as assoc:
        assert assoc.operations_window == (0, 1)
        assert len(list(assoc.send_many(image(number) for number in range(300)))) == 300
    assert len(set(handler.stored)) == 300


@pytest.mark.parametrize("size", [1, 3])
def test_a_peer_that_sends_more_than_its_window(size: int) -> None:
    """Nothing is performed beyond the window; all is answered, in order where the window is 1."""
    handler = Side()
    handlers = ((evt.EVT_C_STORE, handler), (evt.EVT_ASYNC_OPS, as_asked))
    asked = request([AsyncOperationsWindow(size, 1)] if size > 1 else [])
    with victim(*handlers) as attacked, associated(attacked.server, asked) as raw:
        raw.send(b"".join(store_rq(b"", number, f"1.2.{number}") for number in range(1, 41)))
        answered = [raw.message().MessageIDBeingRespondedTo for _ in range(40)]
    assert sorted(filter(None, answered)) == list(range(1, 41))
    assert handler.most <= size
    if size == 1:
        assert answered == list(range(1, 41))
        assert handler.stored == [f"1.2.{number}" for number in range(1, 41)]


def test_no_more_are_outstanding_than_the_window_allows() -> None:
    """The peer answers nothing until three have come, and sees that no fourth comes before it answers."""
    counts: list[int] = []

    def answer(raw: Raw) -> None:
        asked = raw.pdu()
        assert isinstance(asked, AssociateRQ)
        accepted = accepting(asked)
        raw.send(evolve(accepted, user_information=(*accepted.user_information, AsyncOperationsWindow(3, 1))))
        waiting = [raw.message() for _ in range(3)]
        for _ in range(7):
            counts.append(len(waiting))
            raw.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                raw.take(1)
            raw.sock.settimeout(DEADLINE)
            first = waiting.pop(0)
            raw.send(
                pdus(
                    message(Command.C_STORE_RSP, first.context_id, MessageIDBeingRespondedTo=first.MessageID, Status=0)
                )
            )
            waiting.append(raw.message())
        for each in waiting:
            raw.send(store_rsp(each))
        raw.pdu()
        raw.send(ReleaseRP())

    with nothing_left(), scripted(answer) as address:
        ae = AE()
        ae.add_requested_context(CTImageStorage)
        with ae.associate(*address, ext_neg=[window(3)]) as assoc:
            assert len(list(assoc.send_many(image(number) for number in range(10)))) == 10
    assert counts == [3] * 7


def test_without_an_item_the_window_is_one(ae: AE) -> None:
    handler = Side()
    with connect(ae, 1, (evt.EVT_C_STORE, handler)) as assoc:
        assert assoc.operations_window == (1, 1)
        list(assoc.send_many(image(number) for number in range(20)))
    assert handler.most == 1


# ---- the bulk call


@pytest.mark.parametrize("size", [1, 4])
def test_one_object_that_fails_does_not_stop_the_rest(ae: AE, size: int, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(bytes(1000))

    def store(event: CStore) -> int:
        return {"1.2.3.1": 0xB000, "1.2.3.2": 0xA700}.get(str(event.request.AffectedSOPInstanceUID), 0x0000)

    unknown = image(9)
    unknown.SOPClassUID = "1.2.3.4"
    given = [CT, nonsense, image(1), tmp_path / "absent", image(2), unknown, MR, image(3)]
    with connect(ae, size, (evt.EVT_C_STORE, store)) as assoc:
        transfer = assoc.send_many(given)
        sent = {id(each.instance): each for each in transfer}
        assert transfer.totals == Totals(stored=4, warnings=1, failed=4, bytes=transfer.totals.bytes)
        assert transfer.totals.done == len(given)
        assert assoc.is_established
    results = [sent[id(each)] for each in given]
    assert [each.is_stored for each in results] == [True, False, True, False, False, False, True, True]
    assert [None if each.status is None else int(each.status) for each in results] == [
        0, None, 0xB000, None, 0xA700, None, 0, 0,
    ]  # fmt: skip
    errors = [type(each.error) for each in results]
    assert (errors[1], errors[3], errors[5]) == (InvalidFile, FileNotFoundError, NoAcceptedContext)
    assert transfer.totals.bytes == sum(each.size for each in results if each.is_stored) > 0


def test_the_source_is_asked_only_when_there_is_room(ae: AE) -> None:
    given = 0

    def images() -> Iterator[Dataset]:
        nonlocal given
        for number in range(1000):
            given += 1
            yield image(number)

    with connect(ae, 4, (evt.EVT_C_STORE, Side())) as assoc:
        transfer = assoc.send_many(images())
        assert given == 0
        for count, _ in enumerate(transfer, 1):
            assert given <= count + 4
            if count == 10:
                break
        transfer.close()
        assert given <= 14
        assert assoc.send_c_store(image(0)) == 0x0000
        with pytest.raises(LocalUsageError):
            iter(transfer)


class Asked(os.PathLike[str]):
    """A path that tells when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.asked = threading.Event()

    def __fspath__(self) -> str:
        self.asked.set()
        return str(self._path)


def test_the_next_one_of_a_list_is_opened_while_one_is_on_its_way(ae: AE) -> None:
    second = Asked(CT)
    waited: list[bool] = []

    def store(_: CStore) -> int:
        waited.append(second.asked.wait(DEADLINE))
        return 0x0000

    with connect(ae, 1, (evt.EVT_C_STORE, store)) as assoc:
        given: list[Any] = [MR, second, MR]
        sent = list(assoc.send_many(given))
    assert waited == [True] * 3
    assert [each.instance for each in sent] == given
    assert [each.status for each in sent] == [0x0000] * 3


@pytest.mark.parametrize("ending", ["abort", "leave"])
def test_what_was_opened_and_is_not_sent_is_closed(ae: AE, ending: str) -> None:
    """The fixture looks for descriptors that are left."""
    second = Asked(CT)
    stored: list[str | None] = []

    def store(event: CStore) -> int:
        stored.append(event.request.AffectedSOPClassUID)
        assert second.asked.wait(DEADLINE)
        if ending == "abort":
            event.assoc.abort()
        return 0x0000

    with connect(ae, 1, (evt.EVT_C_STORE, store)) as assoc:
        given: list[Any] = [MR, second]
        transfer = assoc.send_many(given)
        if ending == "abort":
            with pytest.raises(AssociationAborted):
                list(transfer)
        else:
            for _ in transfer:
                break
    assert stored == [MRImageStorage]


def test_a_message_id_that_somebody_took_meanwhile(ae: AE) -> None:
    """The next object is made ready under an ID of its own; if somebody chooses that, it gets another one."""
    numbers: list[int | None] = []
    taken, released = threading.Event(), threading.Event()
    statuses: list[int] = []

    def store(event: CStore) -> int:
        numbers.append(event.request.MessageID)
        if event.request.MessageID == 3:
            taken.set()
        assert event.request.MessageID == 1 or released.wait(DEADLINE)
        return 0x0000

    with connect(ae, 2, (evt.EVT_C_STORE, store)) as assoc:
        transfer = assoc.send_many([CT, CT, MR])
        results = [next(transfer)]
        other = threading.Thread(target=lambda: statuses.append(assoc.send_c_store(CT, msg_id=3)))
        other.start()
        assert taken.wait(DEADLINE)
        released.set()
        results += transfer
        other.join(DEADLINE)
    assert [each.status for each in results] == [0x0000] * 3
    assert (sorted(each or 0 for each in numbers), statuses) == ([1, 2, 3, 4], [0x0000])


def test_results_flow_into_rx(ae: AE) -> None:
    over = threading.Event()
    seen: list[Sent] = []
    with connect(ae, 2, (evt.EVT_C_STORE, Side())) as assoc:
        transfer = assoc.send_many(image(number) for number in range(1000))
        transfer.pipe(ops.take(5)).subscribe(seen.append, on_completed=over.set)
        assert over.wait(DEADLINE)
        assert len(seen) == 5
        with pytest.raises(LocalUsageError):
            _ = transfer.observable
        assert assoc.send_c_store(image(0)) == 0x0000


def cutting(instance: str) -> Callable[[CStore], int]:
    """A handler that aborts the association at an instance."""

    def cut(event: CStore) -> int:
        if event.request.AffectedSOPInstanceUID == instance:
            event.assoc.abort()
        return 0x0000

    return cut


def test_the_loss_of_the_association_is_raised_after_what_was_on_its_way(ae: AE) -> None:
    assoc = connect(ae, 1, (evt.EVT_C_STORE, cutting("1.2.3.5")))
    given = [image(number) for number in range(10)]
    transfer = assoc.send_many(given)
    seen: list[Sent] = []
    with pytest.raises(AssociationAborted):
        seen.extend(iter(transfer))
    assert [each.instance for each in seen] == given[:6]
    assert [each.status for each in seen] == [0x0000] * 5 + [None]
    assert isinstance(seen[5].error, AssociationAborted)
    assert transfer.totals == Totals(stored=5, failed=1, bytes=transfer.totals.bytes)
    assert assoc.join(DEADLINE)


def test_all_that_are_on_their_way_are_told_of_the_loss() -> None:
    """The peer answers the second of four, and cuts the connection."""
    drawn: list[int] = []

    def images() -> Iterator[Dataset]:
        for number in range(10):
            drawn.append(number)
            yield image(number)

    def answer(raw: Raw) -> None:
        asked = raw.pdu()
        assert isinstance(asked, AssociateRQ)
        accepted = accepting(asked)
        raw.send(evolve(accepted, user_information=(*accepted.user_information, AsyncOperationsWindow(4, 1))))
        waiting = [raw.message() for _ in range(4)]
        raw.send(store_rsp(waiting[1]))
        raw.message()
        raw.reset()

    with nothing_left(), scripted(answer) as address:
        ae = AE()
        ae.add_requested_context(CTImageStorage)
        assoc = ae.associate(*address, ext_neg=[window(4)])
        seen: list[Sent] = []
        with pytest.raises(AssociationAborted) as caught:
            seen.extend(assoc.send_many(images()))
        assert assoc.join(DEADLINE)
    numbers = [int(str(each.instance.SOPInstanceUID).rpartition(".")[2]) for each in seen]  # pyright: ignore
    assert sorted(numbers) == drawn == [0, 1, 2, 3, 4]
    assert [number for number, each in zip(numbers, seen, strict=True) if each.is_stored] == [1]
    assert {each.error for each in seen if not each.is_stored} == {caught.value}


def test_a_timeout_that_ends_the_association_is_not_blamed_on_each_of_the_rest(ae: AE) -> None:
    """TimedOut is an OSError as well, as is what a file raises that cannot be read."""
    over = threading.Event()

    def read_nothing(raw: Raw) -> None:
        raw.accept()
        over.wait(DEADLINE)

    ae.timeouts = evolve(ae.timeouts, write=0.1)
    large = image(1)
    large.add_new(0x7FE00010, "OB", bytes(32 << 20))  # pyright: ignore[reportUnknownMemberType]
    seen: list[Sent] = []
    with scripted(read_nothing) as address:
        assoc = ae.associate(*address)
        with pytest.raises(TimedOut, match="write"):
            seen.extend(assoc.send_many([large, image(2), image(3)]))
        over.set()
        assert assoc.join(DEADLINE)
    assert [each.instance for each in seen] == [large]


def test_who_breaks_out_ends_it_without_the_garbage_collector(ae: AE) -> None:
    ended: list[bool] = []

    def images() -> Iterator[Dataset]:
        try:
            yield from map(image, range(100))
        finally:
            ended.append(True)

    gc.disable()
    try:
        with connect(ae, 4, (evt.EVT_C_STORE, Side())) as assoc:
            for sent in assoc.send_many(images()):
                assert sent.is_stored
                break
            assert ended
    finally:
        gc.enable()
