"""Frames from the files of packet captures, pcap and pcapng, each with the link that it was captured on.

Files of pcap are read by dpkt. Its reader of pcapng takes all frames for those of the first interface, so that these
files are read here: blocks, of which three kinds matter (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from struct import Struct, unpack, unpack_from
from struct import error as StructError
from typing import Any, BinaryIO

from attrs import frozen

from rxdicom.errors import ArgumentError
from rxdicom.recording.entries import InvalidRecording

_PCAP = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECTION, _INTERFACE, _OLD_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 6
_BYTE_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_RESOLUTION, _OFFSET = 9, 14
_MOST_BLOCK = 1 << 26
"""Bytes of a block. Frames have less than 256 KiB."""


@frozen
class Frame:
    """One frame as it was captured."""

    at: datetime
    link: int
    """What it begins with: a LINKTYPE of the pcap formats."""
    data: bytes


def is_capture(start: bytes) -> bool:
    """Whether a file that starts so is a packet capture."""
    return start[:4] in _PCAP or start[:4] == _PCAPNG


def load_dpkt() -> Any:
    """The library with all of it that is used. Raises :class:`~rxdicom.errors.ArgumentError` if it is not there."""
    try:
        for name in ("pcap", "ethernet", "sll", "sll2", "loopback", "ip", "ip6", "tcp"):
            import_module(f"dpkt.{name}")
        return import_module("dpkt")
    except ImportError:
        raise ArgumentError("packet captures are read by dpkt: pip install rxdicom[capture]") from None


def frames(path: str) -> Iterator[Frame]:
    """The frames of a capture in its order, up to one that is not whole, where the capture was broken off.

    Raises :class:`InvalidRecording`, :class:`OSError`, and :class:`~rxdicom.errors.ArgumentError` without dpkt.
    """
    dpkt = load_dpkt()
    with open(path, "rb") as file:
        is_pcapng = file.read(4) == _PCAPNG
        file.seek(0)
        yield from _Blocks(file, path).frames() if is_pcapng else _pcap_frames(file, path, dpkt)


def _unreadable(path: str, why: object) -> InvalidRecording:
    return InvalidRecording(f"{path} is no capture that can be read: {why}")


def _pcap_frames(file: BinaryIO, path: str, dpkt: Any) -> Iterator[Frame]:
    try:
        reader = dpkt.pcap.Reader(file)
    except (ValueError, dpkt.Error) as error:
        raise _unreadable(path, error) from error
    packets = iter(reader)
    while True:
        try:
            seconds, data = next(packets)
        except (StopIteration, StructError, dpkt.UnpackError):
            return
        yield Frame(_EPOCH + timedelta(microseconds=round(seconds * 1_000_000)), reader.datalink(), data)


@frozen
class _Interface:
    link: int
    ticks: int
    """Of its clock, per second."""
    offset: int
    """Seconds to be added to the time of each frame."""

    def time(self, high: int, low: int) -> datetime:
        microseconds = (high << 32 | low) * 1_000_000 // self.ticks
        return _EPOCH + timedelta(seconds=self.offset, microseconds=microseconds)


class _Blocks:
    """A pcapng file: sections with a byte order and interfaces of their own, one behind the other."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._order = "<"
        self._interfaces: list[_Interface] = []

    def frames(self) -> Iterator[Frame]:
        while (block := self._next()) is not None:
            kind, body = block
            try:
                if kind == _INTERFACE:
                    self._interfaces.append(_interface(body, self._order))
                elif kind in (_PACKET, _OLD_PACKET):
                    yield self._frame(kind, body)
            except (StructError, IndexError, OverflowError) as error:
                raise _unreadable(self._path, f"a block of type {kind} is damaged ({error})") from error

    def _next(self) -> tuple[int, bytes] | None:
        """The type and the body of the next block; None at the end, and where the file ends within it."""
        at = self._file.tell()
        head = self._file.read(12)
        if head[:4] == _PCAPNG:
            order = _BYTE_ORDERS.get(head[8:])
            if order is None:
                raise _unreadable(self._path, f"a section without a byte order at byte {at}")
            self._order, self._interfaces = order, []
        if len(head) < 12:
            return None
        kind, size = unpack(f"{self._order}II", head[:8])
        if size < 12 or size % 4 or size > _MOST_BLOCK:
            raise _unreadable(self._path, f"a block of {size} bytes at byte {at}")
        # The last four bytes repeat the size; the shortest block has read them with its head.
        rest = head[8:] + self._file.read(size - 12)
        return (kind, rest[:-4]) if len(rest) == size - 8 else None

    def _frame(self, kind: int, body: bytes) -> Frame:
        layout = Struct(f"{self._order}{'IIIII' if kind == _PACKET else 'HxxIIII'}")
        numbers: tuple[int, ...] = layout.unpack_from(body)
        number, high, low, size, _ = numbers
        interface = self._interfaces[number]
        return Frame(interface.time(high, low), interface.link, body[layout.size : layout.size + size])


def _interface(body: bytes, order: str) -> _Interface:
    """An interface, of which the options say how its clock is to be read."""
    link: int = unpack_from(f"{order}HxxI", body)[0]
    ticks, offset, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        code, size = unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + size]
        if code == _RESOLUTION:
            ticks = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        elif code == _OFFSET:
            offset = unpack(f"{order}q", value)[0]
        at += 4 + (size + 3) // 4 * 4
    return _Interface(link, ticks, offset)
