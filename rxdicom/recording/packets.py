"""TCP segments from packet captures. The only module that uses dpkt, which knows the file formats and the headers."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from ipaddress import ip_address
from struct import error as StructError
from typing import Any

from attrs import frozen

from rxdicom.errors import ArgumentError
from rxdicom.recording.entries import InvalidRecording

_PCAP = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10

Endpoint = tuple[str, int]
"""Host and port."""


@frozen
class Segment:
    """One TCP segment as it was captured."""

    at: datetime
    source: Endpoint
    destination: Endpoint
    sequence: int
    """The number of its first byte, or of its SYN or FIN where it has none (RFC 9293 §3.1)."""
    flags: int
    data: bytes
    missing: int = 0
    """Bytes that it had behind ``data``, and that the capture left out."""

    @property
    def is_opening(self) -> bool:
        """Whether it opens a connection: SYN without ACK."""
        return self.flags & (_SYN | _ACK) == _SYN

    @property
    def has_syn(self) -> bool:
        return bool(self.flags & _SYN)

    @property
    def has_fin(self) -> bool:
        return bool(self.flags & _FIN)

    @property
    def has_rst(self) -> bool:
        return bool(self.flags & _RST)


def is_capture(start: bytes) -> bool:
    """Whether a file that starts so is a packet capture."""
    return start[:4] in _PCAP or start[:4] == _PCAPNG


def segments(path: str) -> Iterator[Segment]:
    """The TCP segments of a capture in its order; everything else is passed over. What is cut off at its end is, too.

    Raises :class:`InvalidRecording`, :class:`OSError`, and :class:`~rxdicom.errors.ArgumentError` without dpkt.
    """
    dpkt = _dpkt()
    with open(path, "rb") as file:
        is_pcapng = file.read(4) == _PCAPNG
        file.seek(0)
        try:
            reader = (dpkt.pcapng if is_pcapng else dpkt.pcap).Reader(file)
        except (ValueError, dpkt.Error) as error:
            raise InvalidRecording(f"{path} is no capture that can be read: {error}") from error
        unpack = _link_layers(dpkt).get(reader.datalink())
        if unpack is None:
            raise InvalidRecording(f"{path}: captured on a link of type {reader.datalink()}, which cannot be read here")
        for seconds, frame in _whole(reader, dpkt):
            segment = _segment(_EPOCH + timedelta(microseconds=round(seconds * 1_000_000)), frame, unpack, dpkt)
            if segment is not None:
                yield segment


def _dpkt() -> Any:
    try:
        for name in ("pcap", "pcapng", "ethernet", "sll", "sll2", "loopback", "ip", "ip6", "tcp"):
            import_module(f"dpkt.{name}")
        return import_module("dpkt")
    except ImportError:
        raise ArgumentError("packet captures are read by dpkt: pip install rxdicom[capture]") from None


def _link_layers(dpkt: Any) -> dict[int, Callable[[bytes], Any]]:
    """What a frame starts with, by the type of the link (LINKTYPE_ of the pcap formats)."""
    return {
        0: dpkt.loopback.Loopback,
        1: dpkt.ethernet.Ethernet,
        12: _ip(dpkt),
        101: _ip(dpkt),
        113: dpkt.sll.SLL,
        228: dpkt.ip.IP,
        229: dpkt.ip6.IP6,
        276: dpkt.sll2.SLL2,
    }


def _ip(dpkt: Any) -> Callable[[bytes], Any]:
    return lambda frame: (dpkt.ip6.IP6 if frame[:1] and frame[0] >> 4 == 6 else dpkt.ip.IP)(frame)


def _whole(reader: Any, dpkt: Any) -> Iterator[tuple[Any, bytes]]:
    """The frames, up to one that is not whole, where the capture was broken off."""
    packets = iter(reader)
    while True:
        try:
            yield next(packets)
        except (StopIteration, StructError, dpkt.UnpackError):
            return


def _segment(at: datetime, frame: bytes, unpack: Callable[[bytes], Any], dpkt: Any) -> Segment | None:
    try:
        packet = unpack(frame)
    except (dpkt.UnpackError, StructError, IndexError):
        return None
    while not isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
        packet = getattr(packet, "data", None)
        if packet is None or isinstance(packet, bytes):
            return None
    tcp = packet.data
    if not isinstance(tcp, dpkt.tcp.TCP):
        return None
    return Segment(
        at,
        (_host(packet.src), tcp.sport),
        (_host(packet.dst), tcp.dport),
        tcp.seq,
        tcp.flags,
        bytes(tcp.data),
        _missing(packet, tcp, dpkt),
    )


def _missing(packet: Any, tcp: Any, dpkt: Any) -> int:
    """How much of the payload a capture with short frames has left out."""
    if isinstance(packet, dpkt.ip6.IP6):
        said = packet.plen - sum(each.length for each in packet.all_extension_headers)
    else:
        said = packet.len - 4 * packet.hl
    # A length of 0 is that of a packet that only the network card was to cut.
    return max(0, said - 4 * tcp.off - len(tcp.data))


def _host(address: bytes) -> str:
    return str(ip_address(address))
