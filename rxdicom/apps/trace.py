"""``rxdicom trace``: one association of a recording or packet capture as a sequence diagram: text, SVG, Mermaid."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

from attrs import define, field

from rxdicom import evt
from rxdicom.apps import chart
from rxdicom.apps.console import LOG, escaped
from rxdicom.apps.options import positive
from rxdicom.apps.tables import write_line
from rxdicom.errors import ArgumentError, aborted
from rxdicom.recording import RecordedAssociation, Replay, replay

_WIDTH, _ROW, _MARGIN, _TIMES = 960, 28, 40, 90
"""Of the SVG, in pixels."""
_FORMATS = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid"}
_ENDS = {evt.EVT_RELEASED: "released", evt.EVT_REJECTED: "rejected", evt.EVT_ABORTED: "aborted"}


@define
class Traced:
    """One association, as far as it is drawn."""

    assoc: RecordedAssociation
    course: chart.Course
    end: str = "not ended"
    cause: str = ""
    """How the connection was lost, if it was."""
    messages: int = field(default=0)

    @property
    def sides(self) -> tuple[str, str]:
        """The titles of requestor and acceptor; where they are not known, the addresses."""
        peers = (self.assoc.requestor, self.assoc.acceptor)
        requestor, acceptor = (each.ae_title or f"{each.address}:{each.port}" for each in peers)
        return requestor, acceptor


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument("file", help="a recording, or a packet capture (.pcap, .pcapng)")
    parser.add_argument(
        "number",
        nargs="?",
        type=positive,
        help="which association, from 1; without it they are listed if there are more",
    )
    parser.add_argument(
        "-f", "--format", choices=("text", "svg", "mermaid"), help="default: text, or by the name of -o"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of the terminal")
    parser.add_argument("--most", metavar="N", type=positive, help="leave out the middle of more than N steps")


def run(args: Namespace) -> int:
    """Draw it, or list what there is."""
    with replay(args.file) as source:
        found = read(source)
    if not found:
        raise ArgumentError(f"{args.file}: there is no association in it")
    if args.number is None and len(found) > 1:
        for number, each in enumerate(found, 1):
            write_line(_row(number, each))
        return 0
    number = args.number or 1
    if number > len(found):
        raise ArgumentError(f"{args.file}: there is no association {number}, but {len(found)}")
    traced = found[number - 1]
    if traced.assoc.damage:
        LOG.warning("%s: the diagram is not complete: %s", args.file, traced.assoc.damage)
    suffix = os.path.splitext(args.output or "")[1].lower()
    lines = _DRAWERS[args.format or _FORMATS.get(suffix, "text")](traced, args.most or len(traced.course.steps))
    if args.output is None:
        for line in lines:
            write_line(line)
    else:
        with open(args.output, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    return 0


def read(source: Replay) -> list[Traced]:
    """Every association of a recording or capture, in their order."""
    found: dict[RecordedAssociation, Traced] = {}
    wanted = chart.KINDS if set(chart.KINDS) <= set(source.kinds) else chart.WITHOUT_PDUS

    def begin(assoc: RecordedAssociation) -> None:
        traced = found[assoc] = Traced(assoc, chart.Course(overheard=source.is_capture))
        for kind in wanted:
            assoc.events[kind].subscribe(partial(_add, traced))
        for kind in _ENDS:
            assoc.events[kind].subscribe(partial(_end, traced))

    source.associations.subscribe(begin)
    source.run()
    return list(found.values())


def _add(traced: Traced, event: Any) -> None:
    traced.course.add(event)
    traced.messages += event.event in (evt.EVT_DIMSE_RECV, evt.EVT_DIMSE_SENT)


def _end(traced: Traced, event: Any) -> None:
    traced.end = _ENDS[event.event]
    if event.event is evt.EVT_ABORTED and event.by != "peer":
        # What a peer did is among the steps.
        traced.cause = aborted(event.source, event.reason, event.by, event.cause)


def _row(number: int, traced: Traced) -> str:
    first = traced.course.steps[0].at.isoformat(" ", "milliseconds") if traced.course.steps else "-"
    requestor, acceptor = traced.sides
    return escaped(f"{number:4}  {first}  {requestor} → {acceptor}  {traced.messages} messages, {traced.end}")


# ---- the drawings


def _text(traced: Traced, most: int) -> list[str]:
    glyphs = chart.finest(sys.stdout.encoding)
    lines = chart.draw(traced.course.steps, *traced.sides, shown=most, glyphs=glyphs)
    return [*lines, escaped(traced.cause)] if traced.cause else lines


def _mermaid(traced: Traced, most: int) -> list[str]:
    """A sequence diagram in the language of Mermaid."""
    requestor, acceptor = map(_mermaid_text, traced.sides)
    lines = ["sequenceDiagram", f"    participant R as {requestor}", f"    participant A as {acceptor}"]
    for step in _shown(traced.course.steps, most):
        if isinstance(step, chart.Step):
            arrow = "R->>A" if step.is_sent else "A-->>R"
            lines.append(f"    {arrow}: {_mermaid_text(_told(step, traced.course.steps[0]))}")
        else:
            lines.append(f"    Note over R,A: {step}")
    return [*lines, f"    Note over R,A: {_mermaid_text(traced.cause)}"] if traced.cause else lines


def _mermaid_text(text: str) -> str:
    # A semicolon ends a statement, a number sign begins an entity.
    return escaped(text).translate({ord("#"): "#35;", ord(";"): "#59;"})


def _told(step: chart.Step, first: chart.Step) -> str:
    pdus = f", {step.fragments} P-DATA" if step.fragments else ""
    return f"{step.label} ({(step.at - first.at).total_seconds() * 1000:.1f} ms{pdus})"


def _svg(traced: Traced, most: int) -> list[str]:
    shown = [*_shown(traced.course.steps, most), *([traced.cause] if traced.cause else [])]
    left, right = _MARGIN + _TIMES, _WIDTH - _MARGIN - _TIMES
    height = 2 * _MARGIN + _ROW * (len(shown) + 1)
    requestor, acceptor = (escape(escaped(each)) for each in traced.sides)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{requestor} – {acceptor}</title>",
        "<style>text{font:13px sans-serif;fill:#222}.t{fill:#777}line{stroke:#555;marker-end:url(#a)}"
        ".r{stroke:#bbb;marker-end:none}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for x, title in ((left, requestor), (right, acceptor)):
        lines.append(f'<text x="{x}" y="{_MARGIN - 12}" text-anchor="middle" font-weight="bold">{title}</text>')
        lines.append(f'<line class="r" x1="{x}" y1="{_MARGIN}" x2="{x}" y2="{height - _MARGIN}"/>')
    for row, step in enumerate(shown, 1):
        lines += _svg_row(step, _MARGIN + _ROW * row, left, right, traced.course.steps[0])
    return [*lines, "</svg>"]


def _svg_row(step: chart.Step | str, y: int, left: int, right: int, first: chart.Step) -> list[str]:
    middle = (left + right) // 2
    if isinstance(step, str):
        return [f'<text class="t" x="{middle}" y="{y - 5}" text-anchor="middle">{escape(escaped(step))}</text>']
    begin, end = (left, right) if step.is_sent else (right, left)
    at = (step.at - first.at).total_seconds() * 1000
    rows = [
        f'<text class="t" x="{left - 12}" y="{y + 4}" text-anchor="end">{at:.1f} ms</text>',
        f'<line x1="{begin}" y1="{y}" x2="{end}" y2="{y}"/>',
        f'<text x="{middle}" y="{y - 5}" text-anchor="middle">{escape(escaped(step.label))}</text>',
    ]
    if step.fragments:
        rows.append(f'<text class="t" x="{right + 12}" y="{y + 4}">{step.fragments} P-DATA</text>')
    return rows


def _shown(steps: Sequence[chart.Step], most: int) -> list[chart.Step | str]:
    """The steps, without the middle of more than ``most``; in its place how many these are."""
    if len(steps) <= most:
        return list(steps)
    tail = most // 2
    left_out = f"{len(steps) - most} more"
    return [*steps[: most - tail], left_out, *(steps[-tail:] if tail else ())]


_DRAWERS: dict[str, Callable[[Traced, int], list[str]]] = {"text": _text, "svg": _svg, "mermaid": _mermaid}
