"""Records the events of an association, a server or an AE to a file, as they occur."""

import os
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self
from weakref import WeakKeyDictionary

from rxdicom.errors import ArgumentError
from rxdicom.events import kinds
from rxdicom.events.kinds import NOTIFICATION_KINDS, EventKind
from rxdicom.log import LOG
from rxdicom.recording import associations, fields
from rxdicom.recording.entries import FORMAT, VERSION, Line, encode_line
from rxdicom.recording.fields import Payload
from rxdicom.runtimes.files import write_all

if TYPE_CHECKING:
    from rxdicom.events.streams import EventStreams

ALL_KINDS = NOTIFICATION_KINDS
"""Every kind of event. Datasets are then there three times: as messages, in PDUs and in bytes."""
_BYTES = (kinds.EVT_DATA_RECV, kinds.EVT_DATA_SENT, kinds.EVT_PDU_RECV, kinds.EVT_PDU_SENT)
"""Kinds that carry datasets in pieces."""
ACTIVITY_KINDS = tuple(each for each in NOTIFICATION_KINDS if each not in _BYTES)
"""What is recorded unless told otherwise: messages with their datasets, association control, how associations begin
and end, and the state machine; not the bytes and PDUs that all this travelled in."""
_STEADY = (*_BYTES, kinds.EVT_DIMSE_RECV, kinds.EVT_DIMSE_SENT, kinds.EVT_FSM_TRANSITION)
"""Kinds whose events change nothing that is known of an association, but for PDUs of association control."""


class Source(Protocol):
    """What can be recorded: an association, a server or an AE."""

    @property
    def events(self) -> "EventStreams": ...


class Recorder:
    """Writes events to one file, until it is closed or their source is over. Made by :func:`record`.

    Each event is written on the thread that delivers it: a slow disk slows the peer down, and nothing piles up. What
    can then not be written ends the recording, is logged, and is raised by :meth:`close`.
    """

    def __init__(self, path: str, recorded: tuple[EventKind[Any], ...], *, with_datasets: bool) -> None:
        self.path = path
        self.error: OSError | None = None
        """Why the recording ended early."""
        self._recorded = frozenset(recorded)
        self._with_datasets = with_datasets
        self._lock = threading.Lock()
        self._subscriptions: list[Any] = []
        self._open = 0
        # What has been written of each association: its number, and the line.
        self._known: WeakKeyDictionary[Any, tuple[int, Line]] = WeakKeyDictionary()
        self._numbered = 0
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._write(
            {
                "format": FORMAT,
                "version": VERSION,
                "began": datetime.now(UTC).isoformat(),
                "kinds": [each.stream_name for each in recorded],
                "with_datasets": with_datasets,
            }
        )

    def watch(self, events: "EventStreams") -> None:
        """Record the events of one more source to the same file."""
        # The end of a connection is that of an association, recorded or not.
        watched = self._recorded | {kinds.EVT_CONN_CLOSE}
        with self._lock:
            self._open += len(watched)
        for kind in watched:
            self._subscriptions.append(events[kind].subscribe(self._on_event, on_completed=self._on_completed))

    def close(self) -> None:
        """Stop. Raises the :class:`OSError` that ended the recording early, if one did; once."""
        for each in self._subscriptions:
            each.dispose()
        self._finish()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except OSError:
            # What the block raises is more important.
            if kind is None:
                raise

    # ---- events

    def _on_event(self, event: Any) -> None:
        with self._lock:
            try:
                self._record(event)
            except OSError as error:
                LOG.error("%s: the recording ends: %s", self.path, error.strerror or error)
                self.error = error
                self._give_up()

    def _record(self, event: Any) -> None:
        if self._fd is None or event.assoc is None:
            return
        number = self._number(event)
        if event.event in self._recorded:
            self._write(*fields.to_line(event, number, with_datasets=self._with_datasets))
        if event.event is kinds.EVT_CONN_CLOSE:
            self._write({"association": number, "at": event.timestamp.isoformat(), "over": True})
            del self._known[event.assoc]

    def _number(self, event: Any) -> int:
        """The number of the event's association, of which everything that is known by now has been written."""
        known = self._known.get(event.assoc)
        if known is not None and _is_steady(event):
            return known[0]
        line = associations.to_line(event.assoc, with_secrets=self._with_datasets)
        if known is None:
            self._numbered += 1
        elif known[1] == line:
            return known[0]
        number = self._numbered if known is None else known[0]
        self._known[event.assoc] = number, line
        self._write({"association": number, "at": event.timestamp.isoformat(), **line})
        return number

    def _on_completed(self) -> None:
        with self._lock:
            self._open -= 1
            over = not self._open
        if over:
            self._finish()

    # ---- the file

    def _write(self, line: Line, payload: Payload | None = None) -> None:
        assert self._fd is not None
        if payload is None:
            write_all(self._fd, [encode_line(line)])
            return
        pending = encode_line(line, payload.size)
        for chunk in payload.chunks():
            write_all(self._fd, [pending, chunk])
            pending = b""
        write_all(self._fd, [pending, b"\n"])

    def _finish(self) -> None:
        with self._lock:
            try:
                if self._fd is not None:
                    self._write({"end": datetime.now(UTC).isoformat()})
            except OSError as error:
                self.error = error
            finally:
                self._give_up()

    def _give_up(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _is_steady(event: Any) -> bool:
    if event.event not in _STEADY:
        return False
    pdu = getattr(event, "pdu", None)
    return pdu is None or pdu.name == "P-DATA-TF"


def record(
    source: Source,
    path: str | os.PathLike[str],
    kinds: Iterable[EventKind[Any]] = ACTIVITY_KINDS,
    *,
    without_datasets: bool = False,
) -> Recorder:
    """Record the events of an association, a server or an AE, from now on, to a new file that only its owner can read.

    It holds what was transferred, **patient data and the secrets of user identities among it**. ``without_datasets``
    leaves both out; UIDs, AE titles, addresses and user names stay. ``kinds`` are the kinds of events to be recorded:
    :data:`ACTIVITY_KINDS`, :data:`ALL_KINDS`, or any others.

    Raises :class:`FileExistsError` and other :class:`OSError`, and :class:`~rxdicom.errors.ArgumentError` for kinds
    that are no notifications, or carry datasets in pieces where these are to be left out.
    """
    chosen = tuple(dict.fromkeys(kinds))
    if not chosen or not all(each.is_notification for each in chosen):
        raise ArgumentError("give the kinds of events to be recorded, notification events only")
    pieces = [each.name for each in chosen if each in _BYTES] if without_datasets else []
    if pieces:
        raise ArgumentError(f"{', '.join(pieces)}: with pieces of datasets; leave these kinds out, or record datasets")
    recorder = Recorder(os.fspath(path), chosen, with_datasets=not without_datasets)
    recorder.watch(source.events)
    return recorder
