"""What an Rx pipeline sees of a server: its event streams folded into immutable totals. Touches nothing else."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import reactivex
from attrs import evolve, field, frozen
from reactivex import Observable
from reactivex import operators as ops

from rxdicom import AssociationServer, evt
from rxdicom.status import code_to_category


def _none() -> Mapping[str, int]:
    return {}


@frozen
class Traffic:
    """What has happened so far, over all associations of a server together."""

    begun: datetime | None = None
    at: datetime | None = None
    """When the last of it happened."""
    associations: int = 0
    established: int = 0
    released: int = 0
    aborted: int = 0
    rejected: int = 0
    stored: int = 0
    refused: int = 0
    """Instances answered with a failure status."""
    bytes_received: int = 0
    bytes_sent: int = 0
    pdus_received: Mapping[str, int] = field(factory=_none)
    """PDUs by the name of their type."""
    pdus_sent: Mapping[str, int] = field(factory=_none)

    @property
    def failures(self) -> int:
        return self.aborted + self.rejected + self.refused

    @property
    def open(self) -> int:
        """Associations that are established and not over."""
        return self.established - self.released - self.aborted

    @property
    def seconds(self) -> float:
        return (self.at - self.begun).total_seconds() if self.at and self.begun else 0.0


def _one_more(counts: Mapping[str, int], name: str) -> Mapping[str, int]:
    return {**counts, name: counts.get(name, 0) + 1}


def _answered(seen: Traffic, event: Any) -> Traffic:
    if event.message.name != "C-STORE-RSP":
        return seen
    failed = code_to_category(event.message.Status) == "Failure"
    return evolve(seen, refused=seen.refused + failed, stored=seen.stored + (not failed))


_FOLDS: dict[evt.EventKind[Any], Callable[[Traffic, Any], Traffic]] = {
    evt.EVT_CONN_OPEN: lambda seen, _: evolve(seen, associations=seen.associations + 1),
    evt.EVT_ESTABLISHED: lambda seen, _: evolve(seen, established=seen.established + 1),
    evt.EVT_RELEASED: lambda seen, _: evolve(seen, released=seen.released + 1),
    evt.EVT_ABORTED: lambda seen, _: evolve(seen, aborted=seen.aborted + 1),
    evt.EVT_REJECTED: lambda seen, _: evolve(seen, rejected=seen.rejected + 1),
    evt.EVT_DIMSE_SENT: _answered,
    evt.EVT_DATA_RECV: lambda seen, event: evolve(seen, bytes_received=seen.bytes_received + len(event.data)),
    evt.EVT_DATA_SENT: lambda seen, event: evolve(seen, bytes_sent=seen.bytes_sent + len(event.data)),
    evt.EVT_PDU_RECV: lambda seen, event: evolve(seen, pdus_received=_one_more(seen.pdus_received, event.pdu.name)),
    evt.EVT_PDU_SENT: lambda seen, event: evolve(seen, pdus_sent=_one_more(seen.pdus_sent, event.pdu.name)),
}
"""What each kind of event adds."""


def fold(seen: Traffic, event: Any) -> Traffic:
    """The totals with one more event."""
    timed = evolve(seen, begun=seen.begun or event.timestamp, at=event.timestamp)
    return _FOLDS[event.event](timed, event)


def traffic(server: AssociationServer) -> Observable[Traffic]:
    """The totals after each event, hot: to be subscribed before the first association. Complete when the server is."""
    return reactivex.merge(*(server.events[kind] for kind in _FOLDS)).pipe(ops.scan(fold, Traffic()), ops.share())


def pace(totals: Observable[Traffic], seconds: float) -> Observable[tuple[Traffic, Traffic]]:
    """Pairs of totals at least so far apart, and then the last; each pair begins where the one before ended."""
    return reactivex.merge(totals.pipe(ops.throttle_first(seconds)), totals.pipe(ops.last_or_default(Traffic()))).pipe(
        ops.distinct_until_changed(), ops.pairwise()
    )
