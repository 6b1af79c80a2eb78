"""Sixteen senders at once, processes of their own, against one receiver."""

from attrs import evolve

from tests.benchmarks.cases import Case, Results, Scale, Section, Table
from tests.benchmarks.data import prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import SMALL, STACKS, TUNED, found, module_run, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import heading_of, rows_of, table

NAME = "parallel"
SENDERS = 16

WORKLOAD, _START = "small", "start"

_COUNT, _QUICK = 200, 2
"""Images of 4 kB that each sender sends."""

_FORK = Program((found("storescp"), *TUNED, "--fork", "-od", "{folder}", "{port}"), STACKS["nodelay"].environment)
_RECEIVERS = {
    "rxdicom": Program(
        module_run("rxdicom", "storescp", "--relaxed", "--max-associations", "32", "-od", "{folder}", "{port}")
    ),
    "nodelay": _FORK,
    # Its own storescp serves no more than ten associations at a time.
    "pynetdicom": Program(own("archive", "pynetdicom", "{port}", "--output", "{folder}")),
}
_PAIRS = (
    ("rxdicom", "rxdicom", None),
    ("rxdicom", "nodelay", None),
    ("nodelay", "rxdicom", None),
    ("nodelay", "nodelay", None),
    ("pynetdicom", "pynetdicom", 10),
)
"""Senders, receiver, and how many objects each sender sends if that is a sample."""
_TITLES = {"rxdicom": "rxdicom", "nodelay": "DCMTK nodelay --fork", "pynetdicom": "pynetdicom"}


def cases(scale: Scale) -> list[Case]:
    """Every pair, and each with one image a sender."""
    return [_case(name, *pair, scale) for name in (_START, WORKLOAD) for pair in _PAIRS]


def _case(name: str, scu: str, scp: str, sample: int | None, scale: Scale) -> Case:
    count = 1 if name == _START else scale.pick(_COUNT, _QUICK)
    sent = count if sample is None or scale.full else min(count, sample)
    batch = prepare(scale.data, SMALL, SENDERS * sent, SENDERS)
    sources = tuple({"source": batch.folder / str(number)} for number in range(SENDERS))
    trial = Trial(STACKS[scu].program("store_scu"), _RECEIVERS[scp], sources, batch.contents)
    pair, title = f"{scu}-{scp}", f"{STACKS[scu].title} → {_TITLES[scp]}"
    size = batch.size * count // sent
    start_up = None if name == _START else (_START, pair)
    return Case(NAME, name, pair, title, trial, SENDERS * count, SENDERS * sent, size, start_up)


def tables(results: Results) -> list[Table]:
    """One table."""
    rows = rows_of(results, NAME, WORKLOAD)
    if not rows:
        return []
    title = f"{SENDERS} associations at once, each {rows[0].count // SENDERS} images of 4 kB"
    references = (("nodelay-nodelay", "DCMTK"), ("pynetdicom-pynetdicom", "pynetdicom"))
    shown = table(heading_of(rows, title, results.rounds), rows, references)
    return [evolve(shown, notes=("CPU scp with --fork lacks the children that storescp had not waited for yet",))]


SECTION = Section(NAME, f"{SENDERS} senders at once", cases, tables)
