"""One record for each association, at its end."""

from collections import Counter
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, Literal

from rxdicom.events.records import (
    Aborted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    DataSent,
    DIMSEReceived,
    DIMSESent,
    Event,
    Rejected,
    Released,
)
from rxdicom.operators.core import Fold, Operator, folded
from rxdicom.operators.exchanges import cause_of
from rxdicom.operators.filters import identity
from rxdicom.operators.records import AssociationSummary
from rxdicom.status import STATUS_FAILURE, code_to_category

_Ended = Literal["released", "rejected", "aborted", "closed", "unknown"]


def summaries() -> Operator[Event, AssociationSummary]:
    """Each association as one record, when its connection is closed: who, how much, what failed, how it ended.

    To be applied to :func:`~rxdicom.operators.activity`. Bytes are counted if ``EVT_DATA_RECV`` and ``EVT_DATA_SENT``
    are added to it, which has everything that is carried copied once more. One that ends before it was connected is
    emitted when that fails, and what is still open when the stream ends, then.

    ::

        activity       --A open--B open--A rq--A released--A close--B aborted--B close--|
        summaries()    ------------------------------------A-------------------B--------|
    """
    return folded(_Summing)


class _Summing(Fold[Event, AssociationSummary]):
    def __init__(self) -> None:
        self._open: dict[Any, _Account] = {}

    def step(self, item: Event) -> Iterable[AssociationSummary]:
        account = self._open.get(item.assoc)
        if account is None:
            if isinstance(item, ConnectionClosed):
                # Of one that was never connected, which has been told when it failed, or began before the stream.
                return ()
            account = self._open[item.assoc] = _Account(item)
        account.add(item)
        never_connected = isinstance(item, Aborted) and account.address is None
        if isinstance(item, ConnectionClosed) or never_connected:
            del self._open[item.assoc]
            return (account.summary("closed"),)
        return ()

    def end(self) -> Iterable[AssociationSummary]:
        left, self._open = list(self._open.values()), {}
        return [account.summary("unknown") for account in left]


class _Account:
    """What has been seen of one association."""

    def __init__(self, first: Event) -> None:
        self.address: tuple[str, int] | None = None
        self._first = first
        self._last = first
        self._ended: _Ended | None = None
        self._cause, self._by = "", ""
        self._received: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._failures = 0
        self._bytes: dict[type[DataReceived | DataSent], int] = {}

    def add(self, event: Event) -> None:
        self._last = event
        match event:
            case ConnectionOpened():
                self.address = event.address
            case DataReceived() | DataSent():
                kind = type(event)
                self._bytes[kind] = self._bytes.get(kind, 0) + len(event.data)
            case DIMSEReceived() | DIMSESent():
                counted = self._received if isinstance(event, DIMSEReceived) else self._sent
                counted[event.message.name] += 1
                status = event.message.Status
                self._failures += status is not None and code_to_category(status) == STATUS_FAILURE
            case Released():
                self._ended = "released"
            case Rejected():
                self._ended, self._cause = "rejected", cause_of(event)
                self._by = "local" if getattr(event.assoc, "is_acceptor", False) else "peer"
            case Aborted():
                self._ended, self._cause, self._by = "aborted", cause_of(event), event.by
            case _:
                pass

    def summary(self, otherwise: _Ended) -> AssociationSummary:
        return AssociationSummary(
            address=self.address,
            began=self._first.timestamp,
            ended=self._ended or otherwise,
            cause=self._cause,
            by=self._by,
            messages_received=MappingProxyType(dict(self._received)),
            messages_sent=MappingProxyType(dict(self._sent)),
            failures=self._failures,
            bytes_received=self._bytes.get(DataReceived),
            bytes_sent=self._bytes.get(DataSent),
            **identity(self._last),
        )
