"""What the tests of the operators share: events built by hand, associations that are none, virtual time."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self

from attrs import define, field, frozen
from pydicom import Dataset
from reactivex import Observable, Subject, abc, typing
from reactivex.notification import Notification, OnCompleted, OnError, OnNext
from reactivex.testing import TestScheduler
from reactivex.testing.hotobservable import HotObservable
from reactivex.testing.recorded import Recorded

from rxdicom.events import records
from rxdicom.events.datasets import encode
from rxdicom.sop_class import CTImageStorage
from rxdicom.wire.dimse import Command, Message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tests.support import DEADLINE

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
CT: str = str(CTImageStorage)
START, STOP = 200, 300
"""When pipelines are subscribed to in virtual time, and when nothing happens any more."""


def at(second: float) -> datetime:
    """A moment of the wall clock, in the seconds of virtual time."""
    return NOON + timedelta(seconds=second)


# ---- associations and events


@frozen
class Titled:
    ae_title: str


@frozen
class Context:
    context_id: int
    abstract_syntax: str


@define(eq=False)
class Assoc:
    """As much of an association as operators look at."""

    name: str = "STORE-1"
    calling: str = "MODALITY"
    called: str = "STORE"
    is_acceptor: bool = True
    accepted_contexts: Sequence[Context] = field(factory=lambda: [Context(1, CT)])

    @property
    def requestor(self) -> Titled:
        return Titled(self.calling)

    @property
    def acceptor(self) -> Titled:
        return Titled(self.called)


def received(kind: Command, assoc: Any, second: float = 0, **elements: Any) -> records.DIMSEReceived:
    """A message that came in."""
    return records.DIMSEReceived(message=_message(kind, **elements), assoc=assoc, timestamp=at(second))


def sent(kind: Command, assoc: Any, second: float = 0, **elements: Any) -> records.DIMSESent:
    """A message that left."""
    return records.DIMSESent(message=_message(kind, **elements), assoc=assoc, timestamp=at(second))


def _message(kind: Command, *, data: Encoded | None = None, **elements: Any) -> Message:
    return Message({"CommandField": int(kind), **elements}, 1, data)


def dataset(study: str | None, series: str = "2.1", modality: str = "CT", **more: Any) -> Encoded:
    """An encoded dataset with what tells its study."""
    made = Dataset()
    made.PatientName, made.Modality, made.SeriesInstanceUID = "CITIZEN^JANE", modality, series
    if study is not None:
        made.StudyInstanceUID = study
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return Encoded(EXPLICIT_VR_LITTLE_ENDIAN, encode(made, EXPLICIT_VR_LITTLE_ENDIAN))


def store(
    assoc: Any, message_id: int, study: str | None, instance: str, second: float = 0, *, status: int = 0, **more: Any
) -> tuple[records.DIMSEReceived, records.DIMSESent]:
    """A C-STORE that was performed: the request and its response."""
    return (
        received(
            Command.C_STORE_RQ,
            assoc,
            second,
            MessageID=message_id,
            AffectedSOPClassUID=CT,
            AffectedSOPInstanceUID=instance,
            data=dataset(study, **more),
        ),
        sent(Command.C_STORE_RSP, assoc, second, MessageIDBeingRespondedTo=message_id, Status=status),
    )


def released(assoc: Any, second: float = 0) -> records.Released:
    return records.Released(assoc=assoc, timestamp=at(second))


def aborted(assoc: Any, second: float = 0, by: str = "peer", cause: str = "") -> records.Aborted:
    return records.Aborted(assoc=assoc, timestamp=at(second), source=2, reason=2, by=by, cause=cause)


def rejected(assoc: Any, second: float = 0) -> records.Rejected:
    return records.Rejected(assoc=assoc, timestamp=at(second), result=1, source=1, reason=7)


def opened(assoc: Any, second: float = 0) -> records.ConnectionOpened:
    return records.ConnectionOpened(assoc=assoc, timestamp=at(second), address=("192.0.2.1", 104))


def closed(assoc: Any, second: float = 0) -> records.ConnectionClosed:
    return records.ConnectionClosed(assoc=assoc, timestamp=at(second), address=("192.0.2.1", 104))


# ---- operators at work


def through(operator: Any, *items: Any) -> list[Any]:
    """What an operator makes of items that come one after the other."""
    source, seen = Subject[Any](), list[Any]()
    source.pipe(operator).subscribe(seen.append)
    for item in items:
        source.on_next(item)
    return seen


# ---- virtual time


class Clock(TestScheduler):
    """A virtual clock that knows when the actions ran that pipelines scheduled."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[float] = []

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[Any], state: Any = None
    ) -> abc.DisposableBase:
        def noted(scheduler: abc.SchedulerBase, given: Any = None) -> abc.DisposableBase | None:
            self.ran.append(self.clock)
            return action(scheduler, given)

        # What the test itself does is scheduled before.
        return super().schedule_absolute(duetime, noted if self.clock >= START else action, state)


Timed = tuple[int, Any]
Observed = list[Recorded[Any]]


class Applied(Protocol):
    """An operator, made for the clock of a test."""

    def __call__(self, clock: Clock, /) -> Callable[[Observable[Any]], Observable[Any]]: ...


@frozen
class Run:
    """What came of a pipeline in virtual time."""

    observed: Observed
    source: HotObservable[Any]
    clock: Clock

    @property
    def items(self) -> list[tuple[float, Any]]:
        """The items, with when they came."""
        return [(each.time, each.value.value) for each in self.observed if isinstance(each.value, OnNext)]

    @property
    def ending(self) -> tuple[float, Any] | None:
        """When and how it ended: the error, or None for a completion; None if it did not end."""
        last = self.observed[-1] if self.observed else None
        match None if last is None else last.value:
            case OnCompleted():
                return last.time, None  # pyright: ignore[reportOptionalMemberAccess]
            case OnError() as error:
                return last.time, error.exception  # pyright: ignore[reportOptionalMemberAccess]
            case _:
                return None


def recorded(notifications: Iterable[tuple[int, Notification[Any]]]) -> list[Recorded[Any]]:
    return [Recorded(when, value) for when, value in notifications]


def nexts(items: Iterable[Timed]) -> list[Recorded[Any]]:
    return recorded((when, OnNext(value)) for when, value in items)


def run(
    operator: Applied,
    items: Iterable[Timed],
    *,
    completed: int | None = None,
    error: tuple[int, Exception] | None = None,
    disposed: int = STOP,
) -> Run:
    """Send items through an operator, from :data:`START` on, until it is disposed of."""
    clock = Clock()
    messages = nexts(items)
    if completed is not None:
        messages += recorded([(completed, OnCompleted())])
    if error is not None:
        messages += recorded([(error[0], OnError(error[1]))])
    source: HotObservable[Any] = clock.create_hot_observable(messages)
    observer = clock.start(lambda: source.pipe(operator(clock)), subscribed=START, disposed=disposed)
    return Run(observer.messages, source, clock)


def check_grammar(observed: Observed) -> None:
    """Items, then at most one ending, then nothing (the Rx grammar)."""
    kinds = [type(each.value) for each in observed]
    assert all(kind is OnNext for kind in kinds[:-1])
    times = [each.time for each in observed]
    assert times == sorted(times)


def check_left(done: Run, end: float) -> None:
    """Nothing is left of a subscription behind its end: not to the source, and no timer."""
    assert done.source.observers == []
    assert [each.unsubscribe for each in done.source.subscriptions] == [end]
    assert all(when <= end for when in done.clock.ran)


# ---- threads


class Elsewhere:
    """An observer that is held up on the thread of a timer, while the test goes on with the source."""

    def __init__(self) -> None:
        self.source = Subject[Any]()
        self.items: list[Any] = []
        self.errors: list[Exception] = []
        self.completed = threading.Event()
        self.thread = threading.current_thread()
        """The one that the observer was on last."""
        self._inside, self._leave, self._ended = threading.Event(), threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()

    def hold_up(self, operator: Callable[[Observable[Any]], Observable[Any]], first: Iterable[Any]) -> list[Any]:
        """Send ``first``, and return once the observer has what comes of it."""

        def on_next(item: Any) -> None:
            self.thread = threading.current_thread()
            self.items.append(item)
            self._inside.set()
            assert self._leave.wait(DEADLINE)

        def on_error(error: Exception) -> None:
            self.errors.append(error)
            self._ended.set()

        def on_completed() -> None:
            self.completed.set()
            self._ended.set()

        self.source.pipe(operator).subscribe(on_next, on_error, on_completed)
        for item in first:
            self.source.on_next(item)
        assert self._inside.wait(DEADLINE)
        return self.items

    def go_on(self) -> None:
        """Let the observer go on, and wait for the end of the pipeline."""
        self._leave.set()
        assert self._ended.wait(DEADLINE)
