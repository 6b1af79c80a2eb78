"""How long single C-ECHOs take inside one association, measured in the process that sends them."""

from collections.abc import Mapping
from statistics import median

from tests.benchmarks.cases import Case, Result, Results, Scale, Section, Table
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import STACKS, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import simple_table

NAME = "latency"
FIGURES = ("p50", "p90", "p99", "p99.9", "max")

_PAIRS = (
    ("rxdicom", "nodelay", 5000),
    ("rxdicom", "rxdicom", 5000),
    ("rxdicom", "pynetdicom", 1000),
    ("pynetdicom", "nodelay", 200),
    ("pynetdicom", "rxdicom", 200),
    ("pynetdicom", "pynetdicom", 200),
    ("bare", "bare", 5000),
)
"""Sender, receiver, and C-ECHOs in a run; fewer of pynetdicom, which loses responses every few thousand messages."""
_QUICK = 20


def cases(scale: Scale) -> list[Case]:
    """Every pair."""
    return [_case(scu, scp, scale.pick(count, _QUICK)) for scu, scp, count in _PAIRS]


def _case(scu: str, scp: str, count: int) -> Case:
    if scu == "bare":
        sender = own("bare", "echo", "{port}", "{count}", "{report}")
    else:
        sender = own("user", scu, "{port}", "ANY-SCP", "echo", "{count}", "{report}")
    title = f"{STACKS[scu].title} → {STACKS[scp].title}" if scu != "bare" else "bare exchange of 80 bytes"
    trial = Trial(Program(sender), STACKS[scp].program("echo_scp"), ({"count": count},))
    return Case(NAME, "echo", f"{scu}-{scp}", title, trial, count, count)


def percentiles(of: Result) -> Mapping[str, float]:
    """Seconds: the median over the rounds of each percentile that the runs tell, and the longest of all."""
    runs = [sample.figures for sample in of.samples]
    told = {name: median(run[name] for run in runs) for name in FIGURES if all(name in run for run in runs)}
    return told | {"max": max(run["max"] for run in runs)}


def tables(results: Results) -> list[Table]:
    """One table, in milliseconds."""
    several = results.of(NAME)
    if not several:
        return []

    def cells(of: Result) -> tuple[str, ...]:
        told = percentiles(of)
        figures = (f"{told[name] * 1e3:.3f}" if name in told else "-" for name in FIGURES)
        return (str(of.count), *figures)

    heading = f"Latency of a C-ECHO inside one association in ms, median of {results.rounds} (max: of all rounds)"
    notes = (
        "without the first of each association, for which both sides load code; - : too few values in a run to tell",
    )
    return [simple_table(heading, ("", "C-ECHOs", *FIGURES), several, cells, notes)]


SECTION = Section(NAME, "latency percentiles of C-ECHO", cases, tables)
