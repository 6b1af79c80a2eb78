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
from typing import Any, NoReturn

from .cases import Case, Plan, Results, Scale, Section, as_json, plan, result
from .measure import Sample, run
from .peers import WORKLOADS, found
from .report import text
from .rows import failure_of
from .sections import SECTIONS, basic, memory

CACHE = Path(__file__).parents[2] / ".benchmarks"
MEMORY = Path("/dev/shm/rxdicom-benchmarks")
ROUNDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return 0, or 1 if any run failed."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    options.output.mkdir(parents=True, exist_ok=True)
    scale = Scale(CACHE, options.quick, options.full, tuple(options.only))
    sections = [SECTIONS[name] for name in options.section]
    _check_room(options, _most_of(sections, options.quick))
    chosen = [(section, chosen_of(section.cases(scale), options.only, options.pair)) for section in sections]
    cases = [case for _, several in chosen for case in several]
    if not cases:
        print("nothing matches --section, --only and --pair together", file=sys.stderr)
        return 2
    if options.keep:
        _check_room(options, options.rounds * sum(case.size for case in cases))
    samples = _run(plan(options.rounds, [(section.turns, several) for section, several in chosen]), options)
    results = Results(
        tuple(result(case, samples[case.section, case.workload, case.pair]) for case in cases),
        options.rounds,
        options.quick,
        _command(options),
        _about(options),
    )
    print(text(results))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(results), indent=1, ensure_ascii=False))
    print(f"\nwritten to {options.json}", file=sys.stderr)
    return int(failure_of(*results.cases) is not None)


def chosen_of(cases: Sequence[Case], workloads: Sequence[str], pairs: Sequence[str]) -> list[Case]:
    """Return the cases of these workloads and patterns of pairs, and those whose time is subtracted from theirs."""
    starts = {(case.section, *case.start_up) for case in cases if case.start_up}

    def key(case: Case) -> tuple[str, str, str]:
        return case.section, case.workload, case.pair

    def matches(case: Case) -> bool:
        wanted = not workloads or case.workload in workloads
        return key(case) not in starts and wanted and any(fnmatchcase(case.pair, each) for each in pairs)

    kept = [case for case in cases if matches(case)]
    needed = {(case.section, *case.start_up) for case in kept if case.start_up}
    return [case for case in cases if case in kept or key(case) in needed]


def _run(steps: Plan, options: argparse.Namespace) -> dict[tuple[str, str, str], list[Sample]]:
    samples: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    width = len(str(len(steps)))
    with tempfile.TemporaryDirectory(prefix="run-", dir=options.output) as root:
        for number, (turn, case) in enumerate(steps, 1):
            place = f"[{number:>{width}}/{len(steps)}] round {turn + 1}/{options.rounds}"
            what = f"{case.section:<8}  {case.workload:<12}  {case.pair:<21}  {case.sent:>5} ×"
            print(f"{place}  {what}", end="  ", file=sys.stderr, flush=True)
            sample = run(case.trial, Path(root), options.timeout, keep=options.keep)
            samples[case.section, case.workload, case.pair].append(sample)
            outcome = f"FAILED {sample.failure}" if sample.failure else f"{sample.wall:8.2f} s"
            print(outcome, file=sys.stderr, flush=True)
    return samples


def _most_of(sections: Sequence[Section], quick: bool) -> int:
    """Bytes that one run receives at the most."""
    return memory.QUICK_SIZE if quick else memory.SIZE if memory.SECTION in sections else 1 << 29


def _check_room(options: argparse.Namespace, most: int) -> None:
    """End here, and say so, where so many bytes would not fit."""
    if (free := shutil.disk_usage(options.output).free) < most * 5 // 4:
        sys.exit(f"{options.output} has {free / 1e9:.1f} GB free, {most * 5 / 4e9:.1f} GB are needed: see --output")


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # unwinding, so that the programs started here are stopped too


def _command(options: argparse.Namespace) -> str:
    """The command that repeats this, but for the sections."""
    words = ["python -m tests.benchmarks"]
    words += [f"--rounds {options.rounds}"] if options.rounds != ROUNDS else []
    words += [f"--{name}" for name in ("quick", "full") if getattr(options, name)]
    if options.output != CACHE / "output":
        words.append("--memory" if options.output == MEMORY else f"--output {options.output}")
    words += ["--keep"] if options.keep else []
    return " ".join(words)


def _about(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": str(options.output),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("rxdicom", "pynetdicom", "pydicom")}
        | {"dcmtk": _dcmtk_version()},
    }


def _dcmtk_version() -> str | None:
    try:
        done = subprocess.run([found("storescu"), "--version"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.split("\n")[0].split(" v")[-1].split()[0]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    about = ", ".join(f"{name} ({section.about})" for name, section in SECTIONS.items())
    parser.add_argument("--section", action="append", choices=SECTIONS, help=f"run this (repeatable): {about}")
    parser.add_argument("--all", action="store_true", help="run all sections (default: basic)")
    parser.add_argument("--rounds", type=int, help=f"rounds of all runs (default: {ROUNDS}, quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a smoke run, scaled down: not a measurement")
    parser.add_argument("--full", action="store_true", help="send all objects in the sampled pairs too (very slow)")
    parser.add_argument(
        "--only", action="append", default=[], help=f"this workload (repeatable); of basic: {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--pair", action="append", help="pairs matching this pattern (repeatable), nodelay-* for one")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, default=CACHE / "output", help="folder where receivers write")
    where.add_argument(
        "--memory", dest="output", action="store_const", const=MEMORY, help=f"the same as --output {MEMORY}"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="delete what was received at the end only: right after many were deleted a file system may be slow to make"
        " files (ext4 without a journal looks for inodes of older ones)",
    )
    parser.add_argument("--json", type=Path, default=CACHE / "results.json", help="file for the results")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a sender (default: 600)")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("at least one round is needed")
    options.section = list(SECTIONS) if options.all else list(dict.fromkeys(options.section or [basic.NAME]))
    options.pair = options.pair or ["*"]
    return options


if __name__ == "__main__":
    sys.exit(main())
