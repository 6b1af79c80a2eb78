"""What a replay needs of Rx: streams that know what was recorded, and the clock of a scheduler."""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import MultipleAssignmentDisposable

from rxdicom.errors import StateError
from rxdicom.events.hub import Hub
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind
from rxdicom.events.streams import EventStreams


class RecordedStreams(EventStreams):
    """The streams of a recording. Those of kinds that were not recorded end with a :class:`StateError`."""

    def __init__(self, hub: Hub, kinds: tuple[EventKind[Any], ...], path: str) -> None:
        super().__init__(hub)
        self.kinds = kinds
        for kind in NOTIFICATION_KINDS:
            if kind not in kinds:
                missing: Observable[Any] = reactivex.throw(StateError(f"{path} has no {kind.name}; record it as well"))
                setattr(self, kind.stream_name, missing)


class Timetable:
    """Takes one step after the other, each when it is due by the clock of a scheduler.

    ``next_at`` says when the next one occurred, None that there is none; then, and once this is stopped, ``end`` is
    called, by whichever thread is at it. What is due at once is taken at once: there is a timer for each pause only.
    """

    def __init__(
        self,
        scheduler: abc.SchedulerBase,
        speed: float,
        next_at: Callable[[], datetime | None],
        take: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._speed = speed
        self._next_at = next_at
        self._take = take
        self._end = end
        self._turn = threading.Lock()
        self._stopped = False
        self._ended = False
        self._is_due = False
        self._timer = MultipleAssignmentDisposable()
        self._begun = scheduler.now
        self._first: datetime | None = None

    def begin(self) -> None:
        """Have the scheduler begin."""
        self._scheduler.schedule(self._go_on)

    def stop(self) -> None:
        """Take no more steps. Called from anywhere, by the observers of a step too."""
        self._stopped = True
        self._timer.dispose()
        self._go_on()

    def _go_on(self, scheduler: Any = None, state: Any = None) -> None:
        """Called by the scheduler, on any thread. Who comes while another is at it leaves it to that one."""
        del scheduler, state
        self._is_due = True
        # Looked at again after the turn was given back: somebody may have come in between.
        while self._is_due and self._turn.acquire(blocking=False):
            try:
                self._is_due = False
                self._work()
            finally:
                self._turn.release()

    def _work(self) -> None:
        paused = False
        try:
            paused = self._advance()
        finally:
            if not paused and not self._ended:
                self._ended = True
                self._end()

    def _advance(self) -> bool:
        """Take what is due. Whether there is more, for which there is a timer now."""
        while not self._stopped and (at := self._next_at()) is not None:
            self._first = self._first or at
            due = self._begun + (at - self._first) / self._speed
            if due > self._scheduler.now:
                self._timer.disposable = self._scheduler.schedule_absolute(due, self._go_on)
                return True
            self._take()
        return False
