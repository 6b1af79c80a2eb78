"""Delivery of notification events to any number of observers, serialised, in order, without an unbounded queue.

A hub belongs to an association, a server or an AE. Events are appended by whoever holds the association's state lock
and delivered, after that is released, by whoever holds the hub's *turn*. This module knows nothing of Rx.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from rxdicom.errors import StateError

_LOG = logging.getLogger("rxdicom")

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


def forbid_in_observer(call: str) -> None:
    """Raise :class:`~rxdicom.errors.StateError` where ``call`` would wait for the network inside an observer."""
    if in_observer():
        raise StateError(f"{call} waits for the network and cannot be called by an observer; hand over to a thread")


class Hub:
    """Observers by channel, and the queue of what has not yet been delivered to them."""

    __slots__ = ("_admin", "_channels", "_completed", "_delivering", "_queue", "_turn", "mask")

    def __init__(self) -> None:
        self.mask = 0
        """Bit n is set while somebody observes channel n."""
        self._channels: list[tuple[_Observer, ...]] = [()] * CHANNELS
        self._queue: deque[tuple[int, Any]] = deque()
        self._admin = threading.Lock()
        self._turn = threading.Lock()
        self._completed = False
        self._delivering: OnNext | None = None

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
            on_completed()
        return dispose

    def append(self, channel: int, value: Any) -> None:
        """Queue an event; :meth:`drain` is to follow once no lock is held."""
        self._queue.append((channel, value))

    def complete(self) -> None:
        """Queue the end of all streams."""
        self._queue.append((-1, None))

    def drain(self, timeout: float | None = None) -> bool:
        """Deliver what is queued, or wait until another thread has. False if that took longer than ``timeout``.

        A thread inside an observer never waits: it leaves its events to the owner of the turn, who looks again.
        """
        nested = in_observer()
        while self._queue:
            if not self._turn.acquire(blocking=False):
                if nested:
                    return True
                if not self._turn.acquire(timeout=-1 if timeout is None else timeout):
                    _LOG.error("observer %r has not returned within %s s", self._delivering, timeout)
                    return False
            try:
                _thread.depth = getattr(_thread, "depth", 0) + 1
                # An event stays queued until it has been delivered: others wait for its delivery, not its removal.
                while self._queue:
                    channel, value = self._queue[0]
                    try:
                        if channel < 0:
                            self._finish()
                        else:
                            self._deliver(channel, value)
                    finally:
                        self._queue.popleft()
            finally:
                _thread.depth -= 1
                self._turn.release()
        return True

    def _deliver(self, channel: int, value: Any) -> None:
        for observer in self._channels[channel]:
            if observer.active:
                self._delivering = observer.on_next
                guarded(observer.on_next, value)
        self._delivering = None

    def _finish(self) -> None:
        with self._admin:
            channels, self._channels = self._channels, [()] * CHANNELS
            self._completed = True
            self.mask = 0
        for observers in channels:
            for observer in observers:
                if observer.active and observer.on_completed is not None:
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
        _LOG.exception("exception in observer %r", callback)
