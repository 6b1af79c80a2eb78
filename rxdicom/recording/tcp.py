"""TCP streams put together again from captured segments: repeated ones, late ones, and those that never come."""

from collections.abc import Iterator

from attrs import frozen

from rxdicom.recording.packets import Segment

_MODULO = 1 << 32
_MOST_WAITING = 1 << 24
"""Bytes that may wait for earlier ones. A receiver's window is smaller: then these were not captured."""


@frozen
class Gap:
    """Bytes that were transferred but not captured. Nothing comes behind it."""

    size: int


class Stream:
    """One direction of a connection: segments in, bytes in their order out."""

    def __init__(self) -> None:
        self._next: int | None = None
        # By the number of their first byte.
        self._waiting: dict[int, bytes] = {}
        self._end: int | None = None
        self.is_lost = False
        """Whether there was a gap."""

    @property
    def is_over(self) -> bool:
        """Whether everything has come that its sender had to say."""
        return self._end is not None and self._next == self._end

    def add(self, segment: Segment) -> Iterator[bytes | Gap]:
        """Take one more segment: what is whole now. A stream whose beginning was not captured begins where it can."""
        if self.is_lost:
            return
        sequence = segment.sequence
        if segment.has_syn:
            sequence = (sequence + 1) % _MODULO
            if self._next is None:
                self._next = sequence
        if self._next is None:
            if not (segment.data or segment.missing):
                return
            self._next = sequence
        if segment.has_fin:
            self._end = (sequence + len(segment.data) + segment.missing) % _MODULO
        yield from self._place(sequence, segment.data)
        if segment.missing and self._next == (sequence + len(segment.data)) % _MODULO:
            yield self._lose(segment.missing)

    def has_heard(self, segment: Segment) -> bool:
        """Whether there is nothing new in a segment, which was captured or sent again."""
        size = len(segment.data) + segment.missing
        return not size or (self._next is not None and self._ahead((segment.sequence + size) % _MODULO) <= 0)

    def finish(self) -> Iterator[Gap]:
        """No segment comes any more: what waits, waits in vain."""
        if self._waiting and not self.is_lost:
            yield self._gap()

    def _place(self, sequence: int, data: bytes) -> Iterator[bytes | Gap]:
        if not data or self._next is None:
            return
        kept = self._waiting.get(sequence, b"")
        self._waiting[sequence] = max(data, kept, key=len)
        while (ready := self._ready()) is not None:
            yield ready
        if sum(map(len, self._waiting.values())) > _MOST_WAITING:
            yield self._gap()

    def _ready(self) -> bytes | None:
        """What comes next, if it is there. What has come before is dropped."""
        for sequence in tuple(self._waiting):
            ahead = self._ahead(sequence)
            if ahead <= 0:
                data = self._waiting.pop(sequence)[-ahead:]
                if data:
                    assert self._next is not None
                    self._next = (self._next + len(data)) % _MODULO
                    return data
        return None

    def _ahead(self, sequence: int) -> int:
        """How far a sequence number is ahead of the next byte; negative behind it (RFC 9293 §3.4)."""
        assert self._next is not None
        return (sequence - self._next + _MODULO // 2) % _MODULO - _MODULO // 2

    def _gap(self) -> Gap:
        return self._lose(min(map(self._ahead, self._waiting)))

    def _lose(self, size: int) -> Gap:
        self._waiting.clear()
        self.is_lost = True
        return Gap(size)
