"""Runs one sender against one receiver and measures both. Starts processes, opens sockets, writes below one folder."""

import os
import re
import shutil
import signal
import socket
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from .data import Batch, complaint
from .peers import STACKS, Pair

START_DEADLINE = 30.0
"""Seconds until a receiver must accept connections."""

STOP_DEADLINE = 10.0
"""Seconds from SIGTERM until a receiver must be gone."""

# What DCMTK reads from the environment: never inherited, only given by the tables.
_TUNING = ("TCP_NODELAY", "TCP_BUFFER_LENGTH")

_STOPPED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@frozen
class Ended:
    """A process that is over: its exit code (negative: a signal), seconds from start to end, CPU seconds."""

    code: int
    wall: float
    cpu: float


@frozen
class Running:
    """A process that was started here; ``ended`` is done as soon as it is over and reaped."""

    pid: int
    ended: Future[Ended]
    log: Path


@frozen
class Sample:
    """What one run took: the sender from start to end, CPU seconds of both; or why it does not count."""

    wall: float = 0.0
    cpu_scu: float = 0.0
    cpu_scp: float = 0.0
    failure: str | None = None


class RunFailed(Exception):
    """A run that must not be reported as a time."""


def run(pair: Pair, job: Batch | int, root: Path, timeout: float) -> Sample:
    """Send a batch of files, or that many C-ECHOs, once. Below ``root``, only the two logs are left."""
    folder = root / "received"
    folder.mkdir()
    scu, scp = STACKS[pair.scu], STACKS[pair.scp]
    command, server = (scu.echo_scu, scp.echo_scp) if isinstance(job, int) else (scu.store_scu, scp.store_scp)
    port = _free_port()
    source = {"count": job} if isinstance(job, int) else {"folder": job.folder}
    try:
        with ThreadPoolExecutor(2) as reapers:
            receiver = _start(server, {"port": port, "folder": folder}, scp.environment, root / "scp.log", reapers)
            try:
                _await_listening(receiver, port)
                sender = _start(command, {"port": port, **source}, scu.environment, root / "scu.log", reapers)
                sent = _finish(sender, timeout)
            finally:
                stopped = _stop(receiver, signal.SIGTERM)
        _check_sender(sender, sent)
        if stopped.code not in _STOPPED:
            raise RunFailed(f"the receiver ended with {stopped.code}: {_last_line(receiver.log)}")
        if wrong := complaint(() if isinstance(job, int) else job.contents, folder):
            raise RunFailed(f"received {wrong}")
        return Sample(sent.wall, sent.cpu, stopped.cpu)
    except (RunFailed, OSError) as error:
        return Sample(failure=str(error))
    finally:
        shutil.rmtree(folder)


def _start(
    command: tuple[str, ...], values: dict[str, object], environment: dict[str, str], log: Path, reapers: Executor
) -> Running:
    environment = {name: value for name, value in os.environ.items() if name not in _TUNING} | environment
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    )
    arguments = [argument.format_map(values) for argument in command]
    started = time.perf_counter()
    try:
        pid = os.posix_spawnp(arguments[0], arguments, environment, file_actions=files)
    except FileNotFoundError:
        raise RunFailed(f"{arguments[0]} is not installed") from None
    return Running(pid, reapers.submit(_reap, pid, started), log)


def _reap(pid: int, started: float) -> Ended:
    _, status, usage = os.wait4(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), time.perf_counter() - started, usage.ru_utime + usage.ru_stime)


def _await_listening(receiver: Running, port: int) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while not _accepts(port):
        wait([receiver.ended], timeout=0.02)
        if receiver.ended.done():
            raise RunFailed(f"the receiver did not start: {_last_line(receiver.log)}")
        if time.monotonic() > deadline:
            raise RunFailed(f"the receiver does not listen after {START_DEADLINE:g} s")


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            # Nobody listening, the kernel may have chosen this port for our own end and connected it to itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def _finish(sender: Running, timeout: float) -> Ended:
    try:
        return sender.ended.result(timeout)
    except TimeoutError:
        raise RunFailed(f"timed out after {timeout:g} s") from None
    finally:
        _stop(sender, signal.SIGKILL)


def _stop(process: Running, how: signal.Signals) -> Ended:
    for number in (how, signal.SIGKILL):
        if process.ended.done():
            break
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
        wait([process.ended], timeout=STOP_DEADLINE)
    return process.ended.result()


def _check_sender(sender: Running, sent: Ended) -> None:
    if sent.code:
        raise RunFailed(f"the sender ended with {sent.code}: {_last_line(sender.log)}")
    # DCMTK and pynetdicom end with 0 even where single objects failed, and log errors in such lines.
    if error := re.search(r"^[EF]: .*", sender.log.read_text(errors="replace"), re.MULTILINE):
        raise RunFailed(f"the sender reports: {error[0]}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
