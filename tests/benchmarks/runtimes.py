"""The asyncio runtime against the blocking one, over parallel associations: ``python -m tests.benchmarks.runtimes``.

Each is the SCP, then the SCU, in a process of its own. At the other end are DCMTK's programs, the same for both. The
runs alternate; the ratios are of medians. Nothing is written to disk by the SCPs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from tests.ports import free_port
from tests.support import dcmtk, python, running

from .__main__ import CACHE
from .data import prepare
from .peers import STACKS, WORKLOADS

RUNTIMES = ("threads", "aio", "plain")
"""The blocking one; the one on asyncio, with ``async def`` handlers and with plain ones, which are the same as SCU."""
_DEADLINE = 120
_NODELAY = {**os.environ, **STACKS["nodelay"].environment}


@frozen
class Load:
    """What is stored: so many objects over each of so many associations."""

    folder: Path
    associations: int
    stores: int


@frozen
class Run:
    """What one run took, from the start of the senders to the end of the last."""

    seconds: float
    cpu: float
    """CPU seconds of the runtime's process, its start-up included."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rounds and print a line for each kind of run; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.runtimes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--associations", type=int, default=16)
    parser.add_argument("--stores", type=int, default=100, help="of each association")
    parser.add_argument("--only", choices=["small", "medium"], action="append", help="objects of 4 kB, or of 512 kB")
    parser.add_argument("--role", choices=["scp", "scu"], action="append")
    options = parser.parse_args(arguments)
    for name in options.only or ("small", "medium"):
        shape = WORKLOADS[name].shape
        assert shape is not None
        load = Load(prepare(CACHE, shape, options.stores).folder, options.associations, options.stores)
        for role in options.role or ("scp", "scu"):
            runs: dict[str, list[Run]] = {}
            for _ in range(options.rounds):
                for runtime in RUNTIMES if role == "scp" else RUNTIMES[:2]:
                    runs.setdefault(runtime, []).append(
                        as_scp(runtime, load) if role == "scp" else as_scu(runtime, load)
                    )
            for runtime, found in runs.items():
                print(line(name, role, runtime, found, runs["threads"]), flush=True)
    return 0


def line(name: str, role: str, runtime: str, found: list[Run], reference: list[Run]) -> str:
    """Medians of the runs, and the ratio of the throughputs: above 1 is faster than the reference."""
    seconds, cpu = (statistics.median(getattr(each, what) for each in found) for what in ("seconds", "cpu"))
    ratio = statistics.median(each.seconds for each in reference) / seconds
    spread = (max(each.seconds for each in found) - min(each.seconds for each in found)) / seconds
    return f"{name:<7} {role} {runtime:<8} {seconds:6.2f} s  ±{spread:4.0%}  CPU {cpu:6.2f} s  throughput × {ratio:.2f}"


def as_scp(runtime: str, load: Load) -> Run:
    """DCMTK's storescu, one for each association, all at once."""
    with _peer("scp", runtime) as server:
        port = int(_said(server))
        command = [part.format(port=port, source=load.folder) for part in STACKS["nodelay"].store_scu]
        started = time.perf_counter()
        senders = [subprocess.Popen(command, env=_NODELAY) for _ in range(load.associations)]
        codes = [sender.wait(_DEADLINE) for sender in senders]
        return _run(server, load, time.perf_counter() - started, codes)


def as_scu(runtime: str, load: Load) -> Run:
    """DCMTK's storescp, with a process for each association."""
    port = free_port()
    # As in STACKS, and nothing is written.
    with running(dcmtk("storescp"), "--fork", "--ignore", "-pdu", 131072, port, port=port):
        with _peer("scu", runtime, port, load.folder, load.associations) as sender:
            return _run(sender, load, float(_said(sender)), [])


def _peer(*arguments: str | int | Path) -> "subprocess.Popen[str]":
    command = python("tests.benchmarks.runtimes_peer", *arguments)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _said(peer: "subprocess.Popen[str]") -> str:
    assert peer.stdout is not None
    return peer.stdout.readline()


def _run(peer: "subprocess.Popen[str]", load: Load, seconds: float, codes: list[int]) -> Run:
    """What the peer says at its end; nothing is a run that is not complete."""
    assert peer.stdin is not None
    peer.stdin.close()
    stored, cpu = _said(peer).split()
    if int(stored) != load.associations * load.stores or any(codes):
        raise RuntimeError(f"{stored} objects stored, the senders ended with {codes}")
    return Run(seconds, float(cpu))


if __name__ == "__main__":
    sys.exit(main())
