"""Objects far larger than the memory that may be used for them: sent and received, pushed, got and moved.

Every side is a process of its own, and measured at its worst moment against itself with nothing, or little, to do.
"""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from rxdicom import AE, evt
from rxdicom.events.records import CStore
from rxdicom.sop_class import SecondaryCaptureImageStorage
from rxdicom.wire.part10 import head_template, read_head
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import Server, server
from tests.memory import MEBIBYTE, Memory
from tests.support import DEADLINE

SIZE = 200 * MEBIBYTE
MOST = 16
"""Mebibytes; a dataset of 1 MiB may be in memory, and buffers are."""
INSTANCE = "1.2.826.0.1.3680043.10.1"
LAST_PIXELS = b"the end."

PROGRAM = """
import re, sys
from rxdicom.__main__ import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""
"""A program that says at its end how many kibibytes it had in memory at the most."""

ARCHIVE = """
import sys
from rxdicom import AE, evt
from rxdicom.presentation import QueryRetrievePresentationContexts

path, destination = sys.argv[1], int(sys.argv[2])

def get(event):
    yield 1
    yield 0xFF00, path

def move(event):
    yield "127.0.0.1", destination
    yield from get(event)

ae = AE("ARCHIVE")
ae.supported_contexts = QueryRetrievePresentationContexts
# As the file is: to convert it, it would have to be decoded.
ae.add_supported_context("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.2.1", scu_role=True, scp_role=True)
ae.add_requested_context("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.2.1")
server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_GET, get), (evt.EVT_C_MOVE, move)])
print(server.address[1], flush=True)
sys.stdin.read()
ae.shutdown()
"""
"""An SCP that has one instance, for everybody, and one destination."""


def large_file(path: Path, size: int) -> Path:
    """A Part 10 file with so many bytes of pixel data, most of them a hole in the file."""
    sop_class = str(SecondaryCaptureImageStorage)
    names = {"implementation_class_uid": "1.2.3.4", "implementation_version_name": "TEST"}
    head = head_template(sop_class, EXPLICIT_VR_LITTLE_ENDIAN, **names).head(INSTANCE)
    elements = b"".join(
        tag + b"UI" + len(uid).to_bytes(2, "little") + uid.encode()
        for tag, uid in ((b"\x08\0\x16\0", f"{sop_class}\0"), (b"\x08\0\x18\0", INSTANCE))
    )
    elements += b"\x20\0\x0d\0UI" + len(INSTANCE).to_bytes(2, "little") + INSTANCE.encode()
    with path.open("wb") as file:
        file.write(head + elements + b"\xe0\x7f\x10\0OB\0\0" + size.to_bytes(4, "little"))
        file.seek(size - len(LAST_PIXELS), os.SEEK_CUR)
        file.write(LAST_PIXELS)
    return path


def is_whole(stored: Path, size: int) -> bool:
    """Whether a stored file has all of the pixel data, and its end in its place."""
    with stored.open("rb") as file:
        head = read_head(file.read(8192))
        assert head is not None
        file.seek(-len(LAST_PIXELS) - size % 2, os.SEEK_END)
        return stored.stat().st_size > head.offset + size and file.read(len(LAST_PIXELS)) == LAST_PIXELS


def peak(*arguments: object) -> float:
    """Mebibytes that a client program had at the most."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=6 * DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


@contextmanager
def archive(path: Path, destination: int = 1) -> Generator[tuple[int, int]]:
    """Process and port of an :data:`ARCHIVE`."""
    command = [sys.executable, "-c", ARCHIVE, str(path), str(destination)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.communicate(timeout=DEADLINE)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return large_file(tmp_path / "small.dcm", 2 * MEBIBYTE)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return large_file(tmp_path / "large.dcm", SIZE)


@pytest.fixture
def storing(tmp_path: Path) -> Generator[Server]:
    with server("storescp", "--relaxed", "-od", tmp_path / "stored") as running:
        yield running


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_stored_from_a_file_to_a_file(small: Path, large: Path, storing: Server, tmp_path: Path) -> None:
    little = peak("storescu", "-q", "127.0.0.1", storing.port, small)
    only_file(tmp_path / "stored").unlink()
    memory = Memory(storing.process.pid)
    assert peak("storescu", "-q", "127.0.0.1", storing.port, large) - little < MOST
    assert memory.most() < MOST
    assert is_whole(only_file(tmp_path / "stored"), SIZE)


def test_got(small: Path, large: Path, tmp_path: Path) -> None:
    keys = ("-k", f"StudyInstanceUID={INSTANCE}", "--relaxed")
    with archive(small) as (_, port):
        little = peak("getscu", "-q", "127.0.0.1", port, *keys, "-od", tmp_path / "little")
    with archive(large) as (pid, port):
        memory = Memory(pid)
        assert peak("getscu", "-q", "127.0.0.1", port, *keys, "-od", tmp_path / "stored") - little < MOST
        assert memory.most() < MOST
    assert is_whole(only_file(tmp_path / "stored"), SIZE)


def test_moved(large: Path, storing: Server, tmp_path: Path) -> None:
    move = ("-q", "-k", f"StudyInstanceUID={INSTANCE}", "-aem", "STORESCP", "127.0.0.1")
    with archive(large, storing.port) as (pid, port):
        memory, receiving = Memory(pid), Memory(storing.process.pid)
        peak("movescu", *move, port)
        assert memory.most() < MOST
        assert receiving.most() < MOST
    assert is_whole(only_file(tmp_path / "stored"), SIZE)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["spooled there", "spooled elsewhere"])
def test_saving_what_was_spooled_is_a_rename(small: Path, tmp_path: Path, elsewhere: bool) -> None:
    """Within a file system, whichever folder it is."""
    spool, folder = tmp_path / "spool", tmp_path / "folder"
    spool.mkdir()
    folder.mkdir()
    inodes: list[int] = []

    def store(event: CStore) -> int:
        assert event.path is not None
        inodes.append(os.stat(event.path).st_ino)
        event.save(folder / "saved.dcm")
        inodes.append(os.stat(folder / "saved.dcm").st_ino)
        assert event.path == str(folder / "saved.dcm")
        return 0x0000

    ae = AE()
    ae.limits = evolve(ae.limits, memory=1024)
    ae.spool_folder = str(spool if elsewhere else folder)
    ae.add_supported_context(SecondaryCaptureImageStorage, EXPLICIT_VR_LITTLE_ENDIAN)
    ae.add_requested_context(SecondaryCaptureImageStorage, EXPLICIT_VR_LITTLE_ENDIAN)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]) as listening:
        with ae.associate(*listening.address) as assoc:
            assert assoc.send_c_store(small) == 0x0000
    assert inodes[0] == inodes[1]
    assert [each.name for each in (*spool.iterdir(), *folder.iterdir())] == ["saved.dcm"]
    assert is_whole(folder / "saved.dcm", 2 * MEBIBYTE)
