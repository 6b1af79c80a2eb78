"""What the tests of the asyncio runtime share: loops to run on, entities, and what must not be left behind."""

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import Any, TypeVar

import pytest

from rxdicom import evt
from rxdicom.aio import AE, AssociationServer
from rxdicom.events.bindings import EventHandler
from rxdicom.wire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tests.runtimes.queries import ALL, CT, as_proposed
from tests.support import DEADLINE

_T = TypeVar("_T")
SOON = 1.0


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": _uvloop}

on_both_loops = pytest.mark.parametrize(
    "loop",
    [
        "asyncio",
        pytest.param("uvloop", marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")),
    ],
)


def run(work: Coroutine[Any, Any, _T], loop: str = "asyncio") -> _T:
    """Run a test on a new loop. What asyncio has to complain of fails it."""
    faults: list[Any] = []

    async def guarded() -> _T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(2 * DEADLINE):
            result = await work
        gc.collect()
        await settled()
        return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(guarded())
    assert not faults, faults
    return result


async def settled(others: "set[asyncio.Task[Any]] | None" = None) -> None:
    """Wait until no tasks are left but the current one and ``others``, which must be soon."""
    spared = {asyncio.current_task(), *(others or ())}
    left = asyncio.all_tasks() - spared
    if left:
        _, left = await asyncio.wait(left, timeout=SOON)
    assert not left, left


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until something holds that nobody tells of."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)


def descriptors() -> int:
    """How many descriptors are open, but for those that uvloop keeps in reserve."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{each}") != os.devnull
    return found


def entity(title: str = "ME", **options: Any) -> AE:
    """An entity for all services, in both roles, in implicit VR."""
    ae = AE(title, **options)
    for uid in ALL:
        ae.add_requested_context(uid, IMPLICIT_VR_LITTLE_ENDIAN)
        roles = (True, True) if uid == CT else (None, None)
        ae.add_supported_context(uid, IMPLICIT_VR_LITTLE_ENDIAN, *roles)
    return ae


@asynccontextmanager
async def serving(
    *handlers: EventHandler, ae: AE | None = None, **options: Any
) -> AsyncGenerator[tuple[AE, AssociationServer]]:
    """An entity and its server, which accepts every window."""
    bound: list[EventHandler] = [(evt.EVT_ASYNC_OPS, as_proposed), *handlers]
    async with ae or entity() as serving_ae:
        async with serving_ae.start_server(("127.0.0.1", 0), evt_handlers=bound, **options) as server:
            yield serving_ae, server


class CancelledAt:
    """Awaits a coroutine, and cancels the task the n-th time that it waits for something, counted from 1."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int) -> None:
        self._work = work
        self._at = at
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        sent: Any = None
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._work.send(sent) if error is None else self._work.throw(error)
            except StopIteration as stop:
                return stop.value
            self.waits += 1
            if self.waits == self._at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                sent, error = (yield waited_for), None
            except BaseException as thrown:  # noqa: BLE001 - it is the coroutine's to deal with
                sent, error = None, thrown
