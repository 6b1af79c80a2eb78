"""Handlers of every kind: awaited on the loop, or run beside it, in order and bounded."""

import asyncio
import contextvars
import functools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset

from rxdicom import ArgumentError, AssociationAborted, StateError, evt
from rxdicom.aio import AE, Association
from rxdicom.events.records import CEcho, CFind, CStore
from tests.aio.support import entity, run, serving, until
from tests.runtimes.queries import FIND, instance, query, statuses, window
from tests.support import DEADLINE, FILES, read, threads_and_descriptors


class Called:
    """Where a handler ran."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def here(self) -> None:
        self.threads.append(threading.get_ident())

    @property
    def on_loop(self) -> bool:
        return set(self.threads) == {threading.get_ident()}


def plain(called: Called, event: CEcho) -> int:
    called.here()
    return 0x0000


async def awaited(called: Called, event: CEcho) -> int:
    called.here()
    await asyncio.sleep(0)
    return 0x0000


class Callable_:
    """A callable object whose call is awaited."""

    async def __call__(self, called: Called, event: CEcho) -> int:
        return await awaited(called, event)


def returns_a_coroutine(called: Called, event: CEcho) -> Any:
    return awaited(called, event)


@pytest.mark.parametrize(
    ("function", "on_loop"), [(plain, False), (awaited, True), (Callable_(), True), (returns_a_coroutine, True)]
)
def test_where_a_handler_runs(function: Any, on_loop: bool) -> None:
    async def echo() -> None:
        called = Called()
        async with serving((evt.EVT_C_ECHO, functools.partial(function, called))) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                assert await assoc.send_c_echo() == 0x0000
        assert called.on_loop == on_loop

    run(echo())


def generator(called: Called, event: CFind) -> Iterator[tuple[int, Dataset]]:
    for index in range(3):
        called.here()
        yield 0xFF00, query(str(index))


async def async_generator(called: Called, event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
    for index in range(3):
        called.here()
        await asyncio.sleep(0)
        yield 0xFF00, query(str(index))


def returns_an_async_generator(called: Called, event: CFind) -> Any:
    return async_generator(called, event)


async def awaited_list(called: Called, event: CFind) -> list[tuple[int, Dataset]]:
    called.here()
    return [(0xFF00, query(str(index))) for index in range(3)]


@pytest.mark.parametrize(
    ("function", "on_loop"),
    [(generator, False), (async_generator, True), (returns_an_async_generator, True), (awaited_list, True)],
)
def test_where_an_iterable_is_iterated(function: Any, on_loop: bool) -> None:
    async def find() -> None:
        called = Called()
        async with serving((evt.EVT_C_FIND, functools.partial(function, called))) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                answers = [each async for each in assoc.send_c_find(query(), FIND)]
        assert statuses(answers) == [0xFF00] * 3 + [0x0000]
        assert called.on_loop == on_loop

    run(find())


def test_a_plain_generator_keeps_its_context_variables() -> None:
    variable = contextvars.ContextVar[int]("variable", default=0)
    seen: list[int] = []

    def on_find(event: CFind) -> Iterator[tuple[int, Dataset]]:
        for index in range(5):
            seen.append(variable.get())
            variable.set(index)
            yield 0xFF00, query()

    async def find() -> None:
        async with serving((evt.EVT_C_FIND, on_find)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                assert len([each async for each in assoc.send_c_find(query(), FIND)]) == 6

    run(find())
    assert seen == [0, 0, 1, 2, 3]
    assert variable.get() == 0


def test_plain_handlers_are_bounded_and_the_loop_goes_on() -> None:
    """However many associations ask, so many threads run; what is awaited meanwhile is not held up."""
    running, most, lock, go_on = 0, 0, threading.Lock(), threading.Event()

    def on_store(event: CStore) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go_on.wait(DEADLINE)
        with lock:
            running -= 1
        return 0x0000

    async def store() -> None:
        before, _ = threads_and_descriptors()
        ae = entity(workers=2)
        async with serving((evt.EVT_C_STORE, on_store), ae=ae) as (_, server):
            assocs = [await ae.associate(*server.address) for _ in range(8)]
            storing = [asyncio.ensure_future(each.send_c_store(_stored())) for each in assocs]
            await until(lambda: most == 2)
            async with ae.associate(*server.address) as assoc:
                assert await assoc.send_c_echo() == 0x0000
            assert not any(each.done() for each in storing)
            go_on.set()
            assert await asyncio.gather(*storing) == [0] * 8
            for each in assocs:
                await each.release()
        assert most == 2
        await until(lambda: threads_and_descriptors()[0] == before)

    run(store())


def _stored() -> str:
    """A file that is sent as it lies, so that no worker is needed to encode it."""
    return str(FILES / "CT_small.dcm")


def test_async_handlers_send_requests_themselves() -> None:
    """Over the association that they answer: no thread is needed for that, and nothing waits for itself."""

    async def on_echo(event: CEcho) -> int:
        assoc: Association = event.assoc
        return int(await assoc.send_c_echo()) if assoc.is_acceptor else 0x0000

    async def echo() -> None:
        async with serving((evt.EVT_C_ECHO, on_echo)) as (ae, server):
            handlers = [(evt.EVT_C_ECHO, on_echo)]
            async with ae.associate(*server.address, evt_handlers=handlers, ext_neg=[window(2)]) as assoc:
                assert await asyncio.gather(*(assoc.send_c_echo() for _ in range(10))) == [0] * 10

    run(echo())


def test_a_plain_handler_asks_the_loop() -> None:
    async def echo() -> None:
        loop = asyncio.get_running_loop()

        def on_echo(event: CEcho) -> int:
            sent = asyncio.run_coroutine_threadsafe(event.assoc.send_c_store(instance()), loop)
            return 0x0000 if sent.result(DEADLINE) == 0xC211 else 0x0110

        async with serving((evt.EVT_C_ECHO, on_echo)) as (ae, server):
            from rxdicom import build_role
            from tests.runtimes.queries import CT

            roles = [build_role(CT, scu_role=True, scp_role=True)]
            async with ae.associate(*server.address, ext_neg=roles) as assoc:
                assert await assoc.send_c_echo() == 0x0000

    run(echo())


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_handler_that_exits_ends_nothing_else(kind: str) -> None:
    def plainly(event: CEcho) -> int:
        raise SystemExit(3)

    async def on_loop(event: CEcho) -> int:
        raise SystemExit(3)

    async def echo() -> None:
        async with serving((evt.EVT_C_STORE, plainly if kind == "plain" else on_loop)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                assert await assoc.send_c_store(instance()) == 0xC211
                assert await assoc.send_c_echo() == 0x0000

    run(echo())


def test_observers_are_plain_functions() -> None:
    async def observer(event: Any) -> None:
        raise AssertionError

    async def bind() -> None:
        async with serving() as (ae, server):
            with pytest.raises(ArgumentError, match="to_async_iterator"):
                server.bind(evt.EVT_ESTABLISHED, observer)
            with pytest.raises(ArgumentError, match="to_async_iterator"):
                ae.associate(*server.address, evt_handlers=[(evt.EVT_PDU_RECV, observer)])

    run(bind())


BLOCKED = """
import asyncio, threading
import attrs
from rxdicom import evt
from rxdicom.aio import AE
from rxdicom.runtimes.aio import workers

VERIFICATION = "1.2.840.10008.1.1"

async def main(shuts_down):
    called = asyncio.Event()
    loop = asyncio.get_running_loop()

    def blocked(event):
        loop.call_soon_threadsafe(called.set)
        threading.Event().wait()

    ae = AE()
    ae.timeouts = attrs.evolve(ae.timeouts, release=0.2)
    ae.add_requested_context(VERIFICATION)
    ae.add_supported_context(VERIFICATION)
    server = await ae.start_server(("127.0.0.1", 0), evt_handlers=[(evt.EVT_C_ECHO, blocked)])
    assoc = await ae.associate(*server.address)
    echo = asyncio.ensure_future(assoc.send_c_echo())
    await called.wait()
    if shuts_down:
        await ae.shutdown()
        await asyncio.gather(echo, return_exceptions=True)
    else:
        # All that waits is cancelled by the end of the loop.
        workers.PATIENCE = 0.2

asyncio.run(main({shuts_down}))
print("ended")
"""


@pytest.mark.parametrize("shuts_down", [True, False])
def test_a_handler_that_never_returns_holds_up_neither_the_loop_nor_the_interpreter(shuts_down: bool) -> None:
    script = BLOCKED.replace("{shuts_down}", str(shuts_down))
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert (shown.stdout, shown.stderr) == ("ended\n", "")


def test_a_plain_handler_is_waited_for_when_its_entity_is_shut_down(tmp_path: Path) -> None:
    """It runs to its end, and what it was given is there as long as it does."""
    go_on, came, saved = threading.Event(), asyncio.Event(), threading.Event()

    async def shut_down() -> None:
        loop = asyncio.get_running_loop()

        def on_store(event: CStore) -> int:
            loop.call_soon_threadsafe(came.set)
            assert go_on.wait(DEADLINE)
            event.save(tmp_path / "stored.dcm")
            saved.set()
            return 0x0000

        ae = entity()
        ae.limits = evolve(ae.limits, memory=1000)
        async with serving((evt.EVT_C_STORE, on_store), ae=ae) as (_, server):
            assoc = await ae.associate(*server.address)
            storing = asyncio.ensure_future(assoc.send_c_store(_stored()))
            await came.wait()
            ending = asyncio.ensure_future(ae.shutdown())
            with pytest.raises(AssociationAborted):
                await storing
            assert not ending.done()
            go_on.set()
            await ending
            assert saved.is_set()

    run(shut_down())
    assert read(tmp_path / "stored.dcm").PixelData == read(Path(_stored())).PixelData


def test_what_waits_for_a_thread_when_its_entity_is_shut_down_is_told() -> None:
    go_on, came = threading.Event(), asyncio.Event()

    async def shut_down() -> None:
        loop = asyncio.get_running_loop()

        def on_echo(event: CEcho) -> int:
            loop.call_soon_threadsafe(came.set)
            go_on.wait(DEADLINE)
            return 0x0000

        ae = entity(workers=1)
        ae.timeouts = evolve(ae.timeouts, release=0.1)
        async with serving((evt.EVT_C_ECHO, on_echo), ae=ae) as (_, server):
            assoc = await ae.associate(*server.address, ext_neg=[window(2)])
            echo = asyncio.ensure_future(assoc.send_c_echo())
            await came.wait()
            # The only thread is taken, and the dataset is to be encoded.
            storing = asyncio.ensure_future(assoc.send_c_store(instance()))
            await asyncio.sleep(0)
            await ae.shutdown()
            with pytest.raises(AssociationAborted):
                await echo
            with pytest.raises(StateError, match="shut down"):
                await storing
            go_on.set()

    run(shut_down())


def test_workers_are_counted() -> None:
    with pytest.raises(ArgumentError, match="workers"):
        AE(workers=0)
