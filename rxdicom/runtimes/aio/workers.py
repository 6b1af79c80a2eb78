"""The threads beside the loop: where plain handlers run, and what takes its time is encoded and decoded."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from attrs import frozen

from rxdicom.errors import StateError

_Result = TypeVar("_Result")

MOST_WORKERS = 32
"""Threads of an AE, unless it is told otherwise."""
PATIENCE = 5.0
"""Seconds that a cancelled task waits for what runs in a thread, unless it is cancelled because of :data:`OVER`."""
OVER = "the association is over"
"""Says to a task, as the message of its cancellation, that it may take its time."""


class Workers:
    """So many threads at the most, started when they are needed. What there is none for waits.

    They end when nobody uses them any more: every association does from :meth:`enter` to :meth:`leave`, and every call.
    One that does not return keeps neither the loop nor the interpreter from ending.
    """

    def __init__(self, most: int = MOST_WORKERS) -> None:
        self.most = most
        self._pool: _Pool | None = None
        self._users = 0

    def enter(self) -> None:
        """Somebody is going to use the threads."""
        self._users += 1

    def leave(self) -> None:
        """Somebody does no longer."""
        self._users -= 1
        if not self._users:
            self._stop()

    async def run(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Call ``function`` in one of the threads.

        A thread cannot be stopped: where the task is cancelled meanwhile, it goes on to be so only when the thread is
        done, so that whatever the function uses can be given back; but see :data:`PATIENCE`.

        Raises what the function raises, and :class:`~rxdicom.errors.StateError` if :meth:`shutdown` comes before that.
        """
        if self._pool is None:
            self._pool = _Pool(self.most)
        self.enter()
        try:
            return (await self._pool.submit(function, args).finished()).result()
        finally:
            self.leave()

    async def shutdown(self, seconds: float | None) -> None:
        """Give what runs so many seconds to end (None: as many as it takes); after that, nobody waits for it."""
        if self._pool is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._pool.idle()
        self._stop()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


@frozen
class _Outcome:
    """What a function returned or raised. It may raise what a future would not hold, a StopIteration."""

    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class _Call:
    """A function on its way through a thread. Only :meth:`perform` runs there, all else on the loop."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], settled: "Callable[[_Call], None]") -> None:
        self._function = function
        self._args = args
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._outcome: _Outcome | None = None

    def perform(self) -> None:
        # Read without a lock: at the worst, something is done that nobody waits for.
        if self._outcome is not None:
            return
        try:
            outcome = _Outcome(self._function(*self._args))
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            outcome = _Outcome(error=error)
        with suppress(RuntimeError):
            # The loop may be closed by now.
            self._loop.call_soon_threadsafe(self.settle, outcome)

    def settle(self, outcome: _Outcome) -> None:
        """This is what it comes to, unless it came to something else before."""
        if self._outcome is None:
            self._outcome = outcome
            self._settled(self)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def finished(self) -> _Outcome:
        """The outcome, once it is there, whether the task is cancelled meanwhile or not."""
        cancelled: asyncio.CancelledError | None = None
        deadline: asyncio.TimerHandle | None = None
        try:
            while self._outcome is None and (deadline is None or self._loop.time() < deadline.when()):
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError as error:
                    cancelled = error
                    if deadline is None and error.args != (OVER,):
                        # Perhaps the loop is about to end.
                        deadline = self._loop.call_later(PATIENCE, self._wake)
        finally:
            if deadline is not None:
                deadline.cancel()
        if cancelled is not None:
            raise cancelled
        assert self._outcome is not None
        return self._outcome


class _Pool:
    """Daemon threads: those of :mod:`concurrent.futures` hold up the end of the interpreter."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads = 0
        self._free = threading.Semaphore(0)
        self._calls: set[_Call] = set()
        self._until_idle: asyncio.Future[None] | None = None

    def submit(self, function: Callable[..., Any], args: tuple[Any, ...]) -> _Call:
        """Have a thread call this. Raises :class:`RuntimeError` if there is none, and none can be started."""
        if not self._free.acquire(blocking=False) and self._threads < self._most:
            self._start()
        call = _Call(function, args, self._settled)
        self._calls.add(call)
        self._queue.put(call)
        return call

    def _start(self) -> None:
        try:
            threading.Thread(target=_work, args=(self._queue, self._free), name="rxdicom-worker", daemon=True).start()
            self._threads += 1
        except RuntimeError:
            # The system has no more. Those that there are will do.
            if not self._threads:
                raise

    def _settled(self, call: _Call) -> None:
        self._calls.discard(call)
        if not self._calls and self._until_idle is not None and not self._until_idle.done():
            self._until_idle.set_result(None)

    async def idle(self) -> None:
        """Wait until nothing waits or runs."""
        while self._calls:
            self._until_idle = asyncio.get_running_loop().create_future()
            await self._until_idle

    def close(self) -> None:
        """The threads end when they are done. Nobody waits for what still runs, and what does not is not begun."""
        for call in tuple(self._calls):
            call.settle(_Outcome(error=StateError("the entity was shut down before this was done")))
        for _ in range(self._threads):
            self._queue.put(None)


def _work(queue: "SimpleQueue[_Call | None]", free: threading.Semaphore) -> None:
    while (call := queue.get()) is not None:
        call.perform()
        # Nothing of it is kept while there is nothing to do.
        del call
        free.release()
