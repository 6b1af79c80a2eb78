"""Plays a recording: entries in, events into the hubs of the replay and of their associations."""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from rxdicom.errors import PeerProtocolError
from rxdicom.events.hub import ASSOCIATIONS, Hub
from rxdicom.events.kinds import NOTIFICATION_KINDS
from rxdicom.recording import associations
from rxdicom.recording.associations import RecordedAssociation
from rxdicom.recording.entries import Entry, InvalidRecording, Line, read_entries
from rxdicom.recording.fields import kind_of, timestamp_of, to_event

Step = tuple[datetime, Callable[[], None]]
"""When something occurred, and what has it seen."""


class Player:
    """One pass through a recording. ``wait`` is asked for more at its end, until that was written by its recorder."""

    def __init__(self, path: str, hub: Hub, wait: Callable[[], bool] | None) -> None:
        self._path = path
        self._hub = hub
        self._wait = wait
        self._is_whole = False
        self._associations: dict[int, RecordedAssociation] = {}
        self._entries = read_entries(path, None if wait is None else self._more)
        names = next(self._entries).line.get("kinds", [])
        self.kinds = tuple(each for each in NOTIFICATION_KINDS if each.stream_name in names)

    def _more(self) -> bool:
        return not self._is_whole and self._wait is not None and self._wait()

    def steps(self) -> Iterator[Step]:
        """What occurred, in order; each is to be taken before the next is asked for."""
        try:
            for entry in self._entries:
                if "end" in entry.line:
                    self._is_whole = True
                else:
                    act = self._deliver if "event" in entry.line else self._learn
                    yield timestamp_of(entry.line), partial(act, entry)
        finally:
            for assoc in self._associations.values():
                complete(assoc)

    def _learn(self, entry: Entry) -> None:
        """What a line tells of an association."""
        line = entry.line
        try:
            number = line["association"]
            if line.get("over"):
                complete(self._associations.pop(number))
            elif number in self._associations:
                associations.update(self._associations[number], line)
            else:
                self._associations[number] = self._announced(line)
        except (KeyError, TypeError, ValueError, AttributeError, PeerProtocolError) as error:
            raise InvalidRecording(f"{self._path}: an association that cannot be read: {error!r}") from error

    def _announced(self, line: Line) -> RecordedAssociation:
        assoc = RecordedAssociation(name=line["name"], is_requestor=line["is_requestor"])
        associations.update(assoc, line)
        announce(self._hub, assoc)
        return assoc

    def _deliver(self, entry: Entry) -> None:
        """The event of an entry, if anybody observes it."""
        number = entry.line.get("association")
        assoc = self._associations.get(number) if isinstance(number, int) else None
        if assoc is None:
            raise InvalidRecording(f"{self._path}: an event of association {number!r}, of which nothing is said")
        kind = kind_of(entry.line)
        hubs = [hub for hub in (assoc.hub, self._hub) if hub.mask >> kind.number & 1]
        event = to_event(entry, assoc) if hubs else None
        for hub in hubs:
            hub.append(kind.number, event)
            hub.drain()


def announce(hub: Hub, assoc: RecordedAssociation) -> None:
    """Tell of an association, so that its own streams can be subscribed to before its first event."""
    if hub.mask >> ASSOCIATIONS & 1:
        hub.append(ASSOCIATIONS, assoc)
        hub.drain()


def complete(assoc: RecordedAssociation) -> None:
    """Complete the streams of an association that is over."""
    assoc.hub.complete()
    assoc.hub.drain()
