"""A batch over several associations at once, in threads: what :mod:`rxdicom.runtimes.spreading` plans is done here.

Each association has a thread, its worker. All of them take from one queue, and what becomes of the instances goes to
the one who consumes it. Locks, in the order in which they may be taken: that of the queue, that of the results.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from rxdicom.errors import ConnectionFailed, LocalUsageError, NoAcceptedContext, RxDicomError
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.instances import Context, Instance, presentation_contexts, scan
from rxdicom.runtimes.spreading import MOST_WAITING, PAUSES, Course, Plan, refusal, result_of
from rxdicom.runtimes.threads.association import Association
from rxdicom.runtimes.threads.sending import Transfer

Make = Callable[[Sequence[PresentationContext]], Association]
"""Makes an association, not yet open, that proposes these contexts."""

_ENOUGH = 32
"""Results that are handed over at once, ..."""
_LINGER = 0.02
"""... and the seconds after which fewer are."""


class Delivery(Transfer):
    """What becomes of the objects of a batch that is sent over associations of its own. Made by :meth:`AE.send`.

    Every object is accounted for once. Those that were on their way when an association was lost are sent once more
    over another one, each of them alone, and are failures if that is lost too. So is an association over which a
    response does not come in time. A worker that has lost four associations in a row, and had nothing stored between,
    opens no more (the pauses before the new ones are 0, 1 and 2 seconds); nor does one whose first one is refused.
    When none is left, the rest of the batch are failures, with the error that was the last; their ``attempts`` are 0,
    or 1 for what was on its way before. If there never was any association, nothing has been sent at all, and the
    first error is raised.

    Of small objects several results come at a time, 20 ms late at the most.

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
            while len(self._results) >= MOST_WAITING and self._has_consumer:
                self._changed.wait()
            if self._has_consumer:
                self._results.append(sent)
                if len(self._results) in (1, _ENOUGH):
                    self._changed.notify_all()

    def take(self) -> deque[Sent]:
        """The results that have come, when there are any; none once it is over. Then what went wrong is raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self.is_over)
            # Small objects come by the thousand a second: who woke up for each would slow down who sends them.
            self._changed.wait_for(lambda: len(self._results) >= _ENOUGH or self.is_over or self.is_stopped, _LINGER)
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
            elif (failure := result_of(found)) is not None:
                outlet.put(failure)
    except Exception as error:  # noqa: BLE001 - raised again where the results are consumed
        outlet.fail(error)


class _Shared:
    """What the workers of a batch have in common: what is still to be sent, and where the results go."""

    def __init__(self, make: Make, batch: Iterable[Any], workers: int, *, convert: bool) -> None:
        self.outlet = _Outlet()
        self._make = make
        self._workers = workers
        # Held also while the batch is asked for more, however long that takes.
        self.lock = threading.Lock()
        self.plan = Plan(_sendable(batch, self.outlet), workers, lambda: self.outlet.is_stopped, convert=convert)
        self._opening: set[Association] = set()

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

    # ---- for workers

    def take(self, contexts: frozenset[Context], *, alone: bool) -> Instance | None:
        with self.lock:
            return self.plan.take(contexts, alone=alone)

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
        with self.lock:
            self.plan.joined()

    def left(self, again: Sequence[Instance]) -> None:
        """An association is over, after which these instances are to be sent again."""
        with self.lock:
            self.plan.left(again)
            self._end_if_over()
        if self.outlet.is_over:
            self._open_no_more()

    def note(self, failure: Exception) -> None:
        with self.lock:
            self.plan.note(failure)

    def worker_left(self) -> None:
        with self.lock:
            self.plan.worker_left()
            self._end_if_over()
        if self.outlet.is_over:
            self._open_no_more()

    def _open_no_more(self) -> None:
        """Do not wait for peers that have not answered yet."""
        for association in tuple(self._opening):
            association.abort()
            association.interrupt()

    def _end_if_over(self) -> None:
        """With the lock: account for the rest, once nothing is going to become of it any more."""
        if self.outlet.is_over or not self.plan.is_done():
            return
        if self.plan.is_unreachable() and self.plan.failure is not None:
            self.outlet.fail(self.plan.failure)
        else:
            while (sent := self.plan.give_up_one()) is not None:
                self.outlet.put(sent)
        self.outlet.finish()


class _Worker:
    """Sends over one association after the other, on a thread of its own."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._plan = shared.plan
        self._outlet = shared.outlet
        self._course = Course()

    def run(self, number: int) -> None:
        """Send as long as there is something, if there is enough for one worker more than ``number``."""
        try:
            with self._shared.lock:
                is_needed = self._plan.is_needed(number)
            if is_needed:
                self._work()
        except Exception as error:  # noqa: BLE001 - raised again where the results are consumed
            self._outlet.fail(error)
            self._outlet.stop()
        finally:
            self._shared.worker_left()

    def _work(self) -> None:
        while contexts := self._contexts():
            failure = self._serve(contexts)
            if failure is not None and not self._goes_on(failure):
                return

    def _contexts(self) -> list[Context]:
        with self._shared.lock:
            return self._plan.contexts()

    def _serve(self, contexts: Sequence[Context]) -> Exception | None:
        """Send over one association what its contexts fit. Returns why it failed, if it did."""
        fitting, course = frozenset(contexts), self._course
        course.failed = None
        try:
            association = self._shared.open(contexts)
        except NoAcceptedContext as error:
            course.is_admitted = True
            self._refuse(fitting, error)
            return None
        except LocalUsageError:
            raise
        except RxDicomError as error:
            self._shared.note(error)
            return error
        course.is_admitted = True
        try:
            with association:
                self._send(association, fitting)
        except RxDicomError as error:
            course.failed = course.failed or error
        finally:
            if course.failed is not None:
                self._shared.note(course.failed)
            again, ended = course.lost()
            for sent in ended:
                self._outlet.put(sent)
            self._shared.left(again)
        return course.failed

    def _send(self, association: Association, contexts: frozenset[Context]) -> None:
        def take(alone: bool) -> Instance | None:
            return self._shared.take(contexts, alone=alone)

        while self._course.failed is None and self._has_next(contexts):
            for sent in association.send_many(self._course.next_ones(take, self._is_stopped)):
                result = self._course.landed(sent)
                if result is not None:
                    self._outlet.put(result)
                elif association.is_established:
                    association.abort()

    def _is_stopped(self) -> bool:
        return self._outlet.is_stopped

    def _has_next(self, contexts: frozenset[Context]) -> bool:
        with self._shared.lock:
            return self._plan.has_next(contexts)

    def _refuse(self, contexts: frozenset[Context], error: NoAcceptedContext) -> None:
        """The peer knows none of these contexts."""
        while (instance := self._shared.take(contexts, alone=True)) is not None:
            self._outlet.put(refusal(instance, error))
        self._shared.left([])

    def _goes_on(self, failure: Exception) -> bool:
        """Whether to open another association, after a pause."""
        if self._outlet.is_stopped:
            return False
        pause = self._course.pause(failure, self._plan, PAUSES)
        if pause is None:
            return False
        self._outlet.pause(pause)
        return True
