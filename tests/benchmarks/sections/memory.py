"""The memory that an object of 2 GB takes, in every role."""

from statistics import median

from tests.benchmarks.cases import Case, Result, Results, Scale, Section, Table
from tests.benchmarks.data import Batch, prepare_sparse
from tests.benchmarks.measure import Sample, Trial
from tests.benchmarks.peers import HOST, module_run, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import simple_table

NAME = "memory"
SIZE, QUICK_SIZE = 1 << 31, 1 << 22
"""Bytes of pixel data."""
MEBIBYTE = 1 << 20

_CT = "CTImageStorage"
_QUERY = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=2.25.1", HOST, "{port}")
_KEEP = ("--relaxed", "-od", "{folder}")
_OBSERVED = own("observed", "{report}")
_RECEIVE = module_run("rxdicom", "storescp", *_KEEP, "{port}")
_ARCHIVE = own("archive", "rxdicom", "{port}", "--instances", "{source}", "--destination", "{spare}")

WORKLOADS = {
    "store": (
        ("storescu (SCU of C-STORE)", "storescp (SCP of C-STORE)"),
        (*_OBSERVED, "storescu", HOST, "{port}", "{source}"),
        _RECEIVE,
    ),
    "get": (
        ("getscu (SCU of C-GET, stores)", "a server (SCP of C-GET, sends)"),
        (*_OBSERVED, "getscu", "--storage", _CT, *_KEEP, *_QUERY),
        _ARCHIVE,
    ),
    "move": (
        ("movescu --store (SCU of C-MOVE, stores)", "a server (SCP of C-MOVE, sends)"),
        (*_OBSERVED, "movescu", "--store", "--store-port", "{spare}", *_KEEP, *_QUERY),
        _ARCHIVE,
    ),
}
"""The titles of both roles, and their commands."""


def cases(scale: Scale) -> list[Case]:
    """Each operation once."""
    wanted = [name for name in WORKLOADS if scale.wants(name)]
    batch = prepare_sparse(scale.data, scale.pick(SIZE, QUICK_SIZE)) if wanted else None
    return [_case(name, batch) for name in wanted if batch]


def _case(name: str, batch: Batch) -> Case:
    (scu, scp), sender, receiver = WORKLOADS[name]
    trial = Trial(Program(sender), Program(receiver), ({"source": batch.folder},), batch.contents)
    return Case(NAME, name, "rxdicom-rxdicom", f"{scu} ← → {scp}", trial, size=batch.size)


def above_idle(sample: Sample) -> tuple[float, float]:
    """The bytes by which the peaks of sender and receiver are above what they have when idle."""
    return sample.figures["peak"] - sample.figures["idle"], sample.memory_scp


def tables(results: Results) -> list[Table]:
    """One table, a row for each operation."""
    several = results.of(NAME)
    if not several:
        return []

    def cells(of: Result) -> tuple[str, ...]:
        peaks = [above_idle(sample) for sample in of.samples]
        scu, scp = (max(side) / MEBIBYTE for side in zip(*peaks, strict=True))
        return (f"{scu:.0f}", f"{scp:.0f}", f"{median(sample.wall for sample in of.samples):.1f}")

    heading = f"Peak resident memory above that of the idle process in MiB, for one object of {several[0].size} bytes"
    columns = ("", "requestor", "server", "wall s")
    notes = (f"the highest of {results.rounds}; idle is a program that is loaded, before its first use of the network",)
    return [simple_table(heading, columns, several, cells, notes)]


SECTION = Section(NAME, "memory of an object of 2 GB", cases, tables)
