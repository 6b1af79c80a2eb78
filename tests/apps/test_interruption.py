"""Ctrl-C: one step each, on a thread of their own, nothing raised in the middle of something else."""

import signal
import threading

import pytest

from rxdicom import StateError
from rxdicom.apps.interruption import interruptible
from tests.apps.support import DEADLINE


def press() -> None:
    """Ctrl-C, as this process gets it."""
    signal.raise_signal(signal.SIGINT)


def test_each_press_takes_a_step_elsewhere_and_one_more_raises():
    threads: list[threading.Thread] = []
    taken = [threading.Event(), threading.Event()]

    def step(number: int) -> None:
        threads.append(threading.current_thread())
        taken[number].set()

    with interruptible(lambda: step(0), lambda: step(1)) as interrupted:
        assert not interrupted.is_set()
        for each in taken:
            press()
            assert each.wait(DEADLINE)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert threading.main_thread() not in threads
    assert not any(each.is_alive() for each in threads)


def test_without_steps_the_first_press_is_only_seen():
    with interruptible() as interrupted:
        press()
        assert interrupted.wait(DEADLINE)
        with pytest.raises(KeyboardInterrupt):
            press()


def test_a_step_that_fails_because_it_is_over_does_no_harm():
    tried = threading.Event()

    def late() -> None:
        tried.set()
        raise StateError("over")

    with interruptible(late, late) as interrupted:
        press()
        assert tried.wait(DEADLINE)
        tried.clear()
        press()
        assert tried.wait(DEADLINE)
        assert interrupted.is_set()


def test_a_wait_goes_on_that_a_press_falls_into():
    go = threading.Event()
    with interruptible(go.set):
        timer = threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        assert go.wait(DEADLINE)
        timer.join(DEADLINE)


def test_what_was_before_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ZeroDivisionError), interruptible():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is before


def test_where_it_is_ignored_and_in_other_threads_nothing_changes():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as interrupted:
            press()
        assert not interrupted.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
    seen: list[object] = []

    def elsewhere() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(DEADLINE)
    assert seen == [before]
