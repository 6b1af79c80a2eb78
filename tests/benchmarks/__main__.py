"""The command line of the benchmarks. Writes below ``.benchmarks``, the folder of ``--output`` and the JSON file."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from attrs import asdict

from .data import Batch, prepare
from .measure import Sample, run
from .peers import PAIRS, START_UPS, WORKLOADS, Workload
from .report import LEGEND, Row, as_json, row, table

CACHE = Path(__file__).parents[2] / ".benchmarks"

ALL = WORKLOADS | START_UPS

Plan = list[tuple[int, str, str]]
"""Round, workload and pair of each run, in order."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0, or 1 if any run failed."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    pairs = [name for name in PAIRS if any(fnmatchcase(name, pattern) for pattern in options.pair)]
    steps = plan(options.rounds, options.only, pairs)
    sends = {(name, pair): PAIRS[pair].sends(_count(ALL[name], options.quick), options.full) for _, name, pair in steps}
    needed = dict.fromkeys((name, sent) for (name, _), sent in sends.items())
    jobs = {(name, sent): _job(ALL[name], sent, options.quick) for name, sent in needed}
    samples: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.output) as root:
        for number, (turn, name, pair) in enumerate(steps, 1):
            sent = sends[name, pair]
            place = f"[{number:>{len(str(len(steps)))}}/{len(steps)}] round {turn + 1}/{options.rounds}"
            print(f"{place}  {name:<11}  {pair:<21}  {sent:>4} ×", end="  ", file=sys.stderr, flush=True)
            sample = run(PAIRS[pair], jobs[name, sent], Path(root), options.timeout)
            samples[name, pair].append(sample)
            outcome = f"FAILED {sample.failure}" if sample.failure else f"{sample.wall:8.2f} s"
            print(outcome, file=sys.stderr, flush=True)

    def result(name: str, pair: str) -> Row:
        workload, sent = WORKLOADS[name], sends[name, pair]
        job, count = jobs[name, sent], _count(workload, options.quick)
        size = sum(length for length, _ in job.contents) * count // sent if isinstance(job, Batch) else 0
        return row(name, pair, count, sent, size, samples[name, pair], samples[workload.start_up, pair])

    rows = [result(name, pair) for name in options.only for pair in pairs]
    _print(rows, options.quick, options.rounds)
    _write(options, rows, samples)
    return int(any(line.failure for line in rows))


def plan(rounds: int, workloads: Sequence[str], pairs: Sequence[str]) -> Plan:
    """Return all runs: in each round every pair has its turn at each workload, every other round in reverse order.

    Each round also measures the start-up of every pair, so that work and start-up meet the same disturbances.
    """
    names = [*dict.fromkeys(WORKLOADS[name].start_up for name in workloads), *workloads]
    return [(turn, name, pair) for turn in range(rounds) for name in names for pair in pairs[:: -1 if turn % 2 else 1]]


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # unwinding, so that the programs started here are stopped too


def _count(workload: Workload, quick: bool) -> int:
    return workload.quick_count if quick else workload.count


def _job(workload: Workload, count: int, quick: bool) -> Batch | int:
    shape = workload.quick_shape if quick else workload.shape
    if shape is None:
        return count
    print(f"preparing {count} × {shape[0]}×{shape[1]} pixels", file=sys.stderr, flush=True)
    return prepare(CACHE / "data", shape, count)


def _print(rows: Sequence[Row], quick: bool, rounds: int) -> None:
    for name in dict.fromkeys(line.workload for line in rows):
        workload, of = WORKLOADS[name], [line for line in rows if line.workload == name]
        megabytes = f", {of[0].size / 1e6:.1f} MB" if of[0].size else ""
        scaled = f"  [QUICK: scaled down from {workload.count} × {workload.title}]" if quick else ""
        heading = f"{workload.title} × {of[0].count}{megabytes}, median of {rounds}{scaled}"
        print(table(heading, of), end="\n\n")
    print(LEGEND)
    if quick:
        print("\nQUICK RUN: counts and sizes are scaled down; it shows that everything works, and nothing about speed.")


def _write(options: argparse.Namespace, rows: Sequence[Row], samples: dict[tuple[str, str], list[Sample]]) -> None:
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "rounds": options.rounds,
        "output": str(options.output),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("rxdicom", "pynetdicom", "pydicom")}
        | {"dcmtk": _dcmtk_version()},
        "legend": LEGEND.splitlines(),
        "rows": as_json(rows),
        "runs": [
            {"workload": name, "pair": pair, "round": turn} | asdict(sample)
            for (name, pair), several in samples.items()
            for turn, sample in enumerate(several)
        ],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False))
    print(f"\nwritten to {options.json}", file=sys.stderr)


def _dcmtk_version() -> str | None:
    if (program := shutil.which("storescu")) is None:
        return None
    return subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout.split("\n")[0]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of all runs (default: 3, quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a smoke run, scaled down: not a measurement")
    parser.add_argument("--full", action="store_true", help="send all objects in the sampled pairs too (very slow)")
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="this workload (repeatable)")
    parser.add_argument("--pair", action="append", help=f"pairs matching this pattern (repeatable): {', '.join(PAIRS)}")
    parser.add_argument("--output", type=Path, default=CACHE / "output", help="folder where receivers write")
    parser.add_argument("--json", type=Path, default=CACHE / "results.json", help="file for the results")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a sender (default: 600)")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else 3
    if options.rounds < 1:
        parser.error("at least one round is needed")
    options.only = list(dict.fromkeys(options.only or WORKLOADS))
    options.pair = options.pair or ["*"]
    if not any(fnmatchcase(name, pattern) for name in PAIRS for pattern in options.pair):
        parser.error(f"no pair matches {' or '.join(options.pair)}; there are {', '.join(PAIRS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
