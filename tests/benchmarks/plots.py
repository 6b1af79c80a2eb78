"""Plots of a run: ``python -m tests.benchmarks.plots results.json`` writes SVG files, by default into docs/images.

Needs matplotlib, which the extra ``benchmarks`` brings. The same results make the same files.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from . import rows
from .cases import Result, Results
from .peers import WORKLOADS
from .report import load
from .rows import Row, failure_of, rows_of
from .sections import basic, growth, latency, memory, parallel, query, wide_area

FOLDER = Path(__file__).parents[2] / "docs" / "images"

_OURS, _THEIRS = "#2b6cb0", "#a0aec0"
_SETTINGS = {"svg.hashsalt": "rxdicom", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_WIDTH, _PER_BAR = 7.0, 0.24


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what there are results for; returns the files."""
    # No stubs that pyright could read come with it, and nothing else in the suite needs it.
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with pyplot.rc_context(_SETTINGS):
        for name, figure in _figures(results, pyplot):
            path = folder / f"{name}.svg"
            figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})
            pyplot.close(figure)
            written.append(path)
    return written


def _figures(results: Results, pyplot: Any) -> Iterator[tuple[str, Any]]:
    transfers = (
        *((basic.NAME, name, workload.title) for name, workload in WORKLOADS.items()),
        (parallel.NAME, parallel.WORKLOAD, f"{parallel.SENDERS} associations at once, images of 4 kB"),
        (wide_area.NAME, wide_area.WORKLOAD, "images of 4 kB, 25 ms each way"),
        (query.NAME, query.FIND, "C-FIND, small matches"),
        (query.NAME, query.GET, "C-GET, images of 4 kB"),
    )
    for section, name, title in transfers:
        shown = [row for row in rows_of(results, section, name) if row.comparable]
        if shown:
            yield f"{section}-{name}", _bars(pyplot, title, shown)
    told = [each for each in results.of(latency.NAME) if not failure_of(each)]
    if told:
        yield latency.NAME, _latencies(pyplot, told)
    for name, (title, _) in growth.WORKLOADS.items():
        points = [(each, rows.row(each, results.start_up_of(each))) for each in results.of(growth.NAME, name)]
        if comparable := [(each, of) for each, of in points if of.comparable]:
            yield f"{growth.NAME}-{name}", _growth(pyplot, title, comparable)


def _bars(pyplot: Any, title: str, shown: Sequence[Row]) -> Any:
    """Milliseconds of each object, on a logarithmic scale: stalls are factors of hundreds."""
    figure, axes = pyplot.subplots(figsize=(_WIDTH, 0.8 + _PER_BAR * len(shown)))
    each = [row.net / row.count * 1e3 for row in shown]
    names = [row.name for row in shown]
    colours = [_OURS if "rxdicom" in row.title else _THEIRS for row in shown]
    bars = axes.barh(range(len(shown)), each, color=colours)
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter("")
    axes.bar_label(bars, [f" {milliseconds:.3g}" for milliseconds in each])
    axes.set_xlabel(f"ms each, without start-up: {title}")
    return figure


def _latencies(pyplot: Any, told: Sequence[Result]) -> Any:
    figure, axes = pyplot.subplots(figsize=(_WIDTH, 3.6))
    for each in told:
        figures = latency.percentiles(each)
        names = [name for name in latency.FIGURES if name in figures]
        positions = [latency.FIGURES.index(name) for name in names]
        style = "-" if each.pair.startswith("rxdicom") else "--"
        axes.plot(positions, [figures[name] * 1e3 for name in names], style, marker="o", label=each.title)
    axes.set_yscale("log")
    axes.set_xticks(range(len(latency.FIGURES)), latency.FIGURES)
    axes.set_ylabel("ms, one C-ECHO")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _growth(pyplot: Any, title: str, told: Sequence[tuple[Result, Row]]) -> Any:
    """Time, CPU and memory, each against what grows."""
    points, costs = [each for each, _ in told], [row for _, row in told]
    by_size = len({each.size // each.count for each in points}) > 1
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(_WIDTH + 2, 2.8), layout="constrained")
    lines: tuple[tuple[Any, str, Callable[[Row], float]], ...] = (
        (left, "net", lambda row: row.net),
        (middle, "sender", lambda row: row.cpu_scu),
        (middle, "receiver", lambda row: row.cpu_scp),
    )
    ticks = range(len(points))
    for axes, name, of in lines:
        figures = [of(row) / (row.size / 1e6 if by_size else row.count / 1e3) for row in costs]
        axes.plot(ticks, figures, marker="o", label=name)
        if by_size and min(figures) > 0:  # from milliseconds for what is small to nothing for what is large
            axes.set_yscale("log")
    unit = "MB" if by_size else "1000 objects"
    left.set_ylabel(f"seconds per {unit}")
    middle.set_ylabel(f"CPU seconds per {unit}")
    for name, side in (("sender", 0), ("receiver", 1)):
        peaks = [max(memory.above_idle(sample)[side] for sample in each.samples) / memory.MEBIBYTE for each in points]
        right.plot(ticks, peaks, marker="o", label=name)
    right.set_ylabel("peak MiB above idle")
    for axes in (left, middle, right):
        axes.set_xticks(ticks, [each.title for each in points])
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
    for axes in (middle, right):
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"By {title}", fontsize=10)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a file of results."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks.plots", description=__doc__)
    parser.add_argument("results", type=Path, help="the JSON that the suite wrote")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder for the SVG files (default: docs/images)")
    options = parser.parse_args(arguments)
    for path in draw(load(options.results), options.output):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
