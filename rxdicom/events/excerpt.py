"""The head of a dataset as lines for people, for those who asked to see patient data: bounded, never pixel data."""

import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

from rxdicom.events.datasets import encoded_bytes
from rxdicom.log import bounded, escaped, words
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset

_HEAD = 65536
"""Bytes of a dataset that are looked at: what identifies a patient comes first."""
_MOST_LINES = 100
_MOST_CHARACTERS = 64
_DEEPEST = 8
_PIXELS = 0x7FE00000
_BULK = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}


def excerpt(encoded: Encoded) -> list[str]:
    """The first elements of a dataset, one in a line with its tag, VR, keyword and value; one line if it is unreadable.

    It is decoded for this alone: what handlers see of it is not touched.
    """
    try:
        lines = list(islice(_lines(_read(encoded), 0), _MOST_LINES + 1))
    except Exception as error:  # noqa: BLE001 - whatever a peer sends, and pydicom raises about it
        return [f"  not readable: {words(error)}"]
    if len(lines) > _MOST_LINES or encoded.size > _HEAD:
        lines = [*lines[:_MOST_LINES], "  and more"]
    return lines


def _read(encoded: Encoded) -> "Dataset":
    from pydicom.filereader import read_dataset

    syntax, data = encoded.transfer_syntax, _head(encoded)
    return read_dataset(
        BytesIO(data),
        syntax == IMPLICIT_VR_LITTLE_ENDIAN,
        syntax != EXPLICIT_VR_BIG_ENDIAN,
        bytelength=len(data),
        stop_when=_is_pixels,
    )


def _is_pixels(tag: int, vr: str | None, length: int) -> bool:
    del vr, length
    return tag >= _PIXELS


def _head(encoded: Encoded) -> bytes:
    if encoded.path is not None and encoded.data is None:
        with open(encoded.path, "rb") as file:
            file.seek(encoded.offset)
            data = file.read(min(_HEAD, encoded.size))
    else:
        data = bytes(memoryview(encoded_bytes(encoded))[:_HEAD])
    if encoded.transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _HEAD)
    return data


def _lines(dataset: "Dataset", depth: int) -> Iterator[str]:
    indent = "  " * (depth + 1)
    for tag in sorted(dataset.keys()):
        if tag >= _PIXELS:
            return
        element: Any = dataset[tag]
        yield f"{indent}({tag.group:04X},{tag.element:04X}) {element.VR} {element.keyword or '?'}{_value(element)}"
        if element.VR == "SQ" and depth < _DEEPEST:
            for number, item in enumerate(element.value, 1):
                yield f"{indent}  item {number}"
                yield from _lines(item, depth + 1)


def _value(element: Any) -> str:
    if element.VR == "SQ":
        return f" of {len(element.value)} items"
    if element.VR in _BULK:
        return f" of {len(element.value or b'')} bytes"
    return f": {escaped(bounded(str(element.value or ''), _MOST_CHARACTERS))}"
