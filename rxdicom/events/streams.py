"""Event streams as Rx Observables: the only module, with the operators, that imports reactivex."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import reactivex
from reactivex import ConnectableObservable, Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler

from rxdicom.events.hub import ASSOCIATIONS, Hub, guarded
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind

if TYPE_CHECKING:
    from rxdicom.events import records

_T = TypeVar("_T")


class GuardedObservable(Observable[_T]):
    """An observable whose subscribers may raise on an event: that is logged, and they stay subscribed."""

    def subscribe(
        self,
        on_next: abc.ObserverBase[_T] | abc.OnNext[_T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        given: Any = on_next
        if hasattr(given, "on_next"):
            given, on_error, on_completed = given.on_next, given.on_error, given.on_completed
        logged = None if given is None else partial(guarded, given)
        return super().subscribe(logged, on_error, on_completed, scheduler=scheduler)

    if not TYPE_CHECKING:

        def pipe(self, *operators: Any) -> Any:
            """Compose; the subscribers of what comes out are guarded too."""
            return _guard(super().pipe(*operators))


def _guard(result: Any) -> Any:
    """What a pipe gives, guarded if it is an observable."""
    if isinstance(result, ConnectableObservable):
        made = cast("ConnectableObservable[Any]", result)
        return _Connectable[Any](made.source, made.subject)
    return _Composed[Any](cast("Observable[Any]", result)) if isinstance(result, Observable) else result


class _Composed(GuardedObservable[_T]):
    def __init__(self, source: Observable[_T]) -> None:
        super().__init__()
        self._source = source

    def _subscribe_core(
        self, observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return self._source.subscribe(observer, scheduler=scheduler)


class _Connectable(GuardedObservable[_T], ConnectableObservable[_T]):
    """A connectable observable, as ``publish`` and ``replay`` make it, not yet connected."""


class EventStream(GuardedObservable[_T]):
    """The hot stream of one channel of a hub. It never fails; it completes when its owner is over."""

    def __init__(self, hub: Hub, channel: int) -> None:
        super().__init__()
        self._hub = hub
        self._channel = channel

    def _subscribe_core(
        self, observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return Disposable(self._hub.subscribe(self._channel, observer.on_next, observer.on_completed))


class EventStreams:
    """The event streams of an association, a server or an AE: by name, as in ``events.pdu_recv``, or by kind."""

    if TYPE_CHECKING:
        conn_open: Observable[records.ConnectionOpened]
        conn_close: Observable[records.ConnectionClosed]
        data_recv: Observable[records.DataReceived]
        data_sent: Observable[records.DataSent]
        pdu_recv: Observable[records.PDUReceived]
        pdu_sent: Observable[records.PDUSent]
        acse_recv: Observable[records.ACSEReceived]
        acse_sent: Observable[records.ACSESent]
        dimse_recv: Observable[records.DIMSEReceived]
        dimse_sent: Observable[records.DIMSESent]
        fsm_transition: Observable[records.FSMTransition]
        requested: Observable[records.Requested]
        accepted: Observable[records.Accepted]
        rejected: Observable[records.Rejected]
        established: Observable[records.Established]
        released: Observable[records.Released]
        aborted: Observable[records.Aborted]

    kinds: tuple[EventKind[Any], ...] = NOTIFICATION_KINDS
    """The kinds that :attr:`all` consists of."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        for kind in NOTIFICATION_KINDS:
            setattr(self, kind.stream_name, EventStream[Any](hub, kind.number))

    def __getitem__(self, kind: EventKind[_T]) -> Observable[_T]:
        if not kind.is_notification:
            raise KeyError(f"{kind!r} is an intervention event: bind a handler to it")
        return getattr(self, kind.stream_name)

    @property
    def all(self) -> Observable["records.Event"]:
        """Every notification event, in order. Nothing is left unbuilt while somebody subscribes to it."""
        return GuardedAll(self)


class GuardedAll(GuardedObservable[Any]):
    """All the streams of an :class:`EventStreams` as one."""

    def __init__(self, streams: EventStreams) -> None:
        super().__init__()
        self._streams = streams

    def _subscribe_core(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        merged = reactivex.merge(*(self._streams[kind] for kind in self._streams.kinds))
        return merged.subscribe(observer, scheduler=scheduler)


class ResponseStream(GuardedObservable[_T]):
    """The responses of one request; subscribing sends it, disposing cancels it."""

    def __init__(self, subscribe: Callable[..., Callable[[], None]]) -> None:
        super().__init__()
        self._start = subscribe

    def _subscribe_core(
        self, observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        running = SingleAssignmentDisposable()

        def start(*_: Any) -> None:
            leave = self._start(observer.on_next, observer.on_error, observer.on_completed)
            running.disposable = Disposable(leave)

        # Only when the whole chain of operators is there can one of them, such as take, end it in time.
        CurrentThreadScheduler.singleton().schedule(start)
        return running


def response_stream(subscribe: Callable[..., Callable[[], None]]) -> Observable[Any]:
    """The responses that ``subscribe(on_next, on_error, on_completed)`` starts; it returns what leaves them."""
    return ResponseStream[Any](subscribe)


def association_stream(hub: Hub) -> Observable[Any]:
    """The associations of a server or an AE, each as it connects."""
    return EventStream[Any](hub, ASSOCIATIONS)
