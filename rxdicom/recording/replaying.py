"""Replays a recording, or a packet capture, as event streams: at speed, or on the clock of a scheduler."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Self

from rxdicom.errors import ArgumentError, StateError
from rxdicom.events.hub import Hub
from rxdicom.recording import captures
from rxdicom.recording.associations import RecordedAssociation
from rxdicom.recording.entries import MAGIC, InvalidRecording
from rxdicom.recording.player import Player, Step

if TYPE_CHECKING:
    from reactivex import Observable, abc

    from rxdicom.events.streams import EventStreams
    from rxdicom.recording.streams import Timetable

Side = Literal["requestor", "acceptor"]

_LOOK_AGAIN = 0.2
"""Seconds between two looks at a recording that may grow: files cannot be waited for."""


class Replay:
    """The events of a recording or a capture, as event streams. Made by :func:`replay`.

    Subscribe, then :meth:`run` it, or :meth:`start` it on a scheduler: once. Streams complete at the end, as those of
    a server do when it is shut down. As a context manager it stops on the way out.
    """

    def __init__(self, path: str, side: Side, *, follow: bool) -> None:
        self.path = path
        self.is_capture = not _is_recording(path)
        """Whether it is a packet capture."""
        self._hub = Hub()
        self._streams: EventStreams | None = None
        self._timetable: Timetable | None = None
        self._stopped = threading.Event()
        self._begun = False
        self._ahead: Step | None = None
        if self.is_capture:
            if follow:
                raise ArgumentError(f"{path} is a packet capture; only recordings can be followed while they grow")
            self.kinds = captures.KINDS
            """The kinds of events that there are. Observing another one ends with an error."""
            self._steps: Iterator[Step] = captures.steps(path, self._hub, is_requestor=side == "requestor")
        else:
            player = Player(path, self._hub, self._wait if follow else None)
            self.kinds = player.kinds
            self._steps = player.steps()

    @property
    def events(self) -> "EventStreams":
        """An Observable per kind of event, merged over all associations."""
        if self._streams is None:
            from rxdicom.recording.streams import RecordedStreams

            self._streams = RecordedStreams(self._hub, self.kinds, self.path)
        return self._streams

    @property
    def associations(self) -> "Observable[RecordedAssociation]":
        """Each association before its first event."""
        from rxdicom.events.streams import association_stream

        return association_stream(self._hub)

    @property
    def began(self) -> datetime | None:
        """When the first event occurred; None if there is none.

        Raises :class:`InvalidRecording` and :class:`OSError`; of a recording that is followed it waits for the event.
        """
        self._peek()
        return None if self._ahead is None else self._ahead[0]

    def run(self, speed: float | None = None) -> None:
        """Replay on the current thread, without pauses; returns at the end, or when it is closed.

        With ``speed`` 1 it takes as long as it took, with 2 half the time. Raises :class:`InvalidRecording` and
        :class:`OSError` where the file cannot be read further; the streams complete then, too.
        """
        _check_speed(speed)
        self._begin()
        begun, first = time.monotonic(), None
        try:
            while (at := self._next_at()) is not None:
                first = first or at
                due = 0.0 if speed is None else begun + (at - first).total_seconds() / speed
                if not self._stopped.wait(max(0.0, due - time.monotonic())):
                    self._take()
        finally:
            self._end()

    def start(self, scheduler: "abc.SchedulerBase", speed: float = 1.0) -> None:
        """Replay by the clock of a reactivex scheduler, each event as long after the first one as it occurred.

        ``speed`` 2 takes half the time. With a ``HistoricalScheduler`` set to :attr:`began`, or a ``TestScheduler``,
        that is virtual time, which operators with timers can share. :meth:`close` stops it. What is wrong with the file
        is raised on the scheduler, after the streams completed.
        """
        _check_speed(speed)
        self._begin()
        from rxdicom.recording.streams import Timetable

        self._timetable = Timetable(scheduler, speed, self._next_at, self._take, self._end)
        self._timetable.begin()

    def close(self) -> None:
        """Stop: nothing more is replayed, and the streams complete. It may be called anywhere."""
        self._stopped.set()
        if self._timetable is not None:
            self._timetable.stop()
        elif not self._begun:
            self._begun = True
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- one step after the other

    def _begin(self) -> None:
        if self._begun:
            raise StateError(f"{self.path} has been replayed, or is; make another replay()")
        self._begun = True

    def _peek(self) -> None:
        if self._ahead is None:
            self._ahead = next(self._steps, None)

    def _next_at(self) -> datetime | None:
        """When the step that is next occurred; None if there is none, or this was closed."""
        if not self._stopped.is_set():
            self._peek()
        return None if self._ahead is None or self._stopped.is_set() else self._ahead[0]

    def _take(self) -> None:
        """Have the observers see what is next."""
        step, self._ahead = self._ahead, None
        if step is not None:
            step[1]()
            self._hub.drain()

    def _end(self) -> None:
        self._stopped.set()
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()
        self._hub.complete()
        self._hub.drain()

    def _wait(self) -> bool:
        return not self._stopped.wait(_LOOK_AGAIN)


def _check_speed(speed: float | None) -> None:
    if speed is not None and speed <= 0:
        raise ArgumentError(f"a speed of {speed} does not come to an end; give more than 0")


def _is_recording(path: str) -> bool:
    with open(path, "rb") as file:
        start = file.read(len(MAGIC))
    if start == MAGIC:
        return True
    if captures.is_capture(start):
        return False
    raise InvalidRecording(f"{path} is neither a recording nor a packet capture (pcap, pcapng)")


def replay(path: str | os.PathLike[str], *, side: Side = "acceptor", follow: bool = False) -> Replay:
    """The events of a recording or a packet capture, to be subscribed to and then replayed.

    A capture (``.pcap``, ``.pcapng``; ``pip install rxdicom[capture]``) is told as ``side`` would have it: what is
    *received* by the acceptor of an association is *sent* by its requestor. ``follow`` goes on at the end of a
    recording that is still being written, until its recorder closes it.

    Raises :class:`InvalidRecording`, :class:`OSError`, and :class:`~rxdicom.errors.ArgumentError`.
    """
    return Replay(os.fspath(path), side, follow=follow)
