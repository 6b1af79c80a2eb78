"""How the cost grows with the size of objects, their number, and the number of associations; rxdicom at both ends."""

from collections.abc import Sequence
from statistics import median

from attrs import frozen

from tests.benchmarks.cases import Case, Result, Results, Scale, Section, Table
from tests.benchmarks.data import Shape, prepare
from tests.benchmarks.measure import Trial
from tests.benchmarks.peers import HOST, SMALL, module_run, own
from tests.benchmarks.processes import Program
from tests.benchmarks.rows import FAILED, row, simple_table

from .memory import MEBIBYTE, above_idle

NAME = "growth"

_SENDER = Program(
    own("observed", "{report}", "storescu", "--associations", "{associations}", HOST, "{port}", "{source}")
)
_RECEIVER = Program(
    module_run("rxdicom", "storescp", "--relaxed", "--max-associations", "100", "-od", "{folder}", "{port}")
)
_START = "start"


@frozen
class Point:
    """So many objects of one shape over so many associations of one sender."""

    title: str
    shape: Shape
    count: int
    associations: int = 1


_ONE = Point("one image", SMALL, 1)
_SIZES: dict[str, tuple[Shape, int]] = {
    "4 kB": (SMALL, 400),
    "64 kB": ((256, 128), 400),
    "1 MB": ((1024, 512), 200),
    "16 MB": ((4096, 2048), 16),
    "256 MB": ((16384, 8192), 1),
}
WORKLOADS: dict[str, tuple[str, tuple[Point, ...]]] = {
    "size": ("the size of objects", tuple(Point(title, shape, count) for title, (shape, count) in _SIZES.items())),
    "number": (
        "the number of objects of 4 kB",
        tuple(Point(str(count), SMALL, count) for count in (100, 400, 1600, 6400)),
    ),
    "associations": (
        "the number of associations, 1600 objects of 4 kB in all",
        tuple(Point(str(count), SMALL, 1600, count) for count in (1, 4, 16, 64)),
    ),
}
_QUICK = {
    "size": (Point("4 kB", SMALL, 3), Point("64 kB", (256, 128), 3)),
    "number": (Point("2", SMALL, 2), Point("8", SMALL, 8)),
    "associations": (Point("1", SMALL, 8), Point("4", SMALL, 8, 4)),
}


def cases(scale: Scale) -> list[Case]:
    """Every point, and one image."""
    points = [(name, point) for name in WORKLOADS if scale.wants(name) for point in _points(name, quick=scale.quick)]
    return [
        _case(_START, _ONE, scale, None),
        *(_case(name, point, scale, (_START, _ONE.title)) for name, point in points),
    ]


def _points(name: str, *, quick: bool) -> tuple[Point, ...]:
    return _QUICK[name] if quick else WORKLOADS[name][1]


def _case(name: str, point: Point, scale: Scale, start_up: tuple[str, str] | None) -> Case:
    batch = prepare(scale.data, point.shape, point.count)
    values = {"source": batch.folder, "associations": point.associations}
    trial = Trial(_SENDER, _RECEIVER, (values,), batch.contents)
    return Case(NAME, name, point.title, point.title, trial, point.count, point.count, batch.size, start_up)


def tables(results: Results) -> list[Table]:
    """One table per thing that grows."""
    shown: list[Table] = []
    for name, (title, _) in WORKLOADS.items():
        if several := results.of(NAME, name):
            shown.append(_table(f"Growth with {title}, median of {results.rounds}", several, results))
    return shown


def _table(heading: str, several: Sequence[Result], results: Results) -> Table:
    def cells(of: Result) -> tuple[str, ...]:
        net = row(of, results.start_up_of(of))
        if net.failure:
            return (f"{FAILED} {net.failure}",)
        peaks = zip(*(above_idle(sample) for sample in of.samples), strict=True)
        each = (net.net, net.cpu_scu, net.cpu_scp)
        rate = f"{of.size / net.net / 1e6:.1f}" if net.comparable else "-"
        costs = [f"{seconds / of.count * 1e3:.3g}" if net.comparable else "-" for seconds in each]
        return (str(of.count), f"{net.net:.2f}", rate, *costs, *(f"{median(side) / MEBIBYTE:.0f}" for side in peaks))

    columns = ("", "objects", "net s", "MB/s", "ms each", "CPU scu ms each", "CPU scp ms each", "MiB scu", "MiB scp")
    return simple_table(heading, columns, several, cells, ("MiB: peak resident memory above that of the idle process",))


SECTION = Section(NAME, "cost by object size, number of objects and associations", cases, tables)
