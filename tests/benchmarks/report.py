"""Turns samples into medians, ratios, a table and JSON. Pure: touches nothing."""

from collections.abc import Sequence
from statistics import median

from attrs import asdict, evolve, frozen

from .measure import Sample
from .peers import PAIRS, REFERENCES

NOISE = 0.02
"""Seconds: what a run took beyond its start-up is not compared or made a rate if it is less."""

LEGEND = f"""\
wall      median seconds of the sender's process from start to end
net       wall without start-up: minus the median wall of the same two programs at the same rounds with the minimal job,
          one C-ECHO or one image of 4 kB (so what this one object itself takes is subtracted too)
spread    (slowest - fastest) / median of the walls measured
CPU       median user + system seconds of sender and receiver, without start-up as above
÷ X       net divided by the net of X → X in this run: below 1 is faster than that
*         fewer objects sent than the heading says: net and CPU are scaled up in proportion, and wall is start-up + net
-         not comparable: not run, failed, or net as measured less than {NOISE:g} s, lost in the noise of the start-up\
"""


@frozen
class Row:
    """The result of one pair for one workload of ``count`` objects with ``size`` dataset bytes altogether.

    Times are seconds, scaled from the ``sent`` objects to ``count``; they mean nothing if there is a ``failure``.
    """

    workload: str
    pair: str
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


def row(
    workload: str, pair: str, count: int, sent: int, size: int, runs: Sequence[Sample], start_ups: Sequence[Sample]
) -> Row:
    """Return the medians of ``runs`` without those of ``start_ups``; one failed run makes the whole row a failure."""
    blank = Row(workload, pair, count, sent, size)
    for what, samples in (("", runs), ("start-up ", start_ups)):
        if reasons := [sample.failure for sample in samples if sample.failure]:
            return evolve(blank, failure=f"{what}{len(reasons)} of {len(samples)}: {reasons[0]}")

    def without_start_up(time: str) -> float:
        work, start_up = (median(getattr(sample, time) for sample in samples) for samples in (runs, start_ups))
        return (work - start_up) * count / sent

    walls, net = [sample.wall for sample in runs], without_start_up("wall")
    return evolve(
        blank,
        wall=median(sample.wall for sample in start_ups) + net,
        net=net,
        spread=(max(walls) - min(walls)) / median(walls),
        cpu_scu=without_start_up("cpu_scu"),
        cpu_scp=without_start_up("cpu_scp"),
    )


def ratios(of: Row, rows: Sequence[Row]) -> dict[str, float | None]:
    """Return net seconds divided by those of each reference pair for the same workload; None if they do not compare."""
    references = {row.pair: row for row in rows if row.workload == of.workload}

    def ratio(reference: Row | None) -> float | None:
        return of.net / reference.net if reference and of.comparable and reference.comparable else None

    return {name: ratio(references.get(name)) for name in REFERENCES}


def table(heading: str, rows: Sequence[Row]) -> str:
    """Return one workload's rows as text; a failed one has its reason where the others have times."""
    titles = ("wall s", "net s", "spread", "ms each", "MB/s", "CPU scu", "CPU scp")
    names = [PAIRS[row.pair].title + ("*" if row.sent < row.count else "") for row in rows]
    header = _line("", (*titles, *(f"÷ {PAIRS[name].scu}" for name in REFERENCES)))
    body = [
        _line(name, _cells(row, rows)) if row.failure is None else f"{name:<{_NAME}}  FAILED {row.failure}"
        for name, row in zip(names, rows, strict=True)
    ]
    return "\n".join([heading, header, *body])


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows with their ratios as plain data; a failed one has no times."""
    times = ("wall", "net", "spread", "cpu_scu", "cpu_scp")
    plain = [(row, asdict(row) | {"ratios": ratios(row, rows)}) for row in rows]
    return [
        {name: value for name, value in values.items() if row.failure is None or name not in times}
        for row, values in plain
    ]


_NAME, _CELL = 32, 9


def _cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    each = f"{row.net / row.count * 1e3:.3g}" if row.comparable else "-"
    rate = f"{row.size / row.net / 1e6:.1f}" if row.size and row.comparable else "-"
    times = (f"{row.wall:.2f}", f"{row.net:.2f}", f"{row.spread:.0%}", each, rate)
    compared = ("-" if ratio is None else f"{ratio:.3f}" for ratio in ratios(row, rows).values())
    return (*times, f"{row.cpu_scu:.2f}", f"{row.cpu_scp:.2f}", *compared)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{max(_CELL, len(cell) + 2)}}" for cell in cells)
