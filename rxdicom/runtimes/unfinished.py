"""What connections hold of association requests that have not come whole: a budget for all of a server together."""

from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


class Unfinished(Generic[Holder]):
    """Counts bytes by connection. Beyond ``most`` who holds the most is to be cut off, of equals the longest silent.

    An ordinary request is small and soon there, so that it passes however many large ones others leave unfinished.

    >>> unfinished = Unfinished[str](1000)
    >>> unfinished.hold("first", 400), unfinished.hold("second", 400), unfinished.hold("small", 20)
    ([], [], [])
    >>> unfinished.hold("third", 400)
    ['first']
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._held: dict[Holder, int] = {}
        self._together = 0
        # Told to end, and not yet over: what they still take in meanwhile is no reason to cut off others.
        self._ending: set[Holder] = set()

    def hold(self, holder: Holder, size: int) -> list[Holder]:
        """``holder`` has ``size`` bytes now, 0 once its request is complete or its connection over.

        Returns those that must be cut off for it, itself perhaps. They are not counted any more.
        """
        with self._lock:
            if holder in self._ending:
                if not size:
                    self._ending.discard(holder)
                return []
            self._together += size - self._held.pop(holder, 0)
            if size:
                self._held[holder] = size
            excess: list[Holder] = []
            while self._together > self._most:
                largest = max(self._held, key=self._held.__getitem__)
                self._together -= self._held.pop(largest)
                self._ending.add(largest)
                excess.append(largest)
            return excess
