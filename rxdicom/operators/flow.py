"""How much and how fast: throughput over a window, and samples."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

from reactivex import abc

from rxdicom.events.records import DataReceived, DataSent, DIMSEReceived, DIMSESent, Event, PDUReceived, PDUSent
from rxdicom.operators.core import Operator, TimedFold, positive, timed
from rxdicom.operators.records import Rate, Throughput

_T = TypeVar("_T")


def throughput(seconds: float = 1.0, *, scheduler: abc.SchedulerBase | None = None) -> Operator[Event, Throughput]:
    """Bytes, PDUs and messages per second in both directions, measured over one window after the other.

    What is counted are the events that come: ``EVT_DATA_…`` for bytes, ``EVT_PDU_…`` for PDUs, ``EVT_DIMSE_…`` for
    messages. Observing bytes has everything that is carried copied once more, and observing PDUs has it taken apart.

    ::

        bytes received           --10-----5--------------20----4|
        throughput(7 columns)    -------10-----5------0------20-4|

    A window without events is emitted too. The last one is as long as it was, and left out if nothing came in it.
    """
    positive("seconds", seconds)
    return timed(lambda now: _Measuring(seconds, now), scheduler)


_COUNTED: dict[type[Event], tuple[str, str]] = {
    DataReceived: ("received", "bytes"),
    DataSent: ("sent", "bytes"),
    PDUReceived: ("received", "pdus"),
    PDUSent: ("sent", "pdus"),
    DIMSEReceived: ("received", "messages"),
    DIMSESent: ("sent", "messages"),
}


class _Measuring(TimedFold[Event, Throughput]):
    def __init__(self, seconds: float, now: datetime) -> None:
        self._seconds = seconds
        self._began = now
        self._counts: dict[tuple[str, str], int] = {}

    def step(self, item: Event, now: datetime) -> Iterable[Throughput]:
        del now
        counted = _COUNTED.get(type(item))
        if counted is not None:
            amount = len(item.data) if isinstance(item, DataReceived | DataSent) else 1
            self._counts[counted] = self._counts.get(counted, 0) + amount
        return ()

    def wait(self, now: datetime) -> float | None:
        del now
        return self._seconds

    def tick(self, now: datetime) -> Iterable[Throughput]:
        elapsed = (now - self._began).total_seconds()
        # A clock that was set back tells nothing: then the timer's word is taken.
        seconds = elapsed if elapsed > 0 else self._seconds
        received, sent = (self._rate(direction, seconds) for direction in ("received", "sent"))
        self._began, self._counts = now, {}
        return (Throughput(now, seconds, received, sent),)

    def _rate(self, direction: str, seconds: float) -> Rate:
        counted = (self._counts.get((direction, what), 0) / seconds for what in ("bytes", "pdus", "messages"))
        return Rate(*counted)

    def end(self, now: datetime) -> Iterable[Throughput]:
        return self.tick(now) if self._counts else ()


def sampled(seconds: float, *, scheduler: abc.SchedulerBase | None = None) -> Operator[_T, _T]:
    """The newest item of each period, for observers that want to know how things stand and not every step.

    A period begins with the first item that comes after the one before; without items there is no timer.

    ::

        source                --a-b-c------d-------e-f|
        sampled(5 columns)    -------c----------d-----f|
    """
    positive("seconds", seconds)

    def start(_: datetime) -> _Sampling[_T]:
        return _Sampling(seconds)

    return timed(start, scheduler)


class _Sampling(TimedFold[_T, _T]):
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._newest: tuple[_T, ...] = ()

    def step(self, item: _T, now: datetime) -> Iterable[_T]:
        del now
        self._newest = (item,)
        return ()

    def wait(self, now: datetime) -> float | None:
        del now
        return self._seconds if self._newest else None

    def tick(self, now: datetime) -> Iterable[_T]:
        del now
        newest, self._newest = self._newest, ()
        return newest

    def end(self, now: datetime) -> Iterable[_T]:
        return self.tick(now)
