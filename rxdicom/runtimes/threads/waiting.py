"""What a thread waits for: a socket to be ready, somebody to wake it, a deadline."""

import os
import select
import threading
import time
from contextlib import suppress

from rxdicom.errors import TimedOut


class Waiting:
    """Where one thread at a time waits for a socket, or only to be woken, until a deadline. Never for longer."""

    def __init__(self) -> None:
        """Raises :class:`OSError` without a free descriptor."""
        self._wake = WakeUp()
        self._poll = select.poll()
        self._poll.register(self._wake.fileno(), select.POLLIN)
        self._events = 0

    def wait(self, fd: int, events: int, deadline: float | None) -> bool:
        """Wait for ``events`` of the socket (0: not for it at all). Whether it is ready, or has failed.

        Not so where it is ready and the waiting thread has been woken as well: what it was woken for goes first.
        """
        if events != self._events:
            self._watch(fd, events)
        ready = self._poll.poll(milliseconds(deadline))
        if len(ready) == 1 and ready[0][0] == fd:
            return True
        if ready:
            self._wake.clear()
        return False

    def _watch(self, fd: int, events: int) -> None:
        if events:
            self._poll.register(fd, events)
        else:
            self._poll.unregister(fd)
        self._events = events

    def wake(self) -> None:
        """Have who waits look again; or the next one who is going to. Called from anywhere, finalizers too."""
        self._wake.set()

    def close(self) -> None:
        self._wake.close()


class WakeUp:
    """A descriptor that is readable from :meth:`set` to :meth:`clear`."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        # A finalizer may run while its thread holds this.
        self._lock = threading.RLock()
        self._closed = False

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        with self._lock, suppress(BlockingIOError):
            if not self._closed:
                os.write(self._write, _ONE)

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._read, 8)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for fd in {self._read, self._write}:
                os.close(fd)


_ONE = (1).to_bytes(8, "little")


def wait(fd: int, events: int, deadline: float | None, phase: str) -> None:
    """Block until the descriptor is ready. Raises :class:`~rxdicom.errors.TimedOut` at the deadline."""
    poll = select.poll()
    poll.register(fd, events)
    if not poll.poll(milliseconds(deadline)):
        raise TimedOut(phase)


def milliseconds(deadline: float | None) -> int | None:
    """From now to a deadline of the monotonic clock, rounded up, for ``poll``."""
    return None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
