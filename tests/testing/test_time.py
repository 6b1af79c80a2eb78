"""Virtual time: deadlines of associations and timers of pipelines, at once and in one order."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import reactivex
from attrs import evolve
from reactivex import operators as ops

from rxdicom import AE, evt
from rxdicom.errors import ArgumentError, AssociationAborted, StateError, TimedOut
from rxdicom.events.records import Aborted, DataSent, DIMSEReceived
from rxdicom.operators import CompletedStudy, activity, completed_studies
from rxdicom.protocol.policy import Timeouts
from rxdicom.testing import Cut, Delay, Faults, Pair, VirtualClock, pair
from rxdicom.testing.clock import NOON
from tests.recording.support import configured, ct_file
from tests.testing.test_pair import FIND, Archive, answering, query


def connected(*handlers: Any, timeouts: Timeouts | None = None, **options: Any) -> Pair:
    scu, scp = configured(AE("SCU")), configured(AE("SCP"))
    scu.timeouts = timeouts or scu.timeouts
    return pair(scu, scp, acceptor_handlers=handlers, **options)


# ---- deadlines


def answer_length(both: Pair) -> int:
    """Bytes of the A-ASSOCIATE-AC."""
    sent: list[DataSent] = []
    both.server.events.data_sent.subscribe(sent.append)
    with both:
        return len(sent[0].data)


def silent(*handlers: Any, **options: Any) -> Pair:
    """A pair whose acceptor is not heard any more once the association is established."""
    faults = Faults(from_acceptor=[Delay(at=answer_length(connected()))])
    return connected(*handlers, faults=faults, **options)


def test_a_response_that_does_not_come_is_a_timeout():
    with silent() as both:
        with pytest.raises(TimedOut) as raised:
            both.requestor.send_c_echo()
        assert (raised.value.phase, raised.value.seconds, both.clock.seconds) == ("response", 30.0, 30.0)
        assert both.requestor.is_established
        both.release_delays()
        assert both.requestor.send_c_echo() == 0x0000
        assert both.clock.seconds == 30.0


def test_a_delay_with_a_time_passes():
    length = answer_length(connected())
    with connected(faults=Faults(from_acceptor=[Delay(at=length, seconds=12.5)])) as both:
        assert both.requestor.send_c_echo() == 0x0000
        assert both.clock.now == NOON + timedelta(seconds=12.5)


def test_an_answer_that_does_not_come_is_a_timeout():
    both = connected(faults=Faults(from_acceptor=[Delay(at=0)]))
    with pytest.raises(TimedOut) as raised:
        both.requestor.open()
    assert (raised.value.phase, both.clock.seconds) == ("association", 30.0)


def test_a_request_that_does_not_come_is_artims():
    both = connected(faults=Faults(from_requestor=[Delay(at=0)]), timeouts=Timeouts(association=100))
    aborted: list[Any] = []
    both.server.bind(evt.EVT_ABORTED, aborted.append)
    with pytest.raises(AssociationAborted):
        both.requestor.open()
    assert [(each.cause, each.timestamp) for each in aborted] == [
        ("no A-ASSOCIATE-RQ before ARTIM expired", NOON + timedelta(seconds=30))
    ]


def test_an_idle_association_is_aborted():
    both = connected()
    both.requestor.open()
    both.clock.advance(59.9)
    assert both.requestor.is_established
    both.clock.advance(0.2)
    assert both.requestor.is_aborted
    assert both.acceptor.is_aborted
    with pytest.raises(TimedOut):
        both.requestor.send_c_echo()


def test_a_release_that_is_not_answered_is_a_timeout():
    both = silent()
    both.requestor.open()
    with pytest.raises(TimedOut) as raised:
        both.requestor.release()
    assert (raised.value.phase, both.clock.seconds) == ("release", 30.0)


def test_a_handler_that_takes_too_long_is_not_waited_for():
    def on_echo(event: Any) -> int:
        clock.advance(40)
        return 0x0000

    clock = VirtualClock()
    with connected((evt.EVT_C_ECHO, on_echo), clock=clock) as both:
        with pytest.raises(TimedOut):
            both.requestor.send_c_echo()


def test_a_handler_that_takes_its_time_is():
    def on_echo(event: Any) -> int:
        clock.advance(20)
        return 0x0000

    clock = VirtualClock()
    with connected((evt.EVT_C_ECHO, on_echo), clock=clock) as both:
        assert both.requestor.send_c_echo() == 0x0000
        assert clock.seconds == 20


def test_a_query_has_a_deadline_for_all_of_it():
    slow = Archive()

    def on_find(event: Any) -> Any:
        for item in slow(event):
            clock.advance(20)
            yield item

    clock = VirtualClock()
    with connected((evt.EVT_C_FIND, on_find), clock=clock, timeouts=Timeouts(operation=100, idle=None)) as both:
        seen: list[Any] = []
        with pytest.raises(TimedOut):
            seen.extend(both.requestor.send_c_find(query(), FIND))
        assert clock.seconds >= 100
        assert slow.ended == [True]


def test_what_never_happens_is_said():
    patient = Timeouts(association=None, response=None, idle=None, release=None)
    scu, scp = configured(AE("SCU")), configured(AE("SCP"))
    scu.timeouts, scp.timeouts = patient, patient
    both = pair(scu, scp, faults=Faults(from_acceptor=[Delay(at=0)]))
    with pytest.raises(StateError, match="this never happens"):
        both.requestor.open()


# ---- the clock


def test_a_clock_stands_still_by_itself():
    clock = VirtualClock(datetime(2024, 2, 29, tzinfo=UTC))
    clock.advance(86400)
    assert (clock.now, clock.seconds) == (datetime(2024, 3, 1, tzinfo=UTC), 86400)
    with pytest.raises(ArgumentError, match="does not go back"):
        clock.advance(-1)


def test_timers_happen_in_their_order():
    clock, happened = VirtualClock(), list[tuple[float, str]]()

    def note(what: str) -> Any:
        def action(*_: Any) -> None:
            happened.append((clock.seconds, what))

        return action

    def nest(*_: Any) -> None:
        clock.schedule_relative(1.5, note("nested"))

    clock.schedule_relative(5, note("five"))
    clock.schedule_relative(timedelta(seconds=2), note("two"))
    clock.schedule_absolute(clock.now + timedelta(seconds=3), note("three"))
    clock.schedule_relative(2, note("two again"))
    clock.schedule(note("now"))
    clock.schedule_relative(4, note("never")).dispose()
    clock.schedule_relative(2, nest)
    clock.advance(4.9)
    assert happened == [(0, "now"), (2, "two"), (2, "two again"), (3, "three"), (3.5, "nested")]
    clock.advance(1)
    assert happened[-1] == (5, "five")


def test_operators_of_reactivex_take_it_as_their_scheduler():
    clock, ticks = VirtualClock(), list[float]()
    subscription = reactivex.interval(10, scheduler=clock).subscribe(lambda _: ticks.append(clock.seconds))
    clock.advance(35)
    subscription.dispose()
    clock.advance(100)
    assert ticks == [10, 20, 30]
    late: list[Any] = []
    reactivex.of(1).pipe(ops.delay(3, scheduler=clock), ops.timestamp(scheduler=clock)).subscribe(late.append)
    clock.advance(3)
    assert [(each.value, each.timestamp) for each in late] == [(1, clock.now)]


def test_pipelines_and_deadlines_share_one_time():
    """The study is complete 30 s after its instance; the association is idle for longer, and lives for 60 s."""
    happened: list[tuple[float, str]] = []
    both = connected((evt.EVT_C_STORE, answering(0x0000)))

    def on_study(study: CompletedStudy) -> None:
        happened.append((both.clock.seconds, f"{len(study.instances)} instance"))

    def on_aborted(event: Aborted) -> None:
        happened.append((both.clock.seconds, event.by))

    studies = activity(both.server.events).pipe(completed_studies(quiet=30, scheduler=both.clock))
    studies.subscribe(on_study)
    both.server.events.aborted.subscribe(on_aborted)
    both.requestor.open()
    both.clock.advance(10)
    both.requestor.send_c_store(ct_file())
    both.clock.advance(200)
    assert happened == [(40, "1 instance"), (70, "local")]


def test_events_carry_the_virtual_time():
    both, received = connected(), list[DIMSEReceived]()
    both.server.events.dimse_recv.subscribe(received.append)
    with both:
        both.requestor.send_c_echo()
        both.clock.advance(1.5)
        both.requestor.send_c_echo()
    assert [each.timestamp for each in received] == [NOON, NOON + timedelta(seconds=1.5)]


def test_timeouts_of_one_side_are_its_own():
    scu, scp = configured(AE("SCU")), configured(AE("SCP"))
    scp.timeouts = evolve(scp.timeouts, idle=5.0)
    both = pair(scu, scp)
    both.requestor.open()
    both.clock.advance(5)
    assert both.acceptor.is_aborted
    assert both.requestor.is_aborted
    assert both.clock.seconds == 5


def test_a_cut_happens_where_the_script_says():
    both = connected(faults=Faults(from_requestor=[Cut(at=50)]))
    with pytest.raises(AssociationAborted):
        both.requestor.open()
    assert both.clock.seconds == 0
    assert both.acceptor.requestor.ae_title == ""
