"""The file format: entries are written whole and read one by one, and whatever a crash leaves ends a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from rxdicom.recording.entries import (
    FORMAT,
    MAGIC,
    VERSION,
    Entry,
    InvalidRecording,
    Span,
    encode_line,
    read_entries,
)

HEADER: dict[str, Any] = {"format": FORMAT, "version": VERSION}


def written(path: Path, *entries: tuple[dict[str, Any], bytes | None]) -> bytes:
    """A file with a header and these entries."""
    whole = encode_line(HEADER)
    for line, data in entries:
        whole += encode_line(line) if data is None else encode_line(line, len(data)) + data + b"\n"
    path.write_bytes(whole)
    return whole


def read(path: Path) -> list[tuple[dict[str, Any], bytes | None]]:
    return [
        ({key: value for key, value in entry.line.items() if key != "bytes"}, entry.span and entry.span.read())
        for entry in read_entries(str(path))
    ]


ENTRIES: list[tuple[dict[str, Any], bytes | None]] = [
    ({"a": 1}, b"bytes\nwith {lines}\n"),
    ({"b": "Ünicode \n"}, None),
    ({"c": [1.5, None]}, b""),
    ({"d": {}}, bytes(range(256))),
]


def test_what_is_written_is_read(tmp_path: Path):
    written(tmp_path / "r", *ENTRIES)
    assert read(tmp_path / "r") == [(HEADER, None), *ENTRIES]


def test_a_file_begins_with_its_format_and_its_lines_are_json(tmp_path: Path):
    whole = written(tmp_path / "r", ({"a": 1}, None), ({"b": 2}, b"x"))
    assert whole.startswith(MAGIC)
    lines = whole.split(b"\n")
    assert [json.loads(line) for line in lines[:3]] == [HEADER, {"a": 1}, {"b": 2, "bytes": 1}]
    assert lines[3:] == [b"x", b""]


def test_a_file_that_is_cut_anywhere_has_the_entries_before(tmp_path: Path):
    whole = written(tmp_path / "r", *ENTRIES)
    ends = [len(encode_line(HEADER))]
    for line, data in ENTRIES:
        ends.append(
            ends[-1] + (len(encode_line(line)) if data is None else len(encode_line(line, len(data)) + data) + 1)
        )
    assert ends[-1] == len(whole)
    for size in range(ends[0], len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:size])
        assert len(read(tmp_path / "cut")) == sum(end <= size for end in ends), size


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (b"", "no header"),
        (b'{"format":"another"}\n', "is not a recording"),
        (b'{"format":"rxdicom recording","version":2}\n', "of version 2; this rxdicom reads up to 1"),
        (b'{"format":"rxdicom recording"}\n', "of version None"),
        (encode_line(HEADER) + b"not json\n", "damaged at byte 43"),
        (encode_line(HEADER) + b"[]\n", "damaged at byte 43: no JSON object"),
        (encode_line(HEADER) + b"[" * 100_000 + b"\n", "damaged at byte 43"),
        (encode_line(HEADER) + b'{"bytes":-1}\n', "damaged at byte 43: -1 bytes"),
        (encode_line(HEADER) + b'{"bytes":"x"}\n', "damaged at byte 43: 'x' bytes"),
        (encode_line(HEADER) + b'{"bytes":2}\nabc', "no line feed behind 2 bytes"),
    ],
)
def test_what_is_no_recording_or_is_damaged_is_said(tmp_path: Path, damaged: bytes, said: str):
    (tmp_path / "r").write_bytes(damaged)
    with pytest.raises(InvalidRecording, match=said):
        read(tmp_path / "r")


def test_keys_of_later_revisions_are_ignored(tmp_path: Path):
    (tmp_path / "r").write_bytes(encode_line({**HEADER, "new": True}) + encode_line({"a": 1, "newer": []}))
    assert len(read(tmp_path / "r")) == 2


def test_a_file_that_grows_is_read_on(tmp_path: Path):
    path, whole = tmp_path / "r", written(tmp_path / "whole", *ENTRIES)
    path.write_bytes(whole[:50])
    written_so_far = 50

    def wait() -> bool:
        nonlocal written_so_far
        written_so_far += 7
        with path.open("ab") as file:
            file.write(whole[written_so_far - 7 : written_so_far])
        return written_so_far < len(whole) + 14

    assert [entry.span and entry.span.read() for entry in read_entries(str(path), wait)] == [
        None,
        *(data for _, data in ENTRIES),
    ]


def test_bytes_are_read_when_they_are_asked_for_only(tmp_path: Path):
    whole = written(tmp_path / "r", ({"a": 1}, b"12345"))
    entries = list(read_entries(str(tmp_path / "r")))
    assert entries[1] == Entry({"a": 1, "bytes": 5}, Span(str(tmp_path / "r"), len(whole) - 6, 5))
    (tmp_path / "r").write_bytes(whole.replace(b"12345", b"54321"))
    assert entries[1].span is not None
    assert entries[1].span.read() == b"54321"
