"""TCP segments from the frames of packet captures. With :mod:`rxdicom.recording.frames` all that uses dpkt."""

from collections.abc import Callable, Iterator
from datetime import datetime
from ipaddress import ip_address
from struct import error as StructError
from typing import Any

from attrs import frozen

from rxdicom.log import LOG
from rxdicom.recording.entries import InvalidRecording
from rxdicom.recording.fragments import Fragment, Fragments
from rxdicom.recording.frames import frames, load_dpkt

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_TCP = 6

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


def segments(path: str) -> Iterator[Segment]:
    """The TCP segments of a capture in its order; everything else is passed over. What is cut off at its end is, too.

    Raises :class:`InvalidRecording`, :class:`OSError`, and :class:`~rxdicom.errors.ArgumentError` without dpkt.
    """
    dpkt = load_dpkt()
    packets = _Packets(dpkt)
    links, passed_over = _link_layers(dpkt), set[int]()
    is_readable = False
    for frame in frames(path):
        unpack = links.get(frame.link)
        if unpack is None:
            passed_over.add(frame.link)
            continue
        is_readable = True
        segment = packets.segment(frame.at, frame.data, unpack)
        if segment is not None:
            yield segment
    if passed_over:
        said = f"{path}: captured on a link of type {', '.join(map(str, passed_over))}, which cannot be read here"
        if not is_readable:
            raise InvalidRecording(said)
        LOG.warning("%s; the other links were", said)


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


class _Packets:
    """Takes frames apart, and puts fragments together."""

    def __init__(self, dpkt: Any) -> None:
        self._dpkt = dpkt
        self._fragments = Fragments()

    def segment(self, at: datetime, frame: bytes, unpack: Callable[[bytes], Any]) -> Segment | None:
        """The segment in a frame, or the one that it completes; None if there is none."""
        dpkt = self._dpkt
        try:
            packet = unpack(frame)
            while not isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6):
                packet = getattr(packet, "data", None)
                if packet is None or isinstance(packet, bytes):
                    return None
            tcp, said = self._payload(at, packet)
        except (dpkt.UnpackError, StructError, IndexError):
            return None
        if not isinstance(tcp, dpkt.tcp.TCP):
            return None
        source, destination = (_host(packet.src), tcp.sport), (_host(packet.dst), tcp.dport)
        # A length of 0 is that of a packet that only the network card was to cut.
        missing = max(0, said - 4 * tcp.off - len(tcp.data))
        return Segment(at, source, destination, tcp.seq, tcp.flags, bytes(tcp.data), missing)

    def _payload(self, at: datetime, packet: Any) -> tuple[Any, int]:
        """What an IP packet carries, and how long that was: frames may have been cut off when they were captured."""
        if isinstance(packet, self._dpkt.ip6.IP6):
            heads = packet.all_extension_headers
            said = packet.plen - sum(each.length for each in heads)
            head = heads[-1] if heads and isinstance(heads[-1], self._dpkt.ip6.IP6FragmentHeader) else None
            number, offset, is_last = (head.id, head.frag_off, not head.m_flag) if head is not None else (0, 0, True)
        else:
            said = packet.len - 4 * packet.hl
            number, offset, is_last = packet.id, packet.offset, not packet.mf
        if offset == 0 and is_last:
            return packet.data, said
        data = bytes(packet.data)
        if packet.p != _TCP or len(data) < said:
            return None, 0
        # Offsets are in units of eight bytes.
        whole = self._fragments.add(at, Fragment(packet.src, packet.dst, number, 8 * offset, is_last, data))
        return (None, 0) if whole is None else (self._dpkt.tcp.TCP(whole), len(whole))


def _host(address: bytes) -> str:
    return str(ip_address(address))
