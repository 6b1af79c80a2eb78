"""The head of an encoded dataset: some of its first elements, found without decoding it and without pydicom.

A head is read on the reader's thread, between two messages: what is before the wanted elements is stepped over, what
is behind them is not looked at.
"""

import zlib
from struct import Struct

from rxdicom.wire.encoded import Encoded
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    clean_uid,
)

MODALITY = 0x00080060
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E

HEAD_LIMIT = 1 << 20
"""Bytes of a dataset that are looked at, at most."""
_FIRST_READ = 1 << 14
VALUE_LIMIT = 128
"""Bytes of a value, twice what a UID may have (PS3.5 §9.1): a longer one is not taken."""
_UNDEFINED = 0xFFFFFFFF
_DELIMITERS = (0xFFFEE00D, 0xFFFEE0DD)
_ITEM_GROUP = 0xFFFE
_VR_16 = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LITTLE = (Struct("<HH2sH"), Struct("<I"))
_BIG = (Struct(">HH2sH"), Struct(">I"))


def head_of(encoded: Encoded | None, *tags: int) -> tuple[str, ...]:
    """The values of elements outside sequences, as text; empty for one that is absent or cannot be read.

    Some 20 µs for a CT slice in memory; one that was received into a file has its first 16 KiB read once more. It
    raises nothing, whatever the bytes are.
    """
    found: dict[int, bytes] = {}
    if encoded is not None and encoded.error is None:
        try:
            found = _find(encoded, frozenset(tags))
        except (OSError, zlib.error):
            # The file is gone, or the bytes are not what the transfer syntax says: nothing is known then.
            found = {}
    return tuple(clean_uid(found.get(tag, b"")) for tag in tags)


def _find(encoded: Encoded, tags: frozenset[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for limit in (_FIRST_READ, HEAD_LIMIT):
        start = _start(encoded, limit)
        found, complete = scan(start, encoded.transfer_syntax, tags)
        if complete or len(start) != limit:
            break
    return found


def _start(encoded: Encoded, limit: int) -> bytes | bytearray:
    """The first bytes of the dataset, inflated: ``limit`` of them if it has as many, or all that are in memory."""
    data = encoded.data
    if data is None:
        if encoded.path is None:
            return b""
        with open(encoded.path, "rb") as file:
            file.seek(encoded.offset)
            data = file.read(min(limit, encoded.size))
    if encoded.transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    return data


def scan(data: bytes | bytearray, transfer_syntax: str, tags: frozenset[int]) -> tuple[dict[int, bytes], bool]:
    """The values of ``tags`` in the first bytes of a dataset, and whether there are no more behind (PS3.5 §7)."""
    # Some peers send implicit VR whatever was agreed on.
    explicit = transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN and data[4:6].isalpha()
    header, long_length = _BIG if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else _LITTLE
    found: dict[int, bytes] = {}
    at, depth, end, last = 0, 0, min(len(data), HEAD_LIMIT), max(tags)
    while at + 8 <= end:
        group, number, vr, length = header.unpack_from(data, at)
        tag = group << 16 | number
        if tag > last and not depth:
            return found, True
        at += 8
        if group == _ITEM_GROUP or not explicit:
            (length,) = long_length.unpack_from(data, at - 4)
        elif vr not in _VR_16:
            if at + 4 > end:
                return found, False
            (length,) = long_length.unpack_from(data, at)
            at += 4
        if length == _UNDEFINED:
            depth += 1
            continue
        if depth:
            depth -= tag in _DELIMITERS
        elif tag in tags and length <= min(VALUE_LIMIT, end - at):
            found[tag] = bytes(data[at : at + length])
        at += length
    return found, False
