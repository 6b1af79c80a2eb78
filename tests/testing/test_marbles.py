"""Marble diagrams: what is drawn happens in virtual time, and what happens is drawn."""

from datetime import timedelta

import pytest
import reactivex
from reactivex import operators as ops

from rxdicom import evt
from rxdicom.errors import ArgumentError
from rxdicom.operators import CompletedStudy, completed_studies
from rxdicom.testing import Marbles, association, event
from tests.operators.support import store
from tests.recording.support import ct_file
from tests.support import read


def test_letters_are_items_at_their_seconds():
    clock = Marbles()
    outcome = clock.run(clock.hot("--a-(bc)--|", a=1))
    assert outcome.items == ((2, 1), (4, "b"), (4, "c"))
    assert (outcome.values, outcome.ended, outcome.error) == ([1, "b", "c"], 7, None)
    assert outcome.diagram(a=1, b="b", c="c") == "--a-(bc)--|"


def test_a_diagram_may_fail():
    failure = ValueError("mine")
    clock = Marbles()
    outcome = clock.run(clock.cold("a-#", failure))
    assert (outcome.ended, outcome.error) == (2, failure)
    assert outcome.diagram(a="a") == "a-#"
    other = Marbles()
    assert isinstance(other.run(other.cold("#")).error, RuntimeError)


@pytest.mark.parametrize("diagram", ["", "---", "(ab)", "a(b|)", "  a - b "])
def test_spaces_and_groups(diagram: str):
    clock = Marbles()
    shown = clock.run(clock.hot(diagram)).diagram(a="a", b="b")
    assert shown == diagram.replace(" ", "").rstrip("-")


@pytest.mark.parametrize("diagram", ["(a", "a)", "((a))"])
def test_parentheses_come_in_pairs(diagram: str):
    with pytest.raises(ArgumentError, match="a parenthesis without its other half"):
        Marbles().hot(diagram)


def test_a_cold_stream_begins_when_it_is_subscribed_to():
    clock = Marbles()
    late = clock.hot("---x|").pipe(ops.flat_map(clock.cold("-a-b|")))
    assert clock.run(late).diagram(a="a", b="b") == "----a-b|"


def test_a_hot_stream_goes_on_without_a_subscriber():
    clock = Marbles()
    source = clock.hot("a-b-c-d|")
    late = clock.hot("---x").pipe(ops.flat_map(source), ops.take(2))
    assert clock.run(late).diagram(c="c", d="d") == "----c-(d|)"


def test_a_character_may_be_any_time():
    clock = Marbles(second=0.1)
    outcome = clock.run(clock.hot("a-b|").pipe(ops.delay(0.2, scheduler=clock.scheduler)))
    assert [round(at, 6) for at, _ in outcome.items] == [0.2, 0.4]
    assert outcome.diagram(a="a", b="b") == "--a-b|"
    with pytest.raises(ArgumentError, match="give more than 0"):
        Marbles(0)


def test_what_goes_on_for_ever_is_left():
    clock = Marbles()
    outcome = clock.run(reactivex.interval(2, scheduler=clock.scheduler), until=7)
    assert outcome.values == [0, 1, 2]
    assert outcome.ended is None


def test_items_are_marked_by_predicates_values_or_not():
    clock = Marbles()
    outcome = clock.run(clock.hot("abc|", a=1, b="x", c=None))

    def is_text(item: object) -> bool:
        return isinstance(item, str)

    assert outcome.diagram(t=is_text, n=1) == "nt?|"


def test_events_carry_the_virtual_time():
    released = evt.EVT_RELEASED.record(assoc=association())
    clock = Marbles()
    outcome = clock.run(clock.hot("--r---r", r=released))
    assert [each.timestamp - clock.began for each in outcome.values] == [timedelta(seconds=2), timedelta(seconds=6)]
    assert all(each.assoc is released.assoc for each in outcome.values)


def test_a_domain_operator_under_virtual_time():
    request, answer = store(association(), 1, "1.2", "1.2.3")
    clock = Marbles()
    events = clock.hot("-(qa)----|", q=request, a=answer)
    outcome = clock.run(events.pipe(completed_studies(quiet=3, scheduler=clock.scheduler)))

    def is_study(item: object) -> bool:
        return isinstance(item, CompletedStudy)

    assert outcome.diagram(s=is_study) == "----s-|"
    assert outcome.values[0].study_instance_uid == "1.2"


def test_service_events_can_be_drawn_too():
    stored = event(evt.EVT_C_STORE, read(ct_file()))
    clock = Marbles()
    assert [each.dataset.PatientID for each in clock.run(clock.hot("-s", s=stored)).values] == ["1CT1"]
