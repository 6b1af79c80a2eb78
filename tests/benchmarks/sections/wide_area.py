"""A wide-area link: a relay between sender and receiver that delays each direction."""

from tests.benchmarks.cases import Case, Results, Scale, Section, Table
from tests.benchmarks.data import prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import HOST, SMALL, STACKS, module_run
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import heading_of, rows_of, table

NAME = "wan"
DELAY = 0.025
"""Seconds, each way."""
WORKLOAD, _START = "small", "start"

_COUNT, _QUICK = 2000, 4


def _window(most: int) -> tuple[Program, Program]:
    sender = ("storescu", "--window", str(most), HOST, "{port}", "{source}")
    receiver = ("storescp", "--relaxed", "--window", "32", "-od", "{folder}", "{port}")
    return Program(module_run("rxdicom", *sender)), Program(module_run("rxdicom", *receiver))


def _stack(name: str) -> tuple[Program, Program]:
    return STACKS[name].program("store_scu"), STACKS[name].program("store_scp")


_PAIRS = {
    "window-1": ("rxdicom, window 1", _window(1), 100),
    "window-8": ("rxdicom, window 8", _window(8), 800),
    "window-32": ("rxdicom, window 32", _window(32), None),
    "nodelay-nodelay": ("DCMTK nodelay", _stack("nodelay"), 40),
    "pynetdicom-pynetdicom": ("pynetdicom", _stack("pynetdicom"), 40),
}
"""The title, sender and receiver, and how many objects are sent if that is a sample (each takes a round trip)."""


def cases(scale: Scale) -> list[Case]:
    """Every pair, and each with one image."""
    return [_case(name, pair, scale) for name in (_START, WORKLOAD) for pair in _PAIRS]


def _case(name: str, pair: str, scale: Scale) -> Case:
    title, (sender, receiver), sample = _PAIRS[pair]
    count = 1 if name == _START else scale.pick(_COUNT, _QUICK)
    sent = count if sample is None or scale.full else min(count, sample)
    batch = prepare(scale.data, SMALL, sent)
    trial = Trial(sender, receiver, ({"source": batch.folder},), batch.contents, delay=DELAY)
    start_up = None if name == _START else (_START, pair)
    return Case(NAME, name, pair, title, trial, count, sent, batch.size * count // sent, start_up)


def tables(results: Results) -> list[Table]:
    """One table."""
    rows = rows_of(results, NAME, WORKLOAD)
    if not rows:
        return []
    title = f"A link with {DELAY * 1e3:g} ms each way: images of 4 kB × {rows[0].count}"
    references = (("window-1", "window 1"), ("nodelay-nodelay", "DCMTK"), ("pynetdicom-pynetdicom", "pynetdicom"))
    return [table(heading_of(rows, title, results.rounds), rows, references)]


SECTION = Section(NAME, f"a wide-area link of {DELAY * 1e3:g} ms each way", cases, tables)
