"""What the programs show of statuses and datasets: words, tables, JSON lines. Text from peers stays in its line.

Datasets are only looked at; pydicom is not loaded here.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import combining, east_asian_width

from rxdicom import Status
from rxdicom.apps.console import escaped

if TYPE_CHECKING:
    from pydicom import Dataset

Path = tuple[int, ...]
"""The tags that lead to an attribute: those of sequences, then its own. It means that of every item."""

MEASURED = 200
"""Rows that the widths of a table's columns are measured from; only so many are held back before the first is shown."""

_GAP = "  "
_NARROWEST = 8
_CUT = "…"


def told(status: Status) -> str:
    """A status in words, with what the peer commented.

    >>> told(Status(0x0110))
    '0x0110 processing failure'
    """
    comment = f" ({status.ErrorComment})" if status.ErrorComment else ""
    return f"0x{status:04X} {status.description or status.category}{comment}"


def write_line(text: str) -> None:
    """One line on stdout, at once; what its encoding does not have is written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


# ---- datasets


def leaves(dataset: "Dataset", above: Path = ()) -> Iterator[Path]:
    """The attributes of a dataset that are no sequences with items, those within their items included."""
    for element in dataset:
        path = (*above, int(element.tag))
        if element.VR == "SQ" and element.value:
            for item in element.value:
                yield from leaves(item, path)
        else:
            yield path


def text_of(dataset: "Dataset | None", path: Path) -> str:
    """The values at a path, in one line; empty where there are none."""
    return ", ".join(value for value in _values(dataset, path) if value)


def _values(dataset: "Dataset | None", path: Path) -> Iterator[str]:
    tag, *below = path
    if dataset is None or tag not in dataset:
        return
    try:
        element: Any = dataset[tag]
        value = element.value
    except Exception:  # noqa: BLE001 - whatever pydicom raises for a value that breaks the rules, it is shown
        value = getattr(dataset.get_item(tag), "value", None)
        yield escaped(value.decode("latin-1") if isinstance(value, bytes) else str(value))
        return
    if element.VR != "SQ":
        yield _shown(value)
    elif below:
        for item in value:
            yield from _values(item, tuple(below))
    else:
        yield f"{len(value)} item{'s' * (len(value) != 1)}"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value)} bytes" if value else ""
    several = not isinstance(value, str) and isinstance(value, Sequence)
    return escaped("\\".join(map(str, value)) if several else str(value))  # pyright: ignore[reportUnknownArgumentType]


def json_line(dataset: "Dataset | None") -> str:
    """A dataset in the DICOM JSON model (PS3.18 Annex F), in one line of ASCII.

    What cannot be expressed in it, because its value breaks the rules, is left out.
    """
    model: dict[str, Any] = {} if dataset is None else dataset.to_json_dict(suppress_invalid_tags=True)
    if "00080005" in model:
        # The text is that of JSON now (PS3.18 F.2.1).
        model["00080005"]["Value"] = ["ISO_IR 192"]
    return json.dumps(model, separators=(",", ":"))


# ---- tables


def width(text: str) -> int:
    """The columns of a terminal that a text takes: two for a Chinese character, none for an accent that combines.

    >>> width("DOE"), width("山田"), width("e\\u0301")
    (3, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def cut(text: str, most: int) -> str:
    """The text in at most so many columns.

    >>> cut("CHEST^PA", 8), cut("CHEST^PA", 6)
    ('CHEST^PA', 'CHEST…')
    """
    if width(text) <= most:
        return text
    kept = text
    while width(kept) >= most:
        kept = kept[:-1]
    return kept + _CUT


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is, None where it is none: then nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class Table:
    """Rows in columns that fit. The first rows are held back until the columns are measured, the others are not."""

    def __init__(
        self, headings: Sequence[str], write: Callable[[str], None] = write_line, limit: int | None = None
    ) -> None:
        self._rows: list[Sequence[str]] = [headings]
        self._write = write
        self._limit = limit
        self._widths: list[int] | None = None

    def add(self, row: Sequence[str]) -> None:
        """One more row, of as many cells as there are headings."""
        self._rows.append(row)
        if self._widths is not None or len(self._rows) > MEASURED:
            self.finish()

    def finish(self) -> None:
        """Show what is held back; nothing, not even the headings, where there are no rows."""
        if self._widths is None:
            if len(self._rows) == 1:
                return
            self._widths = self._measured()
            self._rows.insert(1, ["─" * each if _has_lines() else "-" * each for each in self._widths])
        for row in self._rows:
            self._write(self._line(row, self._widths))
        self._rows = []

    def _measured(self) -> list[int]:
        widths = [max(map(width, column)) for column in zip(*self._rows, strict=True)]
        excess = 0 if self._limit is None else sum(widths) + len(_GAP) * (len(widths) - 1) - self._limit
        while excess > 0 and max(widths) > _NARROWEST:
            widest = widths.index(max(widths))
            widths[widest] -= 1
            excess -= 1
        return widths

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = row if self._limit is None else [cut(cell, most) for cell, most in zip(row, widths, strict=True)]
        padded = (cell + " " * (most - width(cell)) for cell, most in zip(cells, widths, strict=True))
        return _GAP.join(padded).rstrip()


def _has_lines() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
