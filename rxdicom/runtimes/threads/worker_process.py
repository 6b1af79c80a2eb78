"""One process of a server over several, as the parent holds it: how it is started, told, heard, and reaped."""

import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

from rxdicom.log import LOG, PHI
from rxdicom.runtimes.threads.places import SharedPlaces
from rxdicom.runtimes.threads.worker import STOPS, ActiveAssociation, Order, Report, exit_of, work


class WorkerProcess:
    """A process that runs :func:`~rxdicom.runtimes.threads.worker.work`."""

    def __init__(self, number: int, sock: socket.socket, places: SharedPlaces, job: bytes, seconds: float) -> None:
        """Start worker ``number``, which has so many ``seconds`` until it serves. Raises :class:`OSError`."""
        self.overdue: float | None = time.monotonic() + seconds
        """When it is to be killed, because it has not started, or ended, in time."""
        self.since: float | None = None
        """When it began to serve."""
        self.failure = ("", "")
        """What it could not start for, in a line and as a traceback."""
        self.is_asked = False
        """Whether it owes an answer."""
        self.listed: list[ActiveAssociation] = []
        """What it answered: its associations."""
        context = multiprocessing.get_context("spawn")
        self._control, theirs = context.Pipe()
        arguments = (number, sock, places, theirs, (LOG.getEffectiveLevel(), PHI.level))
        self._process = context.Process(target=work, args=arguments, name=f"rxdicom-worker-{number}")
        try:
            self._start()
        finally:
            theirs.close()
        self.pid = self._process.pid or 0
        self._send(job)

    def _start(self) -> None:
        # They stay blocked in the process until it can deal with them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self._process.start()
            self._exit = exit_of(self._process)
        except OSError:
            self._control.close()
            if self._process.pid is not None:
                self._process.kill()
                self._process.join()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def watched(self) -> list[Connection | int]:
        """What is readable when it has said something, or ended: what multiprocessing's ``wait`` takes."""
        return [self._exit] if self._control.closed else [self._exit, self._control]

    def has_spoken(self, ready: list[Any]) -> bool:
        return self._control in ready

    def has_ended(self, ready: list[Any]) -> bool:
        return self._exit in ready

    def tell(self, order: Order, value: Any = None) -> bool:
        """Send an order, unless it can take none any more. The caller sends few, so that none waits for room."""
        return self._send((order, value))

    def _send(self, what: Any) -> bool:
        try:
            self._control.send_bytes(what) if isinstance(what, bytes) else self._control.send(what)
        except OSError:
            return False
        return True

    def report(self) -> tuple[Report, Any] | None:
        """What it says next; waits for that. None once it says nothing any more."""
        try:
            return self._control.recv()
        except (EOFError, OSError):
            return None

    def left_to_say(self) -> bool:
        """Whether :meth:`report` would not wait."""
        return not self._control.closed and self._control.poll()

    def kill(self) -> None:
        """End it without a word."""
        self.overdue = None
        self._process.kill()

    def hang_up(self) -> None:
        """Neither tell nor hear anything any more: it then ends by itself."""
        self._control.close()

    def reap(self) -> str:
        """How it ended. It has ended, or this waits until it has."""
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        self._control.close()
        os.close(self._exit)
        return f"ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
