"""The runtimes under one roof: what a test writes in the words of the blocking one is done by either.

An entity of the asyncio runtime lives on a loop in a thread of its own. What is called here is called there, awaited,
and what it gives is given back, wrapped where it has to be called in the same way.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import rxdicom
from rxdicom import aio
from rxdicom.events.bindings import EventHandler
from rxdicom.runtimes.aio.responses import Results
from tests.support import DEADLINE

_WRAPPED = (aio.Association, aio.AssociationServer)


class Loop:
    """An event loop in a thread, and what went wrong in it."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = new_loop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, name="contract-loop")
        self._thread.start()

    def do(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function in the loop, and await what it returns if that is a coroutine."""

        async def run() -> Any:
            result = function(*args, **options)
            return await result if inspect.iscoroutine(result) else result

        return self._wrap(asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE))

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, Results):
            return BlockingResults(self, value)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, list):
            return [self._wrap(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        return Blocking(self, value) if isinstance(value, _WRAPPED) else value

    def close(self) -> None:
        """End it. Nothing may be left running in it."""
        left = self.do(_other_tasks)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        assert not left, left
        assert not self.faults, self.faults


async def _other_tasks() -> list[str]:
    """The tasks of the loop that do not end by themselves."""
    current = asyncio.current_task()
    others = [each for each in asyncio.all_tasks() if each is not current]
    if others:
        await asyncio.wait(others, timeout=1)
    return [repr(each) for each in others if not each.done()]


class Blocking:
    """An object of the loop, whose methods block."""

    def __init__(self, loop: Loop, target: Any) -> None:
        self._loop = loop
        self.target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        return functools.partial(self._loop.do, value) if inspect.ismethod(value) else self._loop._wrap(value)  # pyright: ignore[reportPrivateUsage]

    def __enter__(self) -> Self:
        self._loop.do(self.target.__aenter__)
        return self

    def __exit__(self, *exc: Any) -> None:
        self._loop.do(self.target.__aexit__, *exc)

    def __repr__(self) -> str:
        return repr(self.target)


class BlockingResults:
    """Results of the loop, iterated over here."""

    def __init__(self, loop: Loop, results: Results[Any]) -> None:
        self._loop = loop
        self.target = results

    def __iter__(self) -> Iterator[Any]:
        iterator = self._loop.do(self.target.__aiter__)
        try:
            while True:
                try:
                    yield self._loop.do(_next_of, iterator)
                except StopAsyncIteration:
                    return
        finally:
            self._loop.do(_close, iterator)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        return functools.partial(self._loop.do, value) if inspect.ismethod(value) else value


async def _next_of(iterator: Any) -> Any:
    return await anext(iterator)


async def _close(iterator: Any) -> None:
    await iterator.aclose()


class LoopAE:
    """An entity of the asyncio runtime in the words of the blocking one."""

    def __init__(self, loop: Loop, title: str) -> None:
        object.__setattr__(self, "_loop", loop)
        object.__setattr__(self, "target", aio.AE(title))

    def associate(self, *args: Any, **options: Any) -> Any:
        return self._loop.do(self._associated, *args, **options)

    async def _associated(self, *args: Any, **options: Any) -> aio.Association:
        return await self.target.associate(*args, **options)

    def start_server(self, address: tuple[str, int], *, block: bool, **options: Any) -> Any:
        assert not block
        return self._loop.do(self._served, address, **options)

    async def _served(self, address: tuple[str, int], **options: Any) -> aio.AssociationServer:
        return await self.target.start_server(address, **options)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        return functools.partial(self._loop.do, value) if inspect.ismethod(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.target, name, value)


class Runtime:
    """The blocking runtime."""

    def __init__(self) -> None:
        self._entities: list[Any] = []

    def ae(self, title: str) -> Any:
        entity = self._make(title)
        self._entities.append(entity)
        return entity

    def _make(self, title: str) -> Any:
        return rxdicom.AE(title)

    def handlers(self, handlers: tuple[EventHandler, ...]) -> list[EventHandler]:
        """The handlers as this runtime is to have them."""
        return list(handlers)

    def subscribe(self, observable: Any, **observer: Callable[..., None]) -> Any:
        """Subscribe where this runtime's streams are to be subscribed to."""
        return observable.subscribe(**observer)

    def close(self) -> None:
        for entity in self._entities:
            entity.shutdown()


class LoopRuntime(Runtime):
    """The asyncio runtime, on asyncio's own loop or another."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        super().__init__()
        self.loop = Loop(new_loop)

    def _make(self, title: str) -> Any:
        return self.loop.do(LoopAE, self.loop, title)

    def subscribe(self, observable: Any, **observer: Callable[..., None]) -> Any:
        return self.loop.do(functools.partial(observable.subscribe, **observer))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.loop.close()


class AsyncLoopRuntime(LoopRuntime):
    """The same, with handlers that are coroutine functions and asynchronous generators."""

    def handlers(self, handlers: tuple[EventHandler, ...]) -> list[EventHandler]:
        return [(kind, _as_async(handler)) if kind.is_intervention else (kind, handler) for kind, handler in handlers]  # pyright: ignore[reportAssignmentType]


def _as_async(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same handler, to be awaited; whatever it blocks for is waited for off the loop."""

    async def called(event: Any) -> Any:
        await asyncio.sleep(0)
        return await asyncio.to_thread(handler, event)

    async def iterated(event: Any) -> Any:
        items = handler(event)
        try:
            while (item := await asyncio.to_thread(next, items, _END)) is not _END:
                yield item
        finally:
            items.close()

    return iterated if inspect.isgeneratorfunction(handler) else called


_END = object()


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "threads": Runtime,
    "aio": LoopRuntime,
    "async": AsyncLoopRuntime,
    "uvloop": lambda: LoopRuntime(_uvloop),
}
PAIRS = (
    ("threads", "threads"),
    ("threads", "aio"),
    ("aio", "threads"),
    ("aio", "aio"),
    ("threads", "async"),
    ("aio", "async"),
    ("uvloop", "uvloop"),
)
"""Who asks, and who answers."""
