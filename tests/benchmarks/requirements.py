"""What the figures are held to, and whether they keep it: ratios within one run of the suite. Pure: touches nothing."""

from collections.abc import Iterator
from statistics import median

from attrs import frozen

from .cases import Results, Table
from .peers import WORKLOADS
from .rows import NOISE, Row, failure_of, found, ratio, rows_of
from .sections import basic, events, memory, start_up, wide_area


@frozen
class Requirement:
    """One sentence, what was measured, and the bound; ``at_least`` turns "at most" around."""

    what: str
    measured: float | None
    bound: float
    at_least: bool = False

    @property
    def is_kept(self) -> bool | None:
        """None if it was not measured, or could not be."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def requirements(results: Results) -> list[Requirement]:
    """All that this run has something to say about."""
    return [*_basic(results), *_wide_area(results), *_events(results), *_memory(results), *_start_up(results)]


def table(results: Results) -> Table | None:
    """The requirements as a table; None if nothing was measured, or scaled down."""
    if results.quick:
        return None
    said = {True: "yes", False: "NO", None: "not measured"}
    rows = tuple(
        (
            each.what,
            "-" if each.measured is None else f"{each.measured:.3g}",
            f"{'≥' if each.at_least else '≤'} {each.bound:g}",
            said[each.is_kept],
        )
        for each in requirements(results)
    )
    return Table("What it must show", ("", "measured", "required", "kept"), rows) if rows else None


def _basic(results: Results) -> Iterator[Requirement]:
    for name, workload in WORKLOADS.items():
        if rows := rows_of(results, basic.NAME, name):
            yield from _against_dcmtk(rows, workload.title)
            yield from _against_others(rows, name, workload.title)


def _against_dcmtk(rows: list[Row], title: str) -> Iterator[Requirement]:
    reference = found(rows, "nodelay-nodelay")
    for pair, role, side in (("nodelay-rxdicom", "SCP", "cpu_scp"), ("rxdicom-nodelay", "SCU", "cpu_scu")):
        ours = found(rows, pair)
        yield Requirement(f"{title}: net as {role}, ÷ tuned DCMTK with itself", ratio(ours, reference), 1.0)
        yield Requirement(f"{title}: CPU as {role}, ÷ DCMTK's in that role", _cpu(ours, reference, side), 1.5)
    both = ratio(found(rows, "rxdicom-rxdicom"), reference)
    yield Requirement(f"{title}: net at both ends, ÷ tuned DCMTK with itself", both, 0.8)


def _against_others(rows: list[Row], name: str, title: str) -> Iterator[Requirement]:
    ours = found(rows, "rxdicom-rxdicom")
    if name in ("small", "medium"):
        times = ratio(found(rows, "stock-stock"), ours)
        yield Requirement(f"{title}: times faster than stock DCMTK with itself", times, 20, at_least=True)
    times = ratio(found(rows, "pynetdicom-pynetdicom"), ours)
    yield Requirement(f"{title}: times faster than pynetdicom with itself", times, 20, at_least=True)
    if name == "large":
        yield Requirement(f"{title}: net, ÷ the bare copy", ratio(ours, found(rows, "bare-bare")), 1.5)


def _cpu(ours: Row | None, theirs: Row | None, side: str) -> float | None:
    if ours is None or theirs is None or ours.failure or theirs.failure:
        return None
    mine, other = getattr(ours, side), getattr(theirs, side)
    return mine / other if min(mine, other) >= NOISE else None


def _wide_area(results: Results) -> Iterator[Requirement]:
    if rows := rows_of(results, wide_area.NAME, wide_area.WORKLOAD):
        times = ratio(found(rows, "window-1"), found(rows, "window-32"))
        yield Requirement("25 ms each way: window 32, times faster than window 1", times, 15, at_least=True)


def _events(results: Results) -> Iterator[Requirement]:
    if rows := rows_of(results, events.NAME, events.WORKLOAD):
        for pair, where in (("receiver", "receiver"), ("sender", "sender")):
            measured = ratio(found(rows, pair), found(rows, events.PLAIN))
            yield Requirement(f"One PDU subscriber at the {where}, ÷ none", measured, 1.1)


def _memory(results: Results) -> Iterator[Requirement]:
    for each in results.of(memory.NAME):
        roles, *_ = memory.WORKLOADS[each.workload]
        peaks = [] if failure_of(each) else [memory.above_idle(sample) for sample in each.samples]
        for role, side in zip(roles, zip(*peaks, strict=True) if peaks else (None, None), strict=True):
            most = max(side) / memory.MEBIBYTE if side else None
            yield Requirement(f"Object of {each.size / 1e9:.1f} GB, {role}: MiB above idle", most, 64)


def _start_up(results: Results) -> Iterator[Requirement]:
    walls = {
        each.pair: median(sample.wall for sample in each.samples)
        for each in results.of(start_up.NAME)
        if not failure_of(each)
    }
    if not walls:
        return
    python, imported = walls.get(start_up.PYTHON), walls.get(start_up.IMPORT)
    above = imported - python if python and imported else None
    yield Requirement("from rxdicom import AE, evt: seconds above bare Python", above, 0.1)
    yield Requirement("rxdicom echoscu with a local peer: seconds", walls.get(start_up.OURS), 0.25)
