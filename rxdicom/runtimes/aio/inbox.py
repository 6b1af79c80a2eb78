"""What the peer has asked for and is still to be performed: in order, and as many side by side as the window allows."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from rxdicom.runtimes.aio.workers import OVER
from rxdicom.runtimes.files import forget
from rxdicom.wire.dimse import Message

MOST_AT_A_TIME = 32
"""Requests of one association that are performed at a time, also where its window is unlimited or larger."""
_MOST_WAITING = 64
"""Requests that a peer may send beyond its window before nothing more is read from it."""


class Inbox:
    """The work of one association, a task for each request.

    ``window`` is the number of operations that the peer may have outstanding, 0 for any; ``changed`` is called when
    something is done.
    """

    def __init__(
        self,
        window: Callable[[], int],
        perform: Callable[[Message], Coroutine[Any, Any, None]],
        changed: Callable[[], None],
    ) -> None:
        self._window = window
        self._perform = perform
        self._changed = changed
        self._waiting: deque[Message] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self._last: Callable[[], None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read, so that TCP slows the peer down."""
        return len(self._waiting) >= _MOST_WAITING

    @property
    def is_current(self) -> bool:
        """Whether the current task is one of these."""
        task = asyncio.current_task()
        return task in self._running or task in self._beside

    def put(self, request: Message) -> None:
        """Have this performed after what came before, or beside it."""
        self._waiting.append(request)
        self._start()

    def _start(self) -> None:
        most = min(self._window() or MOST_AT_A_TIME, MOST_AT_A_TIME)
        while self._waiting and len(self._running) < most:
            request = self._waiting.popleft()
            task = self._begin(self._perform(request), self._running)
            # Also of one that is cancelled before it runs.
            task.add_done_callback(lambda _, data=request.data: forget(data))

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have this done outside the order of the others."""
        self._begin(work, self._beside)

    def _begin(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "a request was not performed", "exception": error})
        self._start()
        if not (self._waiting or self._running or self._beside) and self._last is not None:
            last, self._last = self._last, None
            last()
        self._changed()

    def put_last(self, work: Callable[[], None]) -> None:
        """Have this done once everything else is: at once, if there is nothing else."""
        if self._waiting or self._running or self._beside:
            self._last = work
        else:
            work()

    def stop(self, spared: set[asyncio.Task[Any]]) -> None:
        """The association is over: tasks are cancelled, but for those spared; what was not begun is dropped."""
        for task in (*self._running, *self._beside):
            if task not in spared:
                task.cancel(OVER)
        while self._waiting:
            forget(self._waiting.popleft().data)
        self._last = None

    async def join(self) -> None:
        """Wait until all tasks are over but the current one."""
        current = asyncio.current_task()
        tasks = [each for each in (*self._running, *self._beside) if each is not current]
        if tasks:
            await asyncio.wait(tasks)
