"""The threads beside the loop: where plain handlers run, and what takes its time is encoded and decoded."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_Result = TypeVar("_Result")

MOST_WORKERS = 32
"""Threads of an AE, unless it is told otherwise."""


class Workers:
    """So many threads at the most, started when they are needed. What there is none for waits.

    They end when nobody uses them any more: every association does from :meth:`enter` to :meth:`leave`, and every call.
    """

    def __init__(self, most: int = MOST_WORKERS) -> None:
        self.most = most
        self._pool: ThreadPoolExecutor | None = None
        self._users = 0

    def enter(self) -> None:
        """Somebody is going to use the threads."""
        self._users += 1

    def leave(self) -> None:
        """Somebody does no longer."""
        self._users -= 1
        if not self._users:
            self.stop()

    async def run(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Call ``function`` in one of the threads.

        A thread cannot be stopped: where the task is cancelled meanwhile, it goes on to be so only when the thread is
        done, so that whatever the function uses can be given back.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.most, thread_name_prefix="rxdicom-worker")
        self.enter()
        try:
            return await _finished(asyncio.get_running_loop().run_in_executor(self._pool, function, *args))
        finally:
            self.leave()

    def stop(self) -> None:
        """Let the threads end, when they are done; nothing is waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


async def _finished(future: "asyncio.Future[_Result]") -> _Result:
    """The result, once it is there, whether the task is cancelled meanwhile or not."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            # Known from now on: nobody else asks for it.
            future.exception()
        raise cancelled
    return future.result()
