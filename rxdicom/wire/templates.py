"""Command sets that are remembered. Those of one association often differ in their message ID and the SOP Instance UID
alone; then the rest of them need not be encoded, or decoded, again. Nothing but speed depends on this."""

from collections.abc import Mapping
from struct import Struct
from typing import Any

from attrs import frozen

from rxdicom.wire.dimse import ELEMENTS, Message, decode_command_set
from rxdicom.wire.pdata import COMMAND, LAST, command_pdus, fragment_header, fragment_length
from rxdicom.wire.uids import clean_uid

_GROUP_LENGTH = Struct("<HHII")
_ELEMENT = Struct("<HHI")
_US, _UL = Struct("<H"), Struct("<I")
_START = _ELEMENT.pack(0, 0, 4)
"""How a command set begins: with the header of its group length, whose value changes with that of a UID."""
_FIRST = _GROUP_LENGTH.size
_IDENTIFIERS = {ELEMENTS[each].number: each for each in ("MessageID", "MessageIDBeingRespondedTo")}
_INSTANCE = "AffectedSOPInstanceUID"
_INSTANCE_NUMBER = ELEMENTS[_INSTANCE].number


@frozen
class _Gaps:
    """Where the values are that change, in an encoded command set: positions, 0 for none."""

    keyword: str = ""
    """Of the message ID."""
    number_at: int = 0
    uid_at: int = 0
    uid_end: int = 0


def _gaps(raw: bytes) -> _Gaps:
    """Those of a command set that can be remembered; none at all of another."""
    numbers: list[tuple[str, int]] = []
    uids: list[tuple[int, int]] = []
    position = 0
    while position < len(raw):
        group, number, length = _ELEMENT.unpack_from(raw, position)
        position += _ELEMENT.size
        if group == 0 and number in _IDENTIFIERS:
            numbers.append((_IDENTIFIERS[number], position if length == _US.size else 0))
        elif group == 0 and number == _INSTANCE_NUMBER:
            uids.append((position, position + length))
        position += length
    if len(numbers) != 1 or len(uids) > 1 or raw[: len(_START)] != _START:
        return _Gaps()
    (keyword, number_at), (uid_at, uid_end) = numbers[0], uids[0] if uids else (0, 0)
    is_in_order = number_at > _FIRST and (not uid_at or number_at < uid_at)
    return _Gaps(keyword, number_at, uid_at, uid_end) if is_in_order else _Gaps()


def _is_worth_it(misses: int) -> bool:
    """Whether a command set is remembered, after so many that were like none before: of such a series only some."""
    return misses < 4 or misses % 64 == 0


class CommandDecoder:
    """:func:`~rxdicom.wire.dimse.decode_command_set` for the command sets of one association."""

    __slots__ = ("_after", "_before", "_between", "_between_end", "_command", "_gaps", "_misses", "_size")

    def __init__(self) -> None:
        self._misses = 0
        self._command: dict[str, Any] = {}
        self._gaps = _Gaps()
        self._size = 0
        self._before = self._between = self._after = b""
        self._between_end = 0

    def decode(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """The elements by keyword, in a new dict. Raises :class:`~rxdicom.errors.PeerProtocolError`."""
        raw = bytes(data)
        gaps = self._gaps
        at = gaps.number_at
        if (
            at
            and raw[at + 2 : self._between_end] == self._between
            and raw[_FIRST:at] == self._before
            and raw[: len(_START)] == _START
        ):
            start, stop = gaps.uid_at, len(raw) - len(self._after)
            if not start:
                if len(raw) == self._size:
                    return self._changed(raw, at)
            elif stop >= start and _UL.unpack_from(raw, start - 4)[0] == stop - start and raw[stop:] == self._after:
                command = self._changed(raw, at)
                command[_INSTANCE] = clean_uid(raw[start:stop])
                return command
        command = decode_command_set(raw)
        self._misses += 1
        if _is_worth_it(self._misses):
            self._remember(raw, command)
        return command

    def _changed(self, raw: bytes, at: int) -> dict[str, Any]:
        self._misses = 0
        command = self._command.copy()
        command["CommandGroupLength"] = _UL.unpack_from(raw, len(_START))[0]
        command[self._gaps.keyword] = _US.unpack_from(raw, at)[0]
        return command

    def _remember(self, raw: bytes, command: dict[str, Any]) -> None:
        gaps = self._gaps = _gaps(raw)
        self._command, self._size = command.copy(), len(raw)
        self._before = raw[_FIRST : gaps.number_at]
        self._between_end = gaps.uid_at - 4 if gaps.uid_at else len(raw)
        self._between = raw[gaps.number_at + 2 : self._between_end]
        self._after = raw[gaps.uid_end :] if gaps.uid_at else b""


class CommandEncoder:
    """:func:`~rxdicom.wire.pdata.command_pdus` for the command sets of one association."""

    __slots__ = ("_after", "_before", "_between", "_command", "_gaps", "_misses", "_most", "_terms")

    def __init__(self) -> None:
        self._misses = 0
        self._command: dict[str, Any] = {}
        self._terms = 0, 0
        self._gaps = _Gaps()
        self._most = 0
        self._before = self._between = self._after = b""

    def encode(self, message: Message, maximum_length: int) -> bytes:
        """The PDUs. Raises :class:`~rxdicom.errors.ArgumentError` for an element that cannot be encoded."""
        gaps, command = self._gaps, message.command
        number = command.get(gaps.keyword)
        if number is not None and (message.context_id, maximum_length) == self._terms:
            self._command[gaps.keyword] = number
            if gaps.uid_at:
                self._command[_INSTANCE] = command.get(_INSTANCE)
            if command == self._command and 0 <= number <= 0xFFFF:
                pdus = self._filled(message.context_id, number, command) if gaps.uid_at else self._numbered(number)
                if pdus is not None:
                    self._misses = 0
                    return pdus
        pdus = command_pdus(message, maximum_length)
        self._misses += 1
        if _is_worth_it(self._misses):
            self._remember(message.command, (message.context_id, maximum_length), pdus)
        return pdus

    def _numbered(self, number: int) -> bytes:
        return self._before + _US.pack(number) + self._between

    def _filled(self, context_id: int, number: int, command: Mapping[str, Any]) -> bytes | None:
        """With another SOP Instance UID, which may be longer or shorter. None if it cannot be so."""
        uid = command[_INSTANCE]
        if not isinstance(uid, str) or not uid.isascii():
            return None
        value = uid.encode()
        if len(value) & 1:
            value += b"\0"
        body = b"".join(
            (self._before, _US.pack(number), self._between, _UL.pack(len(value)), value, self._after)
        )  # fmt: skip
        if len(body) > self._most:
            return None
        header = fragment_header(_FIRST + len(body), context_id, COMMAND | LAST)
        return header + _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body

    def _remember(self, command: Mapping[str, Any], terms: tuple[int, int], pdus: bytes) -> None:
        most = fragment_length(terms[1])
        header = len(fragment_header(0, 0, 0))
        raw = pdus[header:]
        if len(raw) > most:
            # Several PDUs: as rare as it is strange.
            self._gaps = _Gaps()
            return
        gaps = self._gaps = _gaps(raw)
        self._command, self._terms, self._most = dict(command), terms, most - _FIRST
        # Without a UID the size stays as it is, and with it all that comes before the message ID.
        self._before = raw[_FIRST : gaps.number_at] if gaps.uid_at else pdus[: header + gaps.number_at]
        self._between = raw[gaps.number_at + 2 : gaps.uid_at - 4 if gaps.uid_at else len(raw)]
        self._after = raw[gaps.uid_end :] if gaps.uid_at else b""
