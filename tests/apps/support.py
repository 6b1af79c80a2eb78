"""What the tests of the programs share: running them, as processes and in this one, and small DICOM files."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING

import pydicom
import pytest
from attrs import frozen
from pydicom import FileDataset

from rxdicom import AE
from rxdicom.__main__ import main
from rxdicom.wire.part10 import head_template
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler

DEADLINE = 20.0
"""Seconds that any single thing in a test may take at the most."""
ARC = "1.2.840.10008.5.1.4.1.1."
SECONDARY_CAPTURE = f"{ARC}7"


@frozen
class Outcome:
    """How a program ended and what it said."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Outcome:
    """Run a program as a process of its own."""
    command = [sys.executable, "-m", "rxdicom", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run a program in this process."""
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return Outcome(code, out, err)


class Server:
    """A server program in a process of its own, on a free port; ``said`` is what it wrote to stderr so far."""

    def __init__(self, *arguments: object, interpreter: tuple[str, ...] = (), address: str = "127.0.0.1") -> None:
        command = [sys.executable, *interpreter, "-m", "rxdicom", *map(str, arguments), "-v", "-ba", address, "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = ""
        self.port = 0
        self._listening = threading.Event()
        # Read all the time, or a server that says much would wait for us.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not (self._listening.wait(DEADLINE) and self.port):
            self.close()
            pytest.fail(f"the server does not listen: {self.said}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            listens = re.search(r"listens on \S+:(\d+)", line)
            if listens:
                self.port = int(listens[1])
                self._listening.set()
        self._listening.set()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop. Returns its exit code; ``said`` is all that it said."""
        self.process.send_signal(how)
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def close(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def server(*arguments: object, interpreter: tuple[str, ...] = (), address: str = "127.0.0.1") -> Generator[Server]:
    """A server program that is gone afterwards."""
    running = Server(*arguments, interpreter=interpreter, address=address)
    try:
        yield running
    finally:
        running.close()


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """A data element in explicit VR little endian, of a VR with a length of 16 bits."""
    value += b"\0" * (len(value) % 2)
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def dicom_file(
    path: Path,
    sop_class: str = SECONDARY_CAPTURE,
    instance: str = "1.2.3",
    syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    filling: int = 0,
) -> Path:
    """Write a small DICOM file; what is not explicit VR little endian only claims to be something else."""
    names = {"implementation_class_uid": "1.2.3.4", "implementation_version_name": "TEST"}
    head = head_template(sop_class, syntax, **names).head(instance)
    dataset = element(0x00080016, b"UI", sop_class.encode()) + element(0x00080018, b"UI", instance.encode())
    dataset += element(0x00100010, b"PN", b"DOE^JOHN")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + dataset + element(0x00400010, b"SH", b"x" * filling))
    return path


def read(path: Path) -> FileDataset:
    """The decoded dataset of a file."""
    dataset: FileDataset = pydicom.dcmread(path)  # pyright: ignore[reportUnknownMemberType]
    return dataset


@contextmanager
def provider(
    handlers: "list[EventHandler]", *sop_classes: str, ae: AE | None = None, roles: bool = False
) -> Generator[tuple[str, int]]:
    """An SCP in this process that supports these SOP classes, with ``roles`` in either role; yields its address."""
    ae = ae or AE("PROVIDER")
    for uid in sop_classes:
        if roles:
            ae.add_supported_context(uid, scu_role=True, scp_role=True)
        else:
            ae.add_supported_context(uid)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers) as running:
        yield running.address


class Process:
    """A client program in a process of its own, for what happens while it runs."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "rxdicom", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._said = ""

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait_until_it_says(self, text: str) -> None:
        """Read its stderr up to the line with a text."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said += line
            if text in line:
                return
        pytest.fail(f"it never says {text!r}: {self._said}")

    def outcome(self) -> Outcome:
        """Wait for its end."""
        try:
            out, err = self._process.communicate(timeout=DEADLINE)
        finally:
            self._process.kill()
        return Outcome(self._process.returncode, out, self._said + err)
