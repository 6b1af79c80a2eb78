"""A server over several processes: all of them serve, none is missed when it dies, none outlives its parent."""

import logging
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID

from rxdicom import (
    AE,
    Association,
    AssociationAborted,
    AssociationRejected,
    ConnectionFailed,
    LocalUsageError,
    evt,
)
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import CEcho
from rxdicom.log import LOG
from rxdicom.pdu_primitives import UserIdentityNegotiation
from rxdicom.runtimes.threads.places import SharedPlaces
from rxdicom.runtimes.threads.workers import WorkerFailed, Workers, WorkerServer
from rxdicom.wire.items import MaximumLength
from tests.certificates import Certificates
from tests.runtimes import duties
from tests.runtimes.duties import CT, HELD, entity
from tests.runtimes.raw import nothing_left
from tests.support import read

DEADLINE = 20.0
"""Seconds that any single thing may take at the most."""


# ---- what the tests see with


class Said(logging.Handler):
    """What the parent logs, its workers' records among it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put(record.getMessage())

    def next(self, *parts: str) -> str:
        """The next line that has all of these in it."""
        while True:
            line = self.lines.get(timeout=DEADLINE)
            if all(part in line for part in parts):
                return line


@pytest.fixture
def said() -> Generator[Said]:
    handler, before = Said(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    yield handler
    LOG.setLevel(before)
    LOG.removeHandler(handler)


@contextmanager
def serving(
    folder: Path, workers: int | Workers = 2, ae: AE | None = None, more: list[EventHandler] | None = None
) -> Generator[WorkerServer]:
    """Workers that serve, and leave nothing."""
    resource_tracker.ensure_running()
    with nothing_left():
        ae = ae or entity()
        handlers = [*duties.handlers(folder), *(more or [])]
        with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, workers=workers) as server:
            yield server


def pids(server: WorkerServer) -> list[int]:
    """The processes of the workers, by number."""
    return [worker.pid or 0 for worker in server.workers]


@contextmanager
def only(server: WorkerServer, number: int) -> Generator[None]:
    """Whoever connects within the block is served by this worker: the others are stopped."""
    others = [pid for each, pid in enumerate(pids(server), 1) if each != number]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def associated(server: WorkerServer, number: int) -> Association:
    """An association with one of the workers."""
    with only(server, number):
        return entity().associate(*server.address)


def process_of(assoc: Association) -> int:
    return int(assoc.send_c_echo().ErrorComment or "0")


def image(uid: str, size: int = 1000) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(CT), UID(uid)
    dataset.PatientID = uid
    dataset.add_new(0x7FE00010, "OW", uid.encode().ljust(size, b"\0"))
    return dataset


def is_kept(folder: Path, uid: str) -> bool:
    """Whether the whole instance is there."""
    found = read(folder / f"{uid}.dcm")
    return found.PatientID == uid and found[0x7FE00010].value == image(uid)[0x7FE00010].value


def refused(address: tuple[str, int]) -> bool:
    """Whether nobody listens there any more, soon."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, DEADLINE).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            # It waited to be accepted when the last listener closed.
            continue
    return False


# ---- serving


def test_all_workers_serve(tmp_path: Path) -> None:
    with serving(tmp_path, 3) as server:
        assert [worker.number for worker in server.workers] == [1, 2, 3]
        assert all(worker.is_serving and not worker.restarts for worker in server.workers)
        assert len({*pids(server), os.getpid()}) == 4
        for number, pid in enumerate(pids(server), 1):
            with associated(server, number) as assoc:
                assert process_of(assoc) == pid
                assert assoc.send_c_store(image(f"1.2.{pid}")) == 0x0000
            assert is_kept(tmp_path, f"1.2.{pid}")


def test_the_configuration_goes_along(tmp_path: Path) -> None:
    ae = entity()
    ae.require_called_aet = True
    ae.maximum_pdu_size = 20_000
    ae.implementation_version_name = "OF WORKERS"
    with serving(tmp_path, 1, ae) as server:
        ae.maximum_pdu_size = 30_000
        with pytest.raises(AssociationRejected) as caught:
            entity().associate(*server.address, ae_title="ANOTHER")
        assert (caught.value.source, caught.value.reason) == (1, 7)
        with entity().associate(*server.address, ae_title="WORKERS") as assoc:
            assert assoc.acceptor.implementation_version_name == "OF WORKERS"
            assert MaximumLength(20_000) in assoc.acceptor.user_information
    ae.shutdown()


def test_what_cannot_be_passed_on_is_made_in_the_worker(tmp_path: Path) -> None:
    with serving(tmp_path, Workers(1, prepare=duties.prepare)) as server:
        with entity().associate(*server.address) as assoc:
            assert assoc.send_c_echo().ErrorComment == "WORKERS"


def test_tls(certificates: Certificates) -> None:
    make = duties.ServerContext(str(certificates.certificate), str(certificates.key))
    ae = entity()
    client = ssl.create_default_context(cafile=str(certificates.certificate))
    with (
        nothing_left(),
        ae.start_server(
            ("127.0.0.1", 0), block=False, ssl_context=make, evt_handlers=[(evt.EVT_C_ECHO, duties.who)], workers=1
        ) as server,
        ae.associate(*server.address, tls_args=(client, "localhost")) as assoc,
    ):
        assert process_of(assoc) == pids(server)[0]


def test_workers_log_where_the_parent_logs(tmp_path: Path, said: Said) -> None:
    with serving(tmp_path) as server:
        serving_now = {said.next(" serves, ") for _ in range(2)}
        assert serving_now == {f"WORKERS: worker {each} serves, process {pids(server)[each - 1]}" for each in (1, 2)}
        with associated(server, 2) as assoc:
            said.next("WORKERS.2-1: association with 'WORKERS' at 127.0.0.1")
            (tmp_path / "1.2.3.dcm").mkdir()
            assert assoc.send_c_store(image("1.2.3")) == 0xA700
            said.next("WORKERS.2-1: ", "IsADirectoryError")


def test_the_parent_sees_the_associations_of_its_workers(tmp_path: Path) -> None:
    ae = entity()
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"somebody", b"secret"
    with serving(tmp_path, ae=ae) as server:
        assert server.active_associations == []
        with associated(server, 1), only(server, 2), entity().associate(*server.address, ext_neg=[identity]) as assoc:
            # The first worker is stopped, and does not answer.
            [shown] = server.active_associations
            assert (shown.worker, shown.name) == (2, "WORKERS.2-1")
            assert shown.requestor.ae_title == "WORKERS"
            assert (shown.requestor.address, shown.requestor.port) == (assoc.requestor.address, assoc.requestor.port)
            assert shown.requestor.user_information == ()
            assert (shown.acceptor.address, shown.acceptor.port) == server.address
        with associated(server, 1), associated(server, 2):
            assert sorted(each.worker for each in server.active_associations) == [1, 2]
        assert ae.active_associations == []


# ---- limits


def test_the_limit_holds_for_all_workers_together(tmp_path: Path) -> None:
    ae = entity()
    ae.maximum_associations = 3
    with serving(tmp_path, ae=ae) as server:
        first, *_ = kept = [associated(server, number) for number in (1, 1, 2)]
        for number in (1, 2):
            with pytest.raises(AssociationRejected) as caught:
                associated(server, number)
            assert (caught.value.result, caught.value.source, caught.value.reason) == (2, 3, 2)
        for _ in range(20):
            # The place is free, for all workers, before the peer knows that it has released.
            first.release()
            first = associated(server, 2)
            with pytest.raises(AssociationRejected):
                associated(server, 1)
        for each in (first, *kept[1:]):
            each.release()


def test_places_of_a_dead_worker_are_free(tmp_path: Path, said: Said) -> None:
    ae = entity()
    ae.maximum_associations = 2
    with serving(tmp_path, ae=ae) as server:
        lost = [associated(server, 1) for _ in range(2)]
        with pytest.raises(AssociationRejected):
            associated(server, 2)
        os.kill(pids(server)[0], signal.SIGKILL)
        said.next("worker 1: ended by SIGKILL")
        said.next("worker 1 serves")
        with associated(server, 2), associated(server, 2), pytest.raises(AssociationRejected):
            associated(server, 1)
        for each in lost:
            with pytest.raises(AssociationAborted):
                each.send_c_echo()


def test_places_are_counted_together() -> None:
    places = SharedPlaces(3, 2)
    assert places.take(0)
    assert places.take(1)
    places.own = 1
    assert places.take(0)
    assert not places.take(1)
    places.own = 0
    assert not places.take(2)
    places.hold(1)
    places.own = 1
    assert places.take(1)
    places.vacate(0)
    assert places.take(2)
    assert not places.take(3)
    places.close()


# ---- a worker that dies


def test_a_worker_killed_while_it_receives(tmp_path: Path, said: Said) -> None:
    """Its associations are lost, the others unaffected; what was acknowledged is kept; another takes its place."""
    acknowledged: list[str] = []
    lost: list[int] = []
    midway = threading.Barrier(5)

    def send(number: int, assoc: Association) -> None:
        try:
            for index in range(60):
                if index == 5:
                    midway.wait(DEADLINE)
                if assoc.send_c_store(image(uid := f"1.2.{number}.{index}")) == 0x0000:
                    acknowledged.append(uid)
            assoc.release()
        except AssociationAborted:
            lost.append(number)

    with serving(tmp_path) as server, ThreadPoolExecutor(4) as pool:
        before = pids(server)
        sent = [pool.submit(send, each, associated(server, 1 + each % 2)) for each in range(4)]
        midway.wait(DEADLINE)
        os.kill(before[0], signal.SIGKILL)
        for each in sent:
            each.result(DEADLINE)
        assert sorted(lost) == [0, 2]
        assert {f"1.2.{number}.{index}" for number in (1, 3) for index in range(60)} <= set(acknowledged)
        assert all(is_kept(tmp_path, uid) for uid in acknowledged)
        said.next("worker 1: ended by SIGKILL; starts again in 0.1 s")
        said.next("worker 1 serves")
        after = pids(server)
        assert after[0] != before[0]
        assert after[1] == before[1]
        assert [worker.restarts for worker in server.workers] == [1, 0]
        with associated(server, 1) as assoc:
            assert process_of(assoc) == after[0]


def test_a_connection_that_waits_outlives_the_worker(tmp_path: Path) -> None:
    """While no worker is there nobody is refused: the next one takes those who wait."""
    with serving(tmp_path, 1) as server:
        [pid] = pids(server)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        with ThreadPoolExecutor(1) as pool, socket.create_connection(server.address):
            waiting = pool.submit(entity().associate, *server.address)
            os.kill(pid, signal.SIGKILL)
            with waiting.result(DEADLINE) as assoc:
                assert process_of(assoc) == pids(server)[0] != pid


def test_a_worker_that_dies_at_once_does_not_spin(tmp_path: Path, said: Said) -> None:
    obstacle = tmp_path / "obstacle"
    with serving(tmp_path, Workers(1, prepare=duties.VanishIf(obstacle))) as server:
        obstacle.touch()
        os.kill(pids(server)[0], signal.SIGKILL)
        for how, pause in (("by SIGKILL", 0.1), ("with exit code 3", 0.2), ("with exit code 3", 0.4)):
            said.next(f"WORKERS: worker 1: ended {how}; starts again in {pause} s")
        obstacle.unlink()
        said.next("worker 1 serves")
        assert server.workers[0].restarts in (3, 4)
        with entity().associate(*server.address) as assoc:
            assert process_of(assoc) == pids(server)[0]


def test_sigterm_drains_a_worker_and_another_takes_its_place(tmp_path: Path, said: Said) -> None:
    duties.pipes(tmp_path)
    with serving(tmp_path, Workers(1, drain=DEADLINE)) as server, ThreadPoolExecutor(1) as pool:
        [pid] = pids(server)
        with entity().associate(*server.address) as assoc:
            stored = pool.submit(assoc.send_c_store, image(HELD))
            duties.wait_until_held(tmp_path)
            os.kill(pid, signal.SIGTERM)
            duties.let_go(tmp_path)
            assert stored.result(DEADLINE) == 0x0000
        said.next("worker 1: ended with exit code 0")
        said.next("worker 1 serves")
        with entity().associate(*server.address) as assoc:
            assert process_of(assoc) == pids(server)[0] != pid
    assert is_kept(tmp_path, HELD)


# ---- a worker that cannot start


def test_the_failure_of_a_worker_is_raised(tmp_path: Path) -> None:
    with nothing_left(), pytest.raises(WorkerFailed, match="ValueError: no database here") as caught:
        with serving(tmp_path, Workers(2, prepare=duties.fail)):
            pass
    assert caught.value.worker in (1, 2)
    assert any("duties.py" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("prepare", "seconds", "how"),
    [(duties.vanish, DEADLINE, "ended with exit code 3"), (duties.hang, 0.5, "ended by SIGKILL")],
)
def test_a_worker_that_never_serves(tmp_path: Path, prepare: Any, seconds: float, how: str) -> None:
    server = entity().make_server(("127.0.0.1", 0), workers=Workers(2, prepare=prepare, start=seconds))
    with nothing_left():
        with pytest.raises(WorkerFailed, match=how):
            server.serve_forever()
    with socket.create_server(server.address):
        pass
    with pytest.raises(WorkerFailed):
        server.start()


def on_echo(event: CEcho) -> int:
    return 0x0000


INNER: EventHandler = (evt.EVT_C_ECHO, partial(map, lambda: 0))
LOCKED: EventHandler = (evt.EVT_C_ECHO, on_echo, [threading.Lock()])
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"evt_handlers": [INNER]}, "the handler for evt.EVT_C_ECHO, .*<lambda>"),
    ({"evt_handlers": [LOCKED]}, r"the handler for evt.EVT_C_ECHO, .*\.on_echo, cannot .*lock"),
    ({"ssl_context": ssl.create_default_context()}, "give ssl_context a function"),
    ({"workers": Workers(1, prepare=lambda _server: None)}, "the function to prepare workers"),
    ({"workers": 0}, "give at least 1"),
    ({"contexts": []}, "no presentation contexts"),
]


@pytest.mark.parametrize(("arguments", "says"), IMPOSSIBLE)
def test_what_cannot_be_passed_on_is_said_at_once(arguments: dict[str, Any], says: str) -> None:
    start: Any = entity().start_server
    with nothing_left(), pytest.raises(LocalUsageError, match=says):
        start(("127.0.0.1", 0), block=False, **{"workers": 2, **arguments})


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, nothing_left():
        with pytest.raises(OSError, match="in use"):
            entity().start_server(taken.getsockname(), block=False, workers=2)


SCRIPT = """
from rxdicom import AE, evt
from tests.runtimes.duties import entity

def on_echo(event):
    return 0x0000

{guard}
    entity().start_server(("127.0.0.1", {port}), block=False, evt_handlers=[(evt.EVT_C_ECHO, on_echo)], workers=1)
    print("serves")
"""


def test_a_script_serves_with_its_own_handlers(tmp_path: Path) -> None:
    """And ends without a shutdown."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard='if __name__ == "__main__":', port=0))
    done = run(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "serves\n", "")


def test_a_script_without_its_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard="if True:", port=0))
    done = run(script)
    assert done.returncode == 1
    assert "WorkerFailed: worker 1 does not serve: ended with exit code 1" in done.stderr
    assert "StateError: a worker cannot start workers; start the server below `if __name__ ==" in done.stderr


def test_handlers_that_only_an_interpreter_knows(tmp_path: Path) -> None:
    done = run("-c", SCRIPT.format(guard="if True:", port=0))
    assert done.returncode == 1
    assert "WorkerFailed: worker 1 does not serve: AttributeError: Can't get attribute 'on_echo'" in done.stderr


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)


# ---- the end


def test_shutdown_drains(tmp_path: Path) -> None:
    duties.pipes(tmp_path)
    with serving(tmp_path) as server, ThreadPoolExecutor(2) as pool:
        with entity().associate(*server.address) as assoc:
            stored = pool.submit(assoc.send_c_store, image(HELD))
            duties.wait_until_held(tmp_path)
            over = pool.submit(server.shutdown, DEADLINE)
            assert refused(server.address)
            duties.let_go(tmp_path)
            assert stored.result(DEADLINE) == 0x0000
        over.result(DEADLINE)
        assert pids(server) == [0, 0]
    assert is_kept(tmp_path, HELD)


def test_shutdown_with_less_patience(tmp_path: Path) -> None:
    """Without a drain associations are aborted; also where another shutdown is draining."""
    with serving(tmp_path) as server, ThreadPoolExecutor(1) as pool:
        assoc = associated(server, 1)
        over = pool.submit(server.shutdown, 1000.0)
        assert refused(server.address)
        assert assoc.send_c_echo() == 0x0000
        server.shutdown()
        over.result(DEADLINE)
        assert pids(server) == [0, 0]
        with pytest.raises(AssociationAborted):
            assoc.send_c_echo()


def test_shutdown_of_what_never_served() -> None:
    with nothing_left():
        with entity().make_server(("127.0.0.1", 0), workers=2) as server:
            assert pids(server) == [0, 0]
        server.serve_forever()
        assert server.start() is server


def test_an_ae_shuts_its_workers_down(tmp_path: Path) -> None:
    ae = entity()
    with serving(tmp_path, ae=ae) as server:
        ae.shutdown()
        assert pids(server) == [0, 0]
        with pytest.raises(ConnectionFailed):
            ae.associate(*server.address)


class Parent:
    """A process with workers. Its stdout ends when none of them, nor of what else it started, is left."""

    def __init__(self, folder: Path, drain: float, *more: str) -> None:
        command = [sys.executable, "-m", "tests.runtimes.duties", str(folder), str(drain), *more]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        host, port, forked, *workers = self.process.stdout.readline().split()
        self.address = host, int(port)
        self.forked = int(forked)
        self.workers = [int(pid) for pid in workers]

    def communicate(self) -> tuple[str, str]:
        """What else it and its workers say, once all of them have ended."""
        return self.process.communicate(timeout=DEADLINE)


@contextmanager
def parent(folder: Path, drain: float, *more: str) -> Generator[Parent]:
    running = Parent(folder, drain, *more)
    try:
        yield running
    finally:
        for pid in filter(None, (running.forked, running.process.pid)):
            with_group = -pid if pid == running.process.pid else pid
            try:
                (os.killpg if with_group < 0 else os.kill)(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.process.communicate()


@pytest.mark.parametrize("more", [(), ("fork",)], ids=["", "and what it forked lives on"])
def test_a_parent_that_is_killed_leaves_no_worker(tmp_path: Path, more: tuple[str, ...]) -> None:
    with parent(tmp_path, 0.0, *more) as running:
        assoc = entity().associate(*running.address)
        assert process_of(assoc) in running.workers
        running.process.kill()
        assert assoc.join(DEADLINE)
        assert assoc.is_aborted
        if running.forked:
            os.kill(running.forked, signal.SIGKILL)
        assert running.communicate() == ("", "")
        with pytest.raises(ConnectionFailed):
            entity().associate(*running.address)


def test_a_parent_that_is_terminated_lets_its_workers_drain(tmp_path: Path) -> None:
    duties.pipes(tmp_path)
    with parent(tmp_path, DEADLINE) as running, ThreadPoolExecutor(1) as pool:
        with entity().associate(*running.address) as assoc:
            stored = pool.submit(assoc.send_c_store, image(HELD))
            duties.wait_until_held(tmp_path)
            running.process.terminate()
            assert running.process.wait(DEADLINE) == -signal.SIGTERM
            assert refused(running.address)
            duties.let_go(tmp_path)
            assert stored.result(DEADLINE) == 0x0000
        assert running.communicate() == ("", "")
    assert is_kept(tmp_path, HELD)


def test_ctrl_c_reaches_all_and_the_parent_ends_them(tmp_path: Path) -> None:
    with parent(tmp_path, DEADLINE) as running:
        os.killpg(running.process.pid, signal.SIGINT)
        out, err = running.communicate()
    assert running.process.returncode == -signal.SIGINT
    assert (out, err.count("Traceback"), err.splitlines()[-1]) == ("", 1, "KeyboardInterrupt")


def test_a_parent_that_ends_without_a_shutdown(tmp_path: Path) -> None:
    with parent(tmp_path, DEADLINE, "leave") as running:
        assert running.communicate() == ("", "")
        assert running.process.returncode == 0
