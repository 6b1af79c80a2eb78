"""All tables of a run, as text or Markdown: ``python -m tests.benchmarks.report results.json`` prints the Markdown."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import requirements
from .cases import Results, Table, from_json
from .rows import LEGEND
from .sections import SECTIONS

QUICK = "QUICK RUN: counts and sizes are scaled down; it shows that everything works, and nothing about speed."

_CELL = 9


def sections_of(results: Results) -> Iterator[tuple[str, list[Table]]]:
    """The tables of each section that was run, by its name."""
    for name, section in SECTIONS.items():
        if shown := list(section.tables(results)):
            yield name, shown


def as_text(table: Table) -> str:
    """A table for a terminal."""
    name = max(len(cells[0]) for cells in (table.columns, *table.rows))
    whole = [cells for cells in (table.columns, *table.rows) if len(cells) == len(table.columns)]
    widths = [max(_CELL, *(len(cells[column]) + 2 for cells in whole)) for column in range(1, len(table.columns))]

    def line(cells: Sequence[str]) -> str:
        if len(cells) < len(table.columns):  # a failure, in place of all figures
            return f"{cells[0]:<{name}}  {'  '.join(cells[1:])}"
        return f"{cells[0]:<{name}}" + "".join(
            f"{cell:>{width}}" for cell, width in zip(cells[1:], widths, strict=True)
        )

    return "\n".join([table.heading, line(table.columns), *map(line, table.rows), *table.notes])


def as_markdown(table: Table) -> str:
    """A table for the documentation."""

    def line(cells: Sequence[str]) -> str:
        padded = (*cells, *[""] * (len(table.columns) - len(cells)))
        return f"| {' | '.join(cell.replace('|', '/') for cell in padded)} |"

    rule = f"|---|{'---:|' * (len(table.columns) - 1)}"
    notes = "".join(f"\n\n{note}" for note in table.notes)
    return "\n".join([f"**{table.heading}**", "", line(table.columns), rule, *map(line, table.rows)]) + notes


def text(results: Results) -> str:
    """Everything for a terminal."""
    tables = [table for _, several in sections_of(results) for table in several]
    kept = requirements.table(results)
    parts = [as_text(table) for table in (*tables, *([kept] if kept else []))]
    return "\n\n".join([*parts, LEGEND, *([QUICK] if results.quick else [])])


def markdown(results: Results) -> str:
    """Everything for the documentation, each section with the command that repeats it."""
    parts = [_about(results)]
    if kept := requirements.table(results):
        parts.append(as_markdown(kept))
    for name, tables in sections_of(results):
        parts.append(f"### {SECTIONS[name].about[0].upper()}{SECTIONS[name].about[1:]}")
        parts.append(f"```sh\n{results.command} --section {name}\n```")
        parts += [as_markdown(table) for table in tables]
    return "\n\n".join([*parts, f"```text\n{LEGEND}\n```", *([QUICK] if results.quick else [])])


def _about(results: Results) -> str:
    about = results.about
    machine, versions = about.get("machine", {}), about.get("versions", {})
    words = [f"Measured on {about.get('date', 'an unknown day')}: {results.rounds} rounds"]
    words += [f"{machine['cpus']} processors, {machine['platform']}, Python {machine['python']}"] if machine else []
    words += [f"{name} {number}" for name, number in versions.items() if number]
    return ", ".join(words) + "."


def load(path: Path) -> Results:
    """The results that a run has written."""
    return from_json(json.loads(path.read_text()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of a file."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, help="the JSON that the suite wrote")
    parser.add_argument("--text", action="store_true", help="for a terminal instead of Markdown")
    options = parser.parse_args(arguments)
    results = load(options.results)
    print((text if options.text else markdown)(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
