"""What the peer has asked for and is still to be performed: in order, and as many side by side as the window allows."""

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], bool]
"""Does something; True means that it goes on by itself, and that :meth:`Inbox.finish` is called when it is over."""

MOST_WORKERS = 32
"""Threads of one association, also where its window is unlimited or larger."""
_MOST_WAITING = 64
"""Requests that a peer may send beyond its window while others are being performed."""
_IDLE = 5.0
"""Seconds after which a thread that has nothing to do ends."""


class Inbox:
    """The work of one association. With a window of 1 the reader does it; otherwise threads that come and go.

    ``wake_reader`` has the reader call :meth:`work`; ``window``, which is known when the association is established, is
    the number of operations that the peer may have outstanding, 0 for any.
    """

    def __init__(self, name: str, wake_reader: Callable[[], None]) -> None:
        self._name = name
        self.window = 1
        self._wake_reader = wake_reader
        self._waiting: deque[Work] = deque()
        self._last: Callable[[], None] | None = None
        self._running = 0
        self._workers = 0
        self._idle = 0
        self._over = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    @property
    def is_pending(self) -> bool:
        """Whether the peer waits for the answer to something, beside what the reader is doing."""
        return bool(self._waiting) or (self._running > 0 and self.window != 1)

    def put(self, work: Work, *, reader: bool) -> bool:
        """Have this done after what came before, or beside it. False if there is too much already.

        The reader waits until there is room: then it reads no more, and TCP slows the peer. Not so where handlers run
        on the reader, or another thread reads to get its response. What one read brings to an idle reader is admitted,
        however much it is.
        """
        if self.window == 1:
            if (self._running or not reader) and len(self._waiting) > _MOST_WAITING:
                return False
            self._waiting.append(work)
            if not reader:
                self._wake_reader()
            return True
        if not self._await_room(_MOST_WAITING + (self.window or MOST_WORKERS), reader):
            return False
        self._put_beside(work)
        return True

    def _await_room(self, most: int, reader: bool) -> bool:
        with self._lock:
            while reader and len(self._waiting) >= most and not self._over:
                self._changed.wait()
            return len(self._waiting) < most

    def _put_beside(self, work: Work) -> None:
        with self._lock:
            self._waiting.append(work)
            self._changed.notify_all()
            wanted = self._idle < len(self._waiting) and self._workers < self._most
            alone = wanted and not self._start()
            if alone:
                # No thread at all: then the current one.
                self._waiting.remove(work)
                self._running += 1
        if alone:
            self._do(work)

    @property
    def _most(self) -> int:
        """How many operations may be performed side by side."""
        return min(self.window or MOST_WORKERS, MOST_WORKERS)

    def _start(self) -> bool:
        """Another worker. False if there is none, not even an earlier one."""
        worker = threading.Thread(target=self._serve, name=f"{self._name}-worker-{self._workers + 1}", daemon=True)
        try:
            worker.start()
        except RuntimeError:
            return self._workers > 0
        self._workers += 1
        return True

    def put_last(self, work: Callable[[], None]) -> None:
        """Have this done once everything else is: at once, by the current thread, if there is nothing else."""
        with self._lock:
            if self._waiting or self._running:
                self._last = work
                return
        work()

    def work(self) -> None:
        """Do what is waiting, as far as the window allows. The reader calls this; with a window of 1 it is its work."""
        while self._waiting and not self._running and self.window == 1:
            self._running = 1
            work = self._waiting.popleft()
            if not work():
                self.finish()

    def _serve(self) -> None:
        """What a thread does, as long as there is something to be done."""
        while True:
            with self._lock:
                self._idle += 1
                self._changed.wait_for(self._has_work, _IDLE)
                self._idle -= 1
                if not self._waiting or self._running >= self._most:
                    self._workers -= 1
                    return
                work = self._waiting.popleft()
                self._running += 1
                self._changed.notify_all()
            self._do(work)

    def _has_work(self) -> bool:
        return self._over or (bool(self._waiting) and self._running < self._most)

    def _do(self, work: Work) -> None:
        if not work():
            self.finish()

    def finish(self) -> None:
        """Something that went on by itself is over."""
        with self._lock:
            self._running -= 1
            last = None
            if not (self._waiting or self._running):
                last, self._last = self._last, None
            elif self.window != 1:
                self._changed.notify_all()
                if not self._workers:
                    self._start()
        if last is not None:
            last()
        elif self._waiting:
            self._wake_reader()

    def stop(self) -> None:
        """The association is over: threads end when they are done."""
        with self._lock:
            self._over = True
            self._changed.notify_all()
