"""What the tests of recordings share: events as values that can be compared, sessions, and captures made by hand."""

import os
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import dpkt
import pytest
from attrs import field, frozen
from pydicom import Dataset

from rxdicom import AE, AssociationServer, evt
from rxdicom.events.records import CStore, Event
from rxdicom.recording import Replay
from rxdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)
from rxdicom.wire.dimse import Message
from tests.support import storable_files

CT = str(CTImageStorage)
FIND = str(StudyRootQueryRetrieveInformationModelFind)
_packets: Any = dpkt


# ---- events as values


def content(event: Event) -> tuple[Any, ...]:
    """Everything that an event says, its bytes included."""
    own = [each.name for each in attrs.fields(type(event)) if each.name not in ("assoc", "timestamp")]
    fields = (getattr(event, name) for name in own)
    said = (_message(each) if isinstance(each, Message) else each for each in fields)
    return event.name, event.timestamp, event.assoc.name, *said


def _message(message: Message) -> tuple[Any, ...]:
    data = message.data
    encoded = None if data is None else (data.transfer_syntax, data.size, _padded(data.read(), data.size))
    return dict(message.command), list(message.command), message.context_id, encoded


def _padded(data: bytes | bytearray, size: int) -> bytes:
    # A file with an odd dataset has one byte less than is sent (PS3.5 §A.5).
    return bytes(data).ljust(size, b"\0") if size - len(data) == 1 else bytes(data)


def contents_of(events: Any) -> list[tuple[Any, ...]]:
    """The list that fills with what the events of an ``events`` say, when each is delivered: files go away."""
    seen: list[tuple[Any, ...]] = []

    def note(event: Event) -> None:
        seen.append(content(event))

    events.all.subscribe(note)
    return seen


def replayed(source: Replay) -> list[tuple[Any, ...]]:
    """What the events of a replay say."""
    seen = contents_of(source.events)
    source.run()
    return seen


def names(contents: Iterable[tuple[Any, ...]]) -> list[str]:
    return [each[0].removeprefix("EVT_") for each in contents]


# ---- sessions


def ct_file() -> Path:
    """A real CT image of 39 kB."""
    return next(path for path in storable_files() if path.name == "CT_small.dcm")


def large_file() -> Path:
    """The largest one, in an uncompressed transfer syntax."""
    plain = [path for path, head in storable_files().items() if head.transfer_syntax_uid == "1.2.840.10008.1.2.1"]
    return max(plain, key=os.path.getsize)


def found(number: int) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel, made.PatientID, made.PatientName = "PATIENT", str(number), "CITIZEN^JANE"
    return made


def on_find(event: Any) -> Any:
    for number in range(3):
        yield 0xFF00, found(number)


def on_store(event: CStore) -> int:
    return 0x0000


HANDLERS: list[Any] = [(evt.EVT_C_FIND, on_find), (evt.EVT_C_STORE, on_store)]


def configured(ae: AE, *more: str) -> AE:
    """An AE that asks for, and supports, what the tests use."""
    for uid in (Verification, CT, FIND, *more):
        ae.add_requested_context(uid)
        ae.add_supported_context(uid)
    return ae


def serving(**options: Any) -> AssociationServer:
    """A server on the loopback."""
    ae = configured(AE("SCP"))
    ae.accept_any_storage = True
    for name, value in options.items():
        setattr(ae, name, value)
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=HANDLERS)


# ---- captures

CLIENT, SERVER = ("192.0.2.1", 50000), ("192.0.2.2", 104)
FIN, SYN, RST, PUSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
Frame = tuple[float, bytes]


@frozen
class Speaker:
    """One side of a TCP connection, and what its next byte is numbered."""

    own: tuple[str, int] = CLIENT
    other: tuple[str, int] = SERVER
    first: int = 1000

    def segment(self, at: float, offset: int, data: bytes = b"", flags: int = ACK) -> Frame:
        """A segment whose data begins ``offset`` bytes into the stream; 0 is behind the SYN."""
        tcp = _packets.tcp.TCP(
            sport=self.own[1], dport=self.other[1], seq=(self.first + 1 + offset) % (1 << 32), flags=flags, data=data
        )
        return at, ethernet(self.own[0], self.other[0], tcp)

    def syn(self, at: float, flags: int = SYN) -> Frame:
        return self.segment(at, -1, b"", flags)


def ethernet(source: str, destination: str, tcp: Any) -> bytes:
    """A frame with an IP packet of the version that the addresses are of."""
    from ipaddress import ip_address

    addresses = {"src": ip_address(source).packed, "dst": ip_address(destination).packed, "data": tcp}
    if ":" in source:
        packet = _packets.ip6.IP6(nxt=6, hlim=64, plen=len(tcp), **addresses)
    else:
        packet = _packets.ip.IP(p=6, **addresses)
    kind = 0x86DD if ":" in source else 0x0800
    return bytes(_packets.ethernet.Ethernet(type=kind, data=packet))


def write_capture(path: Path, frames: Iterable[Frame], *, pcapng: bool = False, linktype: int = 1) -> Path:
    """A capture file."""
    with path.open("wb") as file:
        if pcapng:
            writer = _packets.pcapng.Writer(file)
        else:
            writer = _packets.pcap.Writer(file, linktype=linktype)
        for at, frame in frames:
            writer.writepkt(frame, ts=at)
    return path


@frozen
class Interface:
    """One of a pcapng file."""

    linktype: int = 1
    ticks: int | None = None
    """Ten to the power of this, or with the highest bit two: its clock, per second. None for the usual microseconds."""
    offset: int = 0

    def block(self, order: str) -> bytes:
        options = b""
        if self.ticks is not None:
            options += struct.pack(f"{order}HHB3x", 9, 1, self.ticks)
        if self.offset:
            options += struct.pack(f"{order}HHq", 14, 8, self.offset)
        return block(1, struct.pack(f"{order}HHI", self.linktype, 0, 0) + options + bytes(4), order)

    def time(self, at: float) -> int:
        ticks = 6 if self.ticks is None else self.ticks
        return round((at - self.offset) * (2 if ticks & 0x80 else 10) ** (ticks & 0x7F))


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A block of a pcapng file."""
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, len(body) + 12) + body + struct.pack(f"{order}I", len(body) + 12)


def section(
    interfaces: Sequence[Interface], frames: Iterable[tuple[int, Frame]], order: str = "<", *, old: bool = False
) -> bytes:
    """A section of a pcapng file: interfaces, and frames each with the number of its interface."""
    said = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    said += b"".join(each.block(order) for each in interfaces)
    for number, (at, data) in frames:
        time = interfaces[number].time(at)
        head = struct.pack(f"{order}HH" if old else f"{order}I", *((number, 0) if old else (number,)))
        size = struct.pack(f"{order}IIII", time >> 32, time & 0xFFFFFFFF, len(data), len(data))
        said += block(2 if old else 6, head + size + data, order)
    return said


def fragmented(frame: Frame, size: int, number: int) -> list[Frame]:
    """A frame with an IP packet as frames with its fragments; each but the last has ``size`` bytes of its payload."""
    at, data = frame
    is_v6 = data[12:14] == b"\x86\xdd"
    head, payload = data[14 : 14 + (40 if is_v6 else 20)], data[14 + (40 if is_v6 else 20) :]
    made: list[Frame] = []
    for offset in range(0, len(payload), size):
        part, more = payload[offset : offset + size], offset + size < len(payload)
        if is_v6:
            fields = struct.pack("!BBHI", head[6], 0, offset | more, number)
            packet = head[:4] + struct.pack("!HB", len(part) + 8, 44) + head[7:] + fields + part
        else:
            fields = struct.pack("!HHH", len(part) + 20, number, more << 13 | offset // 8)
            packet = head[:2] + fields + head[8:] + part
        made.append((at, data[:14] + packet))
    return made


@frozen
class Talk:
    """What two sides said over one connection, in turns: (whether the client said it, the bytes)."""

    turns: Sequence[tuple[bool, bytes]] = field(converter=tuple[tuple[bool, bytes], ...])

    def said(self, by_client: bool) -> bytes:
        return b"".join(data for client, data in self.turns if client == by_client)

    def frames(
        self,
        client: Speaker | None = None,
        cut: Callable[[bytes], list[bytes]] | None = None,
        *,
        opened: bool = True,
        closed: bool = True,
    ) -> list[Frame]:
        """The segments of a capture of it, each millisecond one; ``cut`` cuts what is said at once."""
        client = client or Speaker()
        server = Speaker(client.other, client.own, 7_000_000)
        at = 1_700_000_000.0
        frames = [client.syn(at), server.syn(at + 0.001, SYN | ACK), client.segment(at + 0.002, 0)] if opened else []
        sent = {True: 0, False: 0}
        for by_client, data in self.turns:
            for part in cut(data) if cut else [data]:
                at += 0.01
                speaker = client if by_client else server
                frames.append(speaker.segment(at, sent[by_client], part, PUSH | ACK))
                sent[by_client] += len(part)
        if closed:
            frames.append(client.segment(at + 0.01, sent[True], flags=FIN | ACK))
            frames.append(server.segment(at + 0.02, sent[False], flags=FIN | ACK))
        return frames


def tshark() -> str:
    """The program, for a test: where it is absent that is a failure in CI, and a skip elsewhere."""
    program = shutil.which("tshark")
    if program is not None:
        return program
    message = "tshark is not installed: apt-get install tshark"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
