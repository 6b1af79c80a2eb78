"""IP datagrams put together again from their fragments (RFC 791 §3.2, RFC 8200 §4.5), within bounds."""

from datetime import datetime, timedelta

from attrs import define, field, frozen

_MOST_DATAGRAM = 65_535
_MOST_BYTES = 1 << 23
"""Memory of fragments that wait for others, of all datagrams together: those that wait for the longest give way."""
_OVERHEAD = 200
"""Bytes of memory that a fragment takes beside its data."""
_MOST_SECONDS = timedelta(seconds=60)
"""How long fragments belong together. Senders use the numbers of datagrams again."""


@frozen
class Fragment:
    """A part of the payload of a datagram."""

    source: bytes
    destination: bytes
    number: int
    """Identifies the datagram between these two."""
    offset: int
    """Where it begins, in bytes."""
    is_last: bool
    data: bytes


@define
class _Datagram:
    """One of which something is there."""

    since: datetime
    parts: dict[int, bytes] = field(factory=dict[int, bytes])
    size: int | None = None
    """Bytes of all of it, once the last fragment is there."""

    def whole(self) -> bytes | None:
        """The payload, if nothing of it is missing. Where fragments overlap the earlier part counts."""
        if self.size is None or sum(map(len, self.parts.values())) < self.size:
            return None
        payload = bytearray()
        for offset in sorted(self.parts):
            if offset > len(payload):
                return None
            payload += self.parts[offset][len(payload) - offset :]
        return bytes(payload[: self.size]) if len(payload) >= self.size else None


class Fragments:
    """The datagrams that are not whole yet."""

    def __init__(self) -> None:
        # In the order of their first fragments.
        self._waiting: dict[tuple[bytes, bytes, int], _Datagram] = {}
        self.bytes = 0
        """How much memory is taken by what waits."""

    def add(self, at: datetime, part: Fragment) -> bytes | None:
        """Take one more fragment: the payload of its datagram, if that is whole now."""
        key = part.source, part.destination, part.number
        datagram = self._waiting.get(key)
        if datagram is not None and at - datagram.since > _MOST_SECONDS:
            self._forget(key)
            datagram = None
        if part.offset + len(part.data) > _MOST_DATAGRAM:
            return None
        if datagram is None:
            datagram = self._waiting[key] = _Datagram(at)
        kept = datagram.parts.get(part.offset)
        datagram.parts[part.offset] = part.data if kept is None else max(kept, part.data, key=len)
        self.bytes += _cost(datagram.parts[part.offset]) - (0 if kept is None else _cost(kept))
        if part.is_last:
            datagram.size = part.offset + len(part.data)
        payload = datagram.whole()
        if payload is not None:
            self._forget(key)
        while self.bytes > _MOST_BYTES:
            self._forget(next(iter(self._waiting)))
        return payload

    def _forget(self, key: tuple[bytes, bytes, int]) -> None:
        datagram = self._waiting.pop(key)
        self.bytes -= sum(map(_cost, datagram.parts.values()))


def _cost(data: bytes) -> int:
    return len(data) + _OVERHEAD
