"""The connection between two associations in memory: bytes both ways, by the script of faults."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rxdicom.testing.faults import Act, End, Fault, Faults, Pause, Script

if TYPE_CHECKING:
    from rxdicom.testing.association import MemoryAssociation
    from rxdicom.testing.clock import VirtualClock

_RESET = "Connection reset by peer"


class Link:
    """Joins the association of a requestor with that of an acceptor."""

    def __init__(
        self, clock: "VirtualClock", requestor: "MemoryAssociation", acceptor: "MemoryAssociation", faults: Faults
    ) -> None:
        self.requestor = requestor
        self.acceptor = acceptor
        self._directions = (
            _Direction(clock, requestor, acceptor, faults.from_requestor),
            _Direction(clock, acceptor, requestor, faults.from_acceptor),
        )

    @property
    def is_over(self) -> bool:
        """Whether both sides are closed."""
        return self.requestor.is_gone and self.acceptor.is_gone

    def step(self) -> bool:
        """Move something, or close a side that is done. Whether there was anything to do."""
        for each in self._directions:
            if each.step():
                if each.ended is not None:
                    self.cut(reset=each.ended.reset)
                return True
        return False

    def cut(self, *, reset: bool = False) -> None:
        """End the connection for both sides, now: in order, or by a reset."""
        for each in (self.requestor, self.acceptor):
            each.close(_RESET if reset else "")

    def release(self) -> None:
        """End the delays that have no time of their own."""
        for each in self._directions:
            each.release()

    def next_deadline(self) -> float | None:
        """When a delay ends."""
        moments = [each.paused_until for each in self._directions if each.paused_until is not None]
        return min(moments, default=None)


class _Direction:
    """What one side sends, on its way to the other."""

    def __init__(
        self,
        clock: "VirtualClock",
        source: "MemoryAssociation",
        sink: "MemoryAssociation",
        faults: Sequence[Fault],
    ) -> None:
        self._clock = clock
        self._source = source
        self._sink = sink
        self._script = Script(faults)
        self._acts: deque[Act] = deque()
        self._is_held = False
        self._is_released = False
        self._has_ended = False
        self.paused_until: float | None = None
        self.ended: End | None = None

    def release(self) -> None:
        self._is_held, self._is_released = False, True

    def step(self) -> bool:
        if self.paused_until is not None and self._clock.seconds >= self.paused_until:
            self.paused_until = None
        if self._is_held or self.paused_until is not None or self._sink.is_gone:
            return self._source.wants_to_close and self._close_source()
        if self._acts:
            return self._sink.wants_data and self._act(self._acts.popleft())
        data = None if self._source.is_gone else self._source.take_data()
        if data is not None:
            self._acts.extend(self._script.feed(data))
            return True
        if self._source.wants_to_close:
            return self._close_source()
        return self._source.is_gone and self._end()

    def _act(self, act: Act) -> bool:
        match act:
            case End():
                self.ended = act
            case Pause(None):
                self._is_held = not self._is_released
            case Pause(seconds):
                self.paused_until = self._clock.seconds + (seconds or 0.0)
            case bytes():
                self._sink.receive_data(act)
        return True

    def _close_source(self) -> bool:
        self._source.close()
        return True

    def _end(self) -> bool:
        """The source has closed, and everything before has arrived."""
        held = self._script.finish()
        if held:
            self._sink.receive_data(held)
        self._sink.close()
        return True
