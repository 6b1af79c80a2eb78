"""What the domain operators are made of: folds that say what an item gives to emit, and two ways to drive them.

A fold is the state of one subscription and knows nothing of Rx, threads or timers. :func:`folded` drives it by the
source alone; :func:`timed` by the source and a timer, on whichever threads these are.
"""

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, MultipleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxdicom.errors import ArgumentError, RxDicomError
from rxdicom.events.hub import as_observer, guarded

_T = TypeVar("_T")
_R = TypeVar("_R")

Operator = Callable[[Observable[_T]], Observable[_R]]
"""What ``pipe`` takes."""


class Overflow(RxDicomError):
    """Something with a bound is full, and its policy is to fail. ``bound`` says how many there may be."""

    def __init__(self, what: str, bound: int) -> None:
        self.bound = bound
        super().__init__(
            f"more than {bound} {what} wait; make the observer faster, raise the bound, or choose what to drop"
        )


class Fold(ABC, Generic[_T, _R]):
    """The state of one subscription: what there is to emit after each item, and at the end of the source."""

    @abstractmethod
    def step(self, item: _T) -> Iterable[_R]:
        """One more item. What it raises ends the pipeline with ``on_error``."""

    def end(self) -> Iterable[_R]:
        """The source is complete."""
        return ()


def folded(start: Callable[[], Fold[_T, _R]]) -> Operator[_T, _R]:
    """The operator that drives a new fold for every subscription."""

    def operator(source: Observable[_T]) -> Observable[_R]:
        def subscribe(observer: abc.ObserverBase[_R], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            fold = start()

            def emit(give: Callable[..., Iterable[_R]], *items: _T) -> bool:
                try:
                    given = give(*items)
                except Exception as error:  # noqa: BLE001 - what an operator raises is what its pipeline ends with
                    observer.on_error(error)
                    return False
                for each in given:
                    observer.on_next(each)
                return True

            def on_next(item: _T) -> None:
                emit(fold.step, item)

            def on_completed() -> None:
                if emit(fold.end):
                    observer.on_completed()

            return source.subscribe(on_next, observer.on_error, on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class TimedFold(ABC, Generic[_T, _R]):
    """A fold that also looks at the clock. One lock guards its calls, none is held while observers run."""

    @abstractmethod
    def step(self, item: _T, now: datetime) -> Iterable[_R]:
        """One more item, at ``now``."""

    @abstractmethod
    def wait(self, now: datetime) -> float | None:
        """Seconds until :meth:`tick` is due; None while there is nothing to wait for.

        While a tick is awaited, what comes later may not need an earlier one.
        """

    @abstractmethod
    def tick(self, now: datetime) -> Iterable[_R]:
        """The time has come, or nearly so."""

    @abstractmethod
    def end(self, now: datetime) -> Iterable[_R]:
        """The source is complete."""


def timed(
    start: Callable[[datetime], TimedFold[_T, _R]],
    scheduler: abc.SchedulerBase | None,
    *,
    waiting: int = 16,
    what: str = "items",
) -> Operator[_T, _R]:
    """The operator that drives a new timed fold for every subscription.

    The clock and the timer are those of ``scheduler``, else of the subscription's, else timers of this process. At
    most ``waiting`` items wait for an observer that is busy on another thread; then it fails with :class:`Overflow`.
    """

    def operator(source: Observable[_T]) -> Observable[_R]:
        def subscribe(observer: abc.ObserverBase[_R], given: abc.SchedulerBase | None) -> abc.DisposableBase:
            clock = scheduler or given or TimeoutScheduler.singleton()
            timing = _Timing(start(clock.now), clock, _Serial(observer, waiting, what))
            subscription = source.subscribe(timing.on_next, timing.on_error, timing.on_completed, scheduler=given)
            return CompositeDisposable(subscription, timing.timer)

        return Observable(subscribe)

    return operator


class _Timing(Generic[_T, _R]):
    """One subscription of a timed operator."""

    def __init__(self, fold: TimedFold[_T, _R], clock: abc.SchedulerBase, serial: "_Serial[_R]") -> None:
        self._fold = fold
        self._clock = clock
        self._serial = serial
        # Reentrant, for schedulers that run what is scheduled on the same thread.
        self._lock = threading.RLock()
        self._armed = False
        self.timer = MultipleAssignmentDisposable()
        with self._lock:
            self._arm()

    def on_next(self, item: _T) -> None:
        with self._lock:
            self._put(self._fold.step, item)
            self._arm()
        self._serial.drain()

    def on_error(self, error: Exception) -> None:
        with self._lock:
            self._serial.end(error)
        self._serial.drain()

    def on_completed(self) -> None:
        with self._lock:
            self._put(self._fold.end)
            self._serial.end()
        self._serial.drain()

    def _put(self, give: Callable[..., Iterable[_R]], *items: _T) -> None:
        try:
            self._serial.put(give(*items, self._clock.now))
        except Exception as error:  # noqa: BLE001 - what an operator raises is what its pipeline ends with
            self._serial.end(error)

    def _arm(self) -> None:
        if self._armed or self.timer.is_disposed:
            return
        seconds = self._fold.wait(self._clock.now)
        if seconds is not None:
            self._armed = True
            self.timer.disposable = self._clock.schedule_relative(seconds, self._on_time)

    def _on_time(self, scheduler: abc.SchedulerBase, state: Any = None) -> None:
        del scheduler, state
        guarded(self._tick)

    def _tick(self) -> None:
        with self._lock:
            self._put(self._fold.tick)
        try:
            # On this thread observers are what they are on the reader's: none that may wait for the network.
            with as_observer():
                self._serial.drain()
        finally:
            # Not before: for an observer that is slower than the timer nothing is to pile up.
            with self._lock:
                self._armed = False
                self._arm()


class _Serial(Generic[_R]):
    """Hands items to an observer one at a time, in order, from any thread; nobody waits, no lock is held meanwhile.

    Who comes while another thread hands on leaves his to it. There may be ``waiting`` of these.
    """

    def __init__(self, observer: abc.ObserverBase[_R], waiting: int, what: str) -> None:
        self._observer = observer
        self._waiting = waiting
        self._what = what
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._turn = threading.Lock()
        self._ended = False

    def put(self, items: Iterable[_R]) -> None:
        for item in items:
            if self._ended:
                return
            if len(self._queue) >= self._waiting and self._turn.locked():
                self.end(Overflow(self._what, self._waiting))
            else:
                self._queue.append((self._observer.on_next, (item,)))

    def end(self, error: Exception | None = None) -> None:
        if not self._ended:
            self._ended = True
            call = (self._observer.on_completed, ()) if error is None else (self._observer.on_error, (error,))
            self._queue.append(call)

    def drain(self) -> None:
        while self._queue and self._turn.acquire(blocking=False):
            try:
                while self._queue:
                    call, arguments = self._queue.popleft()
                    call(*arguments)
            finally:
                self._turn.release()


def positive(name: str, value: float) -> None:
    """Raise :class:`~rxdicom.errors.ArgumentError` for a bound or a time that is not above zero."""
    if not value > 0:
        raise ArgumentError(f"{name} is {value!r}, which is not possible; give more than 0")
