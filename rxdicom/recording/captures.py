"""Packet captures: which connections in them are DICOM associations, and what was said over each."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from rxdicom.events import kinds
from rxdicom.events.hub import Hub
from rxdicom.events.kinds import NOTIFICATION_KINDS
from rxdicom.log import LOG
from rxdicom.recording.associations import RecordedAssociation
from rxdicom.recording.frames import is_capture
from rxdicom.recording.packets import Endpoint, Segment, segments
from rxdicom.recording.player import Step, announce
from rxdicom.recording.tcp import Gap, Stream
from rxdicom.recording.wiretap import Wiretap
from rxdicom.runtimes.association import Peer
from rxdicom.wire.pdu import AssociateRQ

KINDS = tuple(each for each in NOTIFICATION_KINDS if each is not kinds.EVT_FSM_TRANSITION)
"""The kinds of events that a capture tells of: nobody sees the state machine of a peer."""

_MOST_OVER = 1000
"""Connections that are over, and of which segments may have been captured again. Then they are no new ones."""
_TLS_HANDSHAKE = 0x16
"""How a TLS connection begins (RFC 8446 §5.1)."""

Act = Callable[[], None]


def steps(path: str, hub: Hub, *, is_requestor: bool) -> Iterator[Step]:
    """What occurred in the associations of a capture, in its order; each is to be taken before the next is asked for.

    Raises what :func:`rxdicom.recording.packets.segments` raises.
    """
    connections: dict[frozenset[Endpoint], _Connection] = {}
    over: OrderedDict[frozenset[Endpoint], _Connection] = OrderedDict()
    encrypted = Counter[Endpoint]()
    at: datetime | None = None
    try:
        for segment in segments(path):
            at = segment.at
            ends = frozenset((segment.source, segment.destination))
            if ends in over and over[ends].has_heard(segment):
                continue
            connection = connections.get(ends)
            if connection is None or connection.is_reopened_by(segment):
                if connection is not None:
                    yield from _at(at, connection.lost(at))
                connection = connections[ends] = _Connection(segment, hub, encrypted, is_requestor=is_requestor)
            yield from _at(at, connection.acts(segment))
            if connection.is_over:
                over[ends] = connections.pop(ends)
                over.move_to_end(ends)
                if len(over) > _MOST_OVER:
                    over.popitem(last=False)
        for connection in connections.values():
            if at is not None:
                yield from _at(at, connection.lost(at))
        if encrypted:
            LOG.warning("%s: %s", path, _said_of(encrypted))
    finally:
        for connection in connections.values():
            if connection.tap is not None:
                connection.tap.end()


def _at(at: datetime, acts: Iterator[Act]) -> Iterator[Step]:
    for act in acts:
        yield at, act


def _said_of(encrypted: Counter[Endpoint]) -> str:
    """What cannot be read, and what to do about it, in one line."""
    count, most = encrypted.total(), 3
    servers = [f"{host}:{port}" for (host, port), _ in encrypted.most_common(most)]
    others = ", …" if len(encrypted) > most else ""
    subject = "1 connection is" if count == 1 else f"{count} connections are"
    return (
        f"{subject} encrypted by TLS and cannot be read (to {', '.join(servers)}{others}); "
        "if DICOM is inside, record it at one of its ends instead"
    )


class _Connection:
    """A TCP connection; once it says that it wants an association, with somebody who listens."""

    def __init__(self, first: Segment, hub: Hub, encrypted: Counter[Endpoint], *, is_requestor: bool) -> None:
        self._first = first
        self._hub = hub
        self._encrypted = encrypted
        """Connections that use TLS, by the servers that they are to."""
        self._is_requestor = is_requestor
        self._client = first.source if first.is_opening else None
        self._streams = {first.source: Stream(), first.destination: Stream()}
        self._is_association: bool | None = None
        self.tap: Wiretap | None = None
        self.is_over = False

    def is_reopened_by(self, segment: Segment) -> bool:
        """Whether a segment opens another connection between the same ports."""
        return segment.is_opening and segment.sequence != self._first.sequence

    def has_heard(self, segment: Segment) -> bool:
        """Whether there is nothing new in a segment."""
        return not self.is_reopened_by(segment) and self._streams[segment.source].has_heard(segment)

    def acts(self, segment: Segment) -> Iterator[Act]:
        """What there is to be done about one more segment."""
        for part in self._streams[segment.source].add(segment):
            yield from self._heard(segment.at, segment.source, part)
        if segment.has_rst or all(each.is_over for each in self._streams.values()):
            self.is_over = True
            yield from self._gaps(segment.at)
            if self.tap is not None:
                yield partial(self.tap.close, segment.at)

    def lost(self, at: datetime) -> Iterator[Act]:
        """Nothing more was captured of it."""
        yield from self._gaps(at)
        if self.tap is not None:
            yield self.tap.end

    def _gaps(self, at: datetime) -> Iterator[Act]:
        """Nothing comes any more: what waits for earlier bytes waits in vain."""
        for source, stream in self._streams.items():
            for gap in stream.finish():
                yield from self._heard(at, source, gap)

    def _heard(self, at: datetime, source: Endpoint, part: bytes | Gap) -> Iterator[Act]:
        if self._is_association is None:
            self._is_association = self._opens_association(source, part)
            if self._is_association:
                self._client = source
                yield partial(self._listen, source)
            elif isinstance(part, bytes) and part[0] == _TLS_HANDSHAKE and self._client in (None, source):
                self._encrypted[self._other(source)] += 1
        if self._is_association:
            yield partial(self._tell, source, part, at)

    def _opens_association(self, source: Endpoint, start: bytes | Gap) -> bool:
        """Whether a connection on which this is said first is one of DICOM."""
        return isinstance(start, bytes) and self._client in (None, source) and start[0] == AssociateRQ.pdu_type

    def _other(self, end: Endpoint) -> Endpoint:
        # A packet from a port to itself is forged, and harmless.
        return next((each for each in self._streams if each != end), end)

    def _listen(self, client: Endpoint) -> None:
        server = self._other(client)
        assoc = RecordedAssociation(
            name=f"{client[0]}:{client[1]}-{server[0]}:{server[1]}",
            is_requestor=self._is_requestor,
            requestor=Peer("", *client),
            acceptor=Peer("", *server),
        )
        announce(self._hub, assoc)
        self.tap = Wiretap(assoc, self._hub, self._first.at)

    def _tell(self, source: Endpoint, part: bytes | Gap, at: datetime) -> None:
        if self.tap is None:
            return
        if isinstance(part, Gap):
            self.tap.lose(at, part.size)
        else:
            self.tap.hear(at, from_requestor=source == self._client, data=part)


__all__ = ["KINDS", "is_capture", "steps"]
