"""Starts the programs of a run, waits for them, stops them. Touches processes, their logs and ports of the loopback."""

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen

START_DEADLINE = 30.0
"""Seconds until a receiver must accept connections."""

STOP_DEADLINE = 10.0
"""Seconds from SIGTERM until a receiver must be gone."""

# What DCMTK reads from the environment: never inherited, only given by the tables.
_TUNING = ("TCP_NODELAY", "TCP_BUFFER_LENGTH")

STOPPED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of a program that was stopped by SIGTERM."""


class RunFailed(Exception):
    """A run that must not be reported as a time."""


@frozen
class Program:
    """A command; ``{port}`` and other values are filled in when it is started."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class Ended:
    """A process that is over: its exit code (negative: a signal), when it began and ended, CPU seconds.

    CPU time is user + system, of the process and of those children that it waited for.
    """

    code: int
    began: float
    ended: float
    cpu: float


@frozen
class Running:
    """A process that was started here; ``ended`` is done as soon as it is over and reaped."""

    pid: int
    ended: Future[Ended]
    log: Path

    @property
    def last_line(self) -> str:
        """What it said last."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def start(program: Program, values: Mapping[str, object], log: Path, reapers: Executor) -> Running:
    """Start a program, which writes into a log. Raises :class:`RunFailed`."""
    inherited = {name: value for name, value in os.environ.items() if name not in _TUNING}
    write = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    )
    arguments = [argument.format_map(values) for argument in program.command]
    began = time.perf_counter()
    try:
        pid = os.posix_spawnp(arguments[0], arguments, inherited | dict(program.environment), file_actions=files)
    except FileNotFoundError:
        raise RunFailed(f"{arguments[0]} is not installed") from None
    return Running(pid, reapers.submit(_reap, pid, began), log)


def _reap(pid: int, began: float) -> Ended:
    _, status, usage = os.wait4(pid, 0)
    ended = time.perf_counter()
    return Ended(os.waitstatus_to_exitcode(status), began, ended, usage.ru_utime + usage.ru_stime)


def await_listening(receiver: Running, port: int) -> None:
    """Return when a program accepts connections. Raises :class:`RunFailed`."""
    deadline = time.monotonic() + START_DEADLINE
    while not _accepts(port):
        wait([receiver.ended], timeout=0.02)
        if receiver.ended.done():
            raise RunFailed(f"the receiver did not start: {receiver.last_line}")
        if time.monotonic() > deadline:
            raise RunFailed(f"the receiver does not listen after {START_DEADLINE:g} s")


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            # Nobody listening, the kernel may have chosen this port for our own end and connected it to itself.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


def finish(senders: Sequence[Running], timeout: float) -> list[Ended]:
    """Wait for all of them. Raises :class:`RunFailed`."""
    ended = [each.ended for each in senders]
    if wait(ended, timeout).not_done:
        raise RunFailed(f"timed out after {timeout:g} s")
    return [each.result() for each in ended]


def stop(process: Running, how: signal.Signals) -> Ended:
    """End a process, by SIGKILL if the signal does not do it in time."""
    for number in (how, signal.SIGKILL):
        if process.ended.done():
            break
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
        wait([process.ended], timeout=STOP_DEADLINE)
    return process.ended.result()
