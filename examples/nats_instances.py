"""Received instances as JSON on NATS, so that several machines can work on them: their UIDs, and no patient data.

``python nats_instances.py nats://127.0.0.1:4222`` wants a ``nats-server`` there, and ``pip install rxdicom[nats]``.
Whoever subscribes to ``dicom.stored`` gets all of them; those who subscribe as one queue group share them.
"""

import asyncio
import sys
from pathlib import Path

import pydicom
from nats.aio.client import Client

from rxdicom import evt
from rxdicom.aio import AE
from rxdicom.events.records import CStore
from rxdicom.operators import AsyncEventIterator, activity, stored_instances, to_async_iterator, to_jsonl
from rxdicom.sop_class import CTImageStorage, MRImageStorage

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


async def on_store(_: CStore) -> int:
    return 0x0000


async def publish(lines: AsyncEventIterator[str], bus: Client) -> None:
    """While NATS cannot be reached they wait in the buffer of the iterator: so many, and then it fails."""
    async for line in lines:
        await bus.publish("dicom.stored", line.encode())
        await bus.flush()
        print("published")


async def main(url: str) -> None:
    bus = Client()
    await bus.connect(url)
    ae = AE(ae_title="STORE")
    for sop_class in (CTImageStorage, MRImageStorage):
        ae.add_requested_context(sop_class)
        ae.add_supported_context(sop_class)
    async with ae.start_server(("127.0.0.1", 0), evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
        lines = activity(server.events).pipe(stored_instances(), to_jsonl(), to_async_iterator(1000))
        publishing = asyncio.create_task(publish(lines, bus))
        async with ae.associate(*server.address) as assoc:
            for name in ("CT_small.dcm", "MR_small.dcm"):
                await assoc.send_c_store(FILES / name)
    await publishing
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
