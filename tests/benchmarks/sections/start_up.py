"""How long programs take that do next to nothing."""

import sys
from statistics import median

from tests.benchmarks.cases import Case, Result, Results, Scale, Section, Table
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import STACKS
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import simple_table

NAME = "start"
WORKLOAD = "start-up"
PYTHON, IMPORT, OURS = "python", "import", "rxdicom"

_PROGRAMS = {
    PYTHON: ("python -c pass", Program((sys.executable, "-c", "pass"))),
    IMPORT: ("from rxdicom import AE, evt", Program((sys.executable, "-c", "from rxdicom import AE, evt"))),
    OURS: ("rxdicom echoscu", STACKS["rxdicom"].program("echo_scu")),
    "nodelay": ("DCMTK echoscu", STACKS["nodelay"].program("echo_scu")),
    "pynetdicom": ("pynetdicom echoscu", STACKS["pynetdicom"].program("echo_scu")),
}
"""The last three send one C-ECHO to DCMTK's storescp on this machine."""
_WITHOUT_PEER = (PYTHON, IMPORT)


def cases(_: Scale) -> list[Case]:
    """Each program."""
    peer = STACKS["nodelay"].program("echo_scp")
    return [
        Case(NAME, WORKLOAD, name, title, Trial(program, None if name in _WITHOUT_PEER else peer, ({"count": 1},)))
        for name, (title, program) in _PROGRAMS.items()
    ]


def tables(results: Results) -> list[Table]:
    """One table."""
    several = results.of(NAME)
    if not several:
        return []

    def cells(of: Result) -> tuple[str, ...]:
        walls = [sample.wall for sample in of.samples]
        cpu = median(sample.cpu_scu for sample in of.samples)
        return tuple(f"{seconds:.3f}" for seconds in (median(walls), min(walls), max(walls), cpu))

    heading = f"Start-up in seconds, median of {results.rounds * SECTION.turns}"
    return [simple_table(heading, ("", "wall", "fastest", "slowest", "CPU"), several, cells)]


SECTION = Section(NAME, "start-up of programs", cases, tables, turns=3)
