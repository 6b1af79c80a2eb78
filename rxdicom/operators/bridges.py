"""From streams to loops: an iterator and an async iterator, each with a bounded buffer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from reactivex import Observable
from reactivex.disposable import SingleAssignmentDisposable

from rxdicom.events.hub import forbid_in_observer
from rxdicom.operators.buffers import Buffer, Drop, Nothing

_T = TypeVar("_T")


_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class _Feed(Buffer[_T]):
    """A buffer that is subscribed to a stream. It must not know its iterator, so that that can be given up."""

    def __init__(self, bound: int, drop: Drop, on_drop: Callable[[_T, int], object] | None) -> None:
        super().__init__(bound, drop, on_drop)
        self.abandoned = False
        """Nobody has the iterator any more. The source is left at its next item: a finalizer must take no locks."""
        self.source = SingleAssignmentDisposable()
        self.waiting: list[_Waiter] = []

    def subscribe(self, stream: Observable[_T]) -> Self:
        self.source.disposable = stream.subscribe(self.on_next, self.end, self.end)
        return self

    def on_next(self, item: _T) -> None:
        if self.abandoned:
            self.leave()
            return
        self.put(item)
        if self.ended:
            self.source.dispose()

    def leave(self) -> None:
        self.source.dispose()
        self.close()

    def wake(self) -> None:
        super().wake()
        waiting, self.waiting = self.waiting, []
        for loop, future in waiting:
            # A loop that was closed in the meantime has nobody who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future)

    def stop_waiting(self, waiter: _Waiter) -> None:
        """Its task goes on, or was cancelled."""
        with self.changed:
            if waiter in self.waiting:
                self.waiting.remove(waiter)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class EventIterator(Iterator[_T]):
    """The items of a stream, from the moment it was made. Leaving ``with``, or ``close()``, ends the subscription."""

    def __init__(self, feed: "_Feed[_T]") -> None:
        self._feed = feed

    @property
    def dropped(self) -> int:
        """Items that did not fit into the buffer."""
        return self._feed.dropped

    def __next__(self) -> _T:
        """Waits for the next item. Raises what the stream fails with.

        In an observer it raises :class:`~rxdicom.errors.StateError`: nothing would come as long as that waits.
        """
        forbid_in_observer("next()")
        item = self._feed.take(wait=True)
        if isinstance(item, Nothing):
            raise StopIteration
        return item

    def close(self) -> None:
        """End the subscription. Who waits for an item, on another thread, finds the end."""
        self._feed.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._feed.abandoned = True


class AsyncEventIterator(AsyncIterator[_T]):
    """The same for ``async for``, on any event loop; the stream may come from other threads."""

    def __init__(self, feed: "_Feed[_T]") -> None:
        self._feed = feed

    @property
    def dropped(self) -> int:
        """Items that did not fit into the buffer."""
        return self._feed.dropped

    async def __anext__(self) -> _T:
        """The next item; to be cancelled without losing one. Raises what the stream fails with."""
        feed, loop = self._feed, asyncio.get_running_loop()
        while True:
            waiter = loop, loop.create_future()
            with feed.changed:
                item = feed.take()
                if item is Nothing.YET:
                    feed.waiting.append(waiter)
            if item is Nothing.MORE:
                raise StopAsyncIteration
            if not isinstance(item, Nothing):
                return item
            try:
                await waiter[1]
            finally:
                feed.stop_waiting(waiter)

    async def aclose(self) -> None:
        """End the subscription."""
        self._feed.leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._feed.abandoned = True


def to_iterator(
    bound: int, drop: Drop = "error", *, on_drop: Callable[[_T, int], object] | None = None
) -> Callable[[Observable[_T]], EventIterator[_T]]:
    """The last operator of a pipe: it subscribes at once, and gives an iterator over what comes from then on.

    Its buffer is that of :func:`~rxdicom.operators.buffered`: with ``"error"`` the loop gets
    :class:`~rxdicom.operators.Overflow` after the items that fitted.

    ::

        with server.events.released.pipe(to_iterator(100)) as events:
            for event in events:
                print(event)

    ::

        source            --a-b-c---d------|    the loop takes 5 columns for each
        to_iterator(2)    --a----b----c----d---|
        to_iterator(1)    --a----b----X         raised when c had come
    """
    Buffer[Any](bound, drop)
    return lambda stream: EventIterator(_Feed(bound, drop, on_drop).subscribe(stream))


def to_async_iterator(
    bound: int, drop: Drop = "error", *, on_drop: Callable[[_T, int], object] | None = None
) -> Callable[[Observable[_T]], AsyncEventIterator[_T]]:
    """The same for asyncio: the stream goes on while the loop is busy, into the buffer.

    ::

        async with server.events.released.pipe(to_async_iterator(100)) as events:
            async for event in events:
                print(event)

    ::

        source                            --a-b-c---d------|    the loop takes 5 columns for each
        to_async_iterator(1, "oldest")    --a----c----d----|    b gave way to c
    """
    Buffer[Any](bound, drop)
    return lambda stream: AsyncEventIterator(_Feed(bound, drop, on_drop).subscribe(stream))
