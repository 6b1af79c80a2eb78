"""Streams of the asyncio runtime: delivered on the loop, composed with its scheduler, iterated over."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydicom import Dataset
from reactivex import operators as ops
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxdicom import StateError, evt
from rxdicom.events.records import CFind, CStore
from rxdicom.operators import to_async_iterator
from tests.aio.support import on_both_loops, run, serving, until
from tests.runtimes.queries import FIND, instance, query, window
from tests.support import DEADLINE


async def endless(event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
    number = 0
    while True:
        number += 1
        await asyncio.sleep(0)
        yield 0xFF00, query(str(number))


@on_both_loops
def test_events_are_delivered_on_the_loop(loop: str) -> None:
    threads: set[int] = set()

    async def echo() -> None:
        async with serving() as (ae, server):
            ae.events.all.subscribe(lambda _: threads.add(threading.get_ident()))
            async with ae.associate(*server.address) as assoc:
                assert await assoc.send_c_echo() == 0x0000
        assert threads == {threading.get_ident()}

    run(echo(), loop)


@on_both_loops
def test_an_async_iterator_over_a_stream(loop: str) -> None:
    async def echo() -> None:
        async with serving() as (ae, server):
            async with server.events.dimse_recv.pipe(to_async_iterator(10)) as events:
                async with ae.associate(*server.address) as assoc:
                    for number in range(3):
                        assert await assoc.send_c_echo() == 0x0000
                        assert (await anext(events)).message.MessageID == number + 1
                await server.shutdown()
                assert [each async for each in events] == []

    run(echo(), loop)


@on_both_loops
def test_the_scheduler_of_asyncio(loop: str) -> None:
    """Observed on its scheduler, sampled by its clock."""

    async def echo() -> None:
        scheduler = AsyncIOScheduler(asyncio.get_running_loop())
        observed: list[Any] = []
        quiet = asyncio.Event()
        async with serving() as (ae, server):
            assoc = ae.association(*server.address)
            stream = assoc.events.dimse_recv.pipe(ops.observe_on(scheduler))
            stream.subscribe(observed.append)
            stream.pipe(ops.debounce(0.05, scheduler)).subscribe(lambda _: quiet.set())
            async with assoc:
                assert await assoc.send_c_echo() == 0x0000
                await asyncio.wait_for(quiet.wait(), DEADLINE)
        assert len(observed) == 1

    run(echo(), loop)


def test_a_timeout_of_another_thread_disposes_and_cancels() -> None:
    async def find() -> None:
        came, ended = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        async def on_find(event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
            try:
                async for each in endless(event):
                    yield each
            finally:
                ended.set()

        def on_next(_: str) -> None:
            came.set()

        async with serving((evt.EVT_C_FIND, on_find)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                subscription = assoc.send_c_find(query(), FIND).pipe(ops.map(str)).subscribe(on_next)
                await asyncio.wait_for(came.wait(), DEADLINE)
                await loop.run_in_executor(None, subscription.dispose)
                await asyncio.wait_for(ended.wait(), DEADLINE)
                assert await assoc.send_c_echo() == 0x0000

    run(find())


def test_responses_and_transfers_as_observables() -> None:
    def on_store(event: CStore) -> int:
        return 0x0000

    async def flow() -> None:
        done, failed = asyncio.Event(), asyncio.Event()
        sent: list[Any] = []
        async with serving((evt.EVT_C_FIND, endless), (evt.EVT_C_STORE, on_store)) as (ae, server):
            assoc = await ae.associate(*server.address, ext_neg=[window(2)])
            transfer = assoc.send_many([instance(f"1.2.{index}") for index in range(5)])
            transfer.observable.subscribe(sent.append, on_completed=done.set)
            await asyncio.wait_for(done.wait(), DEADLINE)
            assert (len(sent), transfer.totals.stored) == (5, 5)
            with pytest.raises(StateError, match="consumed"):
                transfer.pipe(ops.count())
            answers = assoc.send_c_find(query(), FIND)
            answers.observable.subscribe(lambda _: assoc.abort(), on_error=lambda _: failed.set())
            await asyncio.wait_for(failed.wait(), DEADLINE)
            with pytest.raises(Exception, match="aborted"):
                assoc.send_c_find(query(), FIND)

    run(flow())


def test_breaking_out_of_responses_cancels_without_the_garbage_collector() -> None:
    async def find() -> None:
        ended = asyncio.Event()

        async def on_find(event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
            try:
                async for each in endless(event):
                    yield each
            finally:
                ended.set()

        async with serving((evt.EVT_C_FIND, on_find)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                async for _ in assoc.send_c_find(query(), FIND):
                    break
                await asyncio.wait_for(ended.wait(), DEADLINE)
                assert await assoc.send_c_echo() == 0x0000

    import gc

    gc.disable()
    try:
        run(find())
    finally:
        gc.enable()


def test_subscribing_needs_the_loop() -> None:
    async def find() -> None:
        errors: list[Exception] = []
        async with serving((evt.EVT_C_FIND, endless)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                observable = assoc.send_c_find(query(), FIND).observable
                await asyncio.to_thread(lambda: observable.subscribe(on_error=errors.append))
        assert len(errors) == 1

    run(find())


def test_abort_in_any_thread() -> None:
    async def abort() -> None:
        async with serving() as (ae, server):
            assoc = await ae.associate(*server.address)
            await asyncio.to_thread(assoc.abort)
            assert await assoc.join(DEADLINE)
            assert assoc.is_aborted
            await until(lambda: not server.active_associations)

    run(abort())


def test_importing_loads_nothing_heavy() -> None:
    script = (
        "import sys, rxdicom.aio; print([each for each in ('pydicom', 'reactivex', 'numpy') if each in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout.strip() == "[]"
