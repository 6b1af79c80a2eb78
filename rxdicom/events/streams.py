"""Event streams as Rx Observables: the only module, with the operators, that imports reactivex."""

from typing import TYPE_CHECKING, Any, TypeVar

import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdicom.events.hub import ASSOCIATIONS, Hub, guarded
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind

if TYPE_CHECKING:
    from rxdicom.events import records

_T = TypeVar("_T")


class GuardedObservable(Observable[_T]):
    """An observable whose subscribers' callbacks may raise: that is logged, and they stay subscribed."""

    def subscribe(
        self,
        on_next: abc.ObserverBase[_T] | abc.OnNext[_T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        if callable(on_next) and not hasattr(on_next, "on_next"):
            callback = on_next

            def logged(value: _T) -> None:
                guarded(callback, value)

            on_next = logged
        return super().subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    if not TYPE_CHECKING:

        def pipe(self, *operators: Any) -> Any:
            """Compose; the last observable's subscribers are guarded too."""
            result = super().pipe(*operators)
            return _Composed(result) if isinstance(result, Observable) else result


class _Composed(GuardedObservable[_T]):
    def __init__(self, source: Observable[_T]) -> None:
        super().__init__()
        self._source = source

    def _subscribe_core(
        self, observer: abc.ObserverBase[_T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return self._source.subscribe(observer, scheduler=scheduler)


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
        merged = reactivex.merge(*(self._streams[kind] for kind in NOTIFICATION_KINDS))
        return merged.subscribe(observer, scheduler=scheduler)


def association_stream(hub: Hub) -> Observable[Any]:
    """The associations of a server or an AE, each as it connects."""
    return EventStream[Any](hub, ASSOCIATIONS)
