"""C-ECHO and C-STORE over one association, between all stacks."""

from collections.abc import Mapping, Sequence

from tests.benchmarks.cases import Case, Results, Scale, Section, Table
from tests.benchmarks.data import Batch, prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import AT_ONCE, PAIRS, REFERENCES, STACKS, START_UPS, WORKLOADS, Pair, Workload
from tests.benchmarks.rows import NOISE, Row, heading_of, rows_of, table

NAME = "basic"


def cases(scale: Scale) -> list[Case]:
    """Every pair at every workload, and at the minimal ones."""
    wanted = {name: workload for name, workload in WORKLOADS.items() if scale.wants(name)}
    minimal = {workload.start_up: START_UPS[workload.start_up] for workload in wanted.values()}
    return [
        *(_case(name, workload, pair, scale, None) for name, workload in minimal.items() for pair in PAIRS.values()),
        *(
            _case(name, workload, pair, scale, (workload.start_up, pair.name))
            for name, workload in wanted.items()
            for pair in PAIRS.values()
        ),
    ]


def _case(name: str, workload: Workload, pair: Pair, scale: Scale, start_up: tuple[str, str] | None) -> Case:
    count = scale.pick(workload.count, workload.quick_count)
    sent = pair.sends(count, scale.full)
    shape = workload.quick_shape if scale.quick else workload.shape
    batch = prepare(scale.data, shape, sent) if shape else None
    size = batch.size * count // sent if batch else 0
    trial = _trial(pair, sent, batch, AT_ONCE if start_up is None else {})
    return Case(NAME, name, pair.name, pair.title, trial, count, sent, size, start_up)


def _trial(pair: Pair, count: int, batch: Batch | None, environment: Mapping[str, str]) -> Trial:
    task = "echo" if batch is None else "store"
    scu = STACKS[pair.scu].program(f"{task}_scu", environment)
    scp = STACKS[pair.scp].program(f"{task}_scp", environment)
    if batch is None:
        return Trial(scu, scp, ({"count": count},))
    return Trial(scu, scp, ({"source": batch.folder},), batch.contents)


def tables(results: Results) -> list[Table]:
    """One table per workload, and what each gigabyte costs."""
    shown: list[Table] = []
    references = [(name, STACKS[PAIRS[name].scu].title) for name in REFERENCES]
    for name, workload in WORKLOADS.items():
        if rows := rows_of(results, NAME, name):
            heading = heading_of(rows, f"{workload.title} × {rows[0].count}", results.rounds)
            shown.append(table(heading, rows, references))
    return shown + _per_gigabyte(results)


def _per_gigabyte(results: Results) -> list[Table]:
    rows = {name: rows_of(results, NAME, name) for name in ("medium", "large")}
    pairs = {each.pair: each.title for several in rows.values() for each in several}
    if not pairs:
        return []
    columns = ("", *(f"{WORKLOADS[name].title}: {side}" for name in rows for side in ("scu", "scp", "both")))
    cells = [
        (title, *(cell for several in rows.values() for cell in _gigabyte(several, pair)))
        for pair, title in pairs.items()
    ]
    return [Table("CPU seconds per GB (10⁹ bytes), from the same runs", columns, tuple(cells))]


def _gigabyte(rows: Sequence[Row], pair: str) -> tuple[str, ...]:
    of = next((each for each in rows if each.pair == pair), None)
    if of is None or not of.comparable:
        return ("-", "-", "-")
    if min(of.cpu_scu, of.cpu_scp) * of.sent / of.count < NOISE:
        return ("-", "-", "-")
    return tuple(f"{cpu / of.size * 1e9:.2f}" for cpu in (of.cpu_scu, of.cpu_scp, of.cpu_scu + of.cpu_scp))


SECTION = Section(NAME, "C-ECHO and C-STORE over one association", cases, tables)
