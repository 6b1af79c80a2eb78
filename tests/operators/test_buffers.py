"""Buffers between threads: what fits, what is dropped, who delivers, and that nothing is left behind."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from reactivex import Observable, Subject
from reactivex.scheduler import EventLoopScheduler

from rxdicom import evt
from rxdicom.errors import ArgumentError
from rxdicom.events.hub import Hub, in_observer
from rxdicom.events.streams import EventStreams
from rxdicom.operators import Overflow, buffered, to_async_iterator, to_iterator
from rxdicom.operators.buffers import Buffer, Drop, Nothing
from tests.operators.support import START, STOP, Clock, Elsewhere, Timed, run
from tests.support import DEADLINE


def burst(*items: str) -> list[Timed]:
    """Items that all come at the same time: before anything can be delivered."""
    return [(210, item) for item in items]


# ---- policies


@pytest.mark.parametrize(
    ("drop", "delivered", "dropped"),
    [("oldest", "cd", [("a", 1), ("b", 2)]), ("newest", "ab", [("c", 1), ("d", 2)])],
)
def test_what_does_not_fit_is_dropped(drop: Drop, delivered: str, dropped: list[Any]) -> None:
    seen: list[Any] = []

    def note(item: str, count: int) -> None:
        seen.append((item, count))

    done = run(lambda clock: buffered(2, drop, on_drop=note, scheduler=clock), burst(*"abcd"), completed=220)
    assert "".join(item for _, item in done.items) == delivered
    assert seen == dropped
    assert done.ending == (220, None)


def test_or_the_pipeline_fails_after_what_fits() -> None:
    done = run(lambda clock: buffered(2, scheduler=clock), burst(*"abcd"), completed=220)
    assert [item for _, item in done.items] == ["a", "b"]
    assert done.ending is not None
    when, error = done.ending
    assert when == 210
    assert isinstance(error, Overflow)
    assert error.bound == 2
    assert "choose what to drop" in str(error)


def test_what_is_delivered_in_time_is_not_dropped() -> None:
    items = [(201 + index, index) for index in range(50)]
    done = run(lambda clock: buffered(1, scheduler=clock), items, completed=260)
    assert done.items == items


def test_others_on_the_same_scheduler_have_their_turn() -> None:
    """A thousand items that wait are not delivered in one go."""
    clock, source, seen = Clock(), Subject[int](), list[Any]()
    source.pipe(buffered(1000, scheduler=clock)).subscribe(seen.append)
    for number in range(1000):
        source.on_next(number)

    def note(*_: Any) -> None:
        seen.append("another")

    clock.schedule(note)
    clock.advance_to(1)
    assert [item for item in seen if item != "another"] == list(range(1000))
    assert 0 < seen.index("another") < 1000


def test_the_error_of_the_source_comes_in_its_turn() -> None:
    error = LookupError("at the end")
    done = run(lambda clock: buffered(2, scheduler=clock), burst("a", "b"), error=(210, error))
    assert [item for _, item in done.items] == ["a", "b"]
    assert done.ending == (210, error)


@pytest.mark.parametrize("operator", [buffered, to_iterator, to_async_iterator])
@pytest.mark.parametrize(("bound", "drop"), [(0, "oldest"), (-1, "error"), (1, "sometimes")])
def test_bounds_and_policies_are_checked_at_once(operator: Any, bound: int, drop: str) -> None:
    with pytest.raises(ArgumentError):
        operator(bound, drop)


def test_who_is_told_of_drops_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    def fail(item: str, count: int) -> None:
        raise LookupError(item)

    done = run(lambda clock: buffered(1, "oldest", on_drop=fail, scheduler=clock), burst("a", "b"))
    assert [item for _, item in done.items] == ["b"]
    assert caplog.text.count("exception in observer") == 1


# ---- threads


def emit(hub: Hub, *values: Any) -> None:
    for value in values:
        hub.append(evt.EVT_RELEASED.number, value)
    assert hub.drain(DEADLINE)


def collected(
    stream: Observable[Any],
) -> tuple[list[Any], Callable[[], None]]:
    """What a stream brings to another thread, and what waits for its end."""
    items, over = list[Any](), threading.Event()
    stream.subscribe(items.append, on_completed=over.set)

    def wait() -> None:
        assert over.wait(DEADLINE)

    return items, wait


def test_an_observer_is_on_a_thread_of_its_own_where_it_may_use_the_network() -> None:
    hub = Hub()
    where: list[tuple[str, bool]] = []

    def note(value: Any) -> Any:
        where.append((threading.current_thread().name, in_observer()))
        return value

    items, wait = collected(EventStreams(hub).released.pipe(buffered(10)).map(note))
    emit(hub, 1, 2)
    hub.complete()
    hub.drain()
    wait()
    assert items == [1, 2]
    assert set(where) == {("rxdicom-buffered", False)}


def test_a_slow_observer_holds_up_nobody_and_the_thread_ends_with_the_work() -> None:
    with Elsewhere() as elsewhere:
        items = elsewhere.hold_up(buffered(3, "oldest"), ["a"])
        worker = elsewhere.thread
        for item in "bcdef":
            elsewhere.source.on_next(item)
        assert items == ["a"]
        elsewhere.source.on_completed()
        elsewhere.go_on()
        assert items == ["a", "d", "e", "f"]
        worker.join(DEADLINE)
        assert not worker.is_alive()


def test_nothing_is_lost_between_many_threads_and_bursts() -> None:
    """The hand-over of the turn between a source and a deliverer that runs out of items, very often."""
    source, count = Subject[int](), 20_000
    items, wait = collected(source.pipe(buffered(count)))
    for number in range(count):
        source.on_next(number)
    source.on_completed()
    wait()
    assert items == list(range(count))


def test_a_scheduler_of_ones_own_serves_many() -> None:
    scheduler = EventLoopScheduler()
    try:
        sources = [Subject[int](), Subject[int]()]
        threads: list[Any] = []

        def note(value: int) -> int:
            threads.append(threading.get_ident())
            return value

        ends = [collected(each.pipe(buffered(10, scheduler=scheduler)).map(note)) for each in sources]
        for source in sources:
            source.on_next(1)
            source.on_completed()
        for items, wait in ends:
            wait()
            assert items == [1]
        assert len(set(threads)) == 1
    finally:
        scheduler.dispose()


def test_a_disposed_buffer_delivers_nothing_more_and_leaves_its_source() -> None:
    hub = Hub()
    first, leave, seen, workers = threading.Event(), threading.Event(), list[Any](), list[threading.Thread]()

    def hold(item: Any) -> None:
        seen.append(item)
        workers.append(threading.current_thread())
        first.set()
        assert leave.wait(DEADLINE)

    subscription = EventStreams(hub).released.pipe(buffered(10)).subscribe(hold)
    emit(hub, 1, 2, 3)
    assert first.wait(DEADLINE)
    subscription.dispose()
    assert hub.mask == 0
    leave.set()
    workers[0].join(DEADLINE)
    assert not workers[0].is_alive()
    assert seen == [1]


def test_an_observer_that_raises_is_logged_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    source, seen, over = Subject[int](), list[int](), threading.Event()

    def fail(item: int) -> None:
        seen.append(item)
        raise LookupError(item)

    source.pipe(buffered(10)).subscribe(fail, on_completed=over.set)
    source.on_next(1)
    source.on_next(2)
    source.on_completed()
    assert over.wait(DEADLINE)
    assert seen == [1, 2]
    assert caplog.text.count("exception in observer") == 2


def test_what_is_scheduled_is_taken_back() -> None:
    clock, source, seen = Clock(), Subject[int](), list[int]()
    clock.advance_to(START)
    subscription = source.pipe(buffered(10, scheduler=clock)).subscribe(seen.append)
    source.on_next(1)
    subscription.dispose()
    clock.advance_to(STOP)
    assert clock.ran == seen == []


# ---- the buffer itself


def test_a_closed_buffer_takes_and_gives_nothing() -> None:
    buffer = Buffer[str](2, "error")
    assert buffer.take() is Nothing.YET
    buffer.put("a")
    buffer.close()
    buffer.put("b")
    assert buffer.take() is Nothing.MORE
    assert buffer.take(wait=True) is Nothing.MORE


def test_an_error_is_raised_once() -> None:
    buffer = Buffer[str](2, "error")
    buffer.put("a")
    buffer.end(LookupError("at the end"))
    buffer.end()
    assert buffer.take() == "a"
    with pytest.raises(LookupError):
        buffer.take()
    assert buffer.take() is Nothing.MORE
