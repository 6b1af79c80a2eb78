"""Results that come one by one: awaited by their caller, or flowing into Rx."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from rxdicom.errors import StateError
from rxdicom.runtimes.requests import Pair

if TYPE_CHECKING:
    from reactivex import Observable

_Item = TypeVar("_Item")


class Results(Generic[_Item]):
    """Results as they come, of something that is done by iterating over this, or by subscribing to it, once.

    Leaving early (:meth:`aclose`, the end of an ``async with`` block, cancelling the task that iterates, disposing the
    subscription, or ``break`` where nobody else holds this) ends it. What goes wrong as a whole is raised by the
    iteration as a typed error, and goes to ``on_error`` of a subscription.
    """

    def __init__(self, run: Callable[[], AsyncGenerator[_Item]]) -> None:
        self._run = run
        self._used = False
        self._iterator: AsyncGenerator[_Item] | None = None
        self._task: asyncio.Task[None] | None = None

    def _use_once(self) -> None:
        self._check_unused()
        self._used = True

    def _check_unused(self) -> None:
        if self._used:
            raise StateError("these results have been consumed already; ask for them again")

    def __aiter__(self) -> AsyncIterator[_Item]:
        if self._iterator is None or getattr(self._iterator, "ag_frame", None) is None:
            self._use_once()
            self._iterator = self._run()
        return self._iterator

    async def __anext__(self) -> _Item:
        iterator = self.__aiter__() if self._iterator is None else self._iterator
        return await iterator.__anext__()

    async def aclose(self) -> None:
        """Leave: what has not been done yet is not done, what still comes is dropped."""
        self._used = True
        if self._iterator is not None:
            await self._iterator.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def observable(self) -> "Observable[_Item]":
        """The results as an Observable: subscribing to it, on the loop, starts; disposing ends it, from any thread."""
        from rxdicom.events.streams import response_stream

        self._check_unused()
        return response_stream(self._subscribe)

    def _subscribe(
        self, on_next: Callable[[_Item], None], on_error: Callable[[Exception], None], on_completed: Callable[[], None]
    ) -> Callable[[], None]:
        left = False
        try:
            loop = asyncio.get_running_loop()
            self._use_once()
        except RuntimeError as error:
            # Used already, or not on a loop.
            on_error(error)
            return _nothing

        items = self._run()

        async def emit() -> None:
            try:
                async for item in items:
                    on_next(item)
                    if left:
                        break
            except Exception as error:  # noqa: BLE001 - whatever went wrong is what the stream ends with
                on_error(error)
            else:
                on_completed()
            finally:
                await items.aclose()

        task = self._task = loop.create_task(emit())

        def leave() -> None:
            nonlocal left
            left = True
            if not loop.is_closed():
                # The task itself may be the one that leaves, in on_next: then it goes on to its end.
                loop.call_soon_threadsafe(task.cancel)

        return leave

    if TYPE_CHECKING:

        def pipe(self, *operators: Any) -> "Observable[Any]":
            """Compose the observable: ``assoc.send_c_find(…).pipe(ops.take(5))`` cancels after five."""
            ...
    else:

        def pipe(self, *operators: Any) -> Any:
            """Compose the observable: ``assoc.send_c_find(…).pipe(ops.take(5))`` cancels after five."""
            return self.observable.pipe(*operators)


def _nothing() -> None:
    """There is nothing to be left."""


class Responses(Results[Pair]):
    """The responses of one request, as pairs of :class:`Status` and dataset; the final one is the last.

    Iterating over this, or subscribing to it, sends the request. Leaving early sends C-CANCEL; the association stays
    usable.
    """

    def __init__(self, message_id: int, run: Callable[[], AsyncGenerator[Pair]]) -> None:
        super().__init__(run)
        self.message_id = message_id
