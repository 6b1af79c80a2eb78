"""DCMTK and pynetdicom as peers of the asyncio runtime, in both directions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE as TheirAE
from pynetdicom import evt as their_evt

from rxdicom import evt
from rxdicom.aio import AE
from rxdicom.events.records import CFind, CGet, CStore
from rxdicom.sop_class import CTImageStorage
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from tests.aio.support import on_both_loops, run, serving
from tests.ports import free_port
from tests.runtimes.queries import CT, FIND, GET, query, statuses
from tests.support import FILES, dataset_bytes, dcmtk, read, running

IMAGE = FILES / "CT_small.dcm"


async def program(*command: str | Path | int) -> str:
    """A client program, run to its success; what it says."""
    process = await asyncio.create_subprocess_exec(
        *(str(each) for each in command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


def storing_entity() -> AE:
    ae = AE("RXAIO")
    ae.accept_any_storage = True
    ae.add_supported_context(VERIFICATION)
    ae.add_supported_context(FIND)
    ae.add_supported_context(GET)
    ae.add_requested_context(VERIFICATION)
    ae.add_requested_context(CTImageStorage, EXPLICIT_VR_LITTLE_ENDIAN)
    return ae


async def on_find(event: CFind) -> AsyncIterator[tuple[int, Dataset]]:
    for index in range(3):
        yield 0xFF00, query(f"{event.identifier.PatientID}{index}")


@pytest.mark.peer
@on_both_loops
def test_dcmtk_asks(tmp_path: Path, loop: str) -> None:
    echoscu, storescu, findscu = dcmtk("echoscu"), dcmtk("storescu"), dcmtk("findscu")

    def save(event: CStore) -> int:
        event.save(tmp_path / "stored.dcm")
        return 0x0000

    async def answer() -> None:
        handlers = [(evt.EVT_C_STORE, save), (evt.EVT_C_FIND, on_find)]
        async with serving(*handlers, ae=storing_entity()) as (_, server):
            port = server.address[1]
            await program(echoscu, "--repeat", 3, "127.0.0.1", port)
            await asyncio.gather(*(program(storescu, "-R", "127.0.0.1", port, IMAGE) for _ in range(4)))
            asked = ("-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID=P")
            said = await program(findscu, "-v", "-S", *asked, "127.0.0.1", port)
            assert all(f"P{index}" in said for index in range(3))

    run(answer(), loop)
    # DCMTK leaves the padding behind the pixels out.
    assert read(tmp_path / "stored.dcm").PixelData == read(IMAGE).PixelData


@pytest.mark.peer
@on_both_loops
def test_dcmtk_answers(tmp_path: Path, loop: str) -> None:
    port = free_port()

    async def ask() -> None:
        async with storing_entity() as ae, ae.associate("127.0.0.1", port) as assoc:
            assert await assoc.send_c_echo() == 0x0000
            assert [int(each.status or 0) async for each in assoc.send_many([IMAGE] * 3)] == [0] * 3

    with running(dcmtk("storescp"), "+B", "-od", tmp_path, port, port=port):
        run(ask(), loop)
    assert dataset_bytes(next(tmp_path.iterdir())) == dataset_bytes(IMAGE)


def test_pynetdicom_answers() -> None:
    def their_find(event: Any) -> Iterator[Any]:
        for index in range(100):
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, query(str(index))

    def their_store(event: Any) -> int:
        return 0x0000

    theirs: Any = TheirAE()
    for uid in (VERIFICATION, FIND, CT):
        theirs.add_supported_context(uid, [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
    handlers: Any = [(their_evt.EVT_C_FIND, their_find), (their_evt.EVT_C_STORE, their_store)]
    server: Any = theirs.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    async def ask() -> None:
        async with storing_entity() as ae:
            ae.add_requested_context(FIND)
            async with ae.associate(*server.server_address) as assoc:
                assert await assoc.send_c_echo() == 0x0000
                assert await assoc.send_c_store(IMAGE) == 0x0000
                answers = [each async for each in assoc.send_c_find(query(), FIND)]
                assert statuses(answers) == [0xFF00] * 100 + [0x0000]
                async with contextlib.aclosing(assoc.send_c_find(query(), FIND)) as several:
                    async for status, _ in several:
                        assert status == 0xFF00
                        break
                assert await assoc.send_c_echo() == 0x0000

    try:
        run(ask())
    finally:
        server.shutdown()


def test_pynetdicom_asks() -> None:
    """C-FIND and C-GET, whose sub-operations come back over the same association."""
    stored: list[str] = []

    async def on_get(event: CGet) -> AsyncIterator[Any]:
        yield 2
        yield 0xFF00, IMAGE
        yield 0xFF00, str(IMAGE)

    def their_store(event: Any) -> int:
        stored.append(event.dataset.SOPInstanceUID)
        return 0x0000

    def ask(port: int) -> None:
        from pynetdicom import build_role

        theirs: Any = TheirAE()
        for uid in (VERIFICATION, FIND, GET):
            theirs.add_requested_context(uid)
        theirs.add_requested_context(CT, EXPLICIT_VR_LITTLE_ENDIAN)
        handlers: Any = [(their_evt.EVT_C_STORE, their_store)]
        roles = [build_role(CT, scp_role=True)]
        assoc: Any = theirs.associate("127.0.0.1", port, ext_neg=roles, evt_handlers=handlers)
        assert assoc.is_established
        assert assoc.send_c_echo().Status == 0x0000
        assert [status.Status for status, _ in assoc.send_c_find(query("P"), FIND)] == [0xFF00] * 3 + [0x0000]
        assert [status.Status for status, _ in assoc.send_c_get(query(), GET)] == [0xFF00, 0xFF00, 0x0000]
        assoc.release()

    async def answer() -> None:
        ae = storing_entity()
        ae.add_supported_context(CTImageStorage, EXPLICIT_VR_LITTLE_ENDIAN, scu_role=True, scp_role=True)
        async with serving((evt.EVT_C_FIND, on_find), (evt.EVT_C_GET, on_get), ae=ae) as (_, server):
            await asyncio.to_thread(ask, server.address[1])

    run(answer())
    assert len(stored) == 2
