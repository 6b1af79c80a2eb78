"""What can happen to the bytes between two peers, as a script: pure, so that sockets and memory are harmed alike.

Positions count the bytes that a side has sent, from 0, as it sent them: one fault does not move another.
"""

from collections.abc import Iterable, Iterator, Sequence

from attrs import field, frozen

from rxdicom.errors import ArgumentError


@frozen
class Cut:
    """The connection ends once ``at`` bytes have passed: closed in order, or with ``reset`` by a TCP reset (RST)."""

    at: int
    reset: bool = False


@frozen
class Delay:
    """Byte ``at`` and what follows it comes ``seconds`` later, or for None, when the test says so."""

    at: int
    seconds: float | None = None


@frozen
class Split:
    """What is sent is handed on in two parts, the second from byte ``at`` on; with ``every``, again and again.

    A receiver that is slow may still read both at once; with a :class:`Delay` at the same byte it will not.
    """

    at: int
    every: int = 0


@frozen
class Corrupt:
    """The bytes from ``at`` on are replaced by ``data``; by None the one byte there is inverted."""

    at: int
    data: bytes | None = None


@frozen
class Reorder:
    """The ``length`` bytes from ``at`` on and the ``length`` bytes behind them change places."""

    at: int
    length: int


Fault = Cut | Delay | Split | Corrupt | Reorder


@frozen
class Faults:
    """The scripts of one connection, by who sent the bytes: the side that connected, or the one that listened."""

    from_requestor: Sequence[Fault] = field(default=(), converter=tuple[Fault, ...])
    from_acceptor: Sequence[Fault] = field(default=(), converter=tuple[Fault, ...])


@frozen
class Pause:
    """Nothing more passes for ``seconds``, or until the test says so."""

    seconds: float | None


@frozen
class End:
    """The connection ends."""

    reset: bool


Act = bytes | Pause | End
"""What is to be done next: hand bytes on, in one go, or wait, or end."""


class Script:
    """One direction of one connection: bytes in, what is to be done out."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        """Raises :class:`~rxdicom.errors.ArgumentError` for positions before the first byte."""
        given = tuple(faults)
        if any(each.at < 0 for each in given):
            raise ArgumentError("a fault before the first byte; positions count from 0")
        self._corrupted = [each for each in given if isinstance(each, Corrupt)]
        self._splits = [each for each in given if isinstance(each, Split)]
        self._stops = sorted(
            (each for each in given if isinstance(each, Cut | Delay)), key=lambda each: (each.at, isinstance(each, Cut))
        )
        self._reordered = sorted((each for each in given if isinstance(each, Reorder)), key=lambda each: each.at)
        self._position = 0
        self._held = b""
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Act]:
        """The next bytes that were sent."""
        data = self._corrupt(data)
        while data and not self._ended:
            yield from self._stop()
            if self._ended:
                return
            size = min([len(data), *(at - self._position for at in self._boundaries())])
            part, data = data[:size], data[size:]
            ordered = self._order(part)
            self._position += size
            if ordered:
                yield ordered
        if self._stops and isinstance(self._stops[0], Cut):
            yield from self._stop()

    def _stop(self) -> Iterator[Act]:
        """What happens at the current position."""
        while self._stops and self._stops[0].at <= self._position and not self._ended:
            stop = self._stops.pop(0)
            self._ended = isinstance(stop, Cut)
            yield End(stop.reset) if isinstance(stop, Cut) else Pause(stop.seconds)

    def finish(self) -> bytes:
        """There is no more: what was held back to be reordered."""
        held, self._held = self._held, b""
        return held

    def _boundaries(self) -> Iterator[int]:
        """Where the next parts begin, behind the current position."""
        for stop in self._stops:
            yield stop.at
        for split in self._splits:
            if split.at > self._position:
                yield split.at
            elif split.every > 0:
                yield split.at + ((self._position - split.at) // split.every + 1) * split.every
        for each in self._reordered:
            if each.at > self._position:
                yield each.at
            elif each.at + 2 * each.length > self._position:
                yield each.at + 2 * each.length

    def _corrupt(self, data: bytes) -> bytes:
        changed = bytearray(data)
        end = self._position + len(data)
        for each in self._corrupted:
            for offset in range(1 if each.data is None else len(each.data)):
                at = each.at + offset
                if self._position <= at < end:
                    index = at - self._position
                    changed[index] = changed[index] ^ 0xFF if each.data is None else each.data[offset]
        return bytes(changed)

    def _order(self, part: bytes) -> bytes:
        """Hold back what is to be reordered until all of it is there."""
        region = next((each for each in self._reordered if each.at <= self._position < each.at + 2 * each.length), None)
        if region is None:
            return part
        self._held += part
        if len(self._held) < 2 * region.length:
            return b""
        whole = self.finish()
        return whole[region.length :] + whole[: region.length]
