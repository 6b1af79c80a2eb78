"""Delivery of notification events to any number of observers, serialised, in order, without an unbounded queue.

A hub belongs to an association, a server or an AE. Events are appended by whoever holds the association's state lock
and delivered, after that is released, by whoever holds the hub's *turn*. This module knows nothing of Rx.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from traceback import format_stack
from typing import Any

from rxdicom.errors import StateError
from rxdicom.log import Lines, concerning, named

CHANNELS = 18
"""One per notification kind, by its number, and one more."""
ASSOCIATIONS = 17
"""The channel of the associations themselves."""

# Whether this thread is inside an observer, of any hub: it must not wait for a turn or for the network then. That is
# a fact about the thread, so it is kept with it.
_thread = threading.local()

OnNext = Callable[[Any], object]
OnCompleted = Callable[[], object]


def in_observer() -> bool:
    """Whether the current thread is delivering an event right now."""
    return getattr(_thread, "depth", 0) > 0


@contextmanager
def as_observer() -> Generator[None]:
    """Within this the current thread counts as inside an observer: it calls somebody's callback."""
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1


def forbid_in_observer(call: str) -> None:
    """Raise :class:`~rxdicom.errors.StateError` where ``call`` would wait for the network inside an observer."""
    if getattr(_thread, "depth", 0):
        raise StateError(f"{call} waits for the network and cannot be called by an observer; hand over to a thread")


class Hub:
    """Observers by channel, and the queue of what has not yet been delivered to them."""

    __slots__ = ("_admin", "_channels", "_completed", "_delivering", "_owner", "_queue", "_turn", "mask")

    def __init__(self) -> None:
        self.mask = 0
        """Bit n is set while somebody observes channel n."""
        self._channels: list[tuple[_Observer, ...]] = [()] * CHANNELS
        self._queue: deque[tuple[int, Any, int]] = deque()
        self._admin = threading.Lock()
        self._turn = threading.Lock()
        self._owner = 0
        self._completed = False
        self._delivering: Callable[..., object] | None = None

    def subscribe(self, channel: int, on_next: OnNext, on_completed: OnCompleted | None = None) -> Callable[[], None]:
        """Add an observer. Returns what removes it. After the completion it is completed at once."""
        observer = _Observer(on_next, on_completed)
        with self._admin:
            completed = self._completed
            if not completed:
                self._channels[channel] = (*self._channels[channel], observer)
                self.mask |= 1 << channel

        def dispose() -> None:
            observer.active = False
            with self._admin:
                left = tuple(each for each in self._channels[channel] if each is not observer)
                self._channels[channel] = left
                if not left:
                    self.mask &= ~(1 << channel)

        if completed and on_completed is not None:
            guarded(on_completed)
        return dispose

    def append(self, channel: int, value: Any) -> None:
        """Queue an event; :meth:`drain`, by the same thread, is to follow once no lock is held."""
        self._queue.append((channel, value, threading.get_ident()))

    def complete(self) -> None:
        """Queue the end of all streams."""
        self.append(-1, None)

    def drain(self, timeout: float | None = None) -> bool:
        """Deliver what is queued, or wait until another thread has delivered what this one queued.

        False if that took longer than ``timeout`` seconds. With 0, and inside an observer, a thread never waits: it
        leaves its events to the owner of the turn, who looks again.
        """
        may_wait = timeout != 0 and not in_observer()
        while self._queue:
            if not self._turn.acquire(blocking=False):
                # Who has the turn looks again for what those left who did not wait.
                if not may_wait or not self._own():
                    return True
                if not self._turn.acquire(timeout=-1 if timeout is None else timeout):
                    return self._give_up(timeout)
            try:
                self._deliver_queued()
            finally:
                self._turn.release()
        return True

    def _own(self) -> list[Any]:
        """What the current thread queued and has not yet been delivered."""
        thread = threading.get_ident()
        return [value for _, value, queued_by in self._queue.copy() if queued_by == thread]

    def _give_up(self, timeout: float | None) -> bool:
        waiting = self._own()
        if not waiting:
            return True
        # Behind Rx observers have no names of their own; where the thread stands says which one it is.
        frame = sys._current_frames().get(self._owner)  # pyright: ignore[reportPrivateUsage] - documented as public
        stack = "".join(format_stack(frame)) if frame is not None else ""
        log = concerning(waiting[0])
        log.error("observer %s has not returned within %s s:\n%s", named(self._delivering), timeout, Lines.of(stack))
        return False

    def _deliver_queued(self) -> None:
        """Deliver until nothing is queued; called by the owner of the turn."""
        self._owner = threading.get_ident()
        _thread.depth = getattr(_thread, "depth", 0) + 1
        try:
            # An event stays queued until it has been delivered: others wait for its delivery, not its removal.
            while self._queue:
                channel, value, _ = self._queue[0]
                try:
                    if channel < 0:
                        self._finish()
                    else:
                        self._deliver(channel, value)
                finally:
                    self._queue.popleft()
        finally:
            self._delivering = None
            _thread.depth -= 1

    def _deliver(self, channel: int, value: Any) -> None:
        for observer in self._channels[channel]:
            if observer.active:
                self._delivering = observer.on_next
                guarded(observer.on_next, value)

    def _finish(self) -> None:
        with self._admin:
            channels, self._channels = self._channels, [()] * CHANNELS
            self._completed = True
            self.mask = 0
        for observers in channels:
            for observer in observers:
                if observer.active and observer.on_completed is not None:
                    self._delivering = observer.on_completed
                    guarded(observer.on_completed)


class _Observer:
    __slots__ = ("active", "on_completed", "on_next")

    def __init__(self, on_next: OnNext, on_completed: OnCompleted | None) -> None:
        self.on_next = on_next
        self.on_completed = on_completed
        self.active = True


def guarded(callback: Callable[..., object], *values: Any) -> None:
    """Call an observer; what it raises is logged, and is nobody else's business."""
    try:
        callback(*values)
    except Exception:  # noqa: BLE001 - the edge of the user's callback
        concerning(values[0] if values else None).exception("exception in observer %s", named(callback))
