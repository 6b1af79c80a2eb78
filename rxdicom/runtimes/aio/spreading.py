"""A batch over several associations at once, in tasks: what :mod:`rxdicom.runtimes.spreading` plans is done here."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any

from rxdicom.errors import LocalUsageError, NoAcceptedContext, RxDicomError
from rxdicom.presentation import PresentationContext
from rxdicom.runtimes.aio.association import Association
from rxdicom.runtimes.aio.sending import Transfer
from rxdicom.runtimes.aio.workers import Workers
from rxdicom.runtimes.batches import Sent
from rxdicom.runtimes.instances import AHEAD, AHEAD_IN_MEMORY, Context, Instance, presentation_contexts, scan
from rxdicom.runtimes.spreading import MOST_WAITING, PAUSES, Course, Plan, refusal, result_of

_AHEAD = AHEAD // 2
"""Instances that are found at a time, and as many that are planned with."""

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

    Left early, by :meth:`aclose`, by cancelling or by ``break``, it aborts its associations; see :meth:`stop`.
    """

    def __init__(self, make: Make, batch: Iterable[Any], associations: int, *, convert: bool, workers: Workers) -> None:
        self._spreading = _Spreading(make, batch, associations, convert=convert, workers=workers)
        super().__init__(self._spreading.run)

    def stop(self) -> None:
        """Send no more. What is on its way still arrives, and is among the results; then the associations are
        released, those that are not established yet given up, and the iteration ends. It waits for nothing; call it on
        the loop.
        """
        self._spreading.stop()


class _Batch(Iterator[Instance]):
    """The instances of a batch that have been found so far: iterating over this waits for nothing, and then goes on."""

    def __init__(self, batch: Iterable[Any], workers: Workers) -> None:
        self._unseen = scan(batch)
        self._workers = workers
        self._found: deque[Instance] = deque()
        self._looking = asyncio.Lock()
        self.is_over = False
        """Whether everything has been found."""
        self.error: Exception | None = None
        """What the batch raised; that is its end."""

    def __next__(self) -> Instance:
        if not self._found:
            raise StopIteration
        return self._found.popleft()

    async def look_ahead(self) -> list[Sent]:
        """Have the next ones found, unless they are. What cannot be sent is a result."""
        async with self._looking:
            # Others may have waited for the same.
            return await self._workers.run(self._find) if self.is_short else []

    @property
    def is_short(self) -> bool:
        """Whether there may be more to be found."""
        return not (self.is_over or self._found)

    def _find(self) -> list[Sent]:
        failures: list[Sent] = []
        in_memory = 0
        try:
            for _ in range(_AHEAD):
                found = next(self._unseen, None)
                if found is None:
                    self.is_over = True
                    break
                if isinstance(found, Instance):
                    in_memory += found.is_in_memory
                    self._found.append(found)
                elif (failure := result_of(found)) is not None:
                    failures.append(failure)
                if len(failures) == MOST_WAITING or in_memory == AHEAD_IN_MEMORY:
                    break
        except Exception as error:  # noqa: BLE001 - raised again where the results are consumed
            self.is_over, self.error = True, error
        return failures


class _Spreading:
    """The workers of a batch, a task each, and where their results go."""

    def __init__(self, make: Make, batch: Iterable[Any], associations: int, *, convert: bool, workers: Workers) -> None:
        self._make = make
        self._number = associations
        self._batch = _Batch(batch, workers)
        self._plan = Plan(self._batch, associations, lambda: self._stopped, convert=convert, ahead=_AHEAD)
        self._stopped = False
        # What has come, and None for each worker that is done. Those that put something there wait for room first.
        self._results: asyncio.Queue[Sent | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_WAITING)
        self._interruptible: set[asyncio.Task[Any]] = set()
        """The tasks of workers that wait for an association, or until they may try again."""
        self._error: Exception | None = None

    # ---- for the one that consumes

    async def run(self) -> AsyncGenerator[Sent]:
        """The results; asking for the first starts to send."""
        tasks = [asyncio.ensure_future(self._work(number)) for number in range(self._number)]
        working = len(tasks)
        try:
            while working:
                sent = await self._results.get()
                if sent is None:
                    working -= 1
                else:
                    self._room.release()
                    yield sent
            async for sent in self._rest():
                yield sent
            error = self._error or self._batch.error
            if error is not None:
                raise error
        finally:
            self._stopped = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _rest(self) -> AsyncGenerator[Sent]:
        """What no worker was left for."""
        plan = self._plan
        while plan.failure is not None:
            if not self._stopped:
                for sent in await self._batch.look_ahead():
                    yield sent
            if plan.is_unreachable():
                self._error = self._error or plan.failure
                return
            while (sent := plan.give_up_one()) is not None:
                yield sent
            if self._stopped or self._batch.is_over:
                return

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._interrupt()

    def _interrupt(self) -> None:
        """Do not wait for peers that have not answered yet."""
        for task in self._interruptible:
            task.cancel()

    # ---- workers

    async def _work(self, number: int) -> None:
        try:
            await self._look_ahead()
            if self._plan.is_needed(number):
                await self._go(Course())
        except Exception as error:  # noqa: BLE001 - raised again where the results are consumed
            self._error = self._error or error
            self.stop()
        finally:
            self._plan.worker_left()
            self._results.put_nowait(None)

    async def _put(self, sent: Sent) -> None:
        await self._room.acquire()
        self._results.put_nowait(sent)

    async def _look_ahead(self) -> None:
        while self._batch.is_short and not self._stopped:
            for sent in await self._batch.look_ahead():
                await self._put(sent)

    async def _go(self, course: Course) -> None:
        while contexts := await self._contexts():
            failure = await self._serve(course, contexts)
            if failure is not None and not await self._goes_on(course, failure):
                return

    async def _contexts(self) -> list[Context]:
        await self._look_ahead()
        return self._plan.contexts()

    async def _serve(self, course: Course, contexts: Sequence[Context]) -> Exception | None:
        """Send over one association what its contexts fit. Returns why it failed, if it did."""
        plan = self._plan
        course.failed = None
        try:
            association = await self._open(contexts)
        except NoAcceptedContext as error:
            course.is_admitted = True
            await self._refuse(frozenset(contexts), error)
            return None
        except LocalUsageError:
            raise
        except RxDicomError as error:
            plan.note(error)
            return error
        course.is_admitted = True
        try:
            async with association:
                await self._send(course, association, frozenset(contexts))
        except RxDicomError as error:
            course.failed = course.failed or error
        if course.failed is not None:
            plan.note(course.failed)
        again, ended = course.lost()
        plan.left(again)
        for sent in ended:
            await self._put(sent)
        await self._end_if_done()
        return course.failed

    async def _open(self, contexts: Sequence[Context]) -> Association:
        """An established association. Raises what :meth:`Association.open` raises."""
        association = self._make(presentation_contexts(contexts))
        try:
            await self._interruptibly(association.open())
        except NoAcceptedContext:
            self._plan.joined()
            raise
        self._plan.joined()
        return association

    async def _interruptibly(self, work: Any) -> None:
        """Await what may be cancelled by :meth:`stop`, or when there is nothing left to be sent."""
        task = asyncio.current_task()
        assert task is not None
        self._interruptible.add(task)
        try:
            await work
        finally:
            self._interruptible.discard(task)

    async def _send(self, course: Course, association: Association, contexts: frozenset[Context]) -> None:
        def take(alone: bool) -> Instance | None:
            return self._plan.take(contexts, alone=alone)

        while course.failed is None and await self._has_next(contexts):
            async with association.send_many(course.next_ones(take, lambda: self._stopped)) as sending:
                async for sent in sending:
                    result = course.landed(sent)
                    if result is not None:
                        await self._put(result)
                    elif association.is_established:
                        association.abort()

    async def _has_next(self, contexts: frozenset[Context]) -> bool:
        if not self._plan.has_next(contexts):
            await self._look_ahead()
        return self._plan.has_next(contexts)

    async def _refuse(self, contexts: frozenset[Context], error: NoAcceptedContext) -> None:
        """The peer knows none of these contexts."""
        while await self._has_next(contexts):
            instance = self._plan.take(contexts, alone=True)
            if instance is not None:
                await self._put(refusal(instance, error))
        self._plan.left([])
        await self._end_if_done()

    async def _goes_on(self, course: Course, failure: Exception) -> bool:
        """Whether to open another association, after a pause."""
        if self._stopped:
            return False
        pause = course.pause(failure, self._plan, PAUSES)
        if pause is None:
            return False
        await self._interruptibly(asyncio.sleep(pause))
        return True

    async def _end_if_done(self) -> None:
        if not self._plan.has_association:
            await self._look_ahead()
        if self._plan.is_done():
            self._interrupt()
