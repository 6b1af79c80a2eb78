"""Between event records and entries: what the line of each field says, and which bytes go behind it."""

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs
from attrs import evolve, frozen

from rxdicom.errors import DatasetError
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind
from rxdicom.events.records import Event
from rxdicom.recording.entries import Entry, InvalidRecording, Line
from rxdicom.wire.dimse import ELEMENTS, Message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import UserIdentity, UserIdentityResponse, UserItem
from rxdicom.wire.pdu import PDU, AssociateAC, AssociateRQ, decode_pdu, encode_pdu

_CHUNK = 1 << 20
_NAMED_IDENTITIES = (1, 2)
"""Types of user identities whose primary field is a name; that of the others is a ticket or token."""
_KINDS = {kind.stream_name: kind for kind in NOTIFICATION_KINDS}
_ENVELOPE = ("assoc", "timestamp")


@frozen
class Payload:
    """The bytes behind a line: in memory, or in a file, from where they are copied."""

    size: int
    data: bytes | bytearray = b""
    path: str | None = None
    offset: int = 0

    def chunks(self) -> Iterator[bytes | bytearray]:
        """The bytes, ``size`` of them. Raises :class:`OSError`.

        Where the file has one less, that is zero: an odd dataset travels so (PS3.5 §A.5).
        """
        if self.path is None:
            yield self.data
            return
        left = self.size
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk and left > 1:
                    raise OSError(f"{self.path} was shortened while it was recorded")
                left -= len(chunk) or 1
                yield chunk or b"\0"


# ---- writing


def to_line(event: Event, number: int, *, with_datasets: bool) -> tuple[Line, Payload | None]:
    """The line of an event of association ``number``, and the bytes that belong to it.

    Without datasets, secrets of user identities are left out too.
    """
    line: Line = {
        "event": event.event.stream_name,
        "association": number,
        "at": event.timestamp.isoformat(),
    }
    payload = None
    for field in attrs.fields(type(event)):
        if field.name in _ENVELOPE:
            continue
        value = getattr(event, field.name)
        if isinstance(value, Message):
            said, payload = _message_line(value, with_datasets)
            line |= said
        elif isinstance(value, PDU):
            payload = _of_bytes(encode_pdu(value if with_datasets else discreet(value)))
        elif isinstance(value, bytes):
            payload = _of_bytes(value)
        else:
            line[field.name] = value
    return line, payload


def _of_bytes(data: bytes | bytearray) -> Payload:
    return Payload(len(data), data)


def _message_line(message: Message, with_datasets: bool) -> tuple[Line, Payload | None]:
    line: Line = {"command": dict(message.command), "context_id": message.context_id}
    data = message.data
    if data is None:
        return line, None
    line["transfer_syntax"] = data.transfer_syntax
    absent = "left out of the recording" if not with_datasets else _why_absent(data)
    if absent:
        line |= {"absent": absent, "size": data.size}
        return line, None
    if data.data is not None:
        return line, _of_bytes(data.data)
    return line, Payload(data.size, path=data.path, offset=data.offset)


def _why_absent(data: Encoded) -> str:
    """Why a dataset cannot be copied, empty if it can be."""
    if data.data is not None:
        return ""
    if data.path is None:
        return str(data.error or "it was not kept")
    try:
        there = os.stat(data.path).st_size - data.offset
    except OSError as error:
        return f"its file is gone: {error.strerror}"
    return "" if there + 1 >= data.size else "its file was shortened"


def discreet(pdu: PDU) -> PDU:
    """A PDU without the secrets that prove a user identity (PS3.7 D.3.3.7); a name stays."""
    if not isinstance(pdu, AssociateRQ | AssociateAC):
        return pdu
    return evolve(pdu, user_information=tuple(without_secrets(each) for each in pdu.user_information))


def without_secrets(item: UserItem) -> UserItem:
    """The same item without passcodes, tickets and tokens."""
    if isinstance(item, UserIdentity):
        return evolve(item, primary=item.primary if item.type in _NAMED_IDENTITIES else b"", secondary=b"")
    return UserIdentityResponse(b"") if isinstance(item, UserIdentityResponse) else item


# ---- reading


def kind_of(line: Line) -> EventKind[Any]:
    """The kind of the event in a line. Raises :class:`InvalidRecording`."""
    kind = _KINDS.get(line.get("event", ""))
    if kind is None:
        raise InvalidRecording(f"an event {line.get('event')!r}, which there is not")
    return kind


def timestamp_of(line: Line) -> datetime:
    """When the event in a line occurred. Raises :class:`InvalidRecording`."""
    try:
        return datetime.fromisoformat(line["at"])
    except (KeyError, TypeError, ValueError):
        raise InvalidRecording(f"an event at {line.get('at')!r}, which is no time") from None


def to_event(entry: Entry, assoc: object) -> Any:
    """The event of an entry. Raises :class:`InvalidRecording`, and :class:`OSError` where its bytes cannot be read."""
    line, kind = entry.line, kind_of(entry.line)
    names = [field.name for field in attrs.fields(kind.record) if field.name not in _ENVELOPE]
    try:
        fields = {name: _READERS.get(name, _plain)(entry, name) for name in names}
    except OSError:
        raise
    except Exception as error:
        raise InvalidRecording(f"{line['event']} at {line.get('at')} cannot be read: {error!r}") from error
    return kind.record(assoc=assoc, timestamp=timestamp_of(line), **fields)


def _plain(entry: Entry, name: str) -> Any:
    return entry.line[name]


def _address(entry: Entry, name: str) -> tuple[str, int]:
    host, port = entry.line[name]
    return host, port


def _bytes(entry: Entry, name: str) -> bytes:
    if entry.span is None:
        raise InvalidRecording(f"no bytes for {name}")
    return entry.span.read()


def _pdu(entry: Entry, name: str) -> PDU:
    return decode_pdu(_bytes(entry, name))


def _message(entry: Entry, name: str) -> Message:
    del name
    command: Mapping[str, Any] = entry.line["command"]
    values = {key: tuple(value) if _is_list_of_tags(key) else value for key, value in command.items()}
    return Message(values, entry.line["context_id"], _dataset(entry))


def _is_list_of_tags(keyword: str) -> bool:
    return keyword in ELEMENTS and ELEMENTS[keyword].vr == "AT"


def _dataset(entry: Entry) -> Encoded | None:
    """A dataset as it lies in the recording, from where it is read when it is asked for."""
    syntax = entry.line.get("transfer_syntax")
    if syntax is None:
        return None
    if entry.span is None:
        return Encoded(syntax, size=entry.line["size"], error=DatasetError(entry.line["absent"]))
    return Encoded(syntax, path=entry.span.path, offset=entry.span.offset, size=entry.span.size)


_READERS: dict[str, Callable[[Entry, str], Any]] = {
    "address": _address,
    "data": _bytes,
    "pdu": _pdu,
    "primitive": _pdu,
    "message": _message,
}
"""How a field is read; those that are not here are in the line as they are."""
