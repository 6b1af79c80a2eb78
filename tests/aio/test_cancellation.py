"""A task may be cancelled wherever it waits: nothing is left behind, and everybody else is served."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pydicom import Dataset

from rxdicom import evt
from rxdicom.aio import AE, Association, AssociationServer
from rxdicom.events.records import CFind, CGet, CMove, CStore
from tests.aio.support import SOON, CancelledAt, descriptors, entity, on_both_loops, run, serving, settled, until
from tests.certificates import Certificates
from tests.runtimes.queries import FIND, GET, META, MOVE, SESSION, instance, query, window
from tests.support import DEADLINE

Scenario = Callable[[AE, AssociationServer, dict[str, Any]], Coroutine[Any, Any, None]]


async def on_find(event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
    for index in range(3):
        await asyncio.sleep(0)
        yield 0xFF00, query(str(index))


async def on_get(event: CGet | CMove) -> AsyncIterator[Any]:
    yield 2
    for index in range(2):
        yield 0xFF00, instance(f"1.2.{index}", size=200_000)


def on_store(event: CStore) -> int:
    assert event.dataset
    return 0x0000


async def one_response(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    async with ae.associate(*server.address, **options) as assoc:
        assert await assoc.send_c_echo() == 0x0000
        assert await assoc.send_c_store(instance(size=400_000)) == 0x0000
        assert (await assoc.send_n_get(None, SESSION, "1.2.3", meta_uid=META))[0] == 0x0110


async def several_responses(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    async with ae.associate(*server.address, **options) as assoc:
        assert len([each async for each in assoc.send_c_find(query(), FIND)]) == 4
        assert len([each async for each in assoc.send_c_get(query(), GET)]) == 3


async def many(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    assoc = await ae.associate(*server.address, ext_neg=[window(3)], **options)
    async with assoc, assoc.send_many([instance(f"1.2.{index}", size=100_000) for index in range(5)]) as sent:
        assert len([each async for each in sent]) == 5
    assert assoc.is_released


async def moved(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    """The SCP opens an association to the destination, which is itself, for the sub-operations."""
    async with ae.associate(*server.address, **options) as assoc:
        assert len([each async for each in assoc.send_c_move(query(), "ME", MOVE)]) == 3


async def spread(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    """What is found and encoded in threads, and sent over two associations; one is left before its end."""
    batch = [instance(f"1.2.{index}", size=20_000) for index in range(4)]
    async with ae.send(*server.address, batch, 2, window=2, **options) as sent:
        assert [each.error async for each in sent] == [None] * 4
    async with ae.send(*server.address, iter(batch), 2, **options) as sent:
        assert (await anext(sent)).is_stored


async def given_up(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    """Aborted, waited for, and cancelled by message ID."""
    async with ae.associate(*server.address, ext_neg=[window(2)], **options) as assoc:
        async with assoc.send_c_find(query(), FIND) as answers:
            await anext(answers)
            await assoc.send_c_cancel(answers.message_id, query_model=FIND)
        assoc.abort()
        assert await assoc.join(DEADLINE)


async def another_server(ae: AE, server: AssociationServer, options: dict[str, Any]) -> None:
    async with ae.start_server(("127.0.0.1", 0)) as other:
        async with ae.associate(*other.address) as assoc:
            assert await assoc.send_c_echo() == 0x0000
            await other.shutdown()


@on_both_loops
@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("scenario", [one_response, several_responses, moved, many, spread, given_up, another_server])
def test_cancelled_at_every_await(
    tmp_path: Path, certificates: Certificates, loop: str, over_tls: bool, scenario: Scenario
) -> None:
    """Step through everything that a program does, cancelling it once at each place where it waits."""
    contexts = certificates.contexts() if over_tls else None
    spool = tmp_path / "spool"
    spool.mkdir()
    ae = entity()
    # As many as are needed at a time: a slot that is not given back is missed by the next step.
    ae.maximum_associations = 2
    ae.limits = evolve(ae.limits, memory=1000)
    ae.spool_folder = str(spool)

    async def on_move(event: CMove) -> AsyncIterator[Any]:
        acceptor = event.assoc.acceptor
        yield acceptor.address, acceptor.port, {"tls_args": (contexts[1], "localhost")} if contexts else {}
        async for each in on_get(event):
            yield each

    handlers = [
        (evt.EVT_C_FIND, on_find), (evt.EVT_C_GET, on_get), (evt.EVT_C_MOVE, on_move), (evt.EVT_C_STORE, on_store),
    ]  # fmt: skip

    async def step_through() -> int:
        options: dict[str, Any] = {"evt_handlers": [(evt.EVT_C_STORE, on_store)]}
        if contexts:
            options["tls_args"] = contexts[1], "localhost"
        async with serving(*handlers, ae=ae, ssl_context=contexts[0] if contexts else None) as (_, server):
            before, at = descriptors(), 0
            while True:
                at += 1
                steps = CancelledAt(scenario(ae, server, options), at)
                task = asyncio.ensure_future(_awaited(steps))
                await asyncio.wait([task])
                await settled()
                await until(lambda: descriptors() == before, SOON)
                assert not ae.active_associations, at
                assert not list(spool.iterdir()), at
                if steps.waits < at:
                    task.result()
                    return at
                assert task.cancelled(), (at, task.exception())

    steps = run(step_through(), loop)
    assert steps > 4


async def _awaited(steps: CancelledAt) -> None:
    await steps


def test_the_association_is_usable_after_a_cancelled_request() -> None:
    """A single response is dropped when it comes; until then it holds its place in the window."""
    go_on, came = asyncio.Event(), asyncio.Event()

    async def slow(event: CStore) -> int:
        came.set()
        await go_on.wait()
        return 0x0000

    async def cancel_and_go_on() -> None:
        async with serving((evt.EVT_C_STORE, slow)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                storing = asyncio.ensure_future(assoc.send_c_store(instance()))
                await came.wait()
                storing.cancel()
                await asyncio.wait([storing])
                assert storing.cancelled()
                echo = asyncio.ensure_future(assoc.send_c_echo())
                await asyncio.sleep(0)
                assert not echo.done()
                go_on.set()
                assert await echo == 0x0000

    run(cancel_and_go_on())


def test_a_cancelled_request_that_is_never_answered_gives_its_place_back_at_its_deadline() -> None:
    async def slow(event: CStore) -> int:
        await asyncio.Event().wait()
        return 0x0000

    async def cancel_and_go_on() -> None:
        came = asyncio.Event()
        ae = entity()
        ae.dimse_timeout = 0.3
        async with serving((evt.EVT_C_STORE, slow), (evt.EVT_DIMSE_RECV, lambda _: came.set()), ae=ae) as (_, server):
            assoc = await ae.associate(*server.address)
            storing = asyncio.ensure_future(assoc.send_c_store(instance()))
            await came.wait()
            storing.cancel()
            await asyncio.wait([storing])
            with pytest.raises(TimeoutError):
                # The SCP has a window of 1 and is at the other one still; ours has room again.
                await assoc.send_c_echo()
            assert assoc.is_established
            assoc.abort()
            assert await assoc.join(DEADLINE)

    run(cancel_and_go_on())


def test_an_async_handler_is_cancelled_with_its_association() -> None:
    async def lose_it() -> None:
        came, cleaned = asyncio.Event(), asyncio.Event()

        async def on_echo(event: Any) -> int:
            came.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.set()
            return 0x0000

        async with serving((evt.EVT_C_ECHO, on_echo)) as (ae, server):
            assoc = await ae.associate(*server.address)
            echo = asyncio.ensure_future(assoc.send_c_echo())
            await came.wait()
            assoc.abort()
            with pytest.raises(Exception, match="aborted"):
                await echo
            await asyncio.wait_for(cleaned.wait(), DEADLINE)

    run(lose_it())


def test_a_handler_may_release_its_own_association() -> None:
    async def release_there() -> None:
        gone_on = asyncio.Event()

        async def on_echo(event: Any) -> int:
            assoc: Association = event.assoc
            await assoc.release()
            gone_on.set()
            return 0x0000

        async with serving((evt.EVT_C_ECHO, on_echo)) as (ae, server):
            assoc = await ae.associate(*server.address)
            with pytest.raises(Exception, match="released"):
                await assoc.send_c_echo()
            await asyncio.wait_for(gone_on.wait(), DEADLINE)

    run(release_there())
