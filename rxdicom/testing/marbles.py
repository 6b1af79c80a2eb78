"""Marble diagrams of event streams in virtual time: reactivex's own test scheduler, for records that carry times.

One character is one second, or as many as asked for: ``-`` nothing, a letter an item, ``|`` the completion, ``#`` an
error. ``(ab|)`` is several at once, and takes the time of one. Spaces are for the eye.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar, cast

from attrs import evolve, frozen
from reactivex import Observable
from reactivex import operators as ops
from reactivex.notification import Notification, OnCompleted, OnError, OnNext
from reactivex.testing import TestScheduler
from reactivex.testing.recorded import Recorded

from rxdicom.errors import ArgumentError
from rxdicom.events.records import Event

_T = TypeVar("_T")

_BEGIN = 1.0
_SUBSCRIBED = _BEGIN - 2e-6
"""By the scheduler's clock: what is subscribed to a moment before the diagrams begin misses nothing."""
_DIGITS = 5
_FRAMES = re.compile(r"\(([^()]*)\)|([^()\s])|(\S)")


@frozen
class Outcome:
    """What came of a pipeline in virtual time. Times are seconds from the beginning of the diagrams."""

    items: tuple[tuple[float, Any], ...]
    """The items, each with when it came."""
    ended: float | None = None
    """When it completed or failed; None if it did neither."""
    error: Exception | None = None
    """What it failed with."""
    second: float = 1.0
    """How long a character of the diagrams is."""

    @property
    def values(self) -> list[Any]:
        """The items alone."""
        return [value for _, value in self.items]

    def diagram(self, **marks: "Callable[[Any], object] | Any") -> str:
        """The same as a marble diagram, to be compared with the expected one.

        ``marks`` say which items get which letter: a predicate, or a value that they equal. The first that fits counts;
        an item that none fits is a ``?``. What comes between two characters is drawn at the nearer one.
        """
        frames: dict[int, str] = {}
        for at, value in self.items:
            frame = round(at / self.second)
            frames[frame] = frames.get(frame, "") + _mark(value, marks)
        if self.ended is not None:
            frame = round(self.ended / self.second)
            frames[frame] = frames.get(frame, "") + ("|" if self.error is None else "#")
        shown = {frame: marked if len(marked) == 1 else f"({marked})" for frame, marked in frames.items()}
        return "".join(shown.get(frame, "-") for frame in range(max(shown, default=-1) + 1))


def _mark(value: Any, marks: dict[str, Any]) -> str:
    for mark, wanted in marks.items():
        if wanted(value) if callable(wanted) else wanted == value:
            return mark
    return "?"


class Marbles:
    """A virtual clock, streams of events drawn for it, and what pipelines make of them::

        clock = Marbles()
        events = clock.hot("--s--s--|", s=stored)
        outcome = clock.run(events.pipe(completed_studies(quiet=4, scheduler=clock.scheduler)))
        assert outcome.diagram(c=CompletedStudy) == "--------(c|)"

    Whatever has a clock or a timer is given :attr:`scheduler`. Records of events are stamped with the virtual time at
    which they come.
    """

    def __init__(self, second: float = 1.0) -> None:
        """``second`` is how many seconds a character of the diagrams stands for."""
        if second <= 0:
            raise ArgumentError(f"{second} seconds for a character; give more than 0")
        self.scheduler = TestScheduler()
        self._second = second

    @property
    def began(self) -> datetime:
        """When the diagrams begin, on the clock of :attr:`scheduler`."""
        return self.scheduler.to_datetime(_BEGIN)

    def hot(self, diagram: str, error: Exception | None = None, **items: Any) -> Observable[Any]:
        """A stream that goes on whether anybody listens or not, as those of associations do.

        ``items`` are the items by their letters; letters that are not there stand for themselves. ``#`` fails with
        ``error``.
        """
        return self._stamped(self.scheduler.create_hot_observable(self._parsed(diagram, error, items, _BEGIN)))

    def cold(self, diagram: str, error: Exception | None = None, **items: Any) -> Observable[Any]:
        """A stream that begins anew for each subscriber, when that subscribes; as :meth:`hot`."""
        return self._stamped(self.scheduler.create_cold_observable(self._parsed(diagram, error, items, 0.0)))

    def run(self, pipeline: Observable[_T], until: float = 1000.0) -> Outcome:
        """Subscribe before the diagrams begin, and let ``until`` seconds pass; then the subscription is disposed of.

        Once: a clock does not go back.
        """
        observer = self.scheduler.start(lambda: pipeline, _SUBSCRIBED, _SUBSCRIBED, _BEGIN + until)
        return self._outcome(observer.messages)

    def _parsed(
        self, diagram: str, error: Exception | None, items: dict[str, Any], begin: float
    ) -> list[Recorded[Any]]:
        return [
            # The types alone say that the clock counts in whole seconds.
            Recorded(cast(int, begin + frame * self._second), _notification(mark, error, items))
            for frame, mark in _marks(diagram)
        ]

    def _stamped(self, source: Observable[Any]) -> Observable[Any]:
        def stamp(item: Any) -> Any:
            return evolve(item, timestamp=self.scheduler.now) if isinstance(item, Event) else item

        return source.pipe(ops.map(stamp))

    def _outcome(self, messages: list[Recorded[Any]]) -> Outcome:
        items = tuple((_since(each), each.value.value) for each in messages if isinstance(each.value, OnNext))
        last = messages[-1] if messages else None
        if last is None or not isinstance(last.value, OnCompleted | OnError):
            return Outcome(items, second=self._second)
        error = last.value.exception if isinstance(last.value, OnError) else None
        return Outcome(items, _since(last), error, self._second)


def _since(recorded: Recorded[Any]) -> float:
    """Seconds from the beginning of the diagrams, without the moment before it."""
    return round(recorded.time - _BEGIN, _DIGITS)


def _marks(diagram: str) -> Iterator[tuple[int, str]]:
    """The marks of a diagram with their frames."""
    for frame, found in enumerate(_FRAMES.finditer(diagram)):
        group, single, stray = found.groups()
        if stray:
            raise ArgumentError(f"{diagram!r}: a parenthesis without its other half")
        for mark in group if group is not None else single:
            if mark not in "- ":
                yield frame, mark


def _notification(mark: str, error: Exception | None, items: dict[str, Any]) -> Notification[Any]:
    if mark == "|":
        return OnCompleted()
    if mark == "#":
        return OnError(error or RuntimeError("#"))
    return OnNext(items.get(mark, mark))
