"""One run: senders against one receiver, both measured. Starts processes, opens sockets, writes below one folder."""

import json
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from attrs import evolve, field, frozen

from tests.ports import free_ports

from .data import Content, complaint
from .processes import (
    STOPPED,
    Ended,
    Program,
    RunFailed,
    Running,
    await_listening,
    finish,
    start,
    stop,
)
from .programs import memory

PROGRAMS = Path(memory.__file__).parent

_RELAY = Program((sys.executable, str(PROGRAMS / "relay.py"), "{port}", "{target}", "{delay}"))


@frozen
class Trial:
    """What one run does: all senders at once against one receiver, if there is one.

    Commands are filled in with ``{port}`` to connect to or listen on, ``{folder}`` for what is received, ``{report}``
    for figures that the (only) sender tells, ``{spare}`` a free port, and the values that ``senders`` gives to each.
    """

    sender: Program
    receiver: Program | None = None
    senders: tuple[Mapping[str, object], ...] = field(factory=lambda: (dict[str, object](),))
    expected: tuple[Content, ...] = ()
    """What must have arrived."""
    said: tuple[str, ...] = ()
    """What the senders must have said, those that do not fail by themselves where something is missing."""
    delay: float = 0.0
    """Seconds by which a relay between them delays each direction; 0 for none."""


@frozen
class Sample:
    """What one run took: the senders from start to end, CPU seconds of both sides; or why it does not count."""

    wall: float = 0.0
    cpu_scu: float = 0.0
    cpu_scp: float = 0.0
    memory_scp: int = 0
    """The most resident memory of the receiver above that of the idle one, in bytes."""
    figures: Mapping[str, float] = field(factory=dict[str, float])
    """What the sender told of itself."""
    failure: str | None = None


def run(trial: Trial, root: Path, timeout: float, *, keep: bool = False) -> Sample:
    """Do it once. Below ``root``, only logs are left, and with ``keep`` what was received."""
    folder, report = root / "received", root / "report.json"
    folder.mkdir()
    try:
        with ThreadPoolExecutor(len(trial.senders) + 2) as reapers:
            sample = _measure(trial, root, {"folder": folder, "report": report}, reapers, timeout)
        if wrong := complaint(trial.expected, folder):
            raise RunFailed(f"received {wrong}")
        return evolve(sample, figures=json.loads(report.read_text())) if report.exists() else sample
    except (RunFailed, OSError) as error:
        return Sample(failure=str(error))
    finally:
        if keep:
            folder.rename(Path(tempfile.mkdtemp(dir=root)) / folder.name)
        else:
            shutil.rmtree(folder)
        report.unlink(missing_ok=True)


def _measure(trial: Trial, root: Path, common: Mapping[str, object], reapers: Executor, timeout: float) -> Sample:
    target, relayed, spare = free_ports(3)
    port = relayed if trial.delay else target
    values = {**common, "spare": spare}
    with ExitStack() as stack:
        receiver = None
        if trial.receiver:
            receiver = start(trial.receiver, {**values, **trial.senders[0], "port": target}, root / "scp.log", reapers)
            stack.callback(stop, receiver, signal.SIGTERM)
            await_listening(receiver, target)
        if trial.delay:
            link = {"port": port, "target": target, "delay": trial.delay}
            relay = start(_RELAY, link, root / "relay.log", reapers)
            stack.callback(stop, relay, signal.SIGTERM)
            await_listening(relay, port)
        idle = _mark(receiver)
        senders: list[Running] = []
        for number, given in enumerate(trial.senders):
            log = root / f"scu{number or ''}.log"
            senders.append(start(trial.sender, {**values, **given, "port": port}, log, reapers))
            stack.callback(stop, senders[-1], signal.SIGKILL)
        ended = finish(senders, timeout)
        memory_scp = memory.peak(receiver.pid) - idle if receiver and not receiver.ended.done() else 0
    for sender, end in zip(senders, ended, strict=True):
        _check(sender, end, trial.said)
    stopped = receiver.ended.result() if receiver else None
    if receiver and stopped and stopped.code not in STOPPED:
        raise RunFailed(f"the receiver ended with {stopped.code}: {receiver.last_line}")
    wall = max(each.ended for each in ended) - min(each.began for each in ended)
    return Sample(wall, sum(each.cpu for each in ended), stopped.cpu if stopped else 0.0, memory_scp)


def _mark(receiver: Running | None) -> int:
    """The resident memory of the idle receiver, above which its peak is counted from now on."""
    if receiver is None:
        return 0
    try:
        memory.reset(receiver.pid)
        return memory.resident(receiver.pid)
    except OSError:
        raise RunFailed(f"the receiver ended too early: {receiver.last_line}") from None


def _check(sender: Running, end: Ended, expected: tuple[str, ...]) -> None:
    if end.code:
        raise RunFailed(f"the sender ended with {end.code}: {sender.last_line}")
    # DCMTK and pynetdicom end with 0 even where single objects failed, and log errors in such lines.
    said = sender.log.read_text(errors="replace")
    if error := re.search(r"^[EF]: .*", said, re.MULTILINE):
        raise RunFailed(f"the sender reports: {error[0]}")
    if missing := [line for line in expected if line not in said]:
        raise RunFailed(f"the sender does not say: {missing[0]}")
