"""A server over several processes: who starts the workers, watches them, starts them again, and ends them.

The parent listens and accepts nothing. The workers inherit its socket, so that whoever is free takes the next
connection, and one that waits outlives the worker that might have taken it. They are started afresh ("spawn"), never
forked: the parent may have threads. :mod:`rxdicom.runtimes.threads.worker` is their side.
"""

import atexit
import logging
import multiprocessing
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Self

from attrs import define, field, frozen

from rxdicom.errors import ArgumentError, RxDicomError, StateError
from rxdicom.events.bindings import EventHandler
from rxdicom.log import LOG
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.sockets import listen
from rxdicom.runtimes.threads.places import SharedPlaces
from rxdicom.runtimes.threads.server import AssociationServer, ServerTLS
from rxdicom.runtimes.threads.waiting import WakeUp
from rxdicom.runtimes.threads.worker import ActiveAssociation, Job, Order, Report
from rxdicom.runtimes.threads.worker_process import WorkerProcess

if TYPE_CHECKING:
    from rxdicom.runtimes.threads.ae import AE

_ANSWER = 3.0
"""Seconds for a worker to say which associations it has."""
_GRACE = 10.0
"""Seconds that a worker has to end beyond those that its associations have."""
_SHORT_GRACE = 1.0
"""The same, where another one did not start."""
_HEALTHY = 10.0
"""Seconds that a worker must have served for its end not to count as a failure to start."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0


class WorkerFailed(RxDicomError):
    """A worker process did not start to serve. ``worker`` is its number; a note has its traceback, if it had one."""

    def __init__(self, worker: int, why: str) -> None:
        self.worker = worker
        super().__init__(f"worker {worker} does not serve: {why}")


def _is_some(_instance: object, _attribute: object, value: int) -> None:
    if value < 1:
        raise ArgumentError(f"{value} workers cannot serve; give at least 1")


@frozen
class Workers:
    """How a server is spread over processes: ``start_server(address, workers=Workers(4))``, or ``workers=4``."""

    number: int = field(validator=_is_some)
    """How many processes serve."""
    prepare: Callable[[AssociationServer], object] | None = None
    """Called in each worker with its server before that serves: to subscribe to its events, open databases, log."""
    drain: float = 10.0
    """Seconds for its associations when a worker is ended by SIGTERM, or by the end of its parent."""
    start: float = 30.0
    """Seconds for a worker to start."""


@frozen
class WorkerState:
    """A worker, as :attr:`WorkerServer.workers` shows it."""

    number: int
    """From 1 on; who replaces a dead worker has its number."""
    pid: int | None
    """Its process; None while there is none."""
    is_serving: bool
    restarts: int
    """How often it was started again."""


@define(eq=False)
class _Slot:
    """A worker, whichever process it is at the time."""

    number: int
    running: WorkerProcess | None = None
    due: float = 0.0
    """When it is to be started, unless it runs."""
    failures: int = 0
    """How many times in a row it did not last."""
    starts: int = 0


class WorkerServer:
    """A listening application entity over several processes. Made by ``start_server`` and ``make_server`` of an AE.

    Handlers and observers run in the workers: nothing can be bound here. As a context manager it shuts down on the way
    out.
    """

    def __init__(
        self, address: tuple[str, int] | socket.socket, ae_title: str, most: int, workers: Workers, job: bytes
    ) -> None:
        """``job`` is a packed :class:`Job`, ``most`` how many associations the workers have together.

        Raises :class:`OSError` if it cannot listen.
        """
        self.ae_title = ae_title
        self._options = workers
        self._job = job
        self._socket = listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        """Host and port that the workers listen on; a port of 0 is resolved."""
        self._places = SharedPlaces(most, workers.number)
        self._slots = [_Slot(number) for number in range(1, workers.number + 1)]
        self._wake = WakeUp()
        # Guards what is asked of the workers, and their answers.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        self._over = threading.Event()
        self._failure: WorkerFailed | None = None
        self._drain: float | None = None
        self._told: float | None = None

    # ---- what it is

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """The workers, by number."""
        states: list[WorkerState] = []
        for slot in self._slots:
            running = slot.running
            serving = running is not None and running.since is not None
            states.append(WorkerState(slot.number, running and running.pid, serving, max(0, slot.starts - 1)))
        return tuple(states)

    @property
    def active_associations(self) -> list[ActiveAssociation]:
        """The associations that are established right now, as the workers say; one that does not answer is left out."""
        with self._changed:
            asked = [slot.running for slot in self._slots if slot.running and slot.running.since is not None]
            for each in asked:
                each.listed = []
                # One that owes an answer to somebody else's question answers this one by it.
                each.is_asked = each.is_asked or each.tell(Order.LIST)
            self._changed.wait_for(lambda: not any(each.is_asked for each in asked), _ANSWER)
            return [association for each in asked for association in each.listed]

    def __repr__(self) -> str:
        return f"<WorkerServer {self.ae_title!r} at {self.address}, {self._options.number} workers>"

    # ---- its life

    def start(self) -> Self:
        """Start the workers; returns once all of them serve.

        Raises :class:`WorkerFailed` when one does not, after the others have ended.
        """
        with self._changed:
            if self._thread is None and not self._over.is_set():
                self._thread = threading.Thread(target=self._supervise, name="rxdicom-workers", daemon=True)
                self._thread.start()
                # Else the interpreter would wait at its exit for processes that nobody ends.
                atexit.register(self.shutdown)
        self._serving.wait()
        if self._failure is not None:
            self._over.wait()
            raise self._failure
        return self

    def serve_forever(self) -> None:
        """The same, and return only after :meth:`shutdown`."""
        # The workers are watched by a thread, so that a Ctrl-C here leaves it as it is.
        self.start()
        self._over.wait()

    def shutdown(self, drain: float = 0.0) -> None:
        """Stop listening; give associations ``drain`` seconds to end, then abort them, and wait until all is over.

        Called once more, with fewer seconds, it has them end sooner. A worker that does not end is killed.
        """
        with self._changed:
            self._drain = drain if self._drain is None else min(drain, self._drain)
            started = self._thread is not None
        if not started:
            self._close()
        elif not self._over.is_set():
            self._wake.set()
            if threading.current_thread() is not self._thread:
                self._over.wait(drain + 2 * _GRACE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _close(self) -> None:
        with self._changed:
            if self._over.is_set():
                return
            self._over.set()
        self._socket.close()
        self._places.close()
        self._wake.close()
        self._serving.set()
        atexit.unregister(self.shutdown)

    # ---- what the thread that watches does

    def _supervise(self) -> None:
        try:
            while self._drain is None or any(slot.running for slot in self._slots):
                self._start_and_stop()
                self._listen(self._next_deadline())
        finally:
            for running in self._all_running():
                # Only where this failed.
                running.hang_up()
            self._close()

    def _start_and_stop(self) -> None:
        now = time.monotonic()
        drain = self._drain
        if drain is not None and drain != self._told:
            self._told = drain
            self._socket.close()
            with self._changed:
                for running in self._all_running():
                    running.overdue = now + drain + (_GRACE if self._failure is None else _SHORT_GRACE)
                    running.tell(Order.STOP, drain)
        for slot in self._slots:
            if slot.running is None and slot.due <= now and drain is None:
                self._start(slot)
            elif slot.running and slot.running.overdue is not None and slot.running.overdue <= now:
                LOG.error("%s: worker %s is killed, it does not answer", self.ae_title, slot.number)
                slot.running.kill()

    def _next_deadline(self) -> float | None:
        times = [running.overdue for running in self._all_running()]
        if self._drain is None:
            times += [slot.due for slot in self._slots if slot.running is None]
        return min((each for each in times if each is not None), default=None)

    def _all_running(self) -> list[WorkerProcess]:
        return [slot.running for slot in self._slots if slot.running]

    def _start(self, slot: _Slot) -> None:
        slot.starts += 1
        try:
            slot.running = WorkerProcess(slot.number, self._socket, self._places, self._job, self._options.start)
        except OSError as error:
            self._lost(slot, f"no process for it: {error}", "", 0.0)

    # ---- what workers say, and how they end

    def _listen(self, deadline: float | None) -> None:
        """Wait until a worker says something, or ends, or :meth:`shutdown` is called, and act on it."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        watched: list[Any] = [self._wake]
        for running in self._all_running():
            watched += running.watched
        ready = wait(watched, timeout)
        if self._wake in ready:
            self._wake.clear()
        for slot in self._slots:
            running = slot.running
            if running and running.has_spoken(ready):
                self._hear(slot.number, running)
            if running and running.has_ended(ready):
                self._ended(slot, running)

    def _hear(self, number: int, running: WorkerProcess) -> None:
        """Take one report."""
        report = running.report()
        if report is None:
            with self._changed:
                running.hang_up()
            running.overdue = running.overdue or time.monotonic() + _GRACE
            return
        what, value = report
        if what is Report.LOGGED:
            _log(value)
        elif what is Report.LISTED:
            with self._changed:
                running.is_asked, running.listed = False, value
                self._changed.notify_all()
        elif what is Report.FAILED:
            running.failure = value
        elif what is Report.SERVES:
            self._serves(number, running)

    def _serves(self, number: int, running: WorkerProcess) -> None:
        running.since = time.monotonic()
        if self._drain is None:
            running.overdue = None
        LOG.info("%s: worker %s serves, process %s", self.ae_title, number, running.pid)
        if all(each.running and each.running.since is not None for each in self._slots):
            self._serving.set()

    def _ended(self, slot: _Slot, running: WorkerProcess) -> None:
        while running.left_to_say():
            self._hear(slot.number, running)
        with self._changed:
            slot.running = None
            running.is_asked = False
            self._changed.notify_all()
        # Nobody can ask it any more: its descriptors may become another's.
        how = running.reap()
        self._places.vacate(slot.number - 1)
        why, note = running.failure
        lasted = 0.0 if running.since is None else time.monotonic() - running.since
        self._lost(slot, why or how, note, lasted)

    def _lost(self, slot: _Slot, why: str, note: str, lasted: float) -> None:
        """A worker has ended, or could not be started: start another, unless that was the first try."""
        if self._drain is not None:
            return
        if not self._serving.is_set():
            hint = "" if note else "; its stderr may say why"
            self._failure = WorkerFailed(slot.number, f"{why}{hint}")
            if note:
                self._failure.add_note(note)
            self._drain = 0.0
            return
        slot.failures = 0 if lasted >= _HEALTHY else slot.failures + 1
        pause = pause_after(slot.failures)
        slot.due = time.monotonic() + pause
        LOG.error("%s: worker %s: %s; starts again in %g s", self.ae_title, slot.number, why, pause)


def pause_after(failures: int) -> float:
    """Seconds before a worker is started again that did not last so many times in a row.

    >>> [pause_after(failures) for failures in (0, 1, 2, 3, 10, 1000)]
    [0.0, 0.1, 0.2, 0.4, 30.0, 30.0]
    """
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 20)) if failures else 0.0


def _log(record: logging.LogRecord) -> None:
    """Log what a worker logged, as if it had been logged here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


# ---- what goes along


def make_worker_server(
    ae: "AE",
    address: tuple[str, int] | socket.socket,
    workers: int | Workers,
    ae_title: str,
    contexts: Sequence[PresentationContext] | None,
    tls: ServerTLS,
    handlers: Iterable[EventHandler],
) -> WorkerServer:
    """A server over several processes that does not serve yet.

    Raises :class:`~rxdicom.errors.ArgumentError` for what cannot be passed to another process, and :class:`OSError` if
    it cannot listen.
    """
    # In a worker that imports a script as its main module; multiprocessing knows, and would tell it less clearly.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise StateError("a worker cannot start workers; start the server below `if __name__ == '__main__':`")
    options = workers if isinstance(workers, Workers) else Workers(workers)
    if isinstance(tls, ssl.SSLContext):
        raise ArgumentError("an SSLContext cannot be passed to workers; give ssl_context a function that makes it")
    job = Job(ae, ae_title, contexts, tls, tuple(handlers), options.prepare, options.drain)
    return WorkerServer(address, ae_title, ae.limits.associations, options, job.packed())
