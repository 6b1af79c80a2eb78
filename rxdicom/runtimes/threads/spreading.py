"""A batch over several associations at once: who sends what, and what is done when associations fail.

Each association has a thread, its worker. All of them take from one queue, and what becomes of the instances goes to
the one who consumes it. Locks, in the order in which they may be taken: that of the queue, that of the results.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve

from rxdicom.errors import (
    AssociationAborted,
    AssociationRejected,
    ConnectionFailed,
    LocalUsageError,
    NoAcceptedContext,
    RxDicomError,
    TimedOut,
)
from rxdicom.log import LOG, words
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.instances import Context, Instance, Lookahead, presentation_contexts, scan
from rxdicom.runtimes.threads.association import Association
from rxdicom.runtimes.threads.sending import Transfer, concerns_one

PAUSES = (0.0, 1.0, 2.0)
"""Seconds before each new association of a worker after it lost one; used up without anything stored, it gives up."""
MOST_WAITING = 64
"""Results that wait for their consumer, before no more is sent."""

Make = Callable[[Sequence[PresentationContext]], Association]
"""Makes an association, not yet open, that proposes these contexts."""


class Delivery(Transfer):
    """What becomes of the objects of a batch that is sent over associations of its own. Made by :meth:`AE.send`.

    Every object is accounted for once. Those that were on their way when an association was lost are sent once more
    over another one, each of them alone, and are failures if that is lost too. So is an association over which a
    response does not come in time. A worker that has lost four associations in a row, and had nothing stored between,
    opens no more (the pauses before the new ones are 0, 1 and 2 seconds); nor does one whose first one is refused.
    When none is left, the rest of the batch are failures, with the error that was the last; their ``attempts`` are 0,
    or 1 for what was on its way before. If there never was any association, nothing has been sent at all, and the
    first error is raised.

    To end it early there are :meth:`stop` and :meth:`close`: an association that is aborted alone is a lost one.
    """

    def __init__(self, make: Make, batch: Iterable[Any], associations: int, *, convert: bool) -> None:
        self._shared = _Shared(make, batch, associations, convert=convert)
        super().__init__(self._shared.run, "rxdicom-send", self._shared.leave)

    def stop(self) -> None:
        """Send no more. What is on its way still arrives, and is among the results; then the associations are
        released, those that are not established yet aborted, and the iteration ends. Any thread may call this; it
        waits for nothing.
        """
        self._shared.stop()

    def close(self) -> None:
        """The same for who does not want any more results, and is the one who iterates. It waits for nothing."""
        super().close()
        self._shared.leave()


class _Outlet:
    """What has become of instances, on its way from the workers to the one that consumes it."""

    def __init__(self) -> None:
        # A finalizer may run while its thread holds this.
        self._changed = threading.Condition(threading.RLock())
        self._results: deque[Sent] = deque()
        self._error: Exception | None = None
        self._has_consumer = True
        self.is_stopped = False
        """Nothing more is to be sent."""
        self.is_over = False
        """There will be no more results."""

    def put(self, sent: Sent) -> None:
        """Hand a result over, once there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._results) < MOST_WAITING or not self._has_consumer)
            if self._has_consumer:
                self._results.append(sent)
                self._changed.notify_all()

    def take(self) -> deque[Sent]:
        """The results that have come, when there are any; none once it is over. Then what went wrong is raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self.is_over)
            taken, self._results = self._results, deque()
            self._changed.notify_all()
            if not taken and self._error is not None and self._has_consumer:
                raise self._error
        return taken

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than anything is to be sent."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_stopped or self.is_over, seconds)

    def stop(self) -> None:
        """Nothing more is to be sent."""
        with self._changed:
            self.is_stopped = True
            self._changed.notify_all()

    def leave(self) -> None:
        """Nobody consumes any more."""
        with self._changed:
            self._has_consumer = False
            self._results.clear()
            self.is_stopped = self.is_over = True
            self._changed.notify_all()

    def finish(self) -> None:
        """All results are there."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Have this raised when it is over. Only the first counts."""
        with self._changed:
            self._error = self._error or error


def _sendable(batch: Iterable[Any], outlet: _Outlet) -> Iterator[Instance]:
    """The instances of a batch. What else is in it and a failure is a result at once; the end is what it raises."""
    try:
        for found in scan(batch):
            if isinstance(found, Instance):
                yield found
            elif found.is_failure:
                outlet.put(Sent(found.given, error=found.error))
    except Exception as error:  # noqa: BLE001 - raised again where the results are consumed
        outlet.fail(error)


class _Shared:
    """What the workers of a batch have in common: what is still to be sent, and where the results go."""

    def __init__(self, make: Make, batch: Iterable[Any], workers: int, *, convert: bool) -> None:
        self.outlet = _Outlet()
        self._make = make
        self._convert = convert
        self._workers = workers
        # Held also while the batch is asked for more, however long that takes.
        self._lock = threading.Lock()
        self._queue = Lookahead(_sendable(batch, self.outlet))
        self._working = workers
        self._associated = 0
        """Workers that have an association, and perhaps instances that are not in the queue."""
        self._opening: set[Association] = set()
        self.is_reached = False
        """Whether there ever was an association."""
        self._failure: Exception | None = None

    # ---- for the one that consumes

    def run(self) -> Generator[Sent]:
        """The results; asking for the first starts to send."""
        try:
            for number in range(self._workers):
                name, work = f"rxdicom-send-{number + 1}", _Worker(self).run
                try:
                    threading.Thread(target=work, args=(number,), name=name, daemon=True).start()
                except RuntimeError as error:
                    # As many as there are threads for.
                    self.note(ConnectionFailed(f"no thread for another association: {error}"))
                    self.worker_left()
            while results := self.outlet.take():
                yield from results
        finally:
            self.outlet.leave()

    def stop(self) -> None:
        """Send nothing more."""
        self.outlet.stop()
        self._open_no_more()

    def leave(self) -> None:
        """Nobody consumes any more."""
        self.outlet.leave()
        self._open_no_more()

    # ---- for workers: the queue

    def is_needed(self, number: int) -> bool:
        """Whether there is something for one more worker than ``number``."""
        with self._lock:
            return not self.outlet.is_stopped and self._queue.holds(number + 1)

    def contexts(self) -> list[Context]:
        """What to propose next; nothing if there is nothing to be sent."""
        with self._lock:
            return [] if self.outlet.is_stopped else self._queue.contexts(convert=self._convert)

    def has_next(self, contexts: Collection[Context]) -> bool:
        """Whether the next instance can be sent with these contexts."""
        with self._lock:
            return not self.outlet.is_stopped and self._queue.next_for(contexts) is not None

    def take(self, contexts: Collection[Context], *, alone: bool) -> Instance | None:
        """The next instance, if it fits; one that was sent before only for who sends nothing beside it."""
        with self._lock:
            instance = None if self.outlet.is_stopped else self._queue.next_for(contexts)
            if instance is None or (instance.attempts and not alone):
                return None
            return self._queue.take()

    # ---- for workers: associations

    def open(self, contexts: Sequence[Context]) -> Association:
        """An established association; :meth:`left` is to follow. Raises what ``Association.open`` raises."""
        association = self._make(presentation_contexts(contexts))
        self._opening.add(association)
        try:
            if self.outlet.is_stopped:
                association.abort()
            association.open()
        except NoAcceptedContext:
            self._join()
            raise
        finally:
            self._opening.discard(association)
        self._join()
        return association

    def _join(self) -> None:
        with self._lock:
            self.is_reached = True
            self._associated += 1

    def left(self, again: Sequence[Instance]) -> None:
        """An association is over, after which these instances are to be sent again."""
        with self._lock:
            self._queue.put_back(again)
            self._associated -= 1
            self._end_if_over()
        if self.outlet.is_over:
            self._open_no_more()

    def note(self, failure: Exception) -> None:
        """Why there is no association: the first time as long as there never was one, and the last time after that."""
        with self._lock:
            if self.is_reached or self._failure is None:
                self._failure = failure

    def worker_left(self) -> None:
        with self._lock:
            self._working -= 1
            self._end_if_over()
        if self.outlet.is_over:
            self._open_no_more()

    def _open_no_more(self) -> None:
        """Do not wait for peers that have not answered yet."""
        for association in tuple(self._opening):
            association.abort()
            association.interrupt()

    # ---- the end

    def _end_if_over(self) -> None:
        """With the lock: whether anything can still become of anything."""
        if self._associated or self.outlet.is_over:
            return
        if self._working and not self.outlet.is_stopped and self._queue.first() is not None:
            return
        if self._failure is not None:
            self._give_up(self._failure)
        self.outlet.finish()

    def _give_up(self, failure: Exception) -> None:
        """Account for what is in the queue: all of it, or, where it was to stop, what was on its way before."""
        if not self.is_reached and not self.outlet.is_stopped and self._queue.first() is not None:
            self.outlet.fail(failure)
            return
        queue = self._queue
        while (instance := queue.first_again() if self.outlet.is_stopped else queue.first()) is not None:
            queue.take()
            self.outlet.put(Sent(instance.given, error=failure, attempts=instance.attempts))


class _Worker:
    """Sends over one association after the other, on a thread of its own."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._outlet = shared.outlet
        self._flying: list[Instance] = []
        """On their way, or lost with the association."""
        self._failed: Exception | None = None
        """Why the association is lost."""
        self._losses = 0
        """One after the other, with nothing stored between."""
        self._is_admitted = False
        """Whether it ever had an association."""

    def run(self, number: int) -> None:
        """Send as long as there is something, if there is enough for one worker more than ``number``."""
        try:
            if self._shared.is_needed(number):
                self._work()
        except Exception as error:  # noqa: BLE001 - raised again where the results are consumed
            self._outlet.fail(error)
            self._outlet.stop()
        finally:
            self._shared.worker_left()

    def _work(self) -> None:
        while contexts := self._shared.contexts():
            failure = self._serve(contexts)
            if failure is not None and not self._goes_on(failure):
                return

    def _serve(self, contexts: Sequence[Context]) -> Exception | None:
        """Send over one association what its contexts fit. Returns why it failed, if it did."""
        fitting = frozenset(contexts)
        self._failed = None
        try:
            association = self._shared.open(contexts)
        except NoAcceptedContext as error:
            self._is_admitted = True
            self._refuse(fitting, error)
            return None
        except LocalUsageError:
            raise
        except RxDicomError as error:
            self._shared.note(error)
            return error
        self._is_admitted = True
        try:
            with association:
                self._send(association, fitting)
        except RxDicomError as error:
            self._failed = self._failed or error
        finally:
            if self._failed is not None:
                self._shared.note(self._failed)
            self._shared.left(self._lost())
        return self._failed

    def _send(self, association: Association, contexts: Collection[Context]) -> None:
        while self._failed is None and self._shared.has_next(contexts):
            for sent in association.send_many(self._next_ones(contexts)):
                self._landed(sent, association)

    def _next_ones(self, contexts: Collection[Context]) -> Iterator[Any]:
        """What can be on its way side by side: what has not been sent before, or one instance that has.

        With others beside it, they would be blamed for its loss, or it for that of others.
        """
        while self._failed is None:
            instance = self._shared.take(contexts, alone=not self._flying)
            if instance is None:
                return
            self._flying.append(instance)
            yield instance.given
            if instance.attempts:
                return

    def _landed(self, sent: Sent, association: Association) -> None:
        error = sent.error
        if isinstance(error, TimedOut) or (error is not None and not concerns_one(error)):
            self._failed = self._failed or error
            if association.is_established:
                # A peer that does not answer would have us wait for each of the others too.
                association.abort()
            return
        instance = next(each for each in self._flying if each.given is sent.instance)
        self._flying.remove(instance)
        if sent.is_stored:
            self._losses = 0
        self._outlet.put(evolve(sent, attempts=instance.attempts + 1) if instance.attempts else sent)

    def _lost(self) -> list[Instance]:
        """What was on its way when the association was lost and is to be sent again; of the others that is the end."""
        tried = [evolve(each, attempts=each.attempts + 1) for each in self._flying]
        self._flying.clear()
        for each in tried:
            if each.attempts > 1:
                error = self._failed or AssociationAborted()
                self._outlet.put(Sent(each.given, error=error, attempts=each.attempts))
        return [each for each in tried if each.attempts == 1]

    def _refuse(self, contexts: Collection[Context], error: NoAcceptedContext) -> None:
        """The peer knows none of these contexts."""
        while (instance := self._shared.take(contexts, alone=True)) is not None:
            syntax = instance.transfer_syntax_uid
            wanted = f"{instance.sop_class_uid}{f' in transfer syntax {syntax}' if syntax else ''}"
            self._outlet.put(Sent(instance.given, error=NoAcceptedContext(wanted, error.proposed)))
        self._shared.left([])

    def _goes_on(self, failure: Exception) -> bool:
        """Whether to open another association, after a pause."""
        if self._outlet.is_stopped:
            return False
        is_refused = isinstance(failure, AssociationRejected) or not self._shared.is_reached
        if self._losses >= len(PAUSES) or (is_refused and not self._is_admitted):
            LOG.info("goes on without another association: %s", words(failure))
            return False
        LOG.warning("goes on with a new association: %s", words(failure))
        self._outlet.pause(PAUSES[self._losses])
        self._losses += 1
        return True
