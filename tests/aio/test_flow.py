"""Flow control: who does not read is not written to, who is behind is not read from, and nothing grows."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attrs import evolve
from pydicom import Dataset

from rxdicom import AssociationAborted, TimedOut, evt
from rxdicom.aio import Association
from rxdicom.events.records import CEcho, CFind, CStore
from rxdicom.wire.pdu import HEADER, AssociateRQ, decode_pdu, encode_pdu
from tests.aio.support import descriptors, entity, on_both_loops, run, serving, settled, until
from tests.certificates import Certificates
from tests.runtimes.queries import FIND, instance, query
from tests.runtimes.raw import accepting, echo_rq, request
from tests.support import DEADLINE, dataset_bytes

MEBIBYTE = 1 << 20


def resident() -> int:
    """Bytes of memory that this process has right now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def huge_file(folder: Path, size: int) -> Path:
    """A file with so many bytes of pixel data, of which the disk has nearly none."""
    path = folder / "huge.dcm"
    head = instance()
    head.save_as(path, enforce_file_format=True)  # pyright: ignore[reportUnknownMemberType]
    with path.open("ab") as file:
        file.write(struct.pack("<HHI", 0x7FE0, 0x0010, size))
        file.truncate(file.tell() + size)
    return path


@on_both_loops
@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "tls"])
def test_large_datasets_arrive_as_they_were_sent(
    tmp_path: Path, certificates: Certificates, loop: str, over_tls: bool
) -> None:
    """Both sides share a loop, so that what is sent waits again and again until the other side has read."""
    contexts = certificates.contexts() if over_tls else None
    sent = instance()
    sent.BitsAllocated = 8
    sent.add_new(0x7FE00010, "OW", os.urandom(24 * MEBIBYTE))
    sent.save_as(tmp_path / "sent.dcm", enforce_file_format=True)  # pyright: ignore[reportUnknownMemberType]
    stored: list[bytes] = []

    def on_store(event: CStore) -> int:
        stored.append(event.encoded_dataset(include_meta=False))
        return 0x0000

    async def store() -> None:
        handlers = [(evt.EVT_C_STORE, on_store)]
        tls_args = (contexts[1], "localhost") if contexts else None
        async with serving(*handlers, ssl_context=contexts[0] if contexts else None) as (ae, server):
            async with ae.associate(*server.address, tls_args=tls_args) as one:
                async with ae.associate(*server.address, tls_args=tls_args) as two:
                    both = one.send_c_store(tmp_path / "sent.dcm"), two.send_c_store(tmp_path / "sent.dcm")
                    assert await asyncio.gather(*both) == [0, 0]

    run(store(), loop)
    assert stored == [dataset_bytes(tmp_path / "sent.dcm")] * 2


async def accepted_by_a_peer_that_reads_no_more(listening: socket.socket) -> socket.socket:
    """Accept an association, and leave everything else unread."""
    loop = asyncio.get_running_loop()
    sock, _ = await loop.sock_accept(listening)
    received = b""
    while len(received) < HEADER.size or len(received) < HEADER.size + HEADER.unpack_from(received)[1]:
        received += await loop.sock_recv(sock, 65536)
    asked = decode_pdu(received)
    assert isinstance(asked, AssociateRQ)
    await loop.sock_sendall(sock, encode_pdu(accepting(asked)))
    return sock


@on_both_loops
def test_a_peer_that_stops_reading_costs_nothing_and_its_time_is_limited(tmp_path: Path, loop: str) -> None:
    path = huge_file(tmp_path, 2**30)

    async def store() -> None:
        ae = entity()
        ae.timeouts = evolve(ae.timeouts, write=0.5)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            async with serving() as (other, server), ae:
                opening = asyncio.ensure_future(ae.associate(*listening.getsockname()).open())
                peer = await accepted_by_a_peer_that_reads_no_more(listening)
                assoc = await opening
                before = resident()
                storing = asyncio.ensure_future(assoc.send_c_store(path))
                async with other.associate(*server.address) as neighbour:
                    async with asyncio.timeout(1):
                        assert await neighbour.send_c_echo() == 0x0000
                with pytest.raises(TimedOut) as caught:
                    await storing
                assert caught.value.phase == "write"
                assert resident() - before < 32 * MEBIBYTE
                assert await assoc.join(DEADLINE)
                peer.close()

    run(store(), loop)


@on_both_loops
def test_requests_beyond_what_a_slow_handler_manages_are_not_read(loop: str) -> None:
    """A peer floods: it is stopped by TCP, all that it asked is answered in the end, in order."""
    go_on = asyncio.Event()
    seen: list[int] = []
    asked = 200_000

    async def on_echo(event: CEcho) -> int:
        await go_on.wait()
        seen.append(event.message_id)
        return 0x0000

    async def flood() -> None:
        async with serving((evt.EVT_C_ECHO, on_echo)) as (_, server):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(encode_pdu(request()))
            header = await reader.readexactly(HEADER.size)
            await reader.readexactly(HEADER.unpack(header)[1])
            before = resident()
            sent = 0

            async def send() -> None:
                nonlocal sent
                while sent < asked:
                    writer.write(echo_rq(1) * 1000)
                    await writer.drain()
                    sent += 1000

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(send(), 0.5)
            assert 1000 < sent < asked
            assert resident() - before < 32 * MEBIBYTE
            assert not seen
            go_on.set()
            await until(lambda: len(seen) > 1000)
            writer.transport.abort()
            await until(lambda: not server.active_associations)

    run(flood(), loop)


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether something happens (again) before a deadline."""
    event.clear()
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


@on_both_loops
def test_a_consumer_that_stands_still_stops_the_scp(loop: str) -> None:
    given, gave = 0, asyncio.Event()

    async def on_find(event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
        nonlocal given
        while True:
            given += 1
            gave.set()
            yield 0xFF00, query("x" * 16_000)

    async def stopped() -> None:
        """Wait until the SCP is asked for nothing more, at least for a while."""
        while await happens(gave, 0.2):
            pass

    async def stand_still() -> None:
        async with serving((evt.EVT_C_FIND, on_find)) as (ae, server):
            async with ae.associate(*server.address) as assoc:
                async with assoc.send_c_find(query(), FIND) as answers:
                    await anext(answers)
                    await stopped()
                    # What fits the buffers of both sides' sockets, and those of ours.
                    assert given < 2000
                    # Another operation of the same association has it read on, and waits for the window only.
                    async with assoc.send_c_find(query(), FIND):
                        pass
                    assert int((await anext(answers))[0]) == 0xFF00
                assert await assoc.send_c_echo() == 0x0000

    run(stand_still(), loop)


def test_what_is_cut_off_leaves_no_file(tmp_path: Path) -> None:
    path = huge_file(tmp_path, 64 * MEBIBYTE)
    spool = tmp_path / "spool"
    spool.mkdir()

    async def cut() -> None:
        ae = entity()
        ae.limits = evolve(ae.limits, memory=1000)
        ae.spool_folder = str(spool)
        async with serving(ae=ae) as (_, server):
            before = descriptors()
            assoc: Association = await ae.associate(*server.address)
            storing = asyncio.ensure_future(assoc.send_c_store(path))
            await until(lambda: bool(list(spool.iterdir())))
            assoc.abort()
            with pytest.raises(AssociationAborted):
                await storing
            await until(lambda: not list(spool.iterdir()))
            await until(lambda: descriptors() == before)
            await settled({each for each in asyncio.all_tasks() if each is not storing})

    run(cut())
