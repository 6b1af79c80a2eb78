"""Server programs over several processes: ``--workers`` and ``--drain``."""

import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rxdicom import AE, AssociationAborted, AssociationRejected
from rxdicom.presentation import build_context
from rxdicom.wire.uids import VERIFICATION
from tests.apps.support import SECONDARY_CAPTURE, Server, dicom_file, read, run, server
from tests.certificates import Certificates


def workers(running: Server, count: int) -> list[int]:
    """The processes of a server program, which it has named by the time that it says that it listens."""
    lines = [line for line in running.said.splitlines() if " serves, process " in line]
    assert len(lines) == count
    return [int(line.rsplit(" ", 1)[1]) for line in lines]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def stopped(pid: int) -> Generator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        pass
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def store(port: int, path: Path) -> int:
    with AE().associate("127.0.0.1", port, [build_context(SECONDARY_CAPTURE)]) as assoc:
        return assoc.send_c_store(path)


def test_storescp_stores_by_several_processes(tmp_path: Path):
    sent = dicom_file(tmp_path / "in" / "image.dcm", filling=100)
    with server("storescp", "-od", tmp_path / "out", "-aet", "ARCHIVE", "--workers", 2) as running:
        processes = workers(running, 2)
        assert len({*processes, running.process.pid}) == 3
        for pid in processes:
            with stopped(pid):
                assert store(running.port, sent) == 0x0000
        assert running.stop() == 0
    assert read(tmp_path / "out" / "1.2.3.dcm") == read(sent)
    for number in (1, 2):
        assert f"ARCHIVE.{number}-1: stored 1.2.3.dcm, " in running.said
    assert not any(is_there(pid) for pid in processes)


def test_echoscp_with_tls_and_users_by_several_processes(tmp_path: Path, certificates: Certificates):
    users = tmp_path / "users"
    users.write_text("me:secret\n")
    tls = ("--tls", "--cert", certificates.certificate, "--key", certificates.key)
    with server("echoscp", "--workers", 2, "--users", users, *tls) as running:
        address = ("127.0.0.1", running.port, "--tls", "--ca", certificates.certificate, "--hostname", "localhost")
        assert run("echoscu", *address, "-usr", "me", "-pwd", "secret").code == 0
        assert run("echoscu", *address, "-usr", "me", "-pwd", "wrong").code == 1
        assert running.stop() == 0


def test_the_limit_is_that_of_all_workers():
    contexts = [build_context(VERIFICATION)]
    with server("echoscp", "--workers", 2, "--max-associations", 1) as running:
        with AE().associate("127.0.0.1", running.port, contexts) as assoc:
            assert assoc.send_c_echo() == 0x0000
            with pytest.raises(AssociationRejected):
                AE().associate("127.0.0.1", running.port, contexts)
        assert running.stop() == 0


@pytest.mark.parametrize("more", [(), ("--workers", 2)], ids=["", "workers"])
def test_a_drain_lets_associations_end(tmp_path: Path, more: tuple[object, ...]):
    with server("echoscp", "--drain", 20, *more) as running:
        with AE().associate("127.0.0.1", running.port, [build_context(VERIFICATION)]) as assoc:
            running.process.send_signal(signal.SIGTERM)
            refused(running.port)
            assert assoc.send_c_echo() == 0x0000
            assert running.process.poll() is None
        assert running.process.wait(20) == 0


@pytest.mark.parametrize("more", [(), ("--workers", 2)], ids=["", "workers"])
def test_a_second_ctrl_c_ends_the_drain(more: tuple[object, ...]):
    with server("echoscp", "--drain", 1000, *more) as running:
        assoc = AE().associate("127.0.0.1", running.port, [build_context(VERIFICATION)])
        running.process.send_signal(signal.SIGINT)
        refused(running.port)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 130
        assert assoc.join(20)
        with pytest.raises(AssociationAborted):
            assoc.send_c_echo()


def test_an_address_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("echoscp", "--workers", 2, "-ba", "127.0.0.1", port)
    assert done.code == 1
    assert done.err.startswith(f"rxdicom echoscp: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert done.err.count("\n") == 1


def refused(port: int) -> None:
    """Wait until nobody listens any more."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 20).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            # It waited to be accepted when the last listener closed.
            continue
