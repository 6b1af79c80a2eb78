"""What several tests need: DICOM files, peers as installed programs, certificates."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from rxdicom.errors import InvalidFile
from rxdicom.runtimes.files import open_part10
from rxdicom.wire.part10 import FileHead

DEADLINE = 20.0
"""Seconds that any single thing in a test may take at the most."""
FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@cache
def storable_files() -> dict[Path, FileHead]:
    """The real DICOM files that ship with pydicom and can be stored, with their heads."""
    found: dict[Path, FileHead] = {}
    for path in sorted(FILES.glob("*.dcm")):
        try:
            head, source = open_part10(str(path))
        except InvalidFile:
            continue
        source.close()
        found[path] = head
    return found


def dataset_bytes(path: Path) -> bytes:
    """The encoded dataset of a file, without what precedes it."""
    head, source = open_part10(str(path))
    source.close()
    return path.read_bytes()[head.offset :]


def read(path: Path) -> Dataset:
    """The decoded dataset of a file, without the group lengths, which are retired and dropped by many a sender."""
    dataset: Dataset = pydicom.dcmread(path, force=True)  # pyright: ignore[reportUnknownMemberType]
    for tag in [tag for tag in dataset._dict if tag.element == 0]:  # pyright: ignore[reportPrivateUsage]
        del dataset[tag]
    return dataset


@cache
def find_dcmtk(program: str) -> str | None:
    """The path of a DCMTK program; pynetdicom installs others of the same names into virtual environments."""
    for folder in os.get_exec_path():
        candidate = shutil.which(program, path=folder)
        if candidate is not None:
            shown = run(candidate, "--version", check=False)
            if "dcmtk" in shown.stdout + shown.stderr:
                return candidate
    return None


def dcmtk(program: str) -> str:
    """The same for a test: where it is absent that is a failure in CI, and a skip elsewhere."""
    found = find_dcmtk(program)
    if found is not None:
        return found
    message = f"DCMTK's {program} is not installed: apt-get install dcmtk"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def listening(port: int, process: "subprocess.Popen[str]") -> None:
    """Wait until a program listens."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"{process.args} ended with {process.returncode}: {process.communicate()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            # Waiting for the program to say something would hang with those that say nothing.
            with socket.socket() as pause:
                pause.settimeout(0.02)
                pause.bind(("127.0.0.1", 0))
                pause.listen()
                try:
                    pause.accept()
                except TimeoutError:
                    continue
        else:
            return
    pytest.fail(f"{process.args} does not listen on port {port}")


@contextmanager
def running(*command: str | Path | int, port: int) -> "Generator[subprocess.Popen[str]]":
    """A server program, as long as the block lasts."""
    arguments = [str(part) for part in command]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        listening(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE)


def run(*command: str | Path | int, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """A client program, run to its end."""
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
    if check:
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def python(*arguments: str | Path | int) -> tuple[str, ...]:
    """A command that runs a module with the Python of the tests."""
    return (sys.executable, "-m", *(str(each) for each in arguments))


def threads_and_descriptors() -> tuple[int, int]:
    """How many threads and file descriptors this process has."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
