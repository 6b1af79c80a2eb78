"""What the sections of the suite are made of, and what comes of them. Pure: touches nothing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from .measure import Sample, Trial

Plan = Sequence[tuple[int, "Case"]]
"""Round and case of each run, in order."""


@frozen
class Scale:
    """How much is done, and where what is sent is kept."""

    cache: Path
    quick: bool = False
    """A smoke run: less and smaller, and nothing about speed."""
    full: bool = False
    """Everything, also where otherwise a sample is sent and scaled."""
    only: tuple[str, ...] = ()
    """The workloads that are wanted, empty for all."""

    def wants(self, workload: str) -> bool:
        """Whether a workload is to be run, so that its data are needed."""
        return not self.only or workload in self.only

    def pick(self, count: int, quick: int) -> int:
        """How much to do."""
        return quick if self.quick else count

    @property
    def data(self) -> Path:
        """Where images are kept."""
        return self.cache / "data"


@frozen
class Case:
    """One row of a table, and what each of its runs does."""

    section: str
    workload: str
    pair: str
    title: str
    trial: Trial
    count: int = 1
    """The objects that the table speaks of."""
    sent: int = 1
    """Those that a run sends, to be scaled to ``count``."""
    size: int = 0
    """Dataset bytes of ``count`` objects."""
    start_up: tuple[str, str] | None = None
    """Workload and pair, in the same section, whose runs are subtracted."""


@frozen
class Result:
    """What came of a case: its samples, one per round."""

    section: str
    workload: str
    pair: str
    title: str
    count: int
    sent: int
    size: int
    start_up: tuple[str, str] | None
    samples: tuple[Sample, ...]


@frozen
class Results:
    """What came of a run of the suite."""

    cases: tuple[Result, ...]
    rounds: int = 1
    quick: bool = False
    command: str = "python -m tests.benchmarks"
    """The command that repeats it, without a section."""
    about: Mapping[str, Any] = field(factory=dict[str, Any])
    """Date, machine and versions."""

    def of(self, section: str, workload: str | None = None) -> list[Result]:
        """Those of a section, or one workload of it, in their order."""
        return [
            each for each in self.cases if each.section == section and (workload is None or each.workload == workload)
        ]

    def start_up_of(self, result: Result) -> Result | None:
        """The minimal job whose time is subtracted from this one's, if there is one."""
        if result.start_up is None:
            return None
        workload, pair = result.start_up
        return next(each for each in self.of(result.section, workload) if each.pair == pair)


@frozen
class Table:
    """A table as it is shown: a heading, the titles of its columns (the first that of the rows), rows of cells."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@frozen
class Section:
    """One part of the suite."""

    name: str
    about: str
    cases: Callable[[Scale], Sequence[Case]]
    tables: Callable[[Results], Sequence[Table]]
    turns: int = 1
    """How often each round runs all of it, for what is short."""


def plan(rounds: int, sections: Sequence[tuple[int, Sequence[Case]]]) -> Plan:
    """Return all runs: in each round every case of a workload has its turn, every other time in reverse order.

    A section is the number of its turns and its cases. Start-up is a workload too, so that work and start-up meet the
    same disturbances.
    """
    steps: list[tuple[int, Case]] = []
    for number in range(rounds):
        for turns, cases in sections:
            for turn in range(number * turns, (number + 1) * turns):
                for workload in dict.fromkeys(case.workload for case in cases):
                    several = [case for case in cases if case.workload == workload]
                    steps += [(number, case) for case in several[:: -1 if turn % 2 else 1]]
    return steps


def result(case: Case, samples: Sequence[Sample]) -> Result:
    """What came of a case."""
    fields = asdict(case, recurse=False, filter=lambda attribute, _: attribute.name != "trial")
    return Result(**fields, samples=tuple(samples))


def as_json(results: Results) -> dict[str, Any]:
    """Plain data; a sample that failed has no times."""
    plain = asdict(results)
    for each in plain["cases"]:
        each["samples"] = [
            {"failure": sample["failure"]} if sample["failure"] else sample for sample in each["samples"]
        ]
    return plain


def from_json(plain: Mapping[str, Any]) -> Results:
    """The inverse of :func:`as_json`."""
    cases = (
        Result(
            **each
            | {
                "start_up": tuple(each["start_up"]) if each["start_up"] else None,
                "samples": tuple(Sample(**sample) for sample in each["samples"]),
            }
        )
        for each in plain["cases"]
    )
    return Results(tuple(cases), plain["rounds"], plain["quick"], plain["command"], plain["about"])
