"""Faults at home: disks, handlers, observers, deadlines, descriptors, crashes, crowds; and TLS (RELIABILITY.md)."""

import errno
import hashlib
import logging
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import (
    AE,
    Association,
    AssociationAborted,
    AssociationRejected,
    AssociationReleased,
    AssociationServer,
    ConnectionFailed,
    LocalUsageError,
    Status,
    TimedOut,
    build_role,
    evt,
)
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import Aborted, CEcho, CStore, Event, Released
from rxdicom.wire.items import UserIdentity
from rxdicom.wire.pdu import Abort, AssociateRJ, ReleaseRP, ReleaseRQ, encode_pdu
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.certificates import Certificates
from tests.runtimes.raw import (
    CT,
    DEADLINE,
    MEBIBYTE,
    SOON,
    Raw,
    Store,
    Victim,
    answers,
    associated,
    connect,
    echo_rq,
    echo_rsp,
    entity,
    grows_at_most,
    nothing_left,
    request,
    scripted,
    store_rq,
    victim,
)

LARGE = bytes(3 * MEBIBYTE)
"""More than is kept in memory."""


def instance(size: int = 100, uid: str = "1.2.3", filler: bytes = b"\0") -> Dataset:
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(CT), UID(uid)
    dataset.add_new(0x7FE00010, "OW", filler * size)
    return dataset


# ---- disks


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """As if the disk were full: no file of this process can grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("where", ["while spooling", "while saving"])
def test_disk_full(tmp_path: Path, where: str) -> None:
    """0xA700, nothing partial, and it goes on when there is room again, over the same association."""
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    spool.mkdir()
    memory = 10 * MEBIBYTE if where == "while saving" else 1000
    with victim(store.binding, limits={"memory": memory}, spool=spool) as attacked:
        with associated(attacked.server) as raw:
            for full in (True, False, True, False):
                with files_of_at_most(2 * MEBIBYTE) if full else ExitStack():
                    raw.send(store_rq(LARGE))
                    assert raw.message().Status == (0xA700 if full else 0x0000)
                assert not list(spool.iterdir())
                assert store.everything() == ([] if full else ["1.2.3.dcm"])
                if not full:
                    assert store.data("1.2.3") == LARGE
                    store.path("1.2.3").unlink()
            raw.send(ReleaseRQ())
            assert raw.pdu() == ReleaseRP()
        assert isinstance(attacked.end(), Released)


def test_spool_folder_missing(tmp_path: Path) -> None:
    store, spool = Store(tmp_path / "store"), tmp_path / "spool"
    with (
        victim(store.binding, limits={"memory": 1000}, spool=spool) as attacked,
        associated(attacked.server) as raw,
    ):
        raw.send(store_rq(LARGE))
        assert raw.message().Status == 0xA700
        raw.send(store_rq(b"abcd", instance="1.2.4"))
        assert raw.message().Status == 0x0000
        spool.mkdir()
        raw.send(store_rq(LARGE))
        assert raw.message().Status == 0x0000
        assert store.everything() == ["1.2.3.dcm", "1.2.4.dcm"]
        assert not list(spool.iterdir())


@pytest.mark.parametrize("size", [100, 3 * MEBIBYTE])
def test_folder_missing(tmp_path: Path, size: int) -> None:
    """An error of save() is the peer's 0xA700; a handler may catch it and save elsewhere."""
    good = Store(tmp_path / "good")

    def first_here_then_there(event: CStore) -> int:
        with pytest.raises(FileNotFoundError):
            event.save(tmp_path / "missing" / "a.dcm")
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(IsADirectoryError):
            event.save(tmp_path / "folder")
        return good(event)

    with victim() as attacked, associated(attacked.server) as raw:
        attacked.server.bind(evt.EVT_C_STORE, Store(tmp_path / "gone"))
        (tmp_path / "gone").rmdir()
        raw.send(store_rq(bytes(size)))
        assert raw.message().Status == 0xA700
        attacked.server.bind(evt.EVT_C_STORE, first_here_then_there)
        raw.send(store_rq(bytes(size)))
        assert raw.message().Status == 0x0000
    assert good.everything() == ["1.2.3.dcm"]
    assert good.data("1.2.3") == bytes(size)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_errors_of_the_disk_in_a_handler(number: int) -> None:
    def fail(event: CStore) -> int:
        raise OSError(number, os.strerror(number))

    with victim((evt.EVT_C_STORE, fail)) as attacked, associated(attacked.server) as raw:
        for _ in range(2):
            raw.send(store_rq(b"abcd"))
            assert raw.message().Status == 0xA700


@pytest.mark.parametrize("size", [100, 3 * MEBIBYTE])
def test_saved_twice_are_two_files(tmp_path: Path, size: int) -> None:
    """With the permissions that any new file has, spooled or not; the event still reads its data."""
    seen: list[int] = []

    def save(event: CStore) -> int:
        event.save(tmp_path / "a.dcm")
        event.save(tmp_path / "b.dcm")
        seen.append(len(event.encoded_dataset(include_meta=False)))
        return 0x0000

    mask = os.umask(0o027)
    try:
        with victim((evt.EVT_C_STORE, save), spool=tmp_path) as attacked, associated(attacked.server) as raw:
            raw.send(store_rq(bytes(size)))
            assert raw.message().Status == 0x0000
    finally:
        os.umask(mask)
    assert sorted(os.listdir(tmp_path)) == ["a.dcm", "b.dcm"]
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.dcm", "b.dcm")] == [0o640, 0o640]
    assert seen == [size]


def test_what_an_earlier_process_left_is_not_in_the_way(tmp_path: Path) -> None:
    """Temporary names do not repeat, in a container in which every process has the same number neither."""
    store = Store(tmp_path)
    names: set[str] = set()

    def look(event: CStore) -> int:
        assert event.path is not None
        names.add(event.path)
        return store(event)

    with victim((evt.EVT_C_STORE, look), spool=tmp_path) as attacked, associated(attacked.server) as raw:
        for _ in range(3):
            raw.send(store_rq(LARGE))
            assert raw.message().Status == 0x0000
    assert len(names) == 3
    assert all(str(os.getpid()) not in Path(name).name.split("-") for name in names)


def test_a_spool_on_another_file_system(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with TemporaryDirectory(dir="/dev/shm") as folder:
        spool = Path(folder)
        assert spool.stat().st_dev != tmp_path.stat().st_dev
        with victim(store.binding, spool=spool) as attacked:
            with associated(attacked.server) as raw:
                raw.send(store_rq(LARGE))
                assert raw.message().Status == 0x0000
                assert store.data("1.2.3") == LARGE
            attacked.end()
            assert not list(spool.iterdir())


@pytest.mark.parametrize("size", [1000, 2 * MEBIBYTE])
def test_the_same_instance_from_50_senders(tmp_path: Path, size: int) -> None:
    """One complete version, and nothing beside it."""
    store = Store(tmp_path)
    start = threading.Barrier(50)

    def send(address: tuple[str, int], number: int) -> int:
        with entity().associate(*address) as assoc:
            start.wait(DEADLINE)
            return int(assoc.send_c_store(instance(size, filler=bytes((number,)))))

    with victim(store.binding, limits={"associations": 60}, spool=tmp_path) as attacked, ThreadPoolExecutor(50) as pool:
        address = attacked.server.address
        assert list(pool.map(send, [address] * 50, range(50))) == [0x0000] * 50
    assert store.everything() == ["1.2.3.dcm"]
    pixels = store.data("1.2.3")[-size:]
    assert pixels == pixels[:1] * size


# ---- crashes

STORING = """
import sys
from rxdicom import AE, evt

def save(event):
    event.save(sys.argv[1] + "/" + event.request.AffectedSOPInstanceUID + ".dcm")
    return 0x0000

ae = AE()
ae.accept_any_storage = True
ae.spool_folder = sys.argv[1]
server = ae.make_server(("127.0.0.1", 0), evt_handlers=[(evt.EVT_C_STORE, save)])
print(server.address[1], flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("acknowledged", [0, 3, 20, 55])
def test_killed_in_mid_stream(tmp_path: Path, acknowledged: int) -> None:
    """What was acknowledged is there, whole and identical; what is there under its name is whole."""
    process = subprocess.Popen([sys.executable, "-c", STORING, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    sizes = (1000, 1_500_000, 20_000)
    images = {f"1.2.{number}": instance(sizes[number % 3], f"1.2.{number}", b"%c" % number) for number in range(100)}
    stored: list[str] = []
    with process, process.stdout:
        port = int(process.stdout.readline())
        assoc = entity().associate("127.0.0.1", port)
        enough = threading.Event()

        def kill() -> None:
            enough.wait(DEADLINE)
            os.kill(process.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()

        def send_all() -> None:
            for uid, image in images.items():
                if len(stored) >= acknowledged:
                    enough.set()
                assert assoc.send_c_store(image) == 0x0000
                stored.append(uid)

        with pytest.raises(AssociationAborted):
            send_all()
        killer.join()
    assert len(stored) >= acknowledged
    visible = {name.removesuffix(".dcm") for name in os.listdir(tmp_path) if not name.startswith(".")}
    assert set(stored) <= visible
    for uid in visible:
        pixels = images[uid].PixelData
        assert Store(tmp_path).data(uid).endswith(pixels)


# ---- handlers


def _junk() -> dict[str, Callable[[], Any]]:
    def dataset(**elements: Any) -> Dataset:
        made = Dataset()
        for keyword, value in elements.items():
            setattr(made, keyword, value)
        return made

    return {
        "nothing": lambda: None,
        "text": lambda: "0",
        "a number too large": lambda: 70000,
        "a negative number": lambda: -1,
        "a float": lambda: 0.0,
        "a pair": lambda: (0x0000, None),
        "no Status": dataset,
        "an empty Status": lambda: dataset(Status=None),
        "an ErrorID too large": lambda: Status(0xA700, ErrorID=70000),
        "an ErrorID of text": lambda: Status(0xA700, ErrorID="x"),
        "an instance that is no UID": lambda: Status(0xA700, AffectedSOPInstanceUID="\u00fc"),
        "an instance that is a number": lambda: Status(0xA700, AffectedSOPInstanceUID=5),
        "an OffendingElement of text": lambda: Status(0xA700, OffendingElement="abc"),
        "a class": lambda: Dataset,
        "an exception": lambda: ValueError("not raised"),
        "sys.exit()": lambda: sys.exit(3),
        "a recursion": lambda: _recurse(1),
        "an assertion": _fail,
    }


def _recurse(n: int) -> int:
    return _recurse(n + 1) + 1


def _fail() -> None:
    raise AssertionError


@pytest.mark.parametrize("junk", _junk().values(), ids=_junk())
def test_what_handlers_return_or_raise(junk: Callable[[], Any]) -> None:
    """A failure status, at once; the association lives."""

    def answer(event: CStore) -> Any:
        del event
        return junk()

    with victim((evt.EVT_C_STORE, answer)) as attacked, associated(attacked.server) as raw:
        for _ in range(2):
            raw.send(store_rq(b"abcd"))
            status = raw.message().Status
            assert status is not None
            assert status >> 12 in (0xA, 0xC)
        raw.send(echo_rq())
        assert raw.message().Status == 0x0000


class Gate:
    """A handler, or an observer, that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered, self.opened, self.left = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, event: Event) -> int:
        del event
        self.entered.set()
        assert self.opened.wait(DEADLINE)
        self.left.set()
        return 0x0000


def test_a_handler_that_hangs_holds_up_nobody_else() -> None:
    """Its association can be aborted from outside: the peer is told at once, and so are observers."""
    gate = Gate()
    told = threading.Event()
    with victim((evt.EVT_C_STORE, gate), (evt.EVT_ABORTED, lambda event: told.set())) as attacked:
        with associated(attacked.server) as raw:
            raw.send(store_rq(b"abcd"))
            assert gate.entered.wait(DEADLINE)
            assert answers(attacked.server)
            assert isinstance(attacked.end(), Released)
            (assoc,) = attacked.server.active_associations
            before = time.monotonic()
            assoc.abort()
            assert time.monotonic() - before < 0.2
            assert raw.aborted() == (0, 0)
            assert told.wait(SOON)
            assert assoc.is_aborted
            raw.sock.close()
            gate.opened.set()
            assert assoc.join(SOON)
        assert attacked.ended_by(SOON) == (0, 0, "local")


def test_shutdown_with_handlers_that_hang() -> None:
    """It waits for all of them together, not for one after the other."""
    gate = Gate()
    with nothing_left():
        attacked = Victim(entity(timeouts={"release": 0.5}), [(evt.EVT_C_ECHO, gate)])
        with ExitStack() as stack:
            for _ in range(5):
                raw = stack.enter_context(associated(attacked.server))
                raw.send(echo_rq())
            assert gate.entered.wait(DEADLINE)
            before = time.monotonic()
            attacked.server.shutdown()
            assert time.monotonic() - before < 0.5 + SOON
            gate.opened.set()


def _abort(event: Any) -> None:
    event.assoc.abort()


def _release(event: Any) -> None:
    event.assoc.release()


@pytest.mark.parametrize("end", [_abort, _release], ids=["abort", "release"])
@pytest.mark.parametrize("kind", [evt.EVT_C_ECHO, evt.EVT_C_STORE], ids=str)
def test_ending_the_association_in_a_handler(kind: Any, end: Callable[[Any], None]) -> None:
    """The peer sees A-ABORT, or A-RELEASE-RQ; no response follows, and nothing hangs."""

    def handler(event: Any) -> int:
        end(event)
        return 0x0000

    with victim() as attacked:
        attacked.server.bind(kind, handler)
        with associated(attacked.server) as raw:
            raw.send(echo_rq() if kind is evt.EVT_C_ECHO else store_rq(b"abcd"))
            if end is _abort:
                assert raw.pdu() == Abort(0, 0)
            else:
                assert raw.pdu() == ReleaseRQ()
                raw.send(ReleaseRP())
                assert raw.is_closed(SOON)
        assert isinstance(attacked.end(SOON), Aborted if end is _abort else Released)
        attacked.server.unbind(kind, handler)


@pytest.mark.parametrize("end", [_abort, _release], ids=["abort", "release"])
def test_ending_the_association_in_a_handler_of_an_scu(end: Callable[[Any], None]) -> None:
    """The caller that waits for a response learns of it at once."""

    def ask(raw: Raw) -> None:
        raw.accept()
        raw.message()
        raw.send(echo_rq())
        if end is _abort:
            assert raw.aborted() == (0, 0)
        else:
            assert raw.pdu() == ReleaseRQ()
            raw.send(ReleaseRP())
            assert raw.is_closed(SOON)

    def handler(event: CEcho) -> int:
        end(event)
        return 0x0000

    with nothing_left(), scripted(ask) as address:
        assoc = entity().associate(*address, evt_handlers=[(evt.EVT_C_ECHO, handler)])
        before = time.monotonic()
        with pytest.raises(AssociationAborted if end is _abort else AssociationReleased):
            assoc.send_c_echo()
        assert time.monotonic() - before < SOON


def test_release_while_another_thread_waits() -> None:
    """Its response still counts; afterwards nothing more can be sent."""

    def late(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        waiting.set()
        assert raw.pdu() == ReleaseRQ()
        raw.send(echo_rsp(asked, 0x0110), ReleaseRP())
        assert raw.is_closed(SOON)

    waiting = threading.Event()
    with nothing_left(), scripted(late) as address, ThreadPoolExecutor(1) as pool:
        assoc = entity().associate(*address)
        asking = pool.submit(assoc.send_c_echo)
        assert waiting.wait(DEADLINE)
        assoc.release()
        assert asking.result(SOON) == 0x0110
        with pytest.raises(AssociationReleased):
            assoc.send_c_echo()


@pytest.mark.parametrize("who", ["server", "ae"])
def test_shutdown_in_a_handler(who: str) -> None:
    with nothing_left():
        ae = entity()
        returned = threading.Event()

        def handler(event: CEcho) -> int:
            del event
            (server if who == "server" else ae).shutdown()
            returned.set()
            return 0x0000

        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, handler)])
        with associated(server) as raw, associated(server) as other:
            raw.send(echo_rq())
            assert returned.wait(SOON)
            assert raw.is_closed(SOON)
            assert other.is_closed(SOON)
        # It listens no more: refused, or closed where the backlog had taken it.
        try:
            with connect(server) as raw:
                assert raw.is_closed(SOON)
        except ConnectionRefusedError:
            pass


KINDS = [
    evt.EVT_CONN_OPEN,
    evt.EVT_DATA_RECV,
    evt.EVT_DATA_SENT,
    evt.EVT_PDU_RECV,
    evt.EVT_PDU_SENT,
    evt.EVT_ACSE_RECV,
    evt.EVT_ACSE_SENT,
    evt.EVT_DIMSE_RECV,
    evt.EVT_DIMSE_SENT,
    evt.EVT_FSM_TRANSITION,
    evt.EVT_REQUESTED,
    evt.EVT_ACCEPTED,
    evt.EVT_ESTABLISHED,
    evt.EVT_RELEASED,
    evt.EVT_ABORTED,
    evt.EVT_CONN_CLOSE,
]
"""All but REJECTED."""


def _use(address: tuple[str, int], handlers: list[EventHandler]) -> None:
    """An association from its beginning to its end, as far as it gets."""
    try:
        with entity().associate(*address, evt_handlers=handlers) as assoc:
            assoc.send_c_echo()
    except (AssociationAborted, AssociationReleased, ConnectionFailed):
        return


@pytest.mark.parametrize("end", [_abort, _release], ids=["abort", "release"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_ending_the_association_in_an_observer(kind: Any, end: Callable[[Any], None]) -> None:
    """At any event, of either side: no deadlock, soon over, nothing left."""
    with victim() as attacked:
        before = time.monotonic()
        _use(attacked.server.address, [(kind, end)])
        attacked.end(SOON)
        attacked.server.bind(kind, end)
        _use(attacked.server.address, [])
        attacked.end(SOON)
        attacked.server.unbind(kind, end)
        assert time.monotonic() - before < 2 * SOON


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_shutdown_in_an_observer(kind: Any) -> None:
    with nothing_left():
        ae = entity()

        def shut_down(event: Event) -> None:
            del event
            ae.shutdown()

        before = time.monotonic()
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(kind, shut_down)])
        _use(server.address, [])
        if kind is evt.EVT_ABORTED:
            with associated(server) as raw:
                raw.send(Abort(0, 0))
                assert raw.is_closed(SOON)
        assert time.monotonic() - before < 2 * SOON
        ae.shutdown()


def test_refused_by_an_observer_before_it_begins() -> None:
    """abort() where an association is first seen: no A-ASSOCIATE-AC leaves any more."""

    def refuse(attacked: Victim) -> None:
        with connect(attacked.server) as raw:
            raw.send(request())
            assert raw.is_closed(SOON)
        event = attacked.end(SOON)
        assert isinstance(event, Aborted)
        assert event.by == "local"

    with victim() as attacked:
        subscription = attacked.server.associations.subscribe(lambda assoc: assoc.abort())
        refuse(attacked)
        subscription.dispose()
        attacked.server.bind(evt.EVT_CONN_OPEN, _abort)
        refuse(attacked)
        attacked.server.unbind(evt.EVT_CONN_OPEN, _abort)


def test_an_observer_that_blocks_too_long(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for it gives up at the deadline, says for whom, and aborts; who comes later is served."""
    gate = Gate()
    with victim(timeouts={"observer": 0.2}) as attacked:
        attacked.server.bind(evt.EVT_DIMSE_RECV, gate)
        with associated(attacked.server) as raw, associated(attacked.server) as other:
            raw.send(echo_rq())
            assert gate.entered.wait(DEADLINE)
            before = time.monotonic()
            other.send(echo_rq())
            assert other.aborted(0.2 + SOON) == (0, 0)
            assert time.monotonic() - before >= 0.15
            other.sock.close()
            attacked.server.unbind(evt.EVT_DIMSE_RECV, gate)
            gate.opened.set()
            assert raw.message().Status == 0x0000
            event = attacked.end()
            assert isinstance(event, Aborted)
            assert (event.by, "'observer'" in event.cause) == ("local", True)
            assert "Gate" in caplog.text


def test_abort_does_not_wait_for_an_observer() -> None:
    gate = Gate()
    with victim((evt.EVT_DIMSE_RECV, gate)) as attacked, associated(attacked.server) as raw:
        (assoc,) = _established(attacked)
        raw.send(echo_rq())
        assert gate.entered.wait(DEADLINE)
        before = time.monotonic()
        assoc.abort()
        assert time.monotonic() - before < 0.2
        assert raw.pdu() == Abort(0, 0)
        gate.opened.set()
        attacked.server.unbind(evt.EVT_DIMSE_RECV, gate)


def _established(attacked: Victim) -> list[Association]:
    """The established associations, once the acceptor knows of it too."""
    return attacked.server.active_associations


@pytest.mark.parametrize("raising", [ValueError, KeyError, RecursionError])
def test_observers_that_raise_change_nothing(raising: type[Exception]) -> None:
    def fail(event: Event) -> None:
        raise raising(event.name)

    handlers: list[EventHandler] = [(kind, fail) for kind in KINDS]
    with victim(*handlers) as attacked:
        with entity().associate(*attacked.server.address, evt_handlers=handlers) as assoc:
            assert assoc.send_c_echo() == 0x0000
        assert assoc.is_released
        assert isinstance(attacked.end(SOON), Released)


def test_no_requests_in_observers() -> None:
    raised: list[Exception] = []

    def misuse(event: Any) -> None:
        address = attacked.server.address
        for wrong in (
            event.assoc.send_c_echo,
            lambda: event.assoc.send_c_store(instance()),
            lambda: entity().associate(*address),
            lambda: entity().association(*address).open(),
        ):
            try:
                wrong()
            except LocalUsageError as error:
                raised.append(error)

    with victim() as attacked:
        with entity().associate(*attacked.server.address, evt_handlers=[(evt.EVT_DIMSE_RECV, misuse)]) as assoc:
            assert assoc.send_c_echo() == 0x0000
        assert len(raised) == 4
        assert all(isinstance(each, RuntimeError) for each in raised)


# ---- deadlines


def _wait(raw: Raw) -> None:
    """Say nothing until the other side has had enough."""
    assert raw.is_closed()


def _accept_and_wait(raw: Raw) -> None:
    raw.accept()
    assert raw.is_closed()


def _expect(phase: str, seconds: float, call: Callable[[], object]) -> TimedOut:
    before = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        call()
    took = time.monotonic() - before
    assert seconds - 0.02 <= took < seconds + SOON / 2, took
    assert caught.value.phase == phase
    return caught.value


def test_association_deadline() -> None:
    with nothing_left(), scripted(_wait) as address:
        ae = entity(timeouts={"association": 0.2, "release": 30})
        _expect("association", 0.2, lambda: ae.associate(*address))


def test_response_deadline() -> None:
    """The association lives on, a late response is dropped, and idleness still ends it."""

    def late(raw: Raw) -> None:
        raw.accept()
        asked = raw.message()
        assert go_on.wait(DEADLINE)
        raw.send(echo_rsp(asked, 0x0110))
        raw.send(echo_rsp(raw.message(), 0x0000))
        raw.message()
        assert raw.aborted(2 * SOON) == (0, 0)

    go_on = threading.Event()
    with nothing_left(), scripted(late) as address:
        assoc = entity(timeouts={"response": 0.2, "idle": 0.4}).associate(*address)
        _expect("response", 0.2, assoc.send_c_echo)
        go_on.set()
        assert assoc.send_c_echo() == 0x0000
        _expect("response", 0.2, assoc.send_c_echo)
        assert assoc.join(DEADLINE)
        assert assoc.is_aborted
        with pytest.raises(TimedOut, match="'idle'"):
            assoc.send_c_echo()


def test_idle_deadline() -> None:
    with nothing_left(), scripted(_accept_and_wait) as address:
        assoc = entity(timeouts={"idle": 0.2, "association": 30}).associate(*address)
        assert assoc.join(DEADLINE)
        error = _expect("idle", 0, assoc.send_c_echo)
        assert error.seconds == 0.2
        assert assoc.is_aborted
    with victim(timeouts={"idle": 0.2}) as attacked:
        with associated(attacked.server) as raw:
            assert raw.aborted() == (0, 0)
        assert attacked.ended_by(SOON) == (0, 0, "local")


def test_release_deadline() -> None:
    with nothing_left(), scripted(_accept_and_wait) as address:
        assoc = entity(timeouts={"release": 0.2, "association": 30}).associate(*address)
        _expect("release", 0.2, assoc.release)
        assert assoc.is_aborted
        assert assoc.join(SOON)


def test_connect_deadline() -> None:
    """A full backlog: the connection never comes about."""
    with nothing_left(), socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        ae = entity(timeouts={"connect": 0.2})
        _expect("connect", 0.2, lambda: ae.associate(*listener.getsockname()))


def test_interrupted_while_it_associates() -> None:
    """Ctrl-C: the half-open association does not stay behind."""

    def wait_for_the_abort(raw: Raw) -> None:
        raw.pdu()
        assert raw.aborted() == (0, 0)

    with nothing_left(), scripted(wait_for_the_abort) as address:
        main = threading.get_ident()

        def interrupt(event: Event) -> None:
            del event
            signal.pthread_kill(main, signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            entity().associate(*address, evt_handlers=[(evt.EVT_ACSE_SENT, interrupt)])


# ---- several threads


def test_many_threads_use_one_association() -> None:
    """They take turns within the window of one; nobody gets another's response."""
    sent: list[int] = []

    def answer(event: CEcho) -> Status:
        sent.append(event.message_id)
        return Status(0x0000 if event.message_id % 2 else 0x0110)

    with victim() as attacked:
        attacked.server.bind(evt.EVT_C_ECHO, answer)
        with entity().associate(*attacked.server.address) as assoc, ThreadPoolExecutor(8) as pool:

            def ask(number: int) -> bool:
                # Odd message IDs succeed, even ones fail.
                return assoc.send_c_echo(msg_id=number) == (0x0000 if number % 2 else 0x0110)

            assert all(pool.map(ask, range(1, 401)))
        attacked.server.unbind(evt.EVT_C_ECHO, answer)
    assert sorted(sent)[:400] == list(range(1, 401))


def both_roles(ae: AE) -> AE:
    ae.add_supported_context(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN, scu_role=True, scp_role=True)
    return ae


ROLES = [build_role(VERIFICATION, scu_role=True, scp_role=True)]


def test_a_request_by_a_handler_over_its_own_association() -> None:
    """The handler runs on the reader's thread, which goes on reading for it."""
    statuses: list[int] = []

    def handler(event: CStore) -> int:
        statuses.extend(int(event.assoc.send_c_echo()) for _ in range(3))
        return 0x0000

    with nothing_left():
        ae = both_roles(entity())
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handler)])
        asked: list[EventHandler] = [(evt.EVT_C_ECHO, lambda event: 0xB000)]
        with ae.associate(*server.address, ext_neg=ROLES, evt_handlers=asked) as assoc:
            for _ in range(3):
                assert assoc.send_c_store(instance()) == 0x0000
            assert statuses == [0xB000] * 9
        ae.shutdown()


def test_a_request_by_a_handler_while_another_thread_waits() -> None:
    """Both go through a window of one; the handler is not kept waiting once the other has its response."""
    first_asked, in_handler = threading.Event(), threading.Event()
    statuses: list[int] = []

    def handler(event: CStore) -> int:
        in_handler.set()
        statuses.append(int(event.assoc.send_c_echo()))
        return 0x0000

    def peer(raw: Raw) -> None:
        raw.associate(request(items=[role.freeze() for role in ROLES]))
        asked = raw.message()
        first_asked.set()
        raw.send(store_rq(b"abcd"))
        assert in_handler.wait(DEADLINE)
        raw.send(echo_rsp(asked))
        raw.send(echo_rsp(raw.message(), 0xB000))
        assert raw.message().Status == 0x0000
        raw.send(ReleaseRQ())
        assert raw.pdu() == ReleaseRP()

    with nothing_left():
        ae = both_roles(entity(timeouts={"response": 5}))
        established = threading.Event()
        server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, handler), (evt.EVT_ESTABLISHED, lambda event: established.set())],
        )
        with connect(server) as raw, ThreadPoolExecutor(1) as pool:
            talking = pool.submit(peer, raw)
            assert established.wait(DEADLINE)
            (assoc,) = server.active_associations
            before = time.monotonic()
            assert assoc.send_c_echo() == 0x0000
            talking.result(DEADLINE)
            assert time.monotonic() - before < SOON
        assert statuses == [0xB000]
        ae.shutdown()


# ---- crowds


def test_200_associations_leave_nothing() -> None:
    with victim() as attacked, nothing_left():
        for number in range(200):
            with entity().associate(*attacked.server.address) as assoc:
                assert assoc.send_c_echo() == 0x0000
            if number % 50 == 0:
                with pytest.raises(ConnectionFailed):
                    entity().associate("127.0.0.1", 1)


def test_associations_that_were_never_opened_leave_nothing() -> None:
    with grows_at_most(8 * MEBIBYTE), nothing_left():
        for _ in range(200):
            entity().association("127.0.0.1", 1)


def test_100_at_once_store_what_is_theirs(tmp_path: Path) -> None:
    """100 associations, 5 objects each: all of them arrive whole, and every response has its own message ID."""
    received: dict[str, tuple[str, int]] = {}

    def save(event: CStore) -> int:
        data = event.encoded_dataset(include_meta=False)
        received[event.request.AffectedSOPInstanceUID or ""] = (hashlib.sha256(data).hexdigest(), event.message_id)
        return 0x0000

    def send(number: int) -> dict[str, tuple[str, int]]:
        from rxdicom.events.datasets import encode

        sent: dict[str, tuple[str, int]] = {}
        with entity().associate(*attacked.server.address) as assoc:
            start.wait(DEADLINE)
            for index in range(5):
                uid, message_id = f"1.2.{number}.{index}", 1 + number * 5 + index
                image = instance(20_000 + number, uid, os.urandom(1))
                assert assoc.send_c_store(image, msg_id=message_id) == 0x0000
                digest = hashlib.sha256(encode(image, IMPLICIT_VR_LITTLE_ENDIAN)).hexdigest()
                sent[uid] = (digest, message_id)
        return sent

    start = threading.Barrier(100)
    with victim((evt.EVT_C_STORE, save), limits={"associations": 101}) as attacked, ThreadPoolExecutor(100) as pool:
        everything = {uid: each for sent in pool.map(send, range(100)) for uid, each in sent.items()}
        assert len(everything) == 500
        assert received == everything


def test_rejected_above_the_limit() -> None:
    with victim(limits={"associations": 3}) as attacked, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(entity().associate(*attacked.server.address))
        with pytest.raises(AssociationRejected) as caught:
            entity().associate(*attacked.server.address)
        assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)
        stack.close()


BEYOND_1024 = """
import os, resource
from rxdicom import AE
from rxdicom.wire.uids import VERIFICATION

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
ae = AE()
ae.add_requested_context(VERIFICATION)
ae.add_supported_context(VERIFICATION)
with ae.start_server(("127.0.0.1", 0), block=False) as server, ae.associate(*server.address) as assoc:
    assert assoc.send_c_echo() == 0
    assert max(map(int, os.listdir("/proc/self/fd"))) > 1100
"""

FEW_DESCRIPTORS = """
import logging, os, resource, sys
from rxdicom import AE
from rxdicom.wire.uids import VERIFICATION

logging.basicConfig()
ae = AE()
ae.add_requested_context(VERIFICATION)
ae.add_supported_context(VERIFICATION)
with ae.start_server(("127.0.0.1", 0), block=False) as server:
    with ae.associate(*server.address) as assoc:
        assoc.send_c_echo()  # what is loaded on demand is loaded
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
    print(server.address[1], flush=True)
    sys.stdin.read()
"""


def test_more_than_1024_descriptors() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEYOND_1024], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_descriptors_left() -> None:
    """Connections are refused, one by one, and served again as soon as there are descriptors."""
    arguments = [sys.executable, "-c", FEW_DESCRIPTORS]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        for _ in range(3):
            with ExitStack() as stack:
                raws = [Raw(stack.enter_context(socket.create_connection(address))) for _ in range(60)]
                assert all(raw.is_closed(SOON) for raw in raws[30:])
                assert not raws[0].is_closed(0.01)
            assert _recovers(address)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    assert "Too many open files" in said or "descriptors" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) < 1000


def _recovers(address: tuple[str, int]) -> bool:
    """Whether a C-ECHO is answered soon, though not at the first attempt."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        try:
            with entity(timeouts={"association": SOON}).associate(*address) as assoc:
                return assoc.send_c_echo() == 0x0000
        except (ConnectionFailed, AssociationAborted):
            continue
    return False


def test_localhost_is_tried_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to IPv6 first, and a server that has IPv4 only; and the other way around."""

    def resolve(host: str, port: int, *_: Any, **options: Any) -> list[Any]:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        assert host == "localhost"
        addresses: list[Any] = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        return addresses if six_first else addresses[::-1]

    with nothing_left():
        for host in ("127.0.0.1", "::1"):
            six_first = host == "127.0.0.1"
            ae = entity()
            server = ae.start_server((host, 0), block=False)
            with monkeypatch.context() as patched:
                patched.setattr(socket, "getaddrinfo", resolve)
                with ae.associate("localhost", server.address[1]) as assoc:
                    assert assoc.send_c_echo() == 0x0000
            ae.shutdown()


def test_all_interfaces() -> None:
    with nothing_left():
        ae = entity()
        server = ae.start_server(("", 0), block=False)
        for host in ("127.0.0.1", "::1", "localhost"):
            with ae.associate(host, server.address[1]) as assoc:
                assert assoc.send_c_echo() == 0x0000
        ae.shutdown()


def test_two_threads_shut_down_at_once() -> None:
    for _ in range(20):
        with nothing_left():
            ae = entity()
            server = ae.start_server(("127.0.0.1", 0), block=False)
            with associated(server), ThreadPoolExecutor(4) as pool:
                for each in [pool.submit(server.shutdown) for _ in range(4)]:
                    each.result(DEADLINE)


# ---- user identity

IDENTITIES: dict[str, tuple[UserIdentity, ...]] = {
    "absent": (),
    "empty": (UserIdentity(1, True, b""),),
    "type 0": (UserIdentity(0, True, b"user"),),
    "type 6": (UserIdentity(6, True, b"user"),),
    "twice": (UserIdentity(1, True, b"user"), UserIdentity(1, True, b"user")),
    "raising": (UserIdentity(1, True, b"raise"),),
    "refused": (UserIdentity(2, True, b"user", b"wrong-PASSCODE"),),
}


@pytest.mark.parametrize("items", IDENTITIES.values(), ids=IDENTITIES)
def test_identities_that_are_refused(items: tuple[UserIdentity, ...], caplog: pytest.LogCaptureFixture) -> None:
    """RJ (1,2,1), whatever the fault; and no secret gets into the log."""
    caplog.set_level(logging.DEBUG, logger="rxdicom")

    def check(event: Any) -> tuple[bool, bytes | None]:
        if event.primary_field == b"raise":
            raise ValueError("cannot check")
        return event.secondary_field == b"right-PASSCODE", None

    with nothing_left():
        ae = entity()
        ae.require_user_identity = True
        attacked = Victim(ae, [(evt.EVT_USER_ID, check)])
        with connect(attacked.server) as raw:
            raw.send(request(items))
            assert raw.pdu() == AssociateRJ(1, 2, 1)
        attacked.end(SOON)
        with associated(attacked.server, request([UserIdentity(2, False, b"user", b"right-PASSCODE")])) as raw:
            raw.send(echo_rq())
            assert raw.message().Status == 0x0000
        ae.shutdown()
    assert "PASSCODE" not in caplog.text


# ---- TLS


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that nobody here has signed, for another host."""
    return Certificates(tmp_path_factory.mktemp("strangers"), "stranger")


@contextmanager
def tls_victim(certificates: Certificates, *handlers: EventHandler, **timeouts: Any) -> Generator[Victim]:
    """A server over TLS, which still serves its friends at the end."""
    server_context, client_context = certificates.contexts()
    ae = entity(timeouts={"tls": SOON, **timeouts})
    with nothing_left():
        attacked = Victim(ae, handlers, server_context)
        try:
            yield attacked
            assert _answers(attacked.server, client_context)
        finally:
            ae.shutdown()


def _answers(server: AssociationServer, context: ssl.SSLContext) -> bool:
    before = time.monotonic()
    with entity().associate(*server.address, tls_args=(context, "localhost")) as assoc:
        return assoc.send_c_echo() == 0x0000 and time.monotonic() - before < SOON


def _bare(strangers: Certificates, kind: str, certificates: Certificates) -> tuple[ssl.SSLContext, str]:
    """The context of a client that is to be refused, or refuses, and the host name that it wants."""
    context = certificates.contexts()[1]
    if kind in ("TLSv1", "TLSv1_1"):
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[kind]
    elif kind == "no certificate":
        context = ssl.create_default_context(cafile=str(certificates.certificate))
    elif kind == "a stranger's certificate":
        context = ssl.create_default_context(cafile=str(certificates.certificate))
        context.load_cert_chain(strangers.certificate, strangers.key)
    elif kind == "a server that is a stranger":
        context = strangers.contexts()[1]
    return context, "elsewhere.example" if kind == "another name" else "localhost"


REFUSALS = (
    "TLSv1",
    "TLSv1_1",
    "no certificate",
    "a stranger's certificate",
    "a server that is a stranger",
    "another name",
)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("kind", REFUSALS)
def test_tls_that_is_refused(certificates: Certificates, strangers: Certificates, kind: str) -> None:
    """One typed error for the client; no request reaches the server."""
    requested: list[Event] = []
    with tls_victim(certificates) as attacked:
        attacked.server.bind(evt.EVT_REQUESTED, requested.append)
        context, name = _bare(strangers, kind, certificates)
        before = time.monotonic()
        with pytest.raises((ConnectionFailed, AssociationAborted)) as caught:
            entity().associate(*attacked.server.address, tls_args=(context, name))
        assert time.monotonic() - before < SOON
        assert isinstance(caught.value, ConnectionFailed) or caught.value.by == "transport"
        assert attacked.end(SOON) is None
        assert not requested


def test_plain_against_tls(certificates: Certificates) -> None:
    """No plain PDU gets an answer from a server that wants TLS, and none leaves a client that does."""
    with tls_victim(certificates) as attacked:
        with connect(attacked.server) as raw:
            raw.send(request())
            answer = raw.sock.recv(1000)
            # A TLS alert (type 21), or nothing.
            assert answer[:1] in (b"", b"\x15")
        assert attacked.end(SOON) is None
        before = time.monotonic()
        with pytest.raises(AssociationAborted):
            entity().associate(*attacked.server.address)
        assert time.monotonic() - before < SOON
        attacked.end(SOON)
    with victim() as attacked:
        context = certificates.contexts()[1]
        with pytest.raises(ConnectionFailed, match="TLS"):
            entity(timeouts={"tls": SOON}).associate(*attacked.server.address, tls_args=(context, "localhost"))
        assert attacked.ended_by(SOON) == (0, 0, "local")


def test_stalled_handshakes(certificates: Certificates) -> None:
    """They do not hold up the listener, and end at their deadline."""
    with tls_victim(certificates, tls=0.5) as attacked, ExitStack() as stack:
        before = time.monotonic()
        raws = [stack.enter_context(connect(attacked.server)) for _ in range(20)]
        for raw in raws[10:]:
            raw.send(b"\x16\x03\x01")
        assert _answers(attacked.server, certificates.contexts()[1])
        assert isinstance(attacked.end(), Released)
        assert all(raw.is_closed(SOON) for raw in raws)
        assert 0.45 <= time.monotonic() - before < 0.5 + SOON
        for _ in raws:
            assert attacked.end(SOON) is None


def test_a_server_that_stalls_the_handshake(certificates: Certificates) -> None:
    with nothing_left(), scripted(_wait) as address:
        ae = entity(timeouts={"tls": 0.2})
        arguments = (certificates.contexts()[1], "localhost")
        _expect("tls", 0.2, lambda: ae.associate(*address, tls_args=arguments))


def test_two_pdus_in_one_record(certificates: Certificates) -> None:
    """The second is not left in the TLS engine; as SCP and as SCU."""
    server_context, client_context = certificates.contexts()
    with tls_victim(certificates) as attacked:
        sock = socket.create_connection(attacked.server.address, timeout=DEADLINE)
        with Raw(client_context.wrap_socket(sock, server_hostname="localhost")) as raw:
            raw.associate()
            raw.send(echo_rq(1) + echo_rq(2) + echo_rq(3) + encode_pdu(ReleaseRQ()))
            assert [raw.message().MessageIDBeingRespondedTo for _ in range(3)] == [1, 2, 3]
            assert raw.pdu() == ReleaseRP()
        assert isinstance(attacked.end(), Released)

    def answer(raw: Raw) -> None:
        with Raw(server_context.wrap_socket(raw.sock, server_side=True)) as peer:
            peer.accept()
            asked = peer.message()
            peer.send(echo_rsp(asked) + encode_pdu(ReleaseRQ()))
            assert peer.pdu() == ReleaseRP()

    with nothing_left(), scripted(answer) as address:
        assoc = entity().associate(*address, tls_args=(client_context, "localhost"))
        assert assoc.send_c_echo() == 0x0000
        assert assoc.join(SOON)
        assert assoc.is_released


def test_large_objects_over_tls(certificates: Certificates, tmp_path: Path) -> None:
    """Both ways at once over several associations, and cut off in the middle."""
    store = Store(tmp_path)
    context = certificates.contexts()[1]

    def send(number: int) -> int:
        with entity().associate(*attacked.server.address, tls_args=(context, "localhost")) as assoc:
            return int(assoc.send_c_store(instance(2 * MEBIBYTE, f"1.2.{number}", b"%c" % number)))

    with tls_victim(certificates, store.binding) as attacked:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(send, range(4))) == [0x0000] * 4
        for number in range(4):
            assert store.data(f"1.2.{number}").endswith(b"%c" % number * 2 * MEBIBYTE)
            assert isinstance(attacked.end(), Released)
        sock = socket.create_connection(attacked.server.address, timeout=DEADLINE)
        with Raw(context.wrap_socket(sock, server_hostname="localhost")) as raw:
            raw.associate()
            raw.send(store_rq(LARGE, instance="9.9")[: MEBIBYTE + 17])
            raw.reset()
        assert attacked.ended_by(SOON) == (2, 0, "transport")
        assert store.everything() == [f"1.2.{number}.dcm" for number in range(4)]


def test_a_peer_that_stops_reading_over_tls(certificates: Certificates) -> None:
    """As acceptor in the middle of a large message, and as requestor that asks and asks."""
    server_context, client_context = certificates.contexts()
    stopped = threading.Event()

    def stop(raw: Raw) -> None:
        with Raw(server_context.wrap_socket(raw.sock, server_side=True)) as peer:
            peer.accept()
            peer.take(10_000)
            assert stopped.wait(DEADLINE)

    with nothing_left(), scripted(stop) as address:
        ae = entity(timeouts={"write": 0.3})
        assoc = ae.associate(*address, tls_args=(client_context, "localhost"))
        with pytest.raises(TimedOut) as caught:
            assoc.send_c_store(instance(16 * MEBIBYTE))
        assert caught.value.phase == "write"
        assert assoc.join(SOON)
        stopped.set()
    asked = store_rq(b"", instance="1." * 10_000) * 20
    with tls_victim(certificates, write=0.3) as attacked:
        sock = socket.create_connection(attacked.server.address, timeout=DEADLINE)
        with Raw(client_context.wrap_socket(sock, server_hostname="localhost")) as raw:
            raw.associate()
            with grows_at_most(32 * MEBIBYTE), pytest.raises(OSError, match=r"reset|pipe|EOF"):
                _send_for_ever(raw, asked)
        event = attacked.end()
        assert isinstance(event, Aborted)
        assert "'write'" in event.cause


def _send_for_ever(raw: Raw, data: bytes) -> None:
    """Until that fails, or the deadline shows that it never would."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        raw.send(data)


def test_tls_without_a_name(certificates: Certificates) -> None:
    """A context that checks host names checks the address then; one that does not, nothing."""
    server_context, strict = certificates.contexts()
    lenient = certificates.contexts()[1]
    lenient.check_hostname = False
    with nothing_left():
        ae = entity(timeouts={"tls": SOON})
        port = Victim(ae, [], server_context, "0.0.0.0").server.address[1]
        for host, context in (("127.0.0.1", strict), ("127.0.0.1", lenient), ("127.0.0.2", lenient)):
            with entity().associate(host, port, tls_args=(context, None)) as assoc:
                assert assoc.send_c_echo() == 0x0000
        with pytest.raises(ConnectionFailed, match="certificate"):
            entity().associate("127.0.0.2", port, tls_args=(strict, None))
        ae.shutdown()
