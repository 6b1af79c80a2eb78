"""Ctrl-C while an association is there: not an exception somewhere within it, but steps that end it in order."""

import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

from rxdicom import Association
from rxdicom.apps.console import LOG
from rxdicom.errors import RxDicomError


@contextmanager
def interruptible(*steps: Callable[[], object]) -> Generator[threading.Event]:
    """As long as the block lasts the first Ctrl-C sets the event that this gives, and nothing is raised.

    Each Ctrl-C takes the next of the ``steps``, on a thread of their own, so that they may wait and take locks. One
    more raises :class:`KeyboardInterrupt`, as ever. Does nothing outside the main thread, which alone sees signals.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield interrupted
        return
    left = max(1, len(steps))

    def pressed(_signal: int, _frame: FrameType | None) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1

    def act() -> None:
        waiting = iter(steps)
        while press := presses.recv(1):
            if press[0] == signal.SIGINT:
                interrupted.set()
                LOG.info("interrupted: ends in order; press Ctrl-C once more to wait for less")
                with suppress(RxDicomError):
                    next(waiting, nothing)()

    # The interpreter writes a byte when the signal comes. Its handler runs only once the main thread is back from
    # where it waits, and a signal that comes right before it waits does not wake it.
    presses, writer = socket.socketpair()
    writer.setblocking(False)
    thread = threading.Thread(target=act, name="rxdicom-interrupt", daemon=True)
    thread.start()
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, pressed)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(descriptor)
        writer.close()
        thread.join()
        presses.close()


def nothing() -> None:
    """The step of who only looks at the event."""


def cut(assoc: Association) -> None:
    """End an association at once, also where the peer is too busy to notice."""
    assoc.abort()
    assoc.interrupt()
