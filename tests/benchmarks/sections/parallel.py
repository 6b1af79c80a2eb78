"""Sixteen senders at once, processes of their own, against one receiver."""

from tests.benchmarks.cases import Case, Results, Scale, Section, Table
from tests.benchmarks.data import Shape, prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import SMALL, STACKS, TUNED, found, module_run, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import heading_of, rows_of, table

NAME = "parallel"
SENDERS = 16

_START = "start"
_WORKLOADS: dict[str, tuple[str, Shape, int, int]] = {
    _START: ("images of 4 kB", SMALL, 1, 1),
    "small": ("images of 4 kB", SMALL, 200, 2),
    "medium": ("images of 512 kB", (512, 512), 50, 2),
}
"""The title, the shape, and how many each sender sends, in a quick run too."""

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
    ("pynetdicom", "pynetdicom", 4),
)
"""Senders, receiver, and how many objects each sender sends if that is a sample."""
_TITLES = {"rxdicom": "rxdicom", "nodelay": "DCMTK nodelay --fork", "pynetdicom": "pynetdicom"}


def cases(scale: Scale) -> list[Case]:
    """Every pair at both workloads and at the minimal one."""
    return [
        _case(name, scu, scp, sample, scale)
        for name in _WORKLOADS
        if scale.wants(name) or name == _START
        for scu, scp, sample in _PAIRS
    ]


def _case(name: str, scu: str, scp: str, sample: int | None, scale: Scale) -> Case:
    _, shape, count, quick = _WORKLOADS[name]
    count = scale.pick(count, quick)
    sent = count if sample is None or scale.full else min(count, sample)
    batch = prepare(scale.data, shape, SENDERS * sent, SENDERS)
    sources = tuple({"source": batch.folder / str(number)} for number in range(SENDERS))
    trial = Trial(STACKS[scu].program("store_scu"), _RECEIVERS[scp], sources, batch.contents)
    size = batch.size * count // sent
    title = f"{STACKS[scu].title} → {_TITLES[scp]}"
    start_up = None if name == _START else (_START, f"{scu}-{scp}")
    return Case(NAME, name, f"{scu}-{scp}", title, trial, SENDERS * count, SENDERS * sent, size, start_up)


def tables(results: Results) -> list[Table]:
    """One table per workload."""
    shown: list[Table] = []
    references = (("nodelay-nodelay", "DCMTK"), ("pynetdicom-pynetdicom", "pynetdicom"))
    for name, (title, *_) in _WORKLOADS.items():
        if name != _START and (rows := rows_of(results, NAME, name)):
            title = f"{SENDERS} associations at once, each {rows[0].count // SENDERS} {title}"
            shown.append(table(heading_of(rows, title, results.rounds), rows, references))
    return shown


SECTION = Section(NAME, f"{SENDERS} senders at once", cases, tables)
