"""The bulk call: many C-STOREs over one association, as many outstanding as its window allows."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

from rxdicom.runtimes.aio.responses import Results
from rxdicom.runtimes.batches import Sent, Totals

MOST_OUTSTANDING = 64
"""Requests of one batch, also where the window is unlimited or larger."""


_END = object()


class Transfer(Results[Sent]):
    """What becomes of the objects of a batch, as :class:`~rxdicom.runtimes.batches.Sent` records, as it becomes known.

    With a window above 1 that is the order in which the peer answers. An object that cannot be sent, or is refused,
    is one of the results and does not stop the others. When the association is lost, that is what became of those
    that were on their way; then it is raised.
    """

    def __init__(self, run: Callable[[], AsyncGenerator[Sent]]) -> None:
        # Nothing in here refers to this object: who breaks out of the iteration ends it, without the garbage collector.
        self._tally = _Tally(run)
        super().__init__(self._tally.run)

    @property
    def totals(self) -> Totals:
        """How far it has come."""
        return self._tally.totals


class _Tally:
    """Counts what it passes on."""

    def __init__(self, run: Callable[[], AsyncGenerator[Sent]]) -> None:
        self.totals = Totals()
        self._run = run

    async def run(self) -> AsyncGenerator[Sent]:
        sending = self._run()
        try:
            async for sent in sending:
                self.totals = self.totals.with_one(sent)
                yield sent
        finally:
            await sending.aclose()


async def window_kept_full(
    instances: Iterable[Any], window: int, store: Callable[[Any], Awaitable[Sent]], over: Callable[[], Exception | None]
) -> AsyncGenerator[Sent]:
    """What becomes of each instance; up to ``window`` (0 is any number) are on their way at a time.

    ``over`` gives what says that the association is, once it is.
    """
    most = min(window or MOST_OUTSTANDING, MOST_OUTSTANDING)
    running: set[asyncio.Future[Sent]] = set()
    unread, all_answered = iter(instances), True
    try:
        while True:
            while len(running) < most and over() is None and (instance := next(unread, _END)) is not _END:
                running.add(asyncio.ensure_future(store(instance)))
            if not running:
                break
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                all_answered = all_answered and each.result().error is None
                yield each.result()
        lost = over()
        if lost is not None and not (all_answered and next(unread, _END) is _END):
            raise lost
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
