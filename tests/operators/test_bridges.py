"""Iterators over streams: blocking ones and those of asyncio, with their bounds, ends and finalizers."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from reactivex import Subject

from rxdicom import evt
from rxdicom.errors import StateError
from rxdicom.events.hub import Hub, as_observer
from rxdicom.events.streams import EventStreams
from rxdicom.operators import AsyncEventIterator, Overflow, to_async_iterator, to_iterator
from tests.support import DEADLINE

_T = TypeVar("_T")


class Emitter:
    """A hub with one stream of plain values."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.stream: Any = EventStreams(self.hub).released

    def __call__(self, *values: Any) -> None:
        for value in values:
            self.hub.append(evt.EVT_RELEASED.number, value)
        assert self.hub.drain(DEADLINE)

    def complete(self) -> None:
        self.hub.complete()
        assert self.hub.drain(DEADLINE)


@pytest.fixture
def emit() -> Emitter:
    return Emitter()


def elsewhere(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


# ---- blocking


def test_what_comes_from_the_moment_it_was_made(emit: Emitter) -> None:
    emit("missed")
    items = emit.stream.pipe(to_iterator(10))
    emit(1, 2)
    emit.complete()
    assert list(items) == [1, 2]
    assert list(items) == []


def test_it_waits_for_what_comes(emit: Emitter) -> None:
    items = emit.stream.pipe(to_iterator(1))
    asked = threading.Event()

    def answer() -> None:
        assert asked.wait(DEADLINE)
        emit(1)

    thread = elsewhere(answer)
    asked.set()
    assert next(items) == 1
    thread.join(DEADLINE)


def test_leaving_ends_the_subscription_and_what_is_buffered_is_gone(emit: Emitter) -> None:
    with emit.stream.pipe(to_iterator(10)) as items:
        emit(1, 2)
        assert next(items) == 1
        assert emit.hub.mask
    assert emit.hub.mask == 0
    assert list(items) == []


def test_closing_wakes_who_waits(emit: Emitter) -> None:
    items = emit.stream.pipe(to_iterator(10))
    found: list[Any] = []
    thread = elsewhere(lambda: found.append(list(items)))
    items.close()
    thread.join(DEADLINE)
    assert found == [[]]


def test_two_threads_share_an_iterator(emit: Emitter) -> None:
    items = emit.stream.pipe(to_iterator(1000))
    found: list[list[int]] = [[], []]
    threads = [elsewhere(lambda own=own: own.extend(items)) for own in found]
    for number in range(500):
        emit(number)
    emit.complete()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert sorted(found[0] + found[1]) == list(range(500))


def test_what_does_not_fit(emit: Emitter) -> None:
    told: list[Any] = []
    oldest = emit.stream.pipe(to_iterator(2, "oldest", on_drop=lambda item, count: told.append((item, count))))
    newest = emit.stream.pipe(to_iterator(2, "newest"))
    failing = emit.stream.pipe(to_iterator(2))
    emit(1, 2, 3)
    assert emit.hub.mask
    emit.complete()
    assert (list(oldest), oldest.dropped, told) == ([2, 3], 1, [(1, 1)])
    assert (list(newest), newest.dropped) == ([1, 2], 1)
    assert [next(failing), next(failing)] == [1, 2]
    with pytest.raises(Overflow):
        next(failing)
    assert list(failing) == []


def test_an_overflow_ends_the_subscription(emit: Emitter) -> None:
    items = emit.stream.pipe(to_iterator(1))
    emit(1, 2)
    assert emit.hub.mask == 0
    assert next(items) == 1


def test_errors_are_raised_after_the_items() -> None:
    source = Subject[int]()
    items = source.pipe(to_iterator(10))
    source.on_next(1)
    source.on_error(LookupError("at the end"))
    assert next(items) == 1
    with pytest.raises(LookupError):
        next(items)
    assert list(items) == []


def test_an_observer_cannot_wait_for_itself(emit: Emitter) -> None:
    items = emit.stream.pipe(to_iterator(10))
    with as_observer(), pytest.raises(StateError, match="hand over to a thread"):
        next(items)


def test_one_that_is_given_up_leaves_at_the_next_item(emit: Emitter) -> None:
    items = emit.stream.pipe(to_iterator(10))
    emit(1)
    del items
    gc.collect()
    assert emit.hub.mask
    emit(2)
    assert emit.hub.mask == 0


# ---- asyncio


def loop(work: Callable[[], Awaitable[_T]]) -> _T:
    async def within_the_deadline() -> _T:
        return await asyncio.wait_for(work(), DEADLINE)

    return asyncio.run(within_the_deadline())


async def collected(items: AsyncEventIterator[Any]) -> list[Any]:
    return [item async for item in items]


def test_async_from_another_thread(emit: Emitter) -> None:
    async def work() -> list[Any]:
        async with emit.stream.pipe(to_async_iterator(1000)) as items:

            def go() -> None:
                for number in range(500):
                    emit(number)
                emit.complete()

            thread = elsewhere(go)
            found = await collected(items)
            await asyncio.to_thread(thread.join, DEADLINE)
            return found

    assert loop(work) == list(range(500))
    assert emit.hub.mask == 0


def test_async_from_the_same_thread_before_a_loop_runs(emit: Emitter) -> None:
    items = emit.stream.pipe(to_async_iterator(10))
    emit(1, 2)

    async def work() -> list[Any]:
        asyncio.get_running_loop().call_soon(emit, 3)
        first = [await anext(items) for _ in range(3)]
        asyncio.get_running_loop().call_soon(emit.complete)
        return first + await collected(items)

    assert loop(work) == [1, 2, 3]
    assert loop(lambda: collected(items)) == []


def test_async_leaving_by_an_exception_ends_the_subscription(emit: Emitter) -> None:
    async def work() -> None:
        async with emit.stream.pipe(to_async_iterator(10)):
            raise LookupError

    with pytest.raises(LookupError):
        loop(work)
    assert emit.hub.mask == 0


async def begun(*works: Awaitable[Any]) -> list["asyncio.Future[Any]"]:
    """Tasks that have come to where they wait."""

    async def run(work: Awaitable[Any], entered: asyncio.Event) -> Any:
        # Who waits for this goes on when this task waits for something itself.
        entered.set()
        return await work

    events = [asyncio.Event() for _ in works]
    tasks = [asyncio.ensure_future(run(*each)) for each in zip(works, events, strict=True)]
    for entered in events:
        await entered.wait()
    return [*tasks]


def test_async_a_cancelled_wait_loses_nothing_and_leaves_nothing(emit: Emitter) -> None:
    items = emit.stream.pipe(to_async_iterator(10))

    async def cancelled() -> None:
        (waiting,) = await begun(anext(items))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    async def work() -> list[Any]:
        for _ in range(100):
            await cancelled()
        gc.collect()
        assert sum(isinstance(each, asyncio.Future) for each in gc.get_objects()) < 50
        emit(1, 2)
        emit.complete()
        return await collected(items)

    assert loop(work) == [1, 2]


def test_async_closing_ends_all_who_wait(emit: Emitter) -> None:
    items = emit.stream.pipe(to_async_iterator(10))

    async def work() -> list[Any]:
        waiting = await begun(*(collected(items) for _ in range(3)))
        await items.aclose()
        return await asyncio.gather(*waiting)

    assert loop(work) == [[], [], []]


def test_async_several_tasks_share_an_iterator(emit: Emitter) -> None:
    items = emit.stream.pipe(to_async_iterator(100))

    async def work() -> list[list[Any]]:
        waiting = await begun(*(collected(items) for _ in range(3)))
        emit(*range(30))
        emit.complete()
        return await asyncio.gather(*waiting)

    assert sorted(item for found in loop(work) for item in found) == list(range(30))


def test_async_overflow_and_errors(emit: Emitter) -> None:
    items = emit.stream.pipe(to_async_iterator(1))
    newest = emit.stream.pipe(to_async_iterator(1, "newest"))
    emit(1, 2)

    async def work() -> None:
        assert await anext(items) == 1
        with pytest.raises(Overflow):
            await anext(items)
        assert await collected(items) == []
        assert await anext(newest) == 1

    loop(work)
    assert newest.dropped == 1


def test_async_a_loop_that_is_gone_is_no_harm(emit: Emitter, caplog: pytest.LogCaptureFixture) -> None:
    items = emit.stream.pipe(to_async_iterator(10))
    old = asyncio.new_event_loop()
    waiting = old.create_task(anext(items))
    old.call_soon(old.stop)
    old.run_forever()
    waiting.cancel()
    old.close()
    emit(1)
    assert "exception in observer" not in caplog.text
    assert loop(lambda: anext(items)) == 1


def test_async_one_that_is_given_up_leaves_at_the_next_item(emit: Emitter) -> None:
    items = emit.stream.pipe(to_async_iterator(10))
    emit(1)
    del items
    gc.collect()
    emit(2)
    assert emit.hub.mask == 0
