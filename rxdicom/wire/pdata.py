"""Fragmentation (PS3.8 Annex E, PS3.7 Annex F): a message as runs of P-DATA-TF PDUs, made while they are sent."""

from collections.abc import Callable, Generator, Iterator
from struct import Struct

from rxdicom.errors import ArgumentError
from rxdicom.wire.dimse import Message, encode_command_set
from rxdicom.wire.encoded import Source
from rxdicom.wire.pdu import HEADER, HEADER_SIZE, P_DATA_TF, PDV_HEADER

_HEADERS = Struct(HEADER.format + PDV_HEADER.format.removeprefix(">"))
OVERHEAD = HEADER_SIZE + PDV_HEADER.size
"""Bytes of headers in front of each fragment that is sent alone in its PDU."""
RUN_SIZE = 405504
"""Bytes of PDUs that are prepared at a time, at most: large enough for few system calls (three PDUs of 128 KiB, with
the command set before them), small enough for the CPU's cache."""
UNLIMITED_LENGTH = 131072
"""PDU length used towards a peer that sets no limit, or a higher one: it bounds what a run allocates."""

COMMAND, LAST = 1, 2
"""Bits of the message control header of a fragment (PS3.8 §E.2)."""


def fragment_length(maximum_length: int) -> int:
    """Data bytes per fragment, even, for a peer's maximum length (0 is unlimited).

    >>> fragment_length(16384)
    16378
    """
    length = min(maximum_length or UNLIMITED_LENGTH, UNLIMITED_LENGTH)
    if length < 8:
        raise ArgumentError(f"the peer's maximum PDU length {length} leaves no room for data")
    return (length - PDV_HEADER.size) & ~1


def command_pdus(message: Message, maximum_length: int) -> bytes:
    """The command set of a message as one or more P-DATA-TF."""
    command = encode_command_set(message.command)
    step = fragment_length(maximum_length)
    if len(command) <= step:
        return fragment_header(len(command), message.context_id, COMMAND | LAST) + command
    pieces = [command[at : at + step] for at in range(0, len(command), step)]
    return b"".join(
        fragment_header(len(piece), message.context_id, COMMAND | (LAST if index == len(pieces) - 1 else 0)) + piece
        for index, piece in enumerate(pieces)
    )


def fragment_header(length: int, context_id: int, control: int) -> bytes:
    """The headers, of PDU and PDV, in front of a fragment of ``length`` bytes."""
    return _HEADERS.pack(P_DATA_TF, length + PDV_HEADER.size, length + 2, context_id, control)


def message_runs(
    message: Message,
    source: Source | None,
    maximum_length: int,
    encode: Callable[[Message, int], bytes] = command_pdus,
) -> Generator[bytes | memoryview, None, None]:
    """The message as runs of whole PDUs; each must be sent before the next is asked for, which reuses its memory.

    The command set and the first fragments of the dataset share the first run. ``source`` is read a run at a time
    and closed at the end, also when a run fails or the generator is closed early, or before its first run. ``encode``
    makes the PDUs of the command set.
    """
    runs = _runs(message, source, maximum_length, encode)
    # Into its try: a generator that was never started would not close its source.
    next(runs)
    return runs


def _runs(
    message: Message, source: Source | None, maximum_length: int, encode: Callable[[Message, int], bytes]
) -> Generator[bytes | memoryview, None, None]:
    try:
        yield b""
        command = encode(message, maximum_length)
        if source is None:
            yield command
        else:
            yield from _data_runs(command, message.context_id, source, fragment_length(maximum_length))
    finally:
        if source is not None:
            source.close()


def _data_runs(command: bytes, context_id: int, source: Source, step: int) -> Iterator[memoryview]:
    size, position = source.size, 0
    # An empty dataset still is one fragment, the last (PS3.7 §F): the peer waits for it.
    fragments = max(1, -(-size // step))
    most = max(1, (RUN_SIZE - len(command)) // (step + OVERHEAD))
    # As few runs as possible, and all alike: one for the end alone would cost as much as a whole one.
    per_run = -(-fragments // -(-fragments // most))
    buffer = bytearray(len(command) + min(size, per_run * step) + per_run * OVERHEAD)
    run = memoryview(buffer)
    buffer[: len(command)] = command
    end = len(command)
    header = fragment_header(step, context_id, 0)
    for first in range(0, fragments, per_run):
        views: list[memoryview] = []
        start = position
        for _ in range(min(per_run, fragments - first)):
            length = min(step, size - position)
            position += length
            last = position == size
            buffer[end : end + OVERHEAD] = fragment_header(length, context_id, LAST) if last else header
            views.append(run[end + OVERHEAD : end + OVERHEAD + length])
            end += OVERHEAD + length
        source.read_into(start, views)
        yield run[:end]
        end = 0
