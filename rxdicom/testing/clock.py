"""A clock that stands still unless it is told to go on: deadlines and timers happen in their order, and at once."""

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol, TypeVar

from reactivex import abc, typing
from reactivex.disposable import Disposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from rxdicom.errors import ArgumentError

_State = TypeVar("_State")

NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)
"""When virtual time begins, unless it is told otherwise."""


class Timed(Protocol):
    """What has deadlines by a clock."""

    def next_deadline(self) -> float | None:
        """When :meth:`handle_timeouts` is to be called next."""
        ...

    def handle_timeouts(self) -> None:
        """Act on the deadlines that have passed."""
        ...

    def settle(self) -> None:
        """Do everything that takes no time."""
        ...


class VirtualClock(PeriodicScheduler):
    """Virtual time, as a scheduler of reactivex: operators with a timer take it as ``scheduler=``.

    Deadlines of a :class:`~rxdicom.testing.Network` and timers of pipelines so happen in one order.
    """

    def __init__(self, began: datetime = NOON) -> None:
        super().__init__()
        self.began = began
        self.seconds = 0.0
        """Seconds since it began."""
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = count()
        self._timed: list[Timed] = []

    @property
    def now(self) -> datetime:
        """The time of day."""
        return self.began + timedelta(seconds=self.seconds)

    def attach(self, timed: Timed) -> None:
        """Have the deadlines of ``timed`` happen by this clock."""
        self._timed.append(timed)

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile. Handlers may call this to take their time."""
        if seconds < 0:
            raise ArgumentError("a clock does not go back")
        until = self.seconds + seconds
        self._settle()
        while self.step(until):
            pass
        self.seconds = max(self.seconds, until)

    def step(self, until: float | None = None) -> bool:
        """Let time pass to the next moment at which something is due. False if that is none, or after ``until``."""
        due = self._next_due()
        if due is None or (until is not None and due > until):
            return False
        self.seconds = max(self.seconds, due)
        if self._queue and self._queue[0][0] <= self.seconds:
            heapq.heappop(self._queue)[2]()
        for each in self._timed:
            each.handle_timeouts()
        self._settle()
        return True

    def _next_due(self) -> float | None:
        moments = [each.next_deadline() for each in self._timed]
        if self._queue:
            moments.append(self._queue[0][0])
        return min((each for each in moments if each is not None), default=None)

    def _settle(self) -> None:
        for each in self._timed:
            each.settle()

    # ---- the scheduler

    def schedule(self, action: typing.ScheduledAction[_State], state: _State | None = None) -> abc.DisposableBase:
        return self._schedule_at(self.seconds, action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        return self._schedule_at(self.seconds + max(0.0, self.to_seconds(duetime)), action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        due = (self.to_datetime(duetime) - self.began).total_seconds()
        return self._schedule_at(max(due, self.seconds), action, state)

    def _schedule_at(
        self, due: float, action: typing.ScheduledAction[_State], state: _State | None
    ) -> abc.DisposableBase:
        running: list[abc.DisposableBase] = []
        entry: tuple[float, int, Callable[[], object]]

        def run() -> None:
            running.append(self.invoke_action(action, state))

        def dispose() -> None:
            if entry in self._queue:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            for each in running:
                each.dispose()

        entry = due, next(self._serial), run
        heapq.heappush(self._queue, entry)
        return Disposable(dispose)
