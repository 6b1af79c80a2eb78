"""Framing of what is received (PS3.8 §9.3): bytes, cut anywhere, to PDUs and to the fragments inside P-DATA-TF.

P-DATA-TF is never collected: as soon as a fragment's header is there, its bytes are passed on as they come, as views
of the caller's buffer. Everything else is collected up to its length, which has been checked before.
"""

from struct import Struct
from typing import Protocol

from rxdicom.errors import PeerProtocolError
from rxdicom.wire.pdu import HEADER, HEADER_SIZE, P_DATA_TF, PDV_HEADER

_SINGLE = Struct(HEADER.format + PDV_HEADER.format.removeprefix(">"))
_SHORTEST = _SINGLE.size + 1

COLLECT, STREAM, SKIP = range(3)
"""What is to be done with a PDU: collect it whole, stream its fragments, pass over it."""


class PDUHandler(Protocol):
    """Who is told what was received. Errors that it raises end the feeding."""

    def begin_pdu(self, pdu_type: int, length: int) -> int:
        """A PDU of ``length`` bytes behind its header starts. Returns what is to be done with it."""
        ...

    def whole_fragment(self, context_id: int, control: int, data: memoryview) -> bool:
        """A P-DATA-TF with one fragment, which is all there. False, without consequences: it is to come in parts."""
        ...

    def end_pdu(self, pdu: bytes) -> None:
        """A collected PDU, header included."""
        ...

    def begin_fragment(self, context_id: int, control: int, length: int) -> None: ...

    def fragment_data(self, data: memoryview) -> None: ...

    def end_fragment(self) -> None: ...

    def end_p_data(self) -> None:
        """A P-DATA-TF is over."""
        ...


class Receiver:
    """Feeds a :class:`PDUHandler`."""

    __slots__ = ("_collected", "_handler", "_header", "_in_pdu", "_mode", "_pdu_left", "_pdv_left")

    def __init__(self, handler: PDUHandler) -> None:
        self._handler = handler
        self._header = bytearray()
        self._collected: bytearray | None = None
        self._mode = COLLECT
        self._in_pdu = False
        self._pdu_left = 0
        self._pdv_left = 0

    @property
    def collected(self) -> int:
        """Bytes that are held of a PDU that has not come whole."""
        return len(self._collected or b"")

    def feed(self, data: memoryview) -> None:
        """Take the next bytes. Raises :class:`~rxdicom.errors.PeerProtocolError` where they cannot be a PDU."""
        position, end = 0, len(data)
        while position < end:
            if self._pdv_left:
                position = self._fragment(data, position, end)
            elif (stop := self._whole(data, position, end)) is not None:
                position = stop
            elif not self._in_pdu or self._mode == STREAM:
                position = self._read_header(data, position, end)
            else:
                position = self._body(data, position, end)

    def _whole(self, data: memoryview, position: int, end: int) -> int | None:
        """Take a P-DATA-TF of one fragment that is all there, as those of nearly all small messages; None for others.

        Nothing but speed depends on this: what it takes, the other methods would take in the same way.
        """
        if self._in_pdu or self._header or end - position < _SHORTEST:
            return None
        pdu_type, length, fragment, context_id, control = _SINGLE.unpack_from(data, position)
        stop = position + HEADER_SIZE + length
        if pdu_type != P_DATA_TF or fragment != length - 4 or fragment <= 2 or stop > end:
            return None
        return (
            stop if self._handler.whole_fragment(context_id, control, data[position + _SHORTEST - 1 : stop]) else None
        )

    def skip(self) -> None:
        """Pass over the rest of a P-DATA-TF that is being streamed: nobody wants its fragments any more."""
        if self._in_pdu and self._mode == STREAM:
            self._mode, self._collected, self._pdv_left = SKIP, None, 0
            self._pdu_left -= len(self._header)
            self._header = bytearray()

    def close(self) -> None:
        """Nothing more comes: who keeps the association does not keep half a PDU."""
        self._collected = None

    def _fragment(self, data: memoryview, position: int, end: int) -> int:
        stop = min(end, position + self._pdv_left)
        self._handler.fragment_data(data[position:stop])
        self._pdv_left -= stop - position
        self._pdu_left -= stop - position
        if not self._pdv_left:
            self._end_fragment()
        return stop

    def _read_header(self, data: memoryview, position: int, end: int) -> int:
        """The six bytes of a PDU header or of a PDV header, which are of one size, cut or not."""
        if not self._header and end - position >= HEADER_SIZE:
            self._begin(data, position)
            return position + HEADER_SIZE
        stop = min(end, position + HEADER_SIZE - len(self._header))
        self._header += data[position:stop]
        if len(self._header) == HEADER_SIZE:
            header, self._header = self._header, bytearray()
            self._begin(memoryview(header), 0)
        return stop

    def _begin(self, data: memoryview, position: int) -> None:
        if self._in_pdu:
            self._begin_fragment(data, position)
        else:
            self._begin_pdu(data, position)

    def _begin_pdu(self, data: memoryview, position: int) -> None:
        pdu_type, length = HEADER.unpack_from(data, position)
        self._mode = self._handler.begin_pdu(pdu_type, length)
        self._pdu_left = length
        self._collected = bytearray(data[position : position + HEADER_SIZE]) if self._mode == COLLECT else None
        self._in_pdu = True
        if length == 0:
            self._end_pdu()
        elif self._mode == STREAM and length < PDV_HEADER.size:
            raise PeerProtocolError(f"a P-DATA-TF of {length} bytes, too short for a PDV", 6)

    def _begin_fragment(self, data: memoryview, position: int) -> None:
        length, context_id, control = PDV_HEADER.unpack_from(data, position)
        if not 2 <= length <= self._pdu_left - 4:
            raise PeerProtocolError(f"a PDV claims {length} bytes, {self._pdu_left - 4} are left in its P-DATA-TF", 6)
        self._pdv_left = length - 2
        self._pdu_left -= PDV_HEADER.size
        self._handler.begin_fragment(context_id, control, length - 2)
        if not self._pdv_left:
            self._end_fragment()

    def _end_fragment(self) -> None:
        self._handler.end_fragment()
        if not self._pdu_left:
            self._end_pdu()
        elif self._pdu_left < PDV_HEADER.size:
            raise PeerProtocolError(f"{self._pdu_left} stray bytes at the end of a P-DATA-TF", 6)

    def _body(self, data: memoryview, position: int, end: int) -> int:
        stop = min(end, position + self._pdu_left)
        if self._collected is not None:
            self._collected += data[position:stop]
        self._pdu_left -= stop - position
        if not self._pdu_left:
            self._end_pdu()
        return stop

    def _end_pdu(self) -> None:
        collected, self._collected = self._collected, None
        self._in_pdu = False
        if self._mode == STREAM:
            self._handler.end_p_data()
        elif self._mode == COLLECT and collected is not None:
            self._handler.end_pdu(bytes(collected))
