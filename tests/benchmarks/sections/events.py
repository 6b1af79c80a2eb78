"""What it costs to observe: event streams without subscribers, and with one for all PDUs."""

from tests.benchmarks.cases import Case, Results, Scale, Section, Table
from tests.benchmarks.data import prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import SMALL, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import heading_of, rows_of, table

NAME = "events"
WORKLOAD, _START = "medium", "start"
PLAIN = "plain"

_COUNT, _QUICK = 400, 3
_PAIRS = {
    PLAIN: ("streams untouched", "plain", "plain"),
    "stream": ("streams without subscribers", "stream", "stream"),
    "receiver": ("one PDU subscriber at the receiver", "plain", "subscribed"),
    "sender": ("one PDU subscriber at the sender", "subscribed", "plain"),
}
"""The title, and what sender and receiver do."""


def cases(scale: Scale) -> list[Case]:
    """Every way to observe, and each with one image."""
    return [_case(name, pair, scale) for name in (_START, WORKLOAD) for pair in _PAIRS]


def _case(name: str, pair: str, scale: Scale) -> Case:
    title, sender, receiver = _PAIRS[pair]
    count = 1 if name == _START else scale.pick(_COUNT, _QUICK)
    batch = prepare(scale.data, SMALL if name == _START else (512, 512), count)
    trial = Trial(
        Program(own("watched", "send", "{port}", "{source}", sender)),
        Program(own("watched", "receive", "{port}", "{folder}", receiver)),
        ({"source": batch.folder},),
        batch.contents,
    )
    start_up = None if name == _START else (_START, pair)
    return Case(NAME, name, pair, title, trial, count, count, batch.size, start_up)


def tables(results: Results) -> list[Table]:
    """One table."""
    rows = rows_of(results, NAME, WORKLOAD)
    if not rows:
        return []
    title = f"Event streams, rxdicom at both ends: images of 512 kB × {rows[0].count}"
    return [table(heading_of(rows, title, results.rounds * SECTION.turns), rows, ((PLAIN, "untouched"),))]


SECTION = Section(NAME, "the cost of event streams", cases, tables, turns=2)
