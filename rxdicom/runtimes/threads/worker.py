"""A worker process of a server: serves on the socket that it inherits, obeys its parent, and ends when that does.

The only module that runs in the worker alone; :mod:`rxdicom.runtimes.threads.workers` is the parent's side.
"""

import logging
import os
import pickle
import signal
import socket
import ssl
import threading
import traceback
from collections.abc import Callable, Sequence
from copy import copy
from enum import Enum
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from rxdicom.errors import ArgumentError
from rxdicom.log import LOG, PHI, named
from rxdicom.runtimes.association import Peer
from rxdicom.runtimes.threads.places import SharedPlaces
from rxdicom.runtimes.threads.server import AssociationServer
from rxdicom.runtimes.threads.waiting import WakeUp

if TYPE_CHECKING:
    from rxdicom.events.bindings import EventHandler
    from rxdicom.presentation import PresentationContext
    from rxdicom.runtimes.threads.ae import AE


class Order(Enum):
    """What the parent tells a worker, alone or with a value."""

    STOP = "stop"
    """Stop listening, and end within so many seconds."""
    LIST = "list"
    """Say which associations there are."""


class Report(Enum):
    """What a worker tells its parent, with a value."""

    SERVES = "serves"
    FAILED = "failed"
    """What it could not start for, in a line and as a traceback."""
    LISTED = "listed"
    """The established associations."""
    LOGGED = "logged"
    """A record for the parent's log."""


@frozen
class ActiveAssociation:
    """An association of a worker, as its parent sees it."""

    worker: int
    """The number of the worker, from 1 on."""
    name: str
    """Its name in the log."""
    requestor: Peer
    """The application entity that asked for it; without its items of extended negotiation, which may hold secrets."""
    acceptor: Peer


@frozen
class Job:
    """What a worker serves: the arguments of ``make_server``, and what is only for workers."""

    ae: "AE"
    ae_title: str | None
    contexts: "Sequence[PresentationContext] | None"
    tls: Callable[[], ssl.SSLContext] | None
    handlers: "Sequence[EventHandler]"
    prepare: Callable[[AssociationServer], object] | None
    drain: float

    def make_server(self, sock: socket.socket) -> AssociationServer:
        """The server of this job, on a socket that listens already."""
        return self.ae.make_server(sock, self.ae_title, self.contexts, self.tls, self.handlers)

    def packed(self) -> bytes:
        """As bytes. Raises :class:`~rxdicom.errors.ArgumentError` that names what cannot be passed to a process."""
        parts: list[tuple[str, object]] = [("the configuration of the AE", self.ae), ("contexts", self.contexts)]
        parts += [(f"the handler for {row[0]!r}, {named(row[1])},", row) for row in self.handlers]
        parts += [("the function for ssl_context", self.tls), ("the function to prepare workers", self.prepare)]
        for what, part in parts:
            try:
                pickle.dumps(part)
            except Exception as error:
                raise ArgumentError(
                    f"{what} cannot be passed to another process ({error}); give functions of a module, with arguments "
                    "that can be pickled, and make everything else in the workers, by Workers(prepare=...)"
                ) from error
        return pickle.dumps(self)


def work(number: int, sock: socket.socket, places: SharedPlaces, control: Connection, levels: tuple[int, int]) -> None:
    """What the process of worker ``number`` runs. ``levels`` are those of the parent's two loggers."""
    terminated = WakeUp()

    def on_signal(received: int, _frame: FrameType | None) -> None:
        # A Ctrl-C is for the parent. Not SIG_IGN, which the programs that a handler runs would inherit.
        if received == signal.SIGTERM:
            terminated.set()

    for each in STOPS:
        signal.signal(each, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    parent = Parent(control)
    _log_to(parent, levels)
    try:
        job: Job = pickle.loads(control.recv_bytes())
        server = job.make_server(sock)
        server.label = f"{server.ae_title}.{number}"
        places.own = number - 1
        server.share(places)
        if job.prepare is not None:
            job.prepare(server)
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises is for the parent to raise
        parent.tell(Report.FAILED, (f"{type(error).__name__}: {error}", traceback.format_exc()))
        raise SystemExit(1) from None
    _Shift(number, server, parent, terminated, job.drain).serve()


STOPS = {signal.SIGINT, signal.SIGTERM}
"""The signals that end the parent or a worker; blocked while one is started, until it can deal with them."""


class Parent:
    """The parent as a worker sees it."""

    def __init__(self, control: Connection) -> None:
        self.control = control
        self._lock = threading.Lock()

    def tell(self, what: Report, value: Any = None) -> None:
        """Send a report, from any thread. A parent that has gone misses it."""
        data = pickle.dumps((what, value))
        with self._lock:
            try:
                self.control.send_bytes(data)
            except OSError:
                # The end of the parent is noticed where it is waited for.
                return


class _Shift:
    """A server that serves until the parent, or a signal, or the parent's end, ends it."""

    def __init__(
        self, number: int, server: AssociationServer, parent: Parent, terminated: WakeUp, drain: float
    ) -> None:
        self._number = number
        self._server = server
        self._parent = parent
        self._terminated = terminated
        self._drain = drain
        self._over = WakeUp()
        self._stopping = False

    def serve(self) -> None:
        threading.Thread(target=self._serve, name="rxdicom-server", daemon=True).start()
        self._parent.tell(Report.SERVES)
        process = parent_process()
        assert process is not None
        gone = exit_of(process)
        watched: list[Any] = [self._parent.control, gone, self._terminated, self._over]
        while self._over not in (ready := wait(watched)):
            if self._terminated in ready:
                self._terminated.clear()
                self._stop(self._drain)
            if gone in ready or (self._parent.control in ready and not self._obey()):
                watched = [self._terminated, self._over]
                self._stop(self._drain)

    def _serve(self) -> None:
        try:
            self._server.serve_forever()
        finally:
            if not self._stopping:
                # It failed. Another worker is better than one that serves nobody.
                self._over.set()

    def _obey(self) -> bool:
        """Do what the parent says. False if it has gone."""
        try:
            order, value = self._parent.control.recv()
        except (EOFError, OSError):
            return False
        if order is Order.STOP:
            self._stop(value)
        elif order is Order.LIST:
            self._parent.tell(Report.LISTED, [self._shown(each) for each in self._server.active_associations])
        return True

    def _shown(self, association: Any) -> ActiveAssociation:
        peers = (evolve(each, user_information=()) for each in (association.requestor, association.acceptor))
        return ActiveAssociation(self._number, association.name, *peers)

    def _stop(self, drain: float) -> None:
        """Stop on a thread of its own, so that the parent may say once more, and with less patience, to stop."""
        self._stopping = True

        def stop() -> None:
            self._server.shutdown(drain)
            self._over.set()

        threading.Thread(target=stop, name="rxdicom-stop", daemon=True).start()


# ---- the log


class _ToParent(logging.Handler):
    """Has the parent log what is logged here, as its own logging is configured."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        try:
            plain = copy(record)
            plain.msg, plain.args, plain.exc_info = record.getMessage(), None, None
            self._parent.tell(Report.LOGGED, plain)
        except Exception:  # noqa: BLE001 - as logging has it: what cannot be logged is no reason to fail
            self.handleError(record)


def _log_to(parent: Parent, levels: tuple[int, int]) -> None:
    for logger, level in zip((LOG, PHI), levels, strict=True):
        logger.setLevel(level)
    LOG.addHandler(_ToParent(parent))
    LOG.propagate = False


def exit_of(process: BaseProcess) -> int:
    """A descriptor that becomes readable when a process ends; the caller closes it.

    Not the pipe that multiprocessing has for this, where it can be helped: that ends only when everybody has ended who
    inherited it by a fork.
    """
    try:
        return os.pidfd_open(process.pid or 0)
    except (AttributeError, OSError):
        return os.dup(process.sentinel)
