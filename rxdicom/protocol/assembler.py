"""Assembly of messages from fragments (PS3.8 Annex E, PS3.7 §8.1): in order, bounded, the dataset into a sink."""

from collections.abc import Callable, Sequence
from typing import Protocol

from rxdicom.errors import ArgumentError, PeerProtocolError
from rxdicom.wire.dimse import MAX_COMMAND_SET, NO_DATASET, Message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.pdu import PDV, PDataTF
from rxdicom.wire.templates import CommandDecoder

_COMMAND, _LAST = 1, 2
_ALONE = _COMMAND | _LAST
UNEXPECTED_PARAMETER = 5
"""A-ABORT reason "unexpected PDU parameter" (PS3.8 table 9-26)."""


class Sink(Protocol):
    """Takes the bytes of one dataset. It never raises: what goes wrong is in the ``error`` of the result.

    Either ``finish`` or ``discard`` is called, once.
    """

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Take what came in one go. The memory behind it is used again afterwards."""
        ...

    def finish(self) -> Encoded:
        """The whole dataset."""
        ...

    def discard(self) -> None:
        """The rest will not come: give up what has been kept."""
        ...


OpenSink = Callable[[Message, str], Sink]
"""Chooses the sink when the command set is there: (the message without its dataset, transfer syntax UID).

:class:`~rxdicom.errors.ArgumentError` says that the elements of the command set do not do for one: it is refused.
"""


class MemorySink:
    """A sink without effects: everything stays in memory. The size is the caller's to bound."""

    def __init__(self, message: Message, transfer_syntax: str) -> None:
        del message
        self._syntax = transfer_syntax
        self._data = bytearray()

    def write(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self._data += piece

    def finish(self) -> Encoded:
        return Encoded(self._syntax, self._data)

    def discard(self) -> None:
        self._data = bytearray()


class PDataCopy:
    """The record of a P-DATA-TF, made from its fragments while they are streamed."""

    def __init__(self) -> None:
        self._values: list[PDV] = []
        # For a fragment that comes in parts. It is used again, for new memory costs more than another copy.
        self._parts = bytearray()
        self._context_id = self._control = self._length = self._filled = 0
        self._data = b""

    def begin_fragment(self, context_id: int, control: int, length: int) -> None:
        self._context_id, self._control, self._length = context_id, control, length
        self._filled, self._data = 0, b""
        if len(self._parts) < length:
            self._parts = bytearray(length)

    def write(self, data: memoryview) -> None:
        if len(data) == self._length:
            self._data = bytes(data)
            return
        stop = self._filled + len(data)
        self._parts[self._filled : stop] = data
        self._filled = stop

    def end_fragment(self) -> None:
        data = bytes(memoryview(self._parts)[: self._filled]) if self._filled else self._data
        self._values.append(PDV(self._context_id, self._control, data))

    def take(self) -> PDataTF:
        """The whole of it; another one begins."""
        values, self._values = self._values, []
        return PDataTF(tuple(values))


class Assembler:
    """Fragments in, messages out. ``syntax_of`` gives the transfer syntax of an accepted context, None otherwise."""

    def __init__(self, syntax_of: Callable[[int], str | None], open_sink: OpenSink, limit: int) -> None:
        self._syntax_of = syntax_of
        self._open_sink = open_sink
        self._limit = limit
        self._command = bytearray()
        self._decoder = CommandDecoder()
        self._message: Message | None = None
        self._sink: Sink | None = None
        self._pieces: list[memoryview] = []
        self._completed: list[tuple[Message, Sink | None]] = []
        self._context_id: int | None = None
        self._control = 0
        self._received = 0
        # Of the P-DATA-TF that is coming, where somebody watches it; and one that is used again.
        self._copy: PDataCopy | None = None
        self._spare: PDataCopy | None = None

    def keep_copy(self) -> None:
        """A P-DATA-TF begins that somebody watches: :meth:`copied` is to give it at its end."""
        self._copy, self._spare = self._spare or PDataCopy(), None

    def copied(self) -> PDataTF | None:
        """The P-DATA-TF that is over, if it was to be kept."""
        if self._copy is None:
            return None
        self._copy, self._spare = None, self._copy
        return self._spare.take()

    def whole_fragment(self, context_id: int, control: int, data: memoryview) -> Message | None:
        """Take a fragment that is alone in its P-DATA-TF and all there; the message that it completes, if it does.

        Raises :class:`~rxdicom.errors.PeerProtocolError`.
        """
        if control == _ALONE and self._context_id is None and not self._command:
            # The whole command set, as nearly always: it needs not be collected.
            if self._syntax_of(context_id) is None:
                raise _not_accepted(context_id)
            message = Message(self._decoder.decode(data), context_id)
            if message.command.get("CommandDataSetType", NO_DATASET) == NO_DATASET:
                return message
            self._context_id = context_id
            self._begin_dataset(message)
            return None
        self.begin_fragment(context_id, control, len(data))
        self.write(data)
        self.end_fragment()
        completed = self.take()
        return completed[0] if completed else None

    def begin_fragment(self, context_id: int, control: int, length: int) -> None:
        """Check that a fragment may come now. Raises :class:`~rxdicom.errors.PeerProtocolError` if not."""
        if self._context_id is None:
            if self._syntax_of(context_id) is None:
                raise _not_accepted(context_id)
            self._context_id = context_id
        elif context_id != self._context_id:
            raise PeerProtocolError("the presentation context changed within a message", UNEXPECTED_PARAMETER)
        if bool(control & _COMMAND) != (self._sink is None):
            part = "command" if control & _COMMAND else "dataset"
            raise PeerProtocolError(f"a {part} fragment where none can be", UNEXPECTED_PARAMETER)
        self._control = control
        if self._copy is not None:
            self._copy.begin_fragment(context_id, control, length)

    def write(self, data: memoryview) -> None:
        if self._copy is not None:
            self._copy.write(data)
        if self._sink is not None:
            self._received += len(data)
            if self._received > 2 * self._limit:
                # Within the limit it is kept, beyond it discarded; what still does not end is an attack.
                raise PeerProtocolError(f"a dataset of more than twice the limit of {self._limit} bytes")
            self._pieces.append(data)
        else:
            if len(self._command) + len(data) > MAX_COMMAND_SET:
                raise PeerProtocolError(f"a command set of more than {MAX_COMMAND_SET} bytes", 6)
            self._command += data

    def flush(self) -> None:
        """The memory in which data came is going to be used again: have the sink take it."""
        if self._pieces and self._sink is not None:
            self._sink.write(self._pieces)
            self._pieces = []

    def end_fragment(self) -> None:
        """The fragment is over, and with it the command set or the message, if it was the last."""
        if self._copy is not None:
            self._copy.end_fragment()
        if not self._control & _LAST:
            return
        if self._message is not None:
            self.flush()
            self._complete(self._message, self._sink)
            return
        context_id = self._context_id or 0
        message = Message(self._decoder.decode(self._command), context_id)
        if message.has_dataset:
            self._begin_dataset(message)
        else:
            self._complete(message, None)

    def _begin_dataset(self, message: Message) -> None:
        try:
            self._sink = self._open_sink(message, self._syntax_of(message.context_id) or "")
        except ArgumentError as error:
            raise PeerProtocolError(f"a command set that cannot be used: {error}", 6) from None
        self._message = message

    def _complete(self, message: Message, sink: Sink | None) -> None:
        self._completed.append((message, sink))
        self._reset()

    def take(self) -> list[Message]:
        """The messages that are whole, at the end of a P-DATA-TF: until then :meth:`discard` still takes them back."""
        if not self._completed:
            return []
        completed, self._completed = self._completed, []
        return [
            message if sink is None else Message(message.command, message.context_id, sink.finish())
            for message, sink in completed
        ]

    def _reset(self) -> None:
        self._command = bytearray()
        self._message = self._sink = self._context_id = None
        self._received = 0
        self._pieces = []

    def discard(self) -> None:
        """The association is over: give up what has not been taken, and a message that is half here."""
        for sink in (*(sink for _, sink in self._completed), self._sink):
            if sink is not None:
                sink.discard()
        self._completed.clear()
        self._copy = self._spare = None
        self._reset()


def _not_accepted(context_id: int) -> PeerProtocolError:
    """What is wrong with data for a presentation context that was not accepted."""
    return PeerProtocolError(f"data for presentation context {context_id}, which is not accepted", 6)
