"""Turns samples of transfers into medians, ratios and tables. Pure: touches nothing."""

from collections.abc import Callable, Sequence
from statistics import median

from attrs import evolve, frozen

from .cases import Result, Results, Table
from .measure import Sample

NOISE = 0.02
"""Seconds: what a run took beyond its start-up is not compared or made a rate if it is less."""

LEGEND = f"""\
wall      median seconds from the start of the (first) sender's process to the end of the (last) one
net       wall without start-up: minus the median wall of the same programs at the same rounds with the minimal job,
          one C-ECHO or one image of 4 kB without stalls (so what this one object itself takes is subtracted too)
spread    (slowest - fastest) / median of the walls measured
CPU       median user + system seconds of senders and receiver, without start-up as above
÷ X       net divided by the net of X in this run: below 1 is faster than that
*         fewer objects sent than the heading says: net and CPU are scaled up in proportion, and wall is start-up + net
-         not comparable: not run, failed, or net as measured less than {NOISE:g} s, lost in the noise of the start-up\
"""

FAILED = "FAILED"

References = Sequence[tuple[str, str]]
"""The pairs that others are compared with, and what their columns are called."""


@frozen
class Row:
    """The result of one pair for one workload of ``count`` objects with ``size`` dataset bytes altogether.

    Times are seconds, scaled from the ``sent`` objects to ``count``; they mean nothing if there is a ``failure``.
    """

    workload: str
    pair: str
    title: str
    count: int
    sent: int
    size: int
    wall: float = 0.0
    net: float = 0.0
    spread: float = 0.0
    cpu_scu: float = 0.0
    cpu_scp: float = 0.0
    failure: str | None = None

    @property
    def comparable(self) -> bool:
        return self.failure is None and self.net * self.sent / self.count >= NOISE

    @property
    def name(self) -> str:
        """The title, marked if this is scaled."""
        return self.title + ("*" if self.sent < self.count else "")


def failure_of(*results: Result | None) -> str | None:
    """What went wrong, in how many of the runs; None if nothing did: one failed run makes the whole a failure."""
    for each in results:
        reasons = [sample.failure for sample in each.samples if sample.failure] if each else []
        if each and reasons:
            what = "" if each is results[0] else "start-up "
            return f"{what}{len(reasons)} of {len(each.samples)}: {reasons[0]}"
    return None


def row(of: Result, start_up: Result | None) -> Row:
    """Return the medians of the runs without those of the start-up."""
    blank = Row(of.workload, of.pair, of.title, of.count, of.sent, of.size)
    if failure := failure_of(of, start_up):
        return evolve(blank, failure=failure)

    def time(samples: Sequence[Sample], name: str) -> float:
        return median(getattr(sample, name) for sample in samples)

    def without_start_up(name: str) -> float:
        subtracted = time(start_up.samples, name) if start_up else 0.0
        return (time(of.samples, name) - subtracted) * of.count / of.sent

    walls, net = [sample.wall for sample in of.samples], without_start_up("wall")
    return evolve(
        blank,
        wall=(time(start_up.samples, "wall") if start_up else 0.0) + net,
        net=net,
        spread=(max(walls) - min(walls)) / median(walls),
        cpu_scu=without_start_up("cpu_scu"),
        cpu_scp=without_start_up("cpu_scp"),
    )


def rows_of(results: Results, section: str, workload: str) -> list[Row]:
    """The rows of one workload."""
    return [row(each, results.start_up_of(each)) for each in results.of(section, workload)]


def ratio(of: Row | None, to: Row | None) -> float | None:
    """The net seconds of one divided by those of another; None if they do not compare."""
    return of.net / to.net if of and to and of.comparable and to.comparable else None


def found(rows: Sequence[Row], pair: str) -> Row | None:
    """The row of a pair, if it was run."""
    return next((each for each in rows if each.pair == pair), None)


def ratios(of: Row, rows: Sequence[Row], references: References) -> dict[str, float | None]:
    """Return net seconds divided by those of each reference pair for the same workload; None if they do not compare."""
    same = [each for each in rows if each.workload == of.workload]
    return {name: ratio(of, found(same, name)) for name, _ in references}


def table(heading: str, rows: Sequence[Row], references: References) -> Table:
    """Return one workload's rows as a table; a failed one has its reason where the others have times."""
    columns = ("", "wall s", "net s", "spread", "ms each", "MB/s", "CPU scu", "CPU scp")
    return Table(
        heading,
        (*columns, *(f"÷ {title}" for _, title in references)),
        tuple(_cells(each, rows, references) for each in rows),
    )


def _cells(of: Row, rows: Sequence[Row], references: References) -> tuple[str, ...]:
    if of.failure is not None:
        return (of.name, f"{FAILED} {of.failure}")
    each = f"{of.net / of.count * 1e3:.3g}" if of.comparable else "-"
    rate = f"{of.size / of.net / 1e6:.1f}" if of.size and of.comparable else "-"
    times = (f"{of.wall:.2f}", f"{of.net:.2f}", f"{of.spread:.0%}", each, rate)
    compared = ("-" if value is None else f"{value:.3f}" for value in ratios(of, rows, references).values())
    return (of.name, *times, f"{of.cpu_scu:.2f}", f"{of.cpu_scp:.2f}", *compared)


def simple_table(
    heading: str,
    columns: tuple[str, ...],
    results: Sequence[Result],
    cells: Callable[[Result], Sequence[str]],
    notes: tuple[str, ...] = (),
) -> Table:
    """A table with a row for each result: what ``cells`` says, or why it failed."""

    def line(each: Result) -> tuple[str, ...]:
        failure = failure_of(each)
        return (each.title, f"{FAILED} {failure}") if failure else (each.title, *cells(each))

    return Table(heading, columns, tuple(line(each) for each in results), notes)


def heading_of(of: Sequence[Row], title: str, rounds: int) -> str:
    """What was done how often, for the head of a table."""
    megabytes = f", {of[0].size / 1e6:.1f} MB" if of and of[0].size else ""
    return f"{title}{megabytes}, median of {rounds}"
