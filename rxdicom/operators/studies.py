"""Instances that have been stored, and the studies that they make up."""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from attrs import evolve, frozen
from reactivex import abc

from rxdicom.events.records import (
    Aborted,
    ConnectionClosed,
    DIMSEReceived,
    DIMSESent,
    Event,
    Released,
)
from rxdicom.operators.core import Fold, Operator, TimedFold, folded, positive, timed
from rxdicom.operators.exchanges import Outstanding
from rxdicom.operators.filters import identity, sop_class_uid
from rxdicom.operators.heads import MODALITY, SERIES_INSTANCE_UID, STUDY_INSTANCE_UID, VALUE_LIMIT, head_of
from rxdicom.operators.records import CompletedStudy, StoredInstance
from rxdicom.status import STATUS_SUCCESS, STATUS_WARNING, code_to_category
from rxdicom.wire.dimse import Command
from rxdicom.wire.encoded import Encoded

_CompletedBy = Literal["quiet", "release", "limit", "end"]
_ENDS = (Released, Aborted, ConnectionClosed)


def stored_instances() -> Operator[Event, StoredInstance]:
    """Each instance that a peer sent, once it has been answered with success or a warning.

    To be applied to :func:`~rxdicom.operators.activity`. Study, series and modality are read from the head of the
    dataset when the request is delivered, on the reader's thread: some 20 µs, and one more read of 16 KiB where the
    dataset was received into a file. It is not decoded.

    ::

        activity              --rq1--rsp1(0000)--rq2--rsp2(A700)--rq3--rsp3(B000)--|
        stored_instances()    -------1---------------------------------3-----------|
    """
    return folded(_Storing)


class _Stores:
    """Finds the instances that have been stored in a stream of events."""

    def __init__(self) -> None:
        self._outstanding = Outstanding[tuple[StoredInstance, Encoded | None]]()

    def step(self, event: Event) -> StoredInstance | None:
        """The instance that an event says is stored."""
        if isinstance(event, DIMSEReceived):
            if event.message.CommandField == Command.C_STORE_RQ:
                self._outstanding.request(event, (_requested(event), event.message.data))
        elif isinstance(event, DIMSESent):
            if event.message.CommandField == Command.C_STORE_RSP:
                return self._answered(event)
        elif isinstance(event, _ENDS):
            self._outstanding.forget(event.assoc)
        return None

    def _answered(self, event: DIMSESent) -> StoredInstance | None:
        asked = self._outstanding.response(event, final=True)
        status = event.message.Status or 0
        if asked is None or code_to_category(status) not in (STATUS_SUCCESS, STATUS_WARNING):
            return None
        instance, data = asked
        # What it was received into is a temporary file until the handler has saved it under another name.
        path = None if data is None or data.temporary else data.path
        return evolve(instance, status=status, timestamp=event.timestamp, path=path)


def _requested(event: DIMSEReceived) -> StoredInstance:
    message, data = event.message, event.message.data
    study, series, modality = head_of(data, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, MODALITY)
    return StoredInstance(
        study_instance_uid=study,
        series_instance_uid=series,
        modality=modality,
        # A command set has room for UIDs of 64 KiB; these records are kept.
        sop_class_uid=sop_class_uid(message, event.assoc)[:VALUE_LIMIT],
        sop_instance_uid=(message.AffectedSOPInstanceUID or "")[:VALUE_LIMIT],
        transfer_syntax_uid="" if data is None else data.transfer_syntax,
        size=0 if data is None else data.size,
        status=0,
        **identity(event),
    )


class _Storing(Fold[Event, StoredInstance]):
    def __init__(self) -> None:
        self._stores = _Stores()

    def step(self, item: Event) -> Iterable[StoredInstance]:
        instance = self._stores.step(item)
        return () if instance is None else (instance,)


def completed_studies(
    quiet: float,
    *,
    at_release: bool = False,
    limit: int = 1000,
    instance_limit: int = 100_000,
    scheduler: abc.SchedulerBase | None = None,
) -> Operator[Event, CompletedStudy]:
    """Each study as one record, once no instance of it has been stored for ``quiet`` seconds, by any association.

    To be applied to :func:`~rxdicom.operators.activity` of a server or an AE. What :func:`stored_instances` emits is
    grouped by Study Instance UID; what has none, or an unreadable head, belongs to no study.

    ::

        instances of studies 1, 2    --1a--2a--1b----release---------1c---|
        quiet for 10 columns         ----------------2---1----------------1|
        the same, at_release=True    ----------------(21)-----------------1|

    ``at_release`` emits a study as soon as the last association that brought some of it is released; the quiet time
    stays for those whose association was aborted, and for senders that never release.

    DICOM does not tell when a study is complete: one that goes on later is emitted again, with what came then. When
    the stream ends, what is left is emitted. When more than ``limit`` studies, or ``instance_limit`` instances (some
    200 bytes each), are waiting, those that have been quiet for the longest are emitted early, as ``completed_by``
    says. An observer that holds up ``limit`` studies on another thread ends the pipeline with
    :class:`~rxdicom.operators.Overflow`.
    """
    positive("quiet", quiet)
    positive("limit", limit)
    positive("instance_limit", instance_limit)
    policy = _Policy(timedelta(seconds=quiet), at_release, limit, instance_limit)
    return timed(lambda _: _Completing(policy), scheduler, waiting=limit, what="completed studies")


@frozen
class _Policy:
    quiet: timedelta
    at_release: bool
    limit: int
    instance_limit: int


class _Study:
    """A study that is not complete yet."""

    def __init__(self, first: StoredInstance, now: datetime) -> None:
        self.since = now
        """When the last instance came, on the scheduler's clock."""
        self.brought_by: set[Any] = set()
        """The associations that are not over."""
        self.instances: dict[str, str | None] = {}
        self._uid = first.study_instance_uid
        self._series: Counter[str] = Counter()
        self._modalities: Counter[str] = Counter()
        self._calling: dict[str, None] = {}
        self._called: dict[str, None] = {}
        self._size = 0
        self._first = self._last = first.timestamp

    def add(self, instance: StoredInstance) -> int:
        """How many instances that is more: one that came again is none."""
        self._last = instance.timestamp
        is_new = instance.sop_instance_uid not in self.instances
        self.instances[instance.sop_instance_uid] = instance.path
        if is_new:
            self._calling[instance.calling_ae_title] = self._called[instance.called_ae_title] = None
            self._series[instance.series_instance_uid] += 1
            self._modalities[instance.modality] += 1
            self._size += instance.size
        return int(is_new)

    def completed(self, by: _CompletedBy) -> CompletedStudy:
        return CompletedStudy(
            study_instance_uid=self._uid,
            instances=MappingProxyType(self.instances),
            series=MappingProxyType(dict(self._series)),
            modalities=MappingProxyType(dict(self._modalities)),
            size=self._size,
            calling_ae_titles=tuple(self._calling),
            called_ae_titles=tuple(self._called),
            first=self._first,
            last=self._last,
            completed_by=by,
        )


class _Completing(TimedFold[Event, CompletedStudy]):
    def __init__(self, policy: _Policy) -> None:
        self._policy = policy
        self._stores = _Stores()
        self._open: OrderedDict[str, _Study] = OrderedDict()
        """By their UIDs, the one that has been quiet for the longest first."""
        self._instances = 0

    def step(self, item: Event, now: datetime) -> Iterable[CompletedStudy]:
        instance = self._stores.step(item)
        if instance is not None and instance.study_instance_uid:
            return self._stored(instance, item.assoc, now)
        if isinstance(item, _ENDS):
            return self._over(item.assoc, released=isinstance(item, Released))
        return ()

    def _stored(self, instance: StoredInstance, assoc: Any, now: datetime) -> Iterable[CompletedStudy]:
        uid = instance.study_instance_uid
        study = self._open.setdefault(uid, _Study(instance, now))
        study.since = now
        study.brought_by.add(assoc)
        self._instances += study.add(instance)
        self._open.move_to_end(uid)
        early: list[CompletedStudy] = []
        while len(self._open) > self._policy.limit or self._instances > self._policy.instance_limit:
            early.append(self._complete(next(iter(self._open)), "limit"))
        return early

    def _over(self, assoc: Any, *, released: bool) -> Iterable[CompletedStudy]:
        done: list[str] = []
        for uid, study in self._open.items():
            if assoc in study.brought_by:
                study.brought_by.remove(assoc)
                if released and self._policy.at_release and not study.brought_by:
                    done.append(uid)
        return [self._complete(uid, "release") for uid in done]

    def _complete(self, uid: str, by: _CompletedBy) -> CompletedStudy:
        study = self._open.pop(uid)
        self._instances -= len(study.instances)
        return study.completed(by)

    def wait(self, now: datetime) -> float | None:
        if not self._open:
            return None
        longest = next(iter(self._open.values()))
        return (longest.since + self._policy.quiet - now).total_seconds()

    def tick(self, now: datetime) -> Iterable[CompletedStudy]:
        for study in self._open.values():
            # A clock that was set back must not make it longer.
            study.since = min(study.since, now)
        due = [uid for uid, study in self._open.items() if now - study.since >= self._policy.quiet]
        return [self._complete(uid, "quiet") for uid in due]

    def end(self, now: datetime) -> Iterable[CompletedStudy]:
        del now
        return [self._complete(uid, "end") for uid in list(self._open)]
