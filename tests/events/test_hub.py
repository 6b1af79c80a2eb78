"""The hub: order, the delivery turn, re-entrance, deadlines, completion, and all of it at once."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rxdicom.errors import StateError
from rxdicom.events.hub import CHANNELS, Hub, forbid_in_observer, in_observer
from tests.support import DEADLINE


class Turn:
    """The lock of a hub's turn, which tells when a thread begins to wait for it, and whose time can be let run out."""

    def __init__(self, hub: Hub) -> None:
        self.waited_for = threading.Event()
        self.time_is_up: threading.Event | None = None
        self.before_release: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        hub._turn = self  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue] - in place of its own

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            self.waited_for.set()
            if self.time_is_up is not None:
                assert self.time_is_up.wait(DEADLINE)
                return False
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self.before_release()
        self._lock.release()


def queued(hub: Hub) -> int:
    return len(hub._queue)  # pyright: ignore[reportPrivateUsage]


def emit(hub: Hub, value: Any, channel: int = 0, timeout: float | None = DEADLINE) -> bool:
    hub.append(channel, value)
    return hub.drain(timeout)


def running(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def ended(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


class Gate:
    """An observer that stops at one value until it is let through; others it only notes."""

    def __init__(self, *stops: Any) -> None:
        self.seen: list[Any] = []
        self.reached = {stop: threading.Event() for stop in stops}
        self.opened = {stop: threading.Event() for stop in stops}

    def __call__(self, value: Any) -> None:
        if value in self.reached:
            self.reached[value].set()
            assert self.opened[value].wait(2 * DEADLINE)
        self.seen.append(value)

    def holds(self, value: Any) -> None:
        assert self.reached[value].wait(DEADLINE)


# ---- delivery


def test_every_observer_of_a_channel_gets_every_event_in_order():
    hub = Hub()
    first: list[int] = []
    second: list[int] = []
    other: list[int] = []
    hub.subscribe(0, first.append)
    hub.subscribe(0, second.append)
    hub.subscribe(1, other.append)
    for value in range(5):
        hub.append(value % 2, value)
    assert first == []
    assert hub.drain()
    assert first == second == [0, 2, 4]
    assert other == [1, 3]
    assert queued(hub) == 0


def test_an_observer_that_raises_is_logged_and_stays_and_nobody_else_notices(caplog: pytest.LogCaptureFixture):
    hub = Hub()
    calls: list[int] = []
    others: list[int] = []

    def unlucky(value: int) -> None:
        calls.append(value)
        raise LookupError(f"at {value}")

    hub.subscribe(0, unlucky)
    hub.subscribe(0, others.append)
    hub.append(0, 1)
    hub.append(0, 2)
    assert hub.drain()
    assert calls == others == [1, 2]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "unlucky" in caplog.records[0].message
    assert "LookupError at " in caplog.text
    assert "Traceback" in caplog.text
    assert caplog.records[0].name == "rxdicom"


def test_who_subscribes_during_a_delivery_gets_the_next_event():
    hub = Hub()
    late: list[int] = []

    def invite(value: int) -> None:
        if value == 1:
            hub.subscribe(0, late.append)

    hub.subscribe(0, invite)
    hub.append(0, 1)
    hub.append(0, 2)
    hub.drain()
    assert late == [2]


def test_dispose_stops_at_once_even_the_event_that_is_being_delivered():
    hub = Hub()
    seen: list[str] = []

    def first(value: str) -> None:
        seen.append(f"first {value}")
        dispose_first()
        dispose_second()

    dispose_first = hub.subscribe(0, first)
    dispose_second = hub.subscribe(0, lambda value: seen.append(f"second {value}"))
    hub.subscribe(0, lambda value: seen.append(f"third {value}"))
    emit(hub, "a")
    emit(hub, "b")
    assert seen == ["first a", "third a", "third b"]
    dispose_second()
    emit(hub, "c")
    assert seen[3:] == ["third c"]


def test_an_event_queued_before_dispose_is_not_delivered_after_it():
    hub = Hub()
    seen: list[int] = []
    dispose = hub.subscribe(0, seen.append)
    hub.append(0, 1)
    dispose()
    hub.drain()
    assert seen == []


def test_the_same_callback_subscribed_twice_is_two_observers():
    hub = Hub()
    seen: list[int] = []
    dispose = hub.subscribe(0, seen.append)
    hub.subscribe(0, seen.append)
    emit(hub, 1)
    dispose()
    emit(hub, 2)
    assert seen == [1, 1, 2]


def test_reentrant_events_follow_the_current_one():
    hub = Hub()
    steps: list[str] = []

    def first(value: int) -> None:
        steps.append(f"enter {value}")
        if value < 3:
            assert emit(hub, value + 1)
        steps.append(f"leave {value}")

    hub.subscribe(0, first)
    hub.subscribe(0, lambda value: steps.append(f"second {value}"))
    emit(hub, 1)
    expected = [[f"enter {n}", f"leave {n}", f"second {n}"] for n in (1, 2, 3)]
    assert steps == [step for steps_of_one in expected for step in steps_of_one]


def test_a_thread_knows_whether_it_is_inside_an_observer():
    hub, inner = Hub(), Hub()
    found: list[tuple[str, bool]] = []
    inner.subscribe(0, lambda _: found.append(("inner", in_observer())))

    def observe(_: int) -> None:
        emit(inner, 1)
        found.append(("outer", in_observer()))
        with pytest.raises(StateError, match="send_c_echo"):
            forbid_in_observer("send_c_echo()")
        ended(running(lambda: found.append(("other thread", in_observer()))))

    hub.subscribe(0, observe)
    emit(hub, 1)
    assert found == [("inner", True), ("outer", True), ("other thread", False)]
    assert not in_observer()
    forbid_in_observer("send_c_echo()")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_the_hub_usable(raised: type[BaseException]):
    hub = Hub()
    seen: list[int] = []

    def interrupted(value: int) -> None:
        if value == 1:
            raise raised

    hub.subscribe(0, interrupted)
    hub.subscribe(0, seen.append)
    hub.append(0, 1)
    hub.append(0, 2)
    with pytest.raises(raised):
        hub.drain()
    assert not in_observer()
    ended(running(lambda: emit(hub, 3)))
    assert seen == [2, 3]


# ---- the turn


def test_who_waits_has_its_events_delivered_when_drain_returns():
    hub, gate = Hub(), Gate(1)
    turn = Turn(hub)
    hub.subscribe(0, gate)
    owner = running(lambda: emit(hub, 1))
    gate.holds(1)
    returned: list[tuple[bool, list[int]]] = []
    other = running(lambda: returned.append((emit(hub, 2), list(gate.seen))))
    assert turn.waited_for.wait(DEADLINE)
    assert returned == []
    gate.opened[1].set()
    ended(owner, other)
    assert returned == [(True, [1, 2])]


def test_who_has_nothing_queued_does_not_wait():
    hub, gate = Hub(), Gate(1)
    turn = Turn(hub)
    hub.subscribe(0, gate)
    owner = running(lambda: emit(hub, 1))
    gate.holds(1)
    assert hub.drain(0.01)
    assert not turn.waited_for.is_set()
    assert gate.seen == []
    gate.opened[1].set()
    ended(owner)


def test_with_a_timeout_of_zero_events_are_left_to_the_owner_of_the_turn(caplog: pytest.LogCaptureFixture):
    hub, gate = Hub(), Gate(1)
    hub.subscribe(0, gate)
    owner = running(lambda: emit(hub, 1))
    gate.holds(1)
    assert emit(hub, 2, timeout=0)
    assert gate.seen == []
    gate.opened[1].set()
    ended(owner)
    assert gate.seen == [1, 2]
    assert caplog.text == ""
    assert emit(hub, 3, timeout=0)
    assert gate.seen == [1, 2, 3]


def test_who_waits_in_vain_gives_up_and_names_the_observer(caplog: pytest.LogCaptureFixture):
    hub, gate = Hub(), Gate(1)

    def stubborn(value: int) -> None:
        gate(value)

    hub.subscribe(0, stubborn)
    owner = running(lambda: emit(hub, 1))
    gate.holds(1)
    started = time.monotonic()
    assert not emit(hub, 2, timeout=0.05)
    assert 0.05 <= time.monotonic() - started < DEADLINE
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    first_line, *stack = record.message.splitlines()
    assert "stubborn" in first_line
    assert "0.05 s" in first_line
    assert any("gate(value)" in line for line in stack)
    gate.opened[1].set()
    ended(owner)
    assert gate.seen == [1, 2]


def test_an_observer_of_the_completion_that_does_not_return_is_named_too(caplog: pytest.LogCaptureFixture):
    hub, gate = Hub(), Gate("over")

    def last_words() -> None:
        gate("over")

    hub.subscribe(0, gate, last_words)
    hub.complete()
    owner = running(hub.drain)
    gate.holds("over")
    assert not emit(hub, 2, timeout=0.01)
    assert "last_words" in caplog.records[0].message.splitlines()[0]
    gate.opened["over"].set()
    ended(owner)


def test_who_gives_up_although_its_own_events_are_delivered_has_not_failed(caplog: pytest.LogCaptureFixture):
    hub, gate = Hub(), Gate(1, 3)
    turn = Turn(hub)
    turn.time_is_up = gate.reached[3]
    hub.subscribe(0, gate)
    owner = running(lambda: emit(hub, 1))
    gate.holds(1)
    outcome: list[bool] = []
    other = running(lambda: outcome.append(emit(hub, 2)))
    assert turn.waited_for.wait(DEADLINE)
    emit(hub, 3, timeout=0)
    gate.opened[1].set()
    ended(other)
    assert gate.seen == [1, 2]
    assert outcome == [True]
    assert caplog.text == ""
    gate.opened[3].set()
    ended(owner)


def test_a_thread_inside_an_observer_never_waits_for_another_hub():
    busy, hub, gate = Hub(), Hub(), Gate(1)
    busy.subscribe(0, gate)
    owner = running(lambda: emit(busy, 1))
    gate.holds(1)
    outcome: list[tuple[bool, list[int]]] = []
    hub.subscribe(0, lambda _: outcome.append((emit(busy, 2, timeout=None), list(gate.seen))))
    ended(running(lambda: emit(hub, "go")))
    assert outcome == [(True, [])]
    gate.opened[1].set()
    ended(owner)
    assert gate.seen == [1, 2]


def test_an_event_left_at_the_last_moment_is_not_lost():
    """The owner looks again after it gave the turn back: here the event comes between its last look and that."""
    hub = Hub()
    seen: list[int] = []
    hub.subscribe(0, seen.append)

    def interfere() -> None:
        if seen == [1]:
            ended(running(lambda: emit(hub, 2, timeout=0)))

    Turn(hub).before_release = interfere
    assert emit(hub, 1)
    assert seen == [1, 2]


def test_two_threads_crosswise_do_not_lock_each_other_out():
    left, right = Hub(), Hub()
    both_inside = threading.Barrier(2)
    seen: list[str] = []

    def cross(name: str, other: Hub) -> Callable[[str], None]:
        def observe(value: str) -> None:
            if value == "start":
                both_inside.wait(DEADLINE)
                assert emit(other, f"from {name}", timeout=None)
                both_inside.wait(DEADLINE)
            else:
                seen.append(value)

        return observe

    left.subscribe(0, cross("left", right))
    right.subscribe(0, cross("right", left))
    ended(running(lambda: emit(left, "start")), running(lambda: emit(right, "start")))
    assert sorted(seen) == ["from left", "from right"]


# ---- completion


def test_completion_comes_last_and_once_and_to_everybody(caplog: pytest.LogCaptureFixture):
    hub = Hub()
    seen: list[str] = []

    def fail() -> None:
        seen.append("failing")
        raise LookupError("at the end")

    hub.subscribe(0, seen.append, lambda: seen.append("first over"))
    hub.subscribe(3, seen.append, fail)
    hub.subscribe(0, seen.append)
    hub.subscribe(CHANNELS - 1, seen.append, lambda: seen.append("last over"))
    dispose = hub.subscribe(0, seen.append, lambda: seen.append("disposed over"))
    dispose()
    hub.append(0, "event")
    hub.complete()
    hub.append(0, "too late")
    hub.complete()
    hub.drain()
    emit(hub, "much too late")
    assert seen == ["event", "event", "first over", "failing", "last over"]
    assert "LookupError at " in caplog.text
    assert hub.mask == 0
    dispose()
    assert hub.mask == 0


def test_who_subscribes_after_the_completion_is_completed_at_once(caplog: pytest.LogCaptureFixture):
    hub = Hub()
    hub.complete()
    hub.drain()
    seen: list[str] = []
    dispose = hub.subscribe(0, seen.append, lambda: seen.append("over"))
    assert seen == ["over"]
    assert hub.mask == 0
    emit(hub, "too late")
    dispose()
    hub.subscribe(0, seen.append)
    assert seen == ["over"]

    def fail() -> None:
        raise LookupError("at once")

    hub.subscribe(0, seen.append, fail)
    assert "LookupError at " in caplog.text


def test_who_subscribes_while_others_are_being_completed_is_completed():
    hub = Hub()
    seen: list[str] = []
    hub.subscribe(0, seen.append, lambda: hub.subscribe(1, seen.append, lambda: seen.append("over")) and None)
    hub.complete()
    hub.drain()
    assert seen == ["over"]


# ---- the mask


def test_the_mask_has_a_bit_for_each_observed_channel():
    hub = Hub()
    assert hub.mask == 0
    one = hub.subscribe(1, print)
    again = hub.subscribe(1, print)
    last = hub.subscribe(CHANNELS - 1, print)
    assert hub.mask == 1 << 1 | 1 << CHANNELS - 1
    one()
    one()
    assert hub.mask == 1 << 1 | 1 << CHANNELS - 1
    again()
    assert hub.mask == 1 << CHANNELS - 1
    last()
    assert hub.mask == 0


@pytest.mark.usefixtures("restless")
def test_churn_loses_no_observer_and_no_bit_of_the_mask():
    hub = Hub()
    start = threading.Barrier(8)
    kept: list[Callable[[], None]] = []
    calls: list[int] = []
    wrong: list[str] = []

    def churn() -> None:
        start.wait(DEADLINE)
        for channel in (0, 1) * 100:
            dispose = hub.subscribe(channel, print)
            kept.append(hub.subscribe(channel, calls.append))
            if not hub.mask >> channel & 1:
                wrong.append(f"channel {channel} is observed, and its bit not set")
            dispose()

    ended(*[running(churn) for _ in range(8)])
    assert wrong == []
    assert hub.mask == 0b11
    emit(hub, 0, channel=0)
    emit(hub, 1, channel=1)
    assert Counter(calls) == {0: 800, 1: 800}
    for dispose in kept:
        dispose()
    assert hub.mask == 0


# ---- all of it


class Recorder:
    """Notes (thread, number) pairs, and whether it was ever called by two threads at once."""

    def __init__(self, hub: Hub) -> None:
        self.seen: list[tuple[int, int]] = []
        self.overlaps = 0
        self.most_queued = 0
        self._hub = hub
        self._busy = threading.Lock()

    def __call__(self, value: tuple[int, int]) -> None:
        if not self._busy.acquire(blocking=False):
            self.overlaps += 1
            return
        try:
            self.most_queued = max(self.most_queued, queued(self._hub))
            self.seen.append(value)
        finally:
            self._busy.release()

    def in_order(self, threads: int, count: int) -> bool:
        return all([n for who, n in self.seen if who == thread] == list(range(count)) for thread in range(threads))


THREADS = 16


@pytest.mark.usefixtures("restless")
def test_sixteen_threads_at_random(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL, "rxdicom")
    hub = Hub()
    recorder = Recorder(hub)
    hub.subscribe(0, recorder)
    start = threading.Barrier(THREADS)
    count = 150
    done: list[int] = []
    raised: Counter[int] = Counter()
    expected: Counter[int] = Counter()

    def work(thread: int) -> None:
        choose = random.Random(thread)

        def unlucky(_: object) -> None:
            raised[thread] += 1
            raise LookupError(f"in {thread}")

        start.wait(DEADLINE)
        for number in range(count):
            disposals = [hub.subscribe(0, unlucky if choose.random() < 0.2 else lambda _: None) for _ in range(2)]
            if choose.random() < 0.5:
                disposals.pop()()
            hub.append(0, (thread, number))
            assert hub.drain(DEADLINE)
            assert recorder.seen.count((thread, number)) == 1
            for dispose in disposals:
                dispose()
            expected[thread] += 1
        done.append(thread)

    ended(*[running(lambda thread=thread: work(thread)) for thread in range(THREADS)])
    assert sorted(done) == list(range(THREADS))
    assert recorder.overlaps == 0
    assert len(recorder.seen) == THREADS * count
    assert recorder.in_order(THREADS, count)
    assert 1 <= recorder.most_queued <= THREADS
    assert all(raised[thread] for thread in range(THREADS))
    assert queued(hub) == 0
    assert hub.mask == 1


@pytest.mark.usefixtures("restless")
def test_sixteen_threads_through_nested_hubs_lose_nothing():
    hubs = [Hub(), Hub(), Hub()]
    recorders = [Recorder(hub) for hub in hubs]
    echoes = [Recorder(hub) for hub in hubs]
    count = 60
    for index, hub in enumerate(hubs):
        hub.subscribe(0, recorders[index])
        hub.subscribe(1, echoes[index])
        following = hubs[(index + 1) % len(hubs)]
        hub.subscribe(0, lambda value, following=following: emit(following, value, 1, None))
    start = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        start.wait(DEADLINE)
        for number in range(count):
            for hub in hubs:
                hub.append(0, (thread, number))
            for hub in hubs:
                assert hub.drain(DEADLINE)

    ended(*[running(lambda thread=thread: work(thread)) for thread in range(THREADS)])
    for recorder in (*recorders, *echoes):
        assert recorder.overlaps == 0
        assert len(recorder.seen) == THREADS * count
        assert recorder.in_order(THREADS, count)
    assert all(queued(hub) == 0 for hub in hubs)
