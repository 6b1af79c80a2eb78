"""The drivers of folds among threads: one item at a time, in order, nobody waits for an observer elsewhere."""

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from reactivex import Observable, Subject, abc, typing
from reactivex.scheduler import CurrentThreadScheduler, TimeoutScheduler
from reactivex.scheduler.scheduler import Scheduler

from rxdicom import evt
from rxdicom.errors import StateError
from rxdicom.events.hub import Hub, forbid_in_observer, in_observer
from rxdicom.events.streams import EventStreams
from rxdicom.operators import Overflow, completed_studies, sampled, throughput
from rxdicom.operators.core import TimedFold, timed
from tests.operators.support import START, Assoc, Clock, Elsewhere, check_grammar, check_left, run, store
from tests.support import DEADLINE


def test_an_observer_on_the_timers_thread_holds_up_nobody() -> None:
    with Elsewhere() as elsewhere:
        items = elsewhere.hold_up(sampled(0.001), ["first"])
        elsewhere.source.on_next("second")
        elsewhere.source.on_completed()
        assert items == ["first"]
        assert not elsewhere.completed.is_set()
        elsewhere.go_on()
        assert items == ["first", "second"]
        assert elsewhere.completed.is_set()
        assert elsewhere.errors == []


def test_an_error_waits_for_its_turn_too() -> None:
    with Elsewhere() as elsewhere:
        items = elsewhere.hold_up(throughput(0.001), [])
        elsewhere.source.on_error(LookupError("at the end"))
        assert elsewhere.errors == []
        elsewhere.go_on()
        assert len(items) == 1
        assert isinstance(elsewhere.errors[0], LookupError)


class WallClock(Scheduler):
    """The timers of another scheduler, with a wall clock that can be set, and a count of the timers."""

    def __init__(self, timers: Scheduler) -> None:
        self.set_by = timedelta(0)
        self.asked = 0
        self._timers = timers

    @property
    def now(self) -> datetime:
        return self._timers.now + self.set_by

    def schedule(self, action: typing.ScheduledAction[Any], state: Any = None) -> abc.DisposableBase:
        return self._timers.schedule(action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[Any], state: Any = None
    ) -> abc.DisposableBase:
        self.asked += 1
        return self._timers.schedule_relative(duetime, action, state)

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[Any], state: Any = None
    ) -> abc.DisposableBase:
        return self._timers.schedule_absolute(duetime, action, state)


@pytest.mark.parametrize("operator", [throughput, sampled])
def test_nothing_piles_up_for_an_observer_that_is_slower_than_the_timer(operator: Any) -> None:
    timers = WallClock(TimeoutScheduler.singleton())
    with Elsewhere() as elsewhere:
        items = elsewhere.hold_up(operator(0.001, scheduler=timers), ["first"])
        asked = timers.asked
        for number in range(100):
            elsewhere.source.on_next(number)
        assert timers.asked == asked
        elsewhere.source.on_completed()
        elsewhere.go_on()
        assert len(items) <= 2
        assert elsewhere.errors == []


class Echo(TimedFold[int, int]):
    """Emits what comes, at once, and -1 at every tick."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def step(self, item: int, now: datetime) -> Iterable[int]:
        return (item,)

    def wait(self, now: datetime) -> float | None:
        return self._seconds

    def tick(self, now: datetime) -> Iterable[int]:
        return (-1,)

    def end(self, now: datetime) -> Iterable[int]:
        return ()


def test_items_of_many_threads_and_of_a_timer_come_one_at_a_time() -> None:
    """The sources are serialised each for itself only; what comes from one thread stays in its order."""
    hub, count = Hub(), 2000
    busy, ticked, enough = threading.Lock(), threading.Event(), threading.Event()
    seen: list[int] = []
    overlaps: list[int] = []

    def observe(item: int) -> None:
        if not busy.acquire(blocking=False):
            overlaps.append(item)
            return
        seen.append(item)
        (ticked if item < 0 else enough).set()
        busy.release()

    stream: Observable[Any] = EventStreams(hub).released
    subscription = stream.pipe(timed(lambda _: Echo(0.0001), None, waiting=count)).subscribe(observe)
    assert ticked.wait(DEADLINE)
    for number in range(count):
        hub.append(evt.EVT_RELEASED.number, number)
        assert hub.drain(DEADLINE)
    subscription.dispose()
    assert overlaps == []
    assert [item for item in seen if item >= 0] == list(range(count))
    assert seen.count(-1) > 0


def test_too_many_items_that_wait_for_an_observer_end_the_pipeline() -> None:
    with Elsewhere() as elsewhere:
        items = elsewhere.hold_up(timed(lambda _: Echo(0.001), None, waiting=5, what="numbers"), [])
        for number in range(6):
            elsewhere.source.on_next(number)
        assert elsewhere.errors == []
        elsewhere.go_on()
        assert items == [-1, 0, 1, 2, 3, 4]
        (error,) = elsewhere.errors
        assert isinstance(error, Overflow)
        assert str(error).startswith("more than 5 numbers wait; ")


def test_an_observer_that_brings_more_items_gets_them_afterwards() -> None:
    source, seen = Subject[int](), list[int]()

    def again(item: int) -> None:
        if item < 3:
            source.on_next(item + 1)
        seen.append(item)

    source.pipe(timed(lambda _: Echo(None), None)).subscribe(again)
    source.on_next(0)
    assert seen == [0, 1, 2, 3]


def test_on_the_timers_thread_observers_may_not_wait_for_the_network() -> None:
    """As on the reader's: an observer does not depend on which of the two it is called by."""
    called, found = threading.Event(), list[Any]()

    def observe(item: Any) -> None:
        found.append(in_observer())
        try:
            forbid_in_observer("a request")
        except StateError as error:
            found.append(error)
        called.set()

    source = Subject[int]()
    source.pipe(sampled(0.001)).subscribe(observe)
    source.on_next(1)
    assert called.wait(DEADLINE)
    assert found[0] is True
    assert isinstance(found[1], StateError)


def test_an_observer_that_raises_on_the_timers_thread_is_logged_and_stays() -> None:
    logged, source = threading.Semaphore(0), Subject[Any]()

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("exception in observer"):
                logged.release()

    def fail(_: Any) -> None:
        raise LookupError

    log, noting = logging.getLogger("rxdicom"), Noting()
    log.addHandler(noting)
    subscription = source.pipe(throughput(0.001)).subscribe(fail)
    try:
        for _ in range(3):
            assert logged.acquire(timeout=DEADLINE)
    finally:
        subscription.dispose()
        log.removeHandler(noting)


class Visited:
    """A lock, by which somebody comes just before it is given back."""

    def __init__(self) -> None:
        self.visitors: list[Callable[[], None]] = []
        self._lock = _LOCK()

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        while self.visitors:
            thread = threading.Thread(target=self.visitors.pop(), daemon=True)
            thread.start()
            thread.join(DEADLINE)
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


_LOCK = threading.Lock


def test_what_is_left_to_another_thread_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where that thread has just looked for the last time."""
    source, seen, made = Subject[int](), list[int](), list[Visited]()

    def make() -> Visited:
        made.append(Visited())
        return made[-1]

    monkeypatch.setattr(threading, "Lock", make)
    source.pipe(timed(lambda _: Echo(None), None)).subscribe(seen.append)
    monkeypatch.undo()
    (turn,) = made
    turn.visitors.append(lambda: source.on_next(2))
    source.on_next(1)
    assert seen == [1, 2]


class Failing(Echo):
    """Fails at the item 0, at the tick behind an item 1, and at the end behind an item 2."""

    def __init__(self) -> None:
        super().__init__(5)
        self._last = -1

    def step(self, item: int, now: datetime) -> Iterable[int]:
        self._last = item
        return (1 // item,)

    def tick(self, now: datetime) -> Iterable[int]:
        return (1 // (self._last - 1),)

    def end(self, now: datetime) -> Iterable[int]:
        return (1 // (self._last - 2),)


@pytest.mark.parametrize(("item", "when"), [(0, 203), (1, 205), (2, 220)])
def test_a_fold_that_raises_ends_the_pipeline(item: int, when: int) -> None:
    done = run(lambda _: timed(lambda _: Failing(), None), [(203, item)], completed=220)
    check_grammar(done.observed)
    assert done.ending is not None
    assert done.ending[0] == when
    assert isinstance(done.ending[1], ZeroDivisionError)
    check_left(done, when)


def test_a_scheduler_that_waits_on_the_same_thread_does_not_deadlock() -> None:
    seen: list[int] = []
    source = Subject[int]()
    source.pipe(sampled(0.001, scheduler=CurrentThreadScheduler.singleton())).subscribe(seen.append)
    source.on_next(1)
    source.on_next(2)
    assert seen == [1, 2]


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_wall_clock_that_is_set_keeps_no_study_waiting(hours: int) -> None:
    clock, seen, source = Clock(), list[Any](), Subject[Any]()
    wall = WallClock(clock)
    source.pipe(completed_studies(10, scheduler=wall)).subscribe(seen.append)
    clock.advance_to(START)
    for study in range(3):
        for event in store(Assoc(), study, f"1.{study}", f"1.{study}.1"):
            source.on_next(event)
    wall.set_by = timedelta(hours=hours)
    clock.advance_to(START + 20)
    assert len(seen) == 3


def test_a_wall_clock_that_is_set_back_does_not_spoil_the_throughput() -> None:
    clock, seen, source = Clock(), list[Any](), Subject[Any]()
    wall = WallClock(clock)
    subscription = source.pipe(throughput(10, scheduler=wall)).subscribe(seen.append)
    wall.set_by = timedelta(hours=-1)
    clock.advance_to(25)
    subscription.dispose()
    assert [each.seconds for each in seen] == [10, 10]
