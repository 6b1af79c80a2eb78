"""The file format of recordings: lines of JSON, each followed by as many bytes as it says. No events are known here.

A file is a sequence of entries. An entry is one line, a JSON object in ASCII; if that has ``"bytes": n``, then n bytes
follow it, and a line feed. The first entry is the header. Each is written at once behind the one before, so that a
recorder that is killed leaves whole entries and perhaps a part of the last one, which readers take for the end.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from attrs import frozen

from rxdicom.errors import RxDicomError

FORMAT, VERSION = "rxdicom recording", 1
"""What the header of each recording says. A reader refuses later versions; it ignores keys that it does not know."""
MAGIC = f'{{"format":"{FORMAT}"'.encode()
"""How a recording begins."""
MOST_LINE = 1 << 24
"""Bytes of a line. The longest there are, of associations with much extended negotiation, have some 200,000."""

Line = dict[str, Any]


class InvalidRecording(RxDicomError, ValueError):
    """A file is no recording or capture, is of a later version, or is damaged."""


@frozen
class Span:
    """Bytes of an entry, where they lie in the file."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes themselves. Raises :class:`OSError`."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@frozen
class Entry:
    """One entry as it is read: the line, and where its bytes are, if it has any."""

    line: Line
    span: Span | None = None


def encode_line(line: Line, size: int | None = None) -> bytes:
    """The line of an entry that ``size`` bytes and a line feed are to follow; None for one that is the line alone."""
    whole = line if size is None else {**line, "bytes": size}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def read_entries(path: str, wait: Callable[[], bool] | None = None) -> Iterator[Entry]:
    """The entries of a file, the header first, one at a time and without the bytes.

    At the end of what is there ``wait`` is called, if it is given: True says that more may be there now. An entry that
    is not whole ends the file like any other end. Raises :class:`InvalidRecording` and :class:`OSError`.
    """
    with open(path, "rb") as file:
        header = None
        while True:
            at = file.tell()
            entry = _read_entry(file, path)
            if entry is None:
                file.seek(at)
                if wait is None or not wait():
                    break
                continue
            if header is None:
                header = entry
                _check_header(header.line, path)
            yield entry
        if header is None:
            raise InvalidRecording(f"{path} is not a recording: it has no header")


def _read_entry(file: BinaryIO, path: str) -> Entry | None:
    """The next entry; None if it is not there, or not whole."""
    at = file.tell()
    raw = file.readline(MOST_LINE)
    if not raw.endswith(b"\n"):
        if len(raw) == MOST_LINE:
            raise InvalidRecording(f"{path} is damaged at byte {at}: a line without end")
        return None
    line = _parsed(raw, f"{path} is damaged at byte {at}")
    size = line.get("bytes")
    if size is None:
        return Entry(line)
    if not isinstance(size, int) or size < 0:
        raise InvalidRecording(f"{path} is damaged at byte {at}: {size!r} bytes")
    span = Span(path, file.tell(), size)
    file.seek(size, 1)
    end = file.read(1)
    if not end:
        return None
    if end != b"\n":
        raise InvalidRecording(f"{path} is damaged at byte {file.tell() - 1}: no line feed behind {size} bytes")
    return Entry(line, span)


def _parsed(raw: bytes, where: str) -> Line:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidRecording(f"{where}: {error}") from None
    if not isinstance(line, dict):
        raise InvalidRecording(f"{where}: no JSON object")
    return cast(Line, line)


def _check_header(line: Line, path: str) -> None:
    if line.get("format") != FORMAT:
        raise InvalidRecording(f"{path} is not a recording")
    version = line.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InvalidRecording(f"{path} is a recording of version {version}; this rxdicom reads up to {VERSION}")
