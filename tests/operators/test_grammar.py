"""Every operator, disposed of, failing and completing at every step of virtual time: the Rx grammar, nothing left."""

import asyncio
import inspect
import re
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from typing import Any

import pytest
from attrs import frozen
from reactivex import Observable, compose
from reactivex import operators as ops
from reactivex.notification import Notification, OnCompleted, OnError, OnNext
from reactivex.testing.hotobservable import HotObservable

from rxdicom import operators
from rxdicom.events import records
from rxdicom.events.hub import Hub
from rxdicom.events.streams import EventStreams
from rxdicom.operators import (
    activity,
    buffered,
    completed_studies,
    failures,
    from_ae,
    of_message,
    of_pdu,
    of_sop_class,
    of_status,
    paired,
    progress,
    sampled,
    stored_instances,
    summaries,
    throughput,
    to_ae,
    to_async_iterator,
    to_iterator,
    to_jsonl,
)
from rxdicom.status import STATUS_FAILURE
from rxdicom.wire.dimse import Command
from rxdicom.wire.pdu import AssociateRQ, PDataTF, ReleaseRQ
from tests.operators.support import (
    CT,
    START,
    STOP,
    Assoc,
    Clock,
    Run,
    Timed,
    aborted,
    check_grammar,
    check_left,
    closed,
    nexts,
    opened,
    received,
    recorded,
    rejected,
    released,
    run,
    store,
)

Operator = Callable[[Observable[Any]], Observable[Any]]
ONE, TWO, THREE = Assoc("STORE-1", "CT1"), Assoc("STORE-2", "MR1"), Assoc("STORE-3", "CT1", "QR")


def every(step: int, *events: Any) -> list[Timed]:
    """The events, one each so many seconds, from just behind the subscription on."""
    return [(START + step * (index + 1), event) for index, event in enumerate(events)]


ACTIVITY = every(
    4,
    opened(ONE, 204),
    *store(ONE, 1, "1.1", "1.1.1", 208),
    opened(TWO, 216),
    *store(TWO, 1, "1.2", "1.2.1", 220, status=0xA700),
    *store(TWO, 2, "1.1", "1.1.2", 228),
    released(ONE, 236),
    closed(ONE, 240),
    aborted(TWO, 244),
    closed(TWO, 248),
    rejected(THREE, 252),
)
PDUS = every(4, *(records.PDUReceived(pdu=pdu) for pdu in (AssociateRQ("A", "B"), PDataTF(()), ReleaseRQ())))
RETRIEVAL = every(
    4,
    *(
        received(
            Command.C_GET_RSP, ONE, MessageIDBeingRespondedTo=1, Status=status, NumberOfCompletedSuboperations=done
        )
        for done, status in enumerate((0xFF00, 0xFF00, 0x0000))
    ),
)
MESSAGES = [(when, event) for when, event in ACTIVITY if isinstance(event, records.DIMSEReceived | records.DIMSESent)]


@frozen
class Case:
    """An operator with what it is tried on."""

    items: list[Timed]
    make: Callable[[Clock], Operator]


CASES: dict[str, Case] = {
    "of_pdu": Case(PDUS, lambda _: of_pdu(AssociateRQ, ReleaseRQ)),
    "of_message": Case(MESSAGES, lambda _: of_message(Command.C_STORE_RSP)),
    "of_sop_class": Case(MESSAGES, lambda _: of_sop_class(CT)),
    "of_status": Case(MESSAGES, lambda _: of_status(STATUS_FAILURE)),
    "from_ae": Case(ACTIVITY, lambda _: from_ae("MR1")),
    "to_ae": Case(ACTIVITY, lambda _: to_ae("STORE")),
    "paired": Case(ACTIVITY, lambda _: paired()),
    "progress": Case(RETRIEVAL, lambda _: progress()),
    "failures": Case(ACTIVITY, lambda _: failures()),
    "summaries": Case(ACTIVITY, lambda _: summaries()),
    "stored_instances": Case(ACTIVITY, lambda _: stored_instances()),
    "completed_studies": Case(ACTIVITY, lambda _: completed_studies(10)),
    "completed_studies, scheduler": Case(ACTIVITY, lambda clock: completed_studies(10, scheduler=clock)),
    "completed_studies, at_release": Case(ACTIVITY, lambda _: completed_studies(30, at_release=True)),
    "completed_studies, limit": Case(ACTIVITY, lambda _: completed_studies(30, limit=1, instance_limit=1)),
    "throughput": Case(ACTIVITY, lambda _: throughput(7)),
    "sampled": Case(ACTIVITY, lambda _: sampled(6)),
    "buffered": Case(ACTIVITY, lambda clock: buffered(2, "oldest", scheduler=clock)),
    "to_jsonl": Case(ACTIVITY, lambda _: to_jsonl()),
}
ELSEWHERE = {"activity", "to_iterator", "to_async_iterator", "ae_titles", "to_dict"}
"""What makes a source, ends a pipe (both below), or is no operator."""
NO_OPERATORS = {"ae_titles", "to_dict"}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
TIMES = range(START + 1, STOP)


def apply(case: Case, items: Iterable[Timed] | None = None, **how: Any) -> Run:
    done = run(case.make, case.items if items is None else items, **how)
    check_grammar(done.observed)
    return done


FUNCTIONS = {name for name in operators.__all__ if inspect.isfunction(getattr(operators, name))}


def test_no_operator_is_forgotten() -> None:
    assert {name.partition(",")[0] for name in CASES} | ELSEWHERE == FUNCTIONS


@pytest.mark.parametrize("name", sorted(FUNCTIONS - NO_OPERATORS))
def test_its_docstring_has_a_marble_diagram(name: str) -> None:
    said = inspect.getdoc(getattr(operators, name)) or ""
    assert len(re.findall(r"^    \S.* {2,}[-\w(){}\":…, ]*-.*[|X].*$", said, re.MULTILINE)) >= 2, said


@EVERY_CASE
def test_undisturbed_it_emits_something(case: Case) -> None:
    assert apply(case).items


@EVERY_CASE
def test_disposed_of_at_any_time(case: Case) -> None:
    whole = apply(case).observed
    for time in TIMES:
        done = apply(case, disposed=time)
        check_left(done, time)
        assert done.observed == whole[: len(done.observed)]
        assert len(done.observed) >= sum(each.time < time for each in whole)


@EVERY_CASE
def test_failing_at_any_time(case: Case) -> None:
    whole = apply(case).observed
    for time in TIMES:
        error = LookupError(f"at {time}")
        before = [(when, item) for when, item in case.items if when < time]
        done = apply(case, before, error=(time, error))
        check_left(done, time)
        assert done.ending == (time, error)
        assert done.observed[:-1] == [each for each in whole if each.time < time]


@EVERY_CASE
def test_completing_at_any_time(case: Case) -> None:
    whole = apply(case).observed
    for time in TIMES:
        before = [(when, item) for when, item in case.items if when < time]
        done = apply(case, before, completed=time)
        check_left(done, time)
        assert done.ending == (time, None)
        earlier = [each for each in done.observed if each.time < time]
        assert earlier == [each for each in whole if each.time < time]


@EVERY_CASE
def test_left_by_its_observer_after_any_item(case: Case) -> None:
    whole = [each for each in apply(case).observed if isinstance(each.value, OnNext)]
    for count in range(1, len(whole) + 1):
        done = run(partial(_followed, case, ops.take(count)), case.items)
        check_left(done, whole[count - 1].time)
        assert done.ending == (whole[count - 1].time, None)
        assert done.observed[:-1] == whole[:count]


def _followed(case: Case, operator: Operator, clock: Clock) -> Operator:
    return compose(case.make(clock), operator)


@EVERY_CASE
def test_left_at_once_by_an_observer_that_fails(case: Case) -> None:
    def fail(item: Any) -> Any:
        raise LookupError(item)

    first = apply(case).observed[0].time
    done = run(partial(_followed, case, ops.map(fail)), case.items)
    check_left(done, first)
    assert done.ending is not None
    assert isinstance(done.ending[1], LookupError)


@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith("buffered") and "scheduler" not in name]
)
def test_each_subscription_has_a_state_of_its_own(name: str) -> None:
    """An operator that is made once can be applied many times, each time to another clock."""
    made = CASES[name].make(Clock())
    observed = [run(lambda _: made, CASES[name].items).observed for _ in range(2)]
    assert observed[0] == observed[1] != []


BROKEN: dict[str, Callable[[], Operator]] = {
    "of_pdu": lambda: of_pdu(AssociateRQ),
    "of_message": lambda: of_message(Command.C_ECHO_RQ),
    "of_status": lambda: of_status(STATUS_FAILURE),
    "paired": paired,
    "failures": failures,
    "summaries": summaries,
    "completed_studies": lambda: completed_studies(10),
}


class Broken:
    """An association that cannot be asked for anything, and a message that has no command."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


@pytest.mark.parametrize("make", BROKEN.values(), ids=list(BROKEN))
def test_what_cannot_be_processed_ends_the_pipeline_with_an_error(make: Callable[[], Operator]) -> None:
    broken: Any = Broken()
    event = records.DIMSEReceived(message=broken, assoc=broken)
    done = run(lambda _: make(), [(210, event), (220, event)])
    check_grammar(done.observed)
    check_left(done, 210)
    assert done.ending is not None
    assert done.ending[0] == 210


# ---- the source: event streams, which never fail


class Stage:
    """Events that a hub delivers in virtual time, until it is over."""

    def __init__(self, over: int = STOP) -> None:
        self.clock = Clock()
        self.hub = Hub()
        self.observer = self.clock.create_observer()
        for when, event in ACTIVITY:
            self._at(when, self.hub.append, event.event.number, event)
        self._at(over, self.hub.complete)

    def _at(self, when: int, act: Callable[..., object], *arguments: Any) -> None:
        def work(*_: object) -> None:
            act(*arguments)
            self.hub.drain()

        self.clock.schedule_absolute(when, work)

    def run(self, disposed: int) -> list[Any]:
        observed = self.clock.start(lambda: activity(EventStreams(self.hub)), subscribed=START, disposed=disposed)
        check_grammar(observed.messages)
        assert self.hub.mask == 0
        return observed.messages


WHOLE = nexts(ACTIVITY)


def test_activity_undisturbed_disposed_of_and_completing_at_any_time() -> None:
    assert Stage().run(STOP + 1) == [*WHOLE, *recorded([(STOP, OnCompleted())])]
    for time in TIMES:
        before = [each for each in WHOLE if each.time <= time]
        assert Stage().run(time) == before
        assert Stage(over=time).run(STOP + 1) == [*before, *recorded([(time, OnCompleted())])]


# ---- the ends of a pipe: loops


def looped(make: Callable[[], Any], close: int, *more: tuple[int, Notification[Any]]) -> tuple[Any, HotObservable[Any]]:
    """What a stream that ends as ``more`` says becomes, closed at a time, after all of that."""
    clock, made = Clock(), list[Any]()
    before = [(when, item) for when, item in ACTIVITY if not more or when < more[0][0]]
    source: HotObservable[Any] = clock.create_hot_observable([*nexts(before), *recorded(more)])

    def begin(*_: object) -> None:
        made.append(source.pipe(make()))

    def leave(*_: object) -> None:
        made[0].close() if hasattr(made[0], "close") else asyncio.run(made[0].aclose())

    clock.schedule_absolute(START, begin)
    clock.schedule_absolute(close, leave)
    clock.advance_to(STOP)
    return made[0], source


async def collected(items: AsyncIterable[Any], into: list[Any]) -> None:
    async for item in items:
        into.append(item)


def outcome(items: Any) -> tuple[list[Any], Exception | None]:
    """Everything that a loop gets, and what it raises then."""
    into: list[Any] = []
    try:
        if isinstance(items, AsyncIterable):
            asyncio.run(collected(items, into))  # pyright: ignore[reportUnknownArgumentType]
        else:
            into.extend(items)
    except LookupError as error:
        return into, error
    return into, None


@pytest.mark.parametrize("make", [to_iterator, to_async_iterator])
def test_loops_disposed_of_failing_and_completing_at_any_time(make: Any) -> None:
    for time in TIMES:
        before = [item for when, item in ACTIVITY if when < time]
        closed_then, source = looped(lambda: make(100), time)
        assert [each.unsubscribe for each in source.subscriptions] == [time]
        assert outcome(closed_then) == ([], None)
        error = LookupError(f"at {time}")
        for notification, raised in ((OnCompleted[Any](), None), (OnError[Any](error), error)):
            ended, source = looped(lambda: make(100), STOP + 1, (time, notification))
            assert source.observers == []
            assert outcome(ended) == (before, raised)
