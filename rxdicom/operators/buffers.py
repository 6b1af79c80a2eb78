"""Buffers between threads, with a bound and a policy for what does not fit: Rx itself has none."""

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, Literal, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, MultipleAssignmentDisposable
from reactivex.scheduler import EventLoopScheduler

from rxdicom.errors import ArgumentError
from rxdicom.events.hub import guarded
from rxdicom.operators.core import Operator, Overflow, positive

_T = TypeVar("_T")

Drop = Literal["oldest", "newest", "error"]
"""What a full buffer does: drop its oldest item, drop the one that comes, or fail with :class:`Overflow`."""
_POLICIES = ("oldest", "newest", "error")
_AT_A_TIME = 64
"""Items delivered before others have their turn on the scheduler."""


class Nothing(Enum):
    """What a buffer gives instead of an item."""

    YET = "nothing yet"
    MORE = "nothing more"


class Buffer(Generic[_T]):
    """At most ``bound`` items on their way from a source to a consumer on another thread, and how the source ended."""

    def __init__(self, bound: int, drop: Drop, on_drop: Callable[[_T, int], object] | None = None) -> None:
        positive("bound", bound)
        if drop not in _POLICIES:
            raise ArgumentError(f"drop={drop!r} is no policy; give one of {', '.join(_POLICIES)}")
        self.dropped = 0
        """Items that did not fit."""
        self.changed = threading.Condition()
        self._bound = bound
        self._drop = drop
        self._on_drop = on_drop
        self._items: deque[_T] = deque()
        self.ended = False
        """Whether nothing more is taken in."""
        self._error: Exception | None = None

    def put(self, item: _T) -> None:
        """Add an item, or do what the policy says if the buffer is full."""
        with self.changed:
            if self.ended:
                return
            self._items.append(item)
            if len(self._items) <= self._bound:
                self.wake()
                return
            excess = self._items.popleft() if self._drop == "oldest" else self._items.pop()
            if self._drop == "error":
                self._end(Overflow("items of a buffer", self._bound))
                return
            self.dropped += 1
            dropped = self.dropped
        if self._on_drop is not None:
            guarded(self._on_drop, excess, dropped)

    def end(self, error: Exception | None = None) -> None:
        """The source has ended; what is buffered can still be taken."""
        with self.changed:
            if not self.ended:
                self._end(error)

    def close(self) -> None:
        """The consumer has ended; what is buffered is dropped."""
        with self.changed:
            self._items.clear()
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        self.ended, self._error = True, error
        self.wake()

    def wake(self) -> None:
        """There is something to take: called with the lock held."""
        self.changed.notify_all()

    def take(self, *, wait: bool = False) -> "_T | Nothing":
        """The next item; ``Nothing.YET`` if there is none, unless it shall wait; ``Nothing.MORE`` at the end.

        Raises, once all items are taken, what the source failed with.
        """
        with self.changed:
            while wait and not self._items and not self.ended:
                self.changed.wait()
            if self._items:
                return self._items.popleft()
            if not self.ended:
                return Nothing.YET
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return Nothing.MORE


def buffered(
    bound: int,
    drop: Drop = "error",
    *,
    on_drop: Callable[[_T, int], object] | None = None,
    scheduler: abc.SchedulerBase | None = None,
) -> Operator[_T, _T]:
    """Hand over to another thread: there an observer may be slow, or use the network, and holds up no association.

    At most ``bound`` items wait. One more is dropped, or the oldest of them is, or the pipeline fails with
    :class:`~rxdicom.operators.Overflow` after those that wait. ``on_drop`` is called with each item that is dropped
    and how many that makes, on the thread of the source.

    ::

        source                   --a-b-c-d----------|    the observer takes 5 columns for each
        buffered(1, "oldest")    --a----c----d------|    dropped: b, when c came
        buffered(1, "newest")    --a----b----d------|    dropped: c
        buffered(1, "error")     --a----b----X           failed when c came

    Delivered is on ``scheduler``, or on a thread of its own, which ends when there is nothing left to do. An observer
    without a buffer holds up the association whose events it is slow to take: that is the back-pressure of the
    streams, and loses nothing.
    """
    Buffer[Any](bound, drop)

    def operator(source: Observable[_T]) -> Observable[_T]:
        def subscribe(observer: abc.ObserverBase[_T], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            target = scheduler or EventLoopScheduler(_thread, exit_if_empty=True)
            handover = _Handover(observer, Buffer(bound, drop, on_drop), target)
            subscription = source.subscribe(handover.on_next, handover.on_error, handover.on_completed, scheduler=given)
            return CompositeDisposable(subscription, Disposable(handover.dispose))

        return Observable(subscribe)

    return operator


def _thread(target: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=target, name="rxdicom-buffered", daemon=True)


class _Handover(Generic[_T]):
    """One subscription of :func:`buffered`."""

    def __init__(self, observer: abc.ObserverBase[_T], buffer: Buffer[_T], scheduler: abc.SchedulerBase) -> None:
        self._observer = observer
        self._buffer = buffer
        self._scheduler = scheduler
        self._action = MultipleAssignmentDisposable()
        # Whether the scheduler has been asked to deliver, and has not found the buffer empty since.
        self._busy = False

    def on_next(self, item: _T) -> None:
        self._buffer.put(item)
        self._start()

    def on_error(self, error: Exception) -> None:
        self._buffer.end(error)
        self._start()

    def on_completed(self) -> None:
        self._buffer.end()
        self._start()

    def dispose(self) -> None:
        self._buffer.close()
        self._action.dispose()

    def _start(self) -> None:
        with self._buffer.changed:
            if self._busy:
                return
            self._busy = True
        self._schedule()

    def _schedule(self) -> None:
        self._action.disposable = self._scheduler.schedule(self._deliver)

    def _deliver(self, scheduler: abc.SchedulerBase, state: Any = None) -> None:
        del scheduler, state
        for _ in range(_AT_A_TIME):
            try:
                item = self._next()
            except Exception as error:  # noqa: BLE001 - what the source has failed with
                guarded(self._observer.on_error, error)
                return
            if item is Nothing.YET:
                return
            if item is Nothing.MORE:
                guarded(self._observer.on_completed)
                return
            guarded(self._observer.on_next, item)
        self._schedule()

    def _next(self) -> "_T | Nothing":
        with self._buffer.changed:
            item = self._buffer.take()
            self._busy = item is not Nothing.YET
            return item
