"""How many associations several processes may have together, counted exactly, whichever of them dies when."""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from mmap import mmap
from multiprocessing.reduction import DupFd
from tempfile import TemporaryFile
from typing import Any, BinaryIO

_COUNT = 8
"""Bytes of a worker's count."""


class SharedPlaces:
    """A count for each worker in memory that all of them see, and a lock that the kernel takes back from the dead.

    The parent makes it and passes it to each worker as that is started. The caller keeps its own threads apart.
    """

    def __init__(self, most: int, workers: int, file: BinaryIO | None = None) -> None:
        self.own = 0
        """Which of the counts is this process's."""
        self._most = most
        self._workers = workers
        self._file = file or TemporaryFile()  # noqa: SIM115 - open for as long as this lives
        self._file.truncate(workers * _COUNT)
        self._memory = mmap(self._file.fileno(), workers * _COUNT)
        self._counts = memoryview(self._memory).cast("q")

    def take(self, held: int) -> bool:
        """Have one more than the ``held`` that this worker has. False if that is too many for all together."""
        with self._lock():
            self._counts[self.own] = held
            if sum(self._counts) >= self._most:
                return False
            self._counts[self.own] = held + 1
            return True

    def hold(self, held: int) -> None:
        """This worker has only so many any more."""
        self._counts[self.own] = held

    def vacate(self, number: int) -> None:
        """A worker is dead, and has none."""
        self._counts[number] = 0

    def close(self) -> None:
        """Give back what this process has of it."""
        self._counts.release()
        self._memory.close()
        self._file.close()

    @contextmanager
    def _lock(self) -> Generator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def __reduce__(self) -> tuple[Callable[..., "SharedPlaces"], tuple[Any, ...]]:
        """Only for a process that is being started."""
        return _inherited, (self._most, self._workers, DupFd(self._file.fileno()))


def _inherited(most: int, workers: int, file: Any) -> SharedPlaces:
    return SharedPlaces(most, workers, os.fdopen(file.detach(), "r+b"))
